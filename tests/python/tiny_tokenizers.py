"""Small tokenizers of the kinds that language models use, trained here on a few sentences."""

from __future__ import annotations

import json
from pathlib import Path

import openvino
import openvino_tokenizers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

KINDS = ("byte_level", "llama", "unigram")

EXTENSION = Path(openvino_tokenizers.__file__).parent / "lib" / "libopenvino_tokenizers.so"

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It isn't lazy, is it?",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    'for (int i = 0; i < 10; ++i) { printf("%d\\n", i); }',
    "你好，世界！今天天气怎么样？今天天气很好。",
    "Привет, мир! Как дела сегодня?",
    "El niño comió piñas en la mañana; ¿qué más quieres?",
    "日本語のテキストも少し含まれています。",
    "नमस्ते दुनिया",
    "Emoji: 😀 😀 👍🏽 👨‍👩‍👧",
] * 4

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
MERGED_TOKENS = 200  # learned beyond the alphabet


def reference(kind: str) -> Tokenizer:
    """The tokenizer of one of KINDS, as the `tokenizers` library runs it."""
    tokenizer = {"byte_level": _byte_level, "llama": _llama, "unigram": _unigram}[kind]()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    if kind != "byte_level":  # which, as Qwen's, has no beginning of text
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A",
            pair="<s> $A <s> $B",
            special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
        )
    return tokenizer


def write(tokenizer: Tokenizer, directory: Path, **conversion: object) -> None:
    """Writes the tokenizer and detokenizer IR; `conversion` goes to convert_tokenizer()."""
    # A wrapper of its own: making one switches on truncation and padding in the original.
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_str()),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    tokenizer_ir, detokenizer_ir = openvino_tokenizers.convert_tokenizer(
        wrapped, with_detokenizer=True, **conversion
    )
    directory.mkdir(parents=True, exist_ok=True)
    openvino.save_model(tokenizer_ir, directory / "openvino_tokenizer.xml")
    openvino.save_model(detokenizer_ir, directory / "openvino_detokenizer.xml")


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + MERGED_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _llama() -> Tokenizer:
    """BPE on characters, bytes for those it does not know."""
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizer
    # The trainer needs words; the tokenizer itself does without a pre-tokenizer.
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    # Half of the corpus, so that the rest holds characters that need bytes.
    trainer = trainers.BpeTrainer(vocab_size=100 + MERGED_TOKENS, show_progress=False)
    trained.train_from_iterator([*CORPUS[:4], " "], trainer)

    model = json.loads(trained.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    tokens = dict.fromkeys([*SPECIAL_TOKENS[:3], *BYTE_TOKENS, *learned])
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.decoder = _sentencepiece_decoder()
    return tokenizer


def _unigram() -> Tokenizer:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=100 + MERGED_TOKENS,
        special_tokens=SPECIAL_TOKENS[:3],
        unk_token="<unk>",
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS[:4], trainer)

    vocab = json.loads(trained.to_str())["model"]["vocab"]
    pieces = [*vocab[:3], *([token, -20.0] for token in BYTE_TOKENS), *vocab[3:]]
    tokenizer = Tokenizer(
        models.Unigram([(token, score) for token, score in pieces], 0, byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = _sentencepiece_decoder()
    return tokenizer


def _sentencepiece_decoder() -> decoders.Decoder:
    return decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
