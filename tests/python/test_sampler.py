from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest
from sampler_reference import Floats, Options, ReferenceSampler

from ovfast import _core

# Around the vector width (16) and the block (256) of the implementation, and a real vocabulary.
SIZES = [1, 2, 15, 16, 17, 255, 256, 257, 1023, 4099, 151_936]

Make = Callable[[np.random.Generator, int], Floats]


def normal(rng: np.random.Generator, size: int) -> Floats:
    return (rng.standard_normal(size) * 4).astype(np.float32)


def peaked(rng: np.random.Generator, size: int) -> Floats:
    logits = normal(rng, size)
    logits[rng.integers(size, size=3)] += 20
    return logits


def ties(rng: np.random.Generator, size: int) -> Floats:
    return np.round(rng.standard_normal(size)).astype(np.float32)


def signed_zeros(rng: np.random.Generator, size: int) -> Floats:
    return np.where(rng.random(size) < 0.5, np.float32(0.0), np.float32(-0.0))


def equal(rng: np.random.Generator, size: int) -> Floats:
    return np.full(size, rng.standard_normal(), np.float32)


def masked(rng: np.random.Generator, size: int) -> Floats:
    logits = normal(rng, size)
    logits[rng.random(size) < 0.7] = -np.inf
    logits[rng.integers(size)] = 1.0
    return logits


def dominated(rng: np.random.Generator, size: int) -> Floats:
    logits = normal(rng, size)
    logits[rng.integers(size)] = 1e30
    return logits


def nearly_flat(rng: np.random.Generator, size: int) -> Floats:
    return (rng.standard_normal(size) * 1e-3).astype(np.float32)


def ascending(rng: np.random.Generator, size: int) -> Floats:
    return np.linspace(-30, rng.random(), size, dtype=np.float32)


def all_negative(rng: np.random.Generator, size: int) -> Floats:
    return -np.exp(normal(rng, size)).astype(np.float32)


MAKERS: list[Make] = [
    normal,
    peaked,
    ties,
    signed_zeros,
    equal,
    masked,
    dominated,
    nearly_flat,
    ascending,
    all_negative,
]


def compare(
    options: Options,
    make: Make,
    size: int,
    *,
    steps: int = 4,
    prompt: list[int] | None = None,
    banned: list[int] | None = None,
    answer: int = 0,
) -> None:
    """Both samplers choose the same tokens with the same log-probabilities, step after step."""
    rng = np.random.default_rng([size, MAKERS.index(make), steps])
    reference = ReferenceSampler(options, prompt or [], banned or [], answer)
    params = _core.SamplingParams(**asdict(options))
    sampler = _core.Sampler(params, prompt or [], banned or [], answer)
    for step in range(steps):
        logits = make(rng, size)
        before = logits.copy()
        expected, expected_logprobs = reference.sample(logits)
        token, logprobs = sampler.sample(logits)
        assert token == expected, f"step {step}"
        np.testing.assert_array_equal(logits, before)
        if expected_logprobs is None:
            assert logprobs is None
            continue
        assert logprobs.chosen.token_id == token
        assert [entry.token_id for entry in logprobs.top] == [i for i, _ in expected_logprobs[1]]
        np.testing.assert_allclose(
            [logprobs.chosen.logprob, *(entry.logprob for entry in logprobs.top)],
            [expected_logprobs[0], *(value for _, value in expected_logprobs[1])],
            rtol=2e-7,  # float32's last place
            atol=1e-12,
        )


def name(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("size", SIZES)
def test_greedy(make: Make, size: int) -> None:
    compare(Options(), make, size)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_temperature(make: Make, size: int, temperature: float) -> None:
    compare(Options(temperature=temperature, seed=1), make, size)


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e-6, 1e6, 1e308])
def test_extreme_temperatures(temperature: float) -> None:
    for make in (normal, ties, masked):
        with np.errstate(over="ignore"):
            compare(Options(temperature=temperature, seed=2), make, 1023)
            compare(Options(temperature=temperature, top_p=0.5, seed=2), make, 1023)
            compare(Options(temperature=temperature, min_p=0.5, seed=2), make, 1023)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("top_k", [1, 2, 20, 300, 1022, 1023, 100_000])
def test_top_k(make: Make, top_k: int) -> None:
    compare(Options(temperature=1.0, top_k=top_k, seed=3), make, 1023, steps=20)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.95, 0.999999, 1 - 1e-12])
def test_top_p(make: Make, top_p: float) -> None:
    compare(Options(temperature=1.0, top_p=top_p, seed=4), make, 1023, steps=20)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("min_p", [1e-12, 0.05, 0.5, 1.0])
def test_min_p(make: Make, min_p: float) -> None:
    compare(Options(temperature=1.0, min_p=min_p, seed=5), make, 1023, steps=20)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("size", [1, 17, 257, 4099])
def test_filters_together(make: Make, size: int) -> None:
    for top_k, top_p, min_p in product([0, 7, 500], [1.0, 0.6], [0.0, 0.03]):
        options = Options(temperature=0.8, top_k=top_k, top_p=top_p, min_p=min_p, seed=6)
        compare(options, make, size)


@pytest.mark.parametrize("make", [normal, peaked, nearly_flat, equal], ids=name)
def test_filters_on_a_real_vocabulary(make: Make) -> None:
    for options in (
        Options(temperature=0.7, top_k=20, top_p=0.8, seed=7, repetition_penalty=1.1),
        Options(temperature=1.0, top_p=0.95, seed=8),
        Options(temperature=1.5, min_p=0.1, seed=9),
    ):
        compare(options, make, 151_936, prompt=list(range(0, 151_936, 97)), steps=3)


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(
    "penalties",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.7},
        {"presence_penalty": 1.5},
        {"presence_penalty": -2.0},
        {"frequency_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2},
    ],
    ids=lambda penalties: ",".join(f"{key}={value}" for key, value in penalties.items()),
)
def test_penalties(make: Make, temperature: float, penalties: dict[str, float]) -> None:
    options = Options(temperature=temperature, seed=10, logprobs=3, **penalties)
    # Repeated prompt ids count once; some lie on the edges of blocks and beyond the vocabulary.
    prompt = [3, 3, 3, 0, 255, 256, 511, 512, 598, 5_000_000]
    compare(options, make, 599, prompt=prompt, steps=30)


def test_penalties_change_the_choice() -> None:
    """The order of the three, on numbers that can be checked by hand."""
    logits = np.array([2.0, 1.9, -1.0, 0.0], np.float32)
    params = _core.SamplingParams(
        repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25
    )
    sampler = _core.Sampler(params, [])
    # 2.0 -> 2.0/2 - 0.25 - 0.5 = 0.25; then 1.9 -> 0.2; then 0.25 -> 0.0, so 1 follows 0 again;
    # 1.9 -> 0.95 - 2*0.25 - 0.5 = -0.05; 0.0 stands at 0.0, the same as token 0 but after it.
    assert [sampler.sample(logits)[0] for _ in range(5)] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_min_new_tokens(temperature: float) -> None:
    options = Options(temperature=temperature, min_new_tokens=5, seed=11)
    banned = [0, 16, 255, 256, 10_000]
    for make in (normal, equal, dominated):
        compare(options, make, 257, banned=banned, steps=12)
    sampler = _core.Sampler(_core.SamplingParams(min_new_tokens=2), [], [1])
    logits = np.array([0, 5, 1], np.float32)
    assert [sampler.sample(logits)[0] for _ in range(4)] == [2, 2, 1, 1]


@pytest.mark.parametrize("make", MAKERS, ids=name)
@pytest.mark.parametrize("size", [1, 5, 257, 4099])
@pytest.mark.parametrize("logprobs", [0, 1, 20])
def test_logprobs(make: Make, size: int, logprobs: int) -> None:
    compare(Options(logprobs=logprobs), make, size)
    # Of the model's own logits, whatever changes them for the choice.
    compare(
        Options(logprobs=logprobs, temperature=0.3, top_k=2, repetition_penalty=5.0, seed=12),
        make,
        size,
        prompt=list(range(min(size, 100))),
    )


def test_answers_draw_their_own_streams() -> None:
    for answer in (0, 1, 127):
        compare(Options(temperature=1.0, seed=13), normal, 1023, answer=answer)
    params = _core.SamplingParams(temperature=1.0, seed=13)
    logits = np.zeros(50_000, np.float32)
    streams = [
        tuple(s.sample(logits)[0] for _ in range(3))
        for s in (_core.Sampler(params, [], answer=answer) for answer in range(10))
    ]
    assert len(set(streams)) == 10


def test_largest_seed() -> None:
    compare(Options(temperature=1.0, seed=2**64 - 1), normal, 1023, answer=5)


def test_without_a_seed_draws_differ() -> None:
    params = _core.SamplingParams(temperature=1.0)
    logits = np.zeros(2**20, np.float32)
    assert len({_core.Sampler(params, []).sample(logits)[0] for _ in range(8)}) > 1


def chi_square(draws: list[int], expected: dict[int, float]) -> float:
    """How many standard deviations the fit is off (Wilson and Hilferty's approximation)."""
    counts = Counter(draws)
    assert set(counts) <= set(expected), "a token that was filtered out was drawn"
    total = sum(expected.values())
    # Rare tokens are pooled: the approximation wants five or so expected draws a class.
    classes: list[tuple[float, int]] = []
    pooled_expected, pooled_count = 0.0, 0
    for token, weight in expected.items():
        share = weight / total * len(draws)
        if share < 8:
            pooled_expected += share
            pooled_count += counts[token]
        else:
            classes.append((share, counts[token]))
    if pooled_expected >= 8:
        classes.append((pooled_expected, pooled_count))
    freedom = len(classes) - 1
    statistic = sum((count - share) ** 2 / share for share, count in classes)
    variance = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - variance)) / variance**0.5)


@pytest.mark.parametrize(
    "options",
    [
        Options(temperature=1.0),
        Options(temperature=0.6),
        Options(temperature=2.0, top_k=12),
        Options(temperature=1.0, top_p=0.8),
        Options(temperature=1.0, min_p=0.08),
        Options(temperature=1.3, top_k=30, top_p=0.9, min_p=0.02),
    ],
    ids=lambda o: ",".join(f"{k}={v}" for k, v in asdict(o).items() if v != asdict(Options())[k]),
)
@pytest.mark.parametrize("source", ["one stream", "seeds", "answers"])
def test_distribution(options: Options, source: str) -> None:
    logits = (np.random.default_rng(14).standard_normal(300) * 2).astype(np.float32)
    ids, weights = ReferenceSampler(options).distribution(logits)
    expected = dict(zip(ids.tolist(), weights.tolist(), strict=True))
    settings = asdict(options)

    def sampler(seed: int, answer: int = 0) -> Any:
        return _core.Sampler(_core.SamplingParams(**{**settings, "seed": seed}), [], [], answer)

    draws = 20_000 if source == "one stream" else 5_000
    if source == "one stream":
        one = sampler(15)
        tokens = [one.sample(logits)[0] for _ in range(draws)]
    elif source == "seeds":
        tokens = [sampler(seed).sample(logits)[0] for seed in range(draws)]
    else:
        tokens = [sampler(16, answer).sample(logits)[0] for answer in range(draws)]
    # Too good a fit would be as wrong as too bad a one.
    assert abs(chi_square(tokens, expected)) < 4


@pytest.mark.parametrize("size", [1, 16, 257, 4099])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf], ids=["nan", "-nan", "inf"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_invalid_logits(size: int, bad: float, temperature: float) -> None:
    for position in {0, size // 2, size - 1}:
        logits = normal(np.random.default_rng(17), size)
        logits[position] = bad
        for options in ({}, {"repetition_penalty": 1.5, "min_new_tokens": 1}):
            params = _core.SamplingParams(temperature=temperature, **options)
            sampler = _core.Sampler(params, [position], [position])
            with pytest.raises(_core.ModelError, match=rf"for token {position};"):
                sampler.sample(logits)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_token_to_choose(temperature: float) -> None:
    params = _core.SamplingParams(temperature=temperature, min_new_tokens=1)
    nothing = np.full(300, -np.inf, np.float32)
    with pytest.raises(_core.ModelError, match="leave no token to choose"):
        _core.Sampler(params, []).sample(nothing)
    only_banned = nothing.copy()
    only_banned[7] = 1.0
    with pytest.raises(_core.ModelError, match="leave no token to choose"):
        _core.Sampler(params, [], [7]).sample(only_banned)


def test_a_refused_step_is_not_recorded() -> None:
    params = _core.SamplingParams(temperature=1.0, seed=18, frequency_penalty=1.0)
    clean, interrupted = _core.Sampler(params, []), _core.Sampler(params, [])
    logits = np.zeros(1000, np.float32)
    with pytest.raises(_core.ModelError):
        interrupted.sample(np.full(1000, np.nan, np.float32))
    assert [clean.sample(logits)[0] for _ in range(5)] == [
        interrupted.sample(logits)[0] for _ in range(5)
    ]


def test_arguments() -> None:
    sampler = _core.Sampler(_core.SamplingParams(), [])
    with pytest.raises(TypeError):
        sampler.sample(np.zeros(4))  # float64 would be converted in silence
    with pytest.raises(TypeError):
        sampler.sample(np.zeros(8, np.float32)[::2])
    with pytest.raises(ValueError, match="2 dimensions; expected 1"):
        sampler.sample(np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="vocab_size is 0"):
        sampler.sample(np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="prompt holds the token id -1"):
        _core.Sampler(_core.SamplingParams(), [5, -1])
    with pytest.raises(ValueError, match="banned_before_minimum holds the token id -2"):
        _core.Sampler(_core.SamplingParams(), [], [-2])
    with pytest.raises(ValueError, match="top_k is -1; expected at least 0"):
        _core.Sampler(_core.SamplingParams(top_k=-1), [])


def test_params_take_and_show_every_option() -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 9,
        "max_length": None,
        "min_new_tokens": 2,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "seed": 2**64 - 1,
        "stop_strings": ["\n", "结束"],
        "include_stop_string": True,
        "stop_token_ids": [1, 2],
        "ignore_eos": True,
        "n": 3,
        "logprobs": 20,
    }
    params = _core.SamplingParams(**options)
    params.validate()
    assert {option: getattr(params, option) for option in options} == options
    assert "top_k=4" in repr(params)
    assert "max_length" not in repr(params)
    assert repr(_core.SamplingParams()) == "SamplingParams()"
    assert not params.greedy
    assert _core.SamplingParams().greedy


def test_params_refuse_unknown_names_and_types() -> None:
    with pytest.raises(TypeError, match=r"no option 'top_q'; expected one of: .*top_p"):
        _core.SamplingParams(top_q=0.5)
    with pytest.raises(AttributeError):
        _core.SamplingParams().top_q = 0.5
    for option, value, expected in [
        ("temperature", "hot", "float"),
        ("top_k", 1.5, "int"),
        ("seed", "1", r"int in \[0, 2\*\*64\) or None"),
        ("n", True, "int"),
        ("temperature", False, "float"),
        ("stop_strings", "\n", "list of str"),
        ("stop_token_ids", [0.5], "list of int"),
        ("max_new_tokens", "10", "int or None"),
        ("ignore_eos", "no", "bool"),
    ]:
        with pytest.raises(TypeError, match=f"{option} is .*; expected {expected}"):
            _core.SamplingParams(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("seed", 2**64),
        ("n", 2**70),
        ("max_new_tokens", -(2**70)),
        ("stop_token_ids", [1, 2**70]),
        ("temperature", 10**400),
    ],
)
def test_integers_that_do_not_fit_are_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option} is .*; expected "):
        _core.SamplingParams(**{option: value})


def test_validate_raises_value_error() -> None:
    with pytest.raises(ValueError, match=r"temperature is nan; expected a finite number >= 0"):
        _core.SamplingParams(temperature=float("nan")).validate()
