"""Tuning: what is chosen from measurements, what is stored, and what loading makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_harness import Ovfast

import ovfast.tune
from ovfast import LLM, _core
from ovfast.errors import CapacityError, Error
from ovfast.model_dir import ModelDir
from ovfast.tune import Choice, Round, choose, confirm, tune
from ovfast.tuning import apply_tuning, read_tuning, tuning_path, write_tuning

OPTIONS = [
    "num_threads",
    "attention",
    "inference_precision",
    "tile_kb",
    "tile_columns",
    "max_batch_tokens",
]
Fake = Callable[[Callable[[dict[str, Any]], float]], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def directory(tiny_model_dirs: dict[str, Path]) -> Path:
    return tiny_model_dirs["qwen2"]


@pytest.fixture
def model(directory: Path) -> ModelDir:
    return ModelDir.check(directory)


@pytest.fixture
def measured_as(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Replaces the clock: a function of a candidate's options says its score, seconds.

    Returns the options of the candidates in the order in which they are measured.
    """

    def install(score: Callable[[dict[str, Any]], float]) -> list[dict[str, Any]]:
        log: list[dict[str, Any]] = []

        class Known(LLM):
            def __init__(self, source: Path, **options: Any) -> None:
                self.options = options
                super().__init__(source, **options)

        def measure(llm: Known, ids: Sequence[int]) -> Round:
            log.append(llm.options)
            return Round(0.0, score(llm.options))

        monkeypatch.setattr(ovfast.tune, "LLM", Known)
        monkeypatch.setattr(ovfast.tune, "_measure", measure)
        return log

    return install


def small_chunks_are_fast(options: dict[str, Any]) -> float:
    return 0.5 if options.get("max_batch_tokens") == 256 else 1.0


def store(model: ModelDir, **options: Any) -> None:
    write_tuning(model, {"made": "2026-01-01", "options": options, "stages": []})


def load(model: ModelDir, **options: Any) -> LLM:
    return LLM(model.path, kv_cache_gb=0.01, progress=False, **options)


def steps(llm: LLM) -> int:
    """How many chunks a prompt of 400 tokens is computed in."""
    with llm:
        return llm.generate([5] * 400, max_new_tokens=1).metrics.steps


# --- choosing


def rounds(*scores: float) -> list[Round]:
    return [Round(0.0, score) for score in scores]


def chosen(default: list[Round], **others: list[Round]) -> Choice:
    return choose("attention", "default", {"default": default, **others}, 512)


def test_a_gain_above_the_noise_is_taken() -> None:
    choice = chosen(rounds(1.0, 1.0, 1.0), other=rounds(0.9, 0.9, 0.9))
    assert choice.chosen == "other"
    assert choice.gain == pytest.approx(0.1)
    assert choice.why == "saves 10.0%, noise is 2.0%"


@pytest.mark.parametrize(
    ("default", "other"),
    [
        (rounds(1.0, 1.0, 1.0), rounds(0.985, 0.985, 0.985)),  # less than 2 %
        # 10 % gained in the median, but between 0 and 20 % in the middle three rounds.
        (rounds(1.0, 1.0, 1.0, 1.0, 1.0), rounds(0.8, 0.8, 0.9, 1.0, 1.0)),
        (rounds(0.9, 0.9, 1.0, 1.1, 1.1), rounds(0.9, 0.9, 0.9, 0.9, 0.9)),
        # Something else kept the machine busy for most of the default's rounds.
        (rounds(11.5, 11.8, 6.6), rounds(6.4, 7.8, 7.2)),
    ],
)
def test_the_default_stays_within_the_noise(default: list[Round], other: list[Round]) -> None:
    choice = chosen(default, other=other)
    assert (choice.chosen, choice.gain) == ("default", 0)
    assert choice.why.startswith("the default stays: other saves ")


def test_a_load_that_all_share_is_no_noise() -> None:
    choice = chosen(rounds(1.0, 2.0, 3.0), other=rounds(0.9, 1.8, 2.7))
    assert (choice.chosen, choice.why) == ("other", "saves 10.0%, noise is 2.0%")


def test_the_gain_is_found_within_rounds() -> None:
    _, other = chosen(rounds(11.5, 11.8, 6.6), other=rounds(6.4, 7.8, 7.2)).candidates
    assert other.gain == pytest.approx(1 - 7.8 / 11.8)
    assert other.noise == pytest.approx(7.2 / 6.6 - 6.4 / 11.5)
    assert other.score_seconds == 7.2


def test_one_disturbed_round_is_no_noise() -> None:
    choice = chosen(rounds(1.0, 1.0, 1.0, 1.0, 9.0), other=rounds(0.9, 9.0, 0.9, 0.9, 0.9))
    assert choice.chosen == "other"


def test_a_certain_gain_beats_a_larger_uncertain_one() -> None:
    choice = chosen(
        rounds(1.0, 1.0, 1.0, 1.0, 1.0),
        noisy=rounds(0.4, 0.4, 0.8, 1.4, 1.4),
        certain=rounds(0.9, 0.9, 0.9, 0.9, 0.9),
        less=rounds(0.95, 0.95, 0.95, 0.95, 0.95),
    )
    assert choice.chosen == "certain"


def test_nothing_is_faster_than_the_default() -> None:
    choice = chosen(rounds(1.0, 1.0, 1.0), other=rounds(1.5, 1.5, 1.5))
    assert (choice.chosen, choice.why) == ("default", "nothing is faster than the default")


def test_the_score_is_128_tokens_and_a_prompt() -> None:
    # 1 ms a token outweighs 0.1 s of prefill, but not 0.2 s.
    default = [Round(0.010, 1.0)] * 3
    choice = chosen(default, a=[Round(0.009, 1.1)] * 3)
    assert choice.candidates[0].score_seconds == pytest.approx(0.010 * 128 + 1.0)
    assert choice.gain == 0  # 1.2 % gained
    assert chosen(default, a=[Round(0.009, 1.0)] * 3).chosen == "a"
    assert chosen(default, a=[Round(0.009, 1.2)] * 3).chosen == "default"


# --- measuring


def test_a_model_is_measured_and_the_result_stored(directory: Path, model: ModelDir) -> None:
    result = tune(directory, progress=False)
    assert not result.reused
    assert result.path == tuning_path(model)
    assert read_tuning(model) == result.tuning
    stages = result.tuning["stages"]
    assert [stage["option"] for stage in stages] == OPTIONS
    assert [one["value"] for one in stages[-1]["candidates"]] == [256, 512]
    assert stages[-1]["prompt_tokens"] == 511  # what the context of 512 leaves
    for stage in stages:
        values = [one["value"] for one in stage["candidates"]]
        assert not values or {stage["default"], stage["chosen"]} <= set(values)
        for one in stage["candidates"]:
            assert len(one["rounds"]) >= 3
            # A prompt of hundreds of tokens cannot cost less than one token.
            assert 0 < one["tpot_seconds"] < one["prefill_seconds"]


def test_candidates_take_turns_and_reuse_no_prompt(directory: Path, measured_as: Fake) -> None:
    log = measured_as(small_chunks_are_fast)
    result = tune(directory, progress=False)
    of_chunks, again = log[-20:-8], log[-8:]  # 2 candidates, a warm-up and 5 rounds, then 3
    candidates = result.tuning["stages"][-1]["candidates"]
    assert [len(one["rounds"]) for one in candidates] == [5, 5]
    turns = [options.get("max_batch_tokens", 512) for options in of_chunks]
    assert turns == [256, 512, 512, 256] * 3
    assert [options.get("max_batch_tokens", 512) for options in again] == [512, 256, 256, 512] * 2
    assert all(options["prefix_caching"] is False for options in log)
    assert all(options["tuned"] is False for options in log)


def test_what_wins_by_chance_does_not_win_again(directory: Path, measured_as: Fake) -> None:
    small = 0

    def fast_at_first(options: dict[str, Any]) -> float:
        nonlocal small
        small += options.get("max_batch_tokens") == 256
        return 0.5 if options.get("max_batch_tokens") == 256 and small <= 6 else 1.0

    measured_as(fast_at_first)
    result = tune(directory, progress=False)
    assert result.tuning["options"] == {}
    stage = result.tuning["stages"][-1]
    assert (stage["chosen"], stage["gain"]) == (512, 0)
    assert stage["why"] == (
        "the default stays: 256 saves 50.0%, noise is 2.0%; but not again: nothing is faster than "
        "the default"
    )


def test_the_gain_is_that_of_the_second_comparison() -> None:
    first = chosen(rounds(1.0, 1.0, 1.0), other=rounds(0.5, 0.5, 0.5))
    second = chosen(rounds(1.0, 1.0, 1.0), other=rounds(0.9, 0.9, 0.9))
    choice = confirm(first, second)
    assert (choice.chosen, choice.gain) == ("other", pytest.approx(0.1))
    assert choice.why == "saves 50.0%, noise is 2.0%; again: saves 10.0%, noise is 2.0%"


def test_what_cannot_win_is_given_up(directory: Path, measured_as: Fake) -> None:
    measured_as(lambda options: 2.0 if options.get("max_batch_tokens") == 256 else 1.0)
    stage = tune(directory, progress=False).tuning["stages"][-1]
    assert {one["value"]: len(one["rounds"]) for one in stage["candidates"]} == {256: 3, 512: 3}
    assert stage["why"] == "nothing is faster than the default"


def test_less_precise_activations_are_tried_only_when_allowed(
    directory: Path, model: ModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(llm: Any, ids: Sequence[int]) -> Round:
        return Round(0.0, 0.5 if llm.options.get("activation_precision") == "int8_g128" else 1.0)

    info = SimpleNamespace(
        max_context=512,
        vocab_size=99,
        packed_dir=Path("p"),
        attention="openvino",
        attention_reason="",
    )
    words = SimpleNamespace(vocab_size=99)

    def known(source: Path, **options: Any) -> Any:
        return SimpleNamespace(options=options, info=info, tokenizer=words, close=lambda: None)

    monkeypatch.setattr(ovfast.tune, "LLM", known)
    monkeypatch.setattr(ovfast.tune, "_measure", measured)
    first = tune(directory, progress=False)
    assert [stage["option"] for stage in first.tuning["stages"]] == OPTIONS
    assert first.tuning["options"] == {}
    allowed = tune(directory, allow_activation_group=128, progress=False)
    assert not allowed.reused  # other candidates than what is stored
    assert allowed.tuning["options"] == {"activation_precision": "int8_g128"}
    assert tune(directory, allow_activation_group=128, progress=False).reused
    assert not tune(directory, progress=False).reused
    with pytest.raises(ValueError, match="allow_activation_group is 64, expected 32 or 128"):
        tune(directory, allow_activation_group=64)


def test_activations_that_were_tuned_hold_unless_given(model: ModelDir) -> None:
    store(model, activation_precision="exact")
    for given in ([], ["activation_precision"]):
        options = _core.EngineOptions()
        assert apply_tuning(model, options, given) is not None
        assert options.activation_precision == ("int8" if given else "exact")
    with load(model) as llm:
        assert llm.tuning is not None
        assert llm.tuning["applied"] == {"activation_precision": "exact"}
    with load(model, activation_precision="int8") as llm:
        assert llm.tuning is not None
        assert llm.tuning["applied"] == {}


def test_measuring_computes_the_whole_prompt(model: ModelDir) -> None:
    with load(model, prefix_caching=False) as llm:
        seen = []
        generate = llm.generate

        def recorded(*args: Any, **options: Any) -> Any:
            seen.append(generate(*args, **options))
            return seen[-1]

        llm.generate = recorded  # type: ignore[method-assign]
        for _ in range(2):
            one = ovfast.tune._measure(llm, [7] * 400)
    assert [result.metrics.prompt_tokens for result in seen] == [16, 400] * 2
    assert [result.metrics.generated_tokens for result in seen] == [17, 1] * 2
    assert not any(result.metrics.cached_tokens for result in seen)
    assert one.tpot_seconds == seen[2].metrics.tpot_p50
    assert one.prefill_seconds == seen[3].metrics.ttft_seconds


def test_what_was_chosen_holds_for_the_options_after_it(directory: Path, measured_as: Fake) -> None:
    if _core.read_host_limits().threads == 1:
        pytest.skip("one thread leaves nothing to choose")
    half = _core.read_host_limits().threads // 2
    log = measured_as(lambda options: 0.5 if options.get("num_threads") == half else 1.0)
    result = tune(directory, progress=False)
    assert result.tuning["options"] == {"num_threads": half}
    assert all(options["num_threads"] == half for options in log[-12:])


def test_a_choice_is_reused_until_force(directory: Path, measured_as: Fake) -> None:
    log = measured_as(small_chunks_are_fast)
    first = tune(directory, progress=False)
    assert first.tuning["options"] == {"max_batch_tokens": 256}
    count = len(log)
    second = tune(directory, progress=False)
    assert second == (first.tuning, first.path, True)
    assert len(log) == count
    measured_as(lambda options: 1.0)
    third = tune(directory, progress=False, force=True)
    assert (third.reused, third.tuning["options"]) == (False, {})
    assert [file.name for file in first.path.parent.iterdir()] == [first.path.name]


def test_an_interrupt_leaves_nothing(
    directory: Path, measured_as: Fake, cache: Path, ovfast_command: Ovfast
) -> None:
    def interrupt(options: dict[str, Any]) -> float:
        if options.get("max_batch_tokens") == 256:
            raise KeyboardInterrupt
        return 1.0

    measured_as(interrupt)
    result = ovfast_command("tune", str(directory))
    assert (result.code, result.out) == (130, "")
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_a_cache_that_cannot_be_written_is_found_out_first(
    directory: Path, measured_as: Fake, cache: Path
) -> None:
    log = measured_as(small_chunks_are_fast)
    cache.write_text("a file")
    with pytest.raises(Error, match="Set OVFAST_CACHE to a directory that can be written to"):
        tune(directory, progress=False)
    assert log == []


def test_a_context_that_is_too_short_is_refused(directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    with pytest.raises(CapacityError, match="the context has 32 tokens, and tuning needs 33"):
        tune(copy, progress=False)


def test_copies_of_unshared_weights_must_fit(model: ModelDir) -> None:
    room = _core.read_host_limits().memory_available
    models = ovfast.tune._Models(model)
    info = SimpleNamespace(packed_dir=Path(), weights_bytes=room)
    models._loaded[()] = SimpleNamespace(info=info, close=lambda: None)  # type: ignore[assignment]
    with pytest.raises(CapacityError, match="compares 3 ways .* ovfast pack DIR"):
        models.require_room(3)
    info.packed_dir = Path("packed")
    models.require_room(3)


# --- loading


def test_a_choice_is_applied(directory: Path, model: ModelDir, measured_as: Fake) -> None:
    assert steps(load(model)) == 1
    measured_as(small_chunks_are_fast)
    result = tune(directory, progress=False)
    llm = load(model)
    assert llm.tuning == {**result.tuning, "applied": {"max_batch_tokens": 256}}
    assert steps(llm) == 2


def test_an_explicit_option_wins(model: ModelDir) -> None:
    store(model, max_batch_tokens=256, attention="openvino", num_threads=1)
    with load(model, attention="auto") as llm:
        assert llm.tuning is not None
        assert llm.tuning["applied"] == {"max_batch_tokens": 256, "num_threads": 1}
        assert llm.info.threads == 1
        assert llm.info.attention_reason != "attention is 'openvino'"
    assert steps(load(model, max_batch_tokens=512)) == 1
    with load(model) as llm:
        assert llm.info.attention_reason == "attention is 'openvino'"
    # Both at once would be refused.
    with load(model, properties={"INFERENCE_NUM_THREADS": 1}) as llm:
        assert llm.info.threads == 1


@pytest.mark.parametrize(
    "options", [{"tuned": False}, {"packed": "never"}, {"activation_precision": "exact"}]
)
def test_what_was_not_asked_for_or_not_measured_is_not_applied(
    options: dict[str, Any], tiny_stock_dirs: dict[str, Path], tmp_path: Path
) -> None:
    stock = ModelDir.check(shutil.copytree(tiny_stock_dirs["qwen2"], tmp_path / "stock"))
    store(stock, max_batch_tokens=256)
    assert steps(load(stock)) == 2
    llm = load(stock, **options)
    assert llm.tuning is None
    assert steps(llm) == 1


def test_precision_becomes_a_property_unless_a_property_says_it(model: ModelDir) -> None:
    store(model, inference_precision="bf16")
    options = _core.EngineOptions(properties={"PERF_COUNT": "YES"})
    assert apply_tuning(model, options, []) is not None
    assert options.properties == {"PERF_COUNT": "YES", "INFERENCE_PRECISION_HINT": "bf16"}
    for name, value in (("INFERENCE_PRECISION_HINT", "f32"), ("EXECUTION_MODE_HINT", "ACCURACY")):
        options = _core.EngineOptions(properties={name: value})
        tuning = apply_tuning(model, options, [])
        assert tuning is not None
        assert tuning["applied"] == {}
        assert options.properties == {name: value}


def test_tuned_is_a_bool() -> None:
    with pytest.raises(TypeError, match="^tuned: expected bool, got str$"):
        LLM("no-such-model", tuned="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("256", "0"),
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"sha256"', '"sha"'),
        lambda text: f"[{text}]",
        lambda text: "\udcff" + text,
    ],
)
def test_a_damaged_file_is_warned_of_and_not_used(
    damage: Callable[[str], str], model: ModelDir
) -> None:
    store(model, max_batch_tokens=256)
    path = tuning_path(model)
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_bytes(damaged.encode(errors="surrogateescape"))
    with pytest.warns(RuntimeWarning, match=f"the tuning in '{path}' cannot be used: ") as caught:
        llm = load(model)
    assert len(caught) == 1
    assert llm.tuning is None
    assert steps(llm) == 1


def test_the_key_is_of_model_machine_and_versions(
    tiny_model_dirs: dict[str, Path],
    model: ModelDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tuning_path(model)
    assert tuning_path(ModelDir.check(tiny_model_dirs["llama"])) != own
    copy = Path(shutil.copytree(model.path, tmp_path / "copy"))
    assert tuning_path(ModelDir.check(copy)) == own  # the same model
    with (copy / "openvino_model.xml").open("a") as file:
        file.write("\n")
    assert tuning_path(ModelDir.check(copy)) != own

    host = _core.read_host_limits()
    for change in ({"cpu_name": "other"}, {"threads": host.threads + 1}, {"isa": ["avx2"]}):
        machine = {"cpu_name": host.cpu_name, "threads": host.threads, "isa": host.isa, **change}
        with monkeypatch.context() as patch:
            patch.setattr(_core, "read_host_limits", lambda m=machine: SimpleNamespace(**m))
            assert tuning_path(model) != own
    for version in ("version", "openvino_loaded_version"):
        with monkeypatch.context() as patch:
            patch.setattr(_core, version, lambda: "other")
            assert tuning_path(model) != own
    assert tuning_path(model) == own


# --- the command line


def test_the_command(directory: Path, measured_as: Fake, ovfast_command: Ovfast) -> None:
    measured_as(small_chunks_are_fast)
    result = ovfast_command("tune", str(directory))
    assert (result.code, result.err) == (0, "")
    assert "\n* 256 " in result.out
    assert "\n  512 (default) " in result.out
    assert "\nChosen: batch tokens 256 (saves 50%).\n" in result.out
    again = ovfast_command("tune", str(directory)).out
    assert "\nChosen: batch tokens 256 (saves 50%).\nMeasured at 20" in again


def test_the_command_prints_json(
    directory: Path, measured_as: Fake, ovfast_command: Ovfast
) -> None:
    measured_as(lambda options: 1.0)
    for arguments, reused in (([], False), ([], True), (["--force"], False)):
        said = json.loads(ovfast_command("tune", str(directory), "--json", *arguments).out)
        assert said["reused"] is reused
        assert said["options"] == {}
        assert Path(said["file"]).is_file()
        assert [stage["option"] for stage in said["stages"]] == OPTIONS


def test_inspect_tells(directory: Path, measured_as: Fake, ovfast_command: Ovfast) -> None:
    said = ovfast_command("inspect", str(directory)).out
    assert f"\nNot tuned: ovfast tune {directory}\n" in said
    assert json.loads(ovfast_command("inspect", str(directory), "--json").out)["tuning"] is None
    measured_as(small_chunks_are_fast)
    made = tune(directory, progress=False).tuning["made"]
    said = ovfast_command("inspect", str(directory)).out
    assert f"\nTuned at {made}: batch tokens 256 (saves 50%).\n" in said
    assert "\n  batch tokens 256: saves 50.0%, noise is 2.0%; again: saves 50.0%, " in said
    said = json.loads(ovfast_command("inspect", str(directory), "--json").out)
    assert said["tuning"]["options"] == {"max_batch_tokens": 256}
