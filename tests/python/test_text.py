"""Tokenizing and detokenizing, against the `tokenizers` library."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import openvino_tokenizers
import pytest
import tiny_tokenizers
from openvino import opset15
from tokenizers import Tokenizer

from ovfast import _core

TEXTS = [
    "hello",
    "The quick brown fox isn't lazy , is it ?",
    " leading,  double and trailing spaces  ",
    "def f(x):\n\treturn x ** 2  # comment\r\n\n\n",
    "你好，世界！今天天气怎么样？",
    "日本語 Привет ñandú नमस्ते ไทย العربية",
    "👨‍👩‍👧‍👦 family, 🇩🇪 flag, 👍🏽 thumb, 😀",
    "e\u0301a\u0300\u0323 combining, \u00e9 composed",
    "\ufffd genuine replacement character \ufffd\ufffd",
    "\ufeffbom \u200b zero width \u2028 separator \U0010ffff",
    "<|im_start|>user\nhi<|im_end|>\n<tool>",
    "nul\0inside\0",
    "\0",
    " ",
    "x" * 300,
]


@dataclass
class Case:
    tokenizer: _core.Tokenizer
    reference: Tokenizer
    directory: Path


def make_case(kind: str, directory: Path, **conversion: object) -> Case:
    reference = tiny_tokenizers.reference(kind)
    tiny_tokenizers.write(reference, directory, **conversion)
    tokenizer = _core.Tokenizer(directory, tiny_tokenizers.EXTENSION)
    return Case(tokenizer, reference, directory)


@pytest.fixture(scope="session", params=["byte_level", "llama"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(request.param, tmp_path_factory.mktemp(request.param))


def stream(tokenizer: _core.Tokenizer, token_ids: list[int]) -> list[str]:
    detokenizer = _core.IncrementalDetokenizer(tokenizer)
    return [*map(detokenizer.push, token_ids), detokenizer.finish()]


def random_ids(tokenizer: _core.Tokenizer, rng: random.Random) -> list[int]:
    # Single bytes are among the first few hundred ids: often, to meet all kinds of broken UTF-8.
    ends = (300, tokenizer.vocab_size)
    return [rng.randrange(rng.choice(ends)) for _ in range(rng.randrange(20))]


@pytest.mark.parametrize("text", TEXTS)
def test_encode_equals_reference(case: Case, text: str) -> None:
    assert case.tokenizer.encode(text) == case.reference.encode(text).ids
    plain = case.reference.encode(text, add_special_tokens=False).ids
    assert case.tokenizer.encode(text, add_special_tokens=False) == plain


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("skip", [True, False])
def test_decode_equals_reference(case: Case, text: str, skip: bool) -> None:
    token_ids = case.reference.encode(text).ids
    expected = case.reference.decode(token_ids, skip_special_tokens=skip)
    assert case.tokenizer.decode(token_ids, skip_special_tokens=skip) == expected


def test_special_tokens_are_added_and_skipped_on_demand(case: Case) -> None:
    marker = case.reference.token_to_id("<|im_start|>")
    assert case.tokenizer.encode("<|im_start|>", add_special_tokens=False)[-1] == marker
    assert case.tokenizer.decode([marker]) == ""
    assert case.tokenizer.decode([marker], skip_special_tokens=False) == "<|im_start|>"
    assert "<tool>" in case.tokenizer.decode([case.reference.token_to_id("<tool>")])


def test_empty_text(case: Case) -> None:
    assert case.tokenizer.encode("", add_special_tokens=False) == []
    assert case.tokenizer.encode("") == case.reference.encode("").ids
    assert case.tokenizer.decode([]) == ""
    assert stream(case.tokenizer, []) == [""]


def test_vocab_size_and_every_single_token(case: Case) -> None:
    assert case.tokenizer.vocab_size == case.reference.get_vocab_size()
    for token_id in range(case.tokenizer.vocab_size):
        expected = case.reference.decode([token_id], skip_special_tokens=False)
        assert case.tokenizer.decode([token_id], skip_special_tokens=False) == expected


def test_long_text_is_not_truncated(case: Case) -> None:
    text = "The quick brown fox. 今天天气很好。\n" * 2500
    token_ids = case.tokenizer.encode(text)
    assert len(token_ids) > 20_000
    assert token_ids == case.reference.encode(text).ids
    assert case.tokenizer.decode(token_ids) == text


@pytest.mark.parametrize("kind", tiny_tokenizers.KINDS)
def test_truncation_and_padding_of_the_ir_are_lifted(tmp_path: Path, kind: str) -> None:
    case = make_case(kind, tmp_path, max_length=16, truncation=True, use_max_padding=True)
    for text in ["hi", "The quick brown fox jumps over the lazy dog. " * 20]:
        assert case.tokenizer.encode(text) == case.reference.encode(text).ids


def test_spaces_before_punctuation_stay(tmp_path: Path) -> None:
    # The converter takes the option for Unigram models only.
    case = make_case("unigram", tmp_path, clean_up_tokenization_spaces=True)
    assert b"n't))" in (tmp_path / "openvino_detokenizer.bin").read_bytes()
    text = "The dog , is it lazy ? It is n't ."
    assert case.tokenizer.decode(case.tokenizer.encode(text)) == text


def test_unigram(tmp_path: Path) -> None:
    case = make_case("unigram", tmp_path)
    text = "The quick brown fox jumps over the lazy dog."
    assert case.tokenizer.encode(text) == case.reference.encode(text).ids
    assert case.tokenizer.decode(case.tokenizer.encode(text)) == text
    # One space is stripped, though the converter writes that step twice.
    spaces = case.reference.encode("  the  dog").ids
    assert case.tokenizer.decode(spaces) == case.reference.decode(spaces)
    for token_id in range(case.tokenizer.vocab_size):
        expected = case.reference.decode([token_id], skip_special_tokens=False)
        assert case.tokenizer.decode([token_id], skip_special_tokens=False) == expected
    data = "你\ufffd😀".encode() + b"\xe4"
    assert case.tokenizer.decode(byte_ids(case, data)) == data.decode(errors="replace")


def test_pieces_concatenate_to_decode(case: Case) -> None:
    rng = random.Random(7)
    for _ in range(3000):
        token_ids = random_ids(case.tokenizer, rng)
        assert "".join(stream(case.tokenizer, token_ids)) == case.tokenizer.decode(token_ids)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_hold_whole_characters(case: Case, text: str) -> None:
    pieces = stream(case.tokenizer, case.tokenizer.encode(text))
    assert "".join(pieces) == case.tokenizer.decode(case.tokenizer.encode(text))
    # Half a character would show as a replacement character that the text does not have.
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")
    assert pieces[-1] == "", "a text that ends with a whole character is out before the end"


def byte_alphabet() -> list[str]:
    """GPT-2's characters for bytes: printable ones themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    code_points = {byte: 0x100 + i for i, byte in enumerate(others)}
    return [chr(code_points.get(byte, byte)) for byte in range(256)]


def byte_ids(case: Case, data: bytes) -> list[int]:
    """Ids of tokens that stand for one byte each."""
    fallback = case.reference.token_to_id("<0x00>") is not None
    tokens = tiny_tokenizers.BYTE_TOKENS if fallback else byte_alphabet()
    return [case.reference.token_to_id(tokens[byte]) for byte in data]


@pytest.mark.parametrize(
    "data",
    [
        "é你😀\ufffd".encode(),
        b"a\x80b",
        b"\xe4\xbd",
        b"\xe4\xbda",
        b"\xf0\x9f\x98",
        b"\xf0\x9f\x98\xf0\x9f\x98\x80",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80\xff\xfe",
        b"\xef\xbf",
    ],
)
def test_broken_utf8_becomes_replacement_characters(case: Case, data: bytes) -> None:
    token_ids = byte_ids(case, data)
    expected = data.decode(errors="replace")
    assert case.tokenizer.decode(token_ids) == expected
    assert "".join(stream(case.tokenizer, token_ids)) == expected


def test_random_bytes_decode_as_python_does(case: Case) -> None:
    rng = random.Random(3)
    leads = bytes([0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xE4, 0xED, 0xEF, 0xF0, 0xF4, 0xF5])
    for _ in range(1000):
        data = bytes(rng.choice([rng.randrange(128, 256), rng.choice(leads)]) for _ in range(12))
        assert case.tokenizer.decode(byte_ids(case, data)) == data.decode(errors="replace")


def test_broken_utf8_is_not_held_back(case: Case) -> None:
    # Continuation bytes that continue nothing: each is certain at once.
    detokenizer = _core.IncrementalDetokenizer(case.tokenizer)
    assert [detokenizer.push(i) for i in byte_ids(case, b"\x80\xbf\x80")] == ["\ufffd"] * 3
    # A beginning is held back for at most three bytes.
    pieces = [detokenizer.push(i) for i in byte_ids(case, b"\xf0\x9f\x98\xf0")]
    assert pieces == ["", "", "", "\ufffd"]
    assert detokenizer.finish() == "\ufffd"
    # Not even a genuine U+FFFD stalls.
    pieces = [detokenizer.push(i) for i in byte_ids(case, "\ufffd!".encode())]
    assert pieces == ["", "", "\ufffd", "!"]


def test_leading_space_in_a_stream(case: Case) -> None:
    token_ids = case.reference.encode(" brown fox", add_special_tokens=False).ids
    expected = case.reference.decode(token_ids * 2)
    assert "".join(stream(case.tokenizer, token_ids * 2)) == expected
    # A special token in front is no text: the space after it is still the first.
    begin = case.reference.token_to_id("<s>")
    assert "".join(stream(case.tokenizer, [begin, *token_ids])) == case.reference.decode(
        [begin, *token_ids]
    )


def test_a_detokenizer_starts_anew_after_finish(case: Case) -> None:
    token_ids = case.tokenizer.encode(" brown 狐")
    detokenizer = _core.IncrementalDetokenizer(case.tokenizer)
    texts = [
        "".join(map(detokenizer.push, token_ids[:-1])) + detokenizer.finish() for _ in range(2)
    ]
    assert texts == [case.tokenizer.decode(token_ids[:-1])] * 2


def test_a_detokenizer_outlives_its_tokenizer(case: Case) -> None:
    tokenizer = _core.Tokenizer(case.directory, tiny_tokenizers.EXTENSION)
    token_ids = tokenizer.encode("lazy dog")
    detokenizer = _core.IncrementalDetokenizer(tokenizer)
    del tokenizer
    assert "".join(map(detokenizer.push, token_ids)) == "lazy dog"


def test_eight_threads(case: Case) -> None:
    tokenizer = _core.Tokenizer(case.directory, tiny_tokenizers.EXTENSION)
    expected = [case.reference.encode(text).ids for text in TEXTS]
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        start.wait()
        for _ in range(100):
            i = rng.randrange(len(TEXTS))
            token_ids = tokenizer.encode(TEXTS[i])
            assert token_ids == expected[i]
            assert "".join(stream(tokenizer, token_ids)) == tokenizer.decode(token_ids)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, seed) for seed in range(8)]:
            future.result()


@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"\xff", 0), (b"ab\xc3", 2), ("é你".encode() + b"\xed\xa0\x80", 5), (b"\xf4\x90\x80\x80", 0)],
)
def test_invalid_utf8_names_the_byte(case: Case, data: bytes, offset: int) -> None:
    with pytest.raises(ValueError, match=f"at byte {offset} of {len(data)}"):
        case.tokenizer.encode(data)


def test_bytes_are_text(case: Case) -> None:
    assert case.tokenizer.encode("你好\0".encode()) == case.tokenizer.encode("你好\0")


def test_lone_surrogates_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        case.tokenizer.encode("a\ud800b")


@pytest.mark.parametrize("wrong", [None, 5, ["a"]])
def test_encode_takes_text_only(case: Case, wrong: object) -> None:
    with pytest.raises(TypeError):
        case.tokenizer.encode(wrong)


@pytest.mark.parametrize("beyond", [lambda size: size, lambda size: -1, lambda size: 2**40])
def test_ids_outside_the_vocabulary(case: Case, beyond: Callable[[int], int]) -> None:
    token_id = beyond(case.tokenizer.vocab_size)
    for skip in (True, False):
        with pytest.raises(ValueError, match=f"got {token_id}"):
            case.tokenizer.decode([1, token_id], skip_special_tokens=skip)
    with pytest.raises(ValueError, match=f"got {token_id}"):
        _core.IncrementalDetokenizer(case.tokenizer).push(token_id)


def save_detokenizer(directory: Path, vocabulary: list[str], old_form: bool) -> None:
    """Writes a detokenizer as openvino_tokenizers did before it kept bytes in the vocabulary."""
    factory = openvino_tokenizers._get_factory()
    token_ids = opset15.parameter([-1, -1], openvino.Type.i64)
    tokens = [token.encode() for token in vocabulary]
    ends = np.cumsum([0, *map(len, tokens)], dtype=np.int32)
    packed = np.int32(len(tokens)).tobytes() + ends.tobytes() + b"".join(tokens)
    constant = opset15.constant(np.frombuffer(packed, np.uint8))
    unpack = {"mode": "begins_ends"}
    strings = factory.create("StringTensorUnpack", [constant.output(0)], unpack).outputs()
    inputs = [opset15.convert(token_ids, "i32").output(0), *strings]
    attributes = {"skip_tokens": [2]}
    if not old_form:
        # The special tokens, all of which a slice keeps or drops: here it drops them.
        bounds = [opset15.constant([bound], openvino.Type.i32) for bound in (0, 0, 1)]
        inputs.append(opset15.slice(opset15.constant([2], openvino.Type.i32), *bounds).output(0))
        attributes = {}
    ragged = factory.create("VocabDecoder", inputs, attributes).outputs()
    joined = factory.create("CharsToBytes", ragged, {}).outputs()
    text = factory.create("UTF8Validate", joined, {"replace_mode": True}).outputs()
    model = openvino.Model([opset15.string_tensor_pack(*text)], [token_ids])
    openvino.serialize(model, directory / "openvino_detokenizer.xml")


@pytest.mark.parametrize("old_form", [True, False])
def test_detokenizers_of_older_converters(case: Case, tmp_path: Path, old_form: bool) -> None:
    copy_of(case, tmp_path)
    vocabulary = ["Ġhello", "ä½", "<s>", "ł", "Ċ", "<｜end▁of▁text｜>", "<0xE4>", "é"]
    vocabulary += byte_alphabet()
    save_detokenizer(tmp_path, vocabulary, old_form)
    tokenizer = _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION)
    token_ids = [2, 0, 1, 3, 4, 6, 7, 0]
    expected = " hello你\n<0xE4>\ufffd hello"
    assert tokenizer.decode(token_ids) == expected
    assert tokenizer.decode(token_ids, skip_special_tokens=False) == "<s>" + expected
    # Added tokens need not be written in the alphabet for bytes.
    assert tokenizer.decode([5]) == "<｜end▁of▁text｜>"
    text = "".join(map(chr, range(0x800)))
    every_byte = [len(vocabulary) - 256 + byte for byte in text.encode()]
    assert tokenizer.decode(every_byte) == text
    if old_form:
        detokenizer = openvino.Core().compile_model(tmp_path / "openvino_detokenizer.xml", "CPU")
        assert detokenizer([token_ids])[0][0] == expected


def test_an_unknown_step_is_named(case: Case, tmp_path: Path) -> None:
    copy_of(case, tmp_path)
    file = tmp_path / "openvino_detokenizer.xml"
    model = openvino.Core().read_model(file)
    pack = model.outputs[0].get_node().input_value(0).get_node()
    begins, ends, chars = pack.input_values()
    folded = openvino_tokenizers._get_factory().create("CaseFold", [begins, ends, chars], {})
    text = opset15.string_tensor_pack(*folded.outputs())
    openvino.serialize(openvino.Model([text], model.get_parameters()), tmp_path / "new.xml")
    (tmp_path / "new.xml").replace(file)
    (tmp_path / "new.bin").replace(file.with_suffix(".bin"))
    with pytest.raises(_core.ModelError, match="step CaseFold on the joined text"):
        _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION)


def copy_of(case: Case, directory: Path) -> Path:
    for file in case.directory.glob("openvino_*"):
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


@pytest.mark.parametrize("stem", ["openvino_tokenizer", "openvino_detokenizer"])
@pytest.mark.parametrize("suffix", [".xml", ".bin"])
class TestDamagedFiles:
    def test_missing(self, case: Case, tmp_path: Path, stem: str, suffix: str) -> None:
        (copy_of(case, tmp_path) / (stem + suffix)).unlink()
        with pytest.raises(_core.ModelError, match=stem + suffix):
            _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION)

    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
    def test_truncated(
        self, case: Case, tmp_path: Path, stem: str, suffix: str, kept: float
    ) -> None:
        file = copy_of(case, tmp_path) / (stem + suffix)
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
        with pytest.raises(_core.ModelError, match=f"{stem}.xml"):
            _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION).encode("hello")


@pytest.mark.parametrize("wrong", [-1, 2**30])
@pytest.mark.parametrize("port", [1, 2])
def test_a_vocabulary_that_points_outside(
    case: Case, tmp_path: Path, port: int, wrong: int
) -> None:
    file = copy_of(case, tmp_path) / "openvino_detokenizer.bin"
    model = openvino.Core().read_model(file.with_suffix(".xml"))
    decoder = next(op for op in model.get_ops() if op.get_type_name() == "VocabDecoder")
    offsets = decoder.input_value(port).get_node().data.copy()
    data = file.read_bytes()
    assert data.count(offsets.tobytes()) == 1
    damaged = offsets.copy()
    damaged[7] = wrong
    file.unlink()  # the mapped one stays as it is
    file.write_bytes(data.replace(offsets.tobytes(), damaged.tobytes()))
    with pytest.raises(_core.ModelError, match="token 7 lies at bytes"):
        _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION)


def test_a_model_of_another_kind(case: Case, tmp_path: Path) -> None:
    copy_of(case, tmp_path)
    for suffix in (".xml", ".bin"):
        other = (tmp_path / "openvino_detokenizer").with_suffix(suffix)
        (tmp_path / "openvino_tokenizer").with_suffix(suffix).replace(other)
        other.with_name(f"openvino_tokenizer{suffix}").write_bytes(other.read_bytes())
    with pytest.raises(_core.ModelError, match="detokenizer: expected one output"):
        _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION)


def test_a_detokenizer_in_place_of_the_tokenizer(case: Case, tmp_path: Path) -> None:
    copy_of(case, tmp_path)
    for suffix in (".xml", ".bin"):
        source = case.directory / f"openvino_detokenizer{suffix}"
        (tmp_path / f"openvino_tokenizer{suffix}").write_bytes(source.read_bytes())
    tokenizer = _core.Tokenizer(tmp_path, tiny_tokenizers.EXTENSION)
    for _ in range(2):  # the error stays
        with pytest.raises(_core.ModelError, match="expected one input of type string"):
            tokenizer.encode("hello")


def test_a_wrong_extension(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.so"):
        _core.Tokenizer(case.directory, tmp_path / "nothing.so")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(_core.Error, match=r"text\.so"):
        _core.Tokenizer(case.directory, tmp_path / "text.so")
