"""The figures themselves, against torch and against what they are by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ovfast.evaluate.degeneration import (
    LoopShare,
    NotFiniteError,
    check_finite,
    find_loop,
    too_many_loops,
)
from ovfast.evaluate.metrics import (
    divergent_tokens,
    kl_divergence,
    log_softmax,
    perplexity,
    similarity,
    token_losses,
    top1_agreement,
)


def random_logits(seed: int, rows: int = 40, columns: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, (rows, columns)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    exact = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return exact / exact.sum(1, keepdims=True)


def test_kl_is_the_sum_over_the_vocabulary():
    reference, model = random_logits(0), random_logits(1)
    p, q = softmax(reference), softmax(model)
    expected = (p * np.log(p / q)).sum(1)
    # f64 throughout; the sum has 300 terms.
    np.testing.assert_allclose(kl_divergence(reference, model), expected, rtol=1e-12)
    # KL(reference || model), not the other way round.
    assert not np.allclose(kl_divergence(model, reference), expected, rtol=0.1)


def test_kl_against_torch():
    torch = pytest.importorskip("torch")
    reference, model = random_logits(0), random_logits(1)
    expected = torch.nn.functional.kl_div(
        torch.from_numpy(model).double().log_softmax(1),
        torch.from_numpy(reference).double().log_softmax(1),
        log_target=True,
        reduction="none",
    ).sum(1)
    np.testing.assert_allclose(kl_divergence(reference, model), expected.numpy(), rtol=1e-12)


def test_small_kl_is_not_lost():
    reference = random_logits(0)
    noise = random_logits(2) * 1e-6
    # Second order: half the variance of the noise under the reference.
    p, step = softmax(reference), noise.astype(np.float64)
    expected = ((p * step**2).sum(1) - (p * step).sum(1) ** 2) / 2
    # f32 logits near 10 are rounded to 1e-6 themselves, so that f64 is needed all the way.
    measured = kl_divergence(reference.astype(np.float64), reference.astype(np.float64) + step)
    np.testing.assert_allclose(measured, expected, rtol=1e-3, atol=1e-15)


def test_kl_of_tokens_that_cannot_be_chosen():
    reference, model = random_logits(0, 3), random_logits(0, 3)
    reference[:, 5] = model[:, 5] = -np.inf
    np.testing.assert_allclose(kl_divergence(reference, model), 0, atol=1e-15)
    model[1, 7] = -np.inf  # which the reference can choose
    assert np.isinf(kl_divergence(reference, model)).tolist() == [False, True, False]
    model[2, 3] = np.nan
    assert np.isnan(kl_divergence(reference, model)).tolist() == [False, False, True]


def test_blocks_of_rows_change_nothing(monkeypatch):
    reference, model = random_logits(0), random_logits(1)
    whole = kl_divergence(reference, model), token_losses(model, list(range(40)))
    monkeypatch.setattr("ovfast.evaluate.metrics._BLOCK_BYTES", 8 * 300 * 7)
    np.testing.assert_array_equal(kl_divergence(reference, model), whole[0])
    np.testing.assert_array_equal(token_losses(model, list(range(40))), whole[1])


def test_losses_and_perplexity():
    logits = random_logits(3)
    tokens = list(range(40))
    expected = -np.log(softmax(logits)[np.arange(40), tokens])
    losses = token_losses(logits, tokens)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(losses, -log_softmax(logits)[np.arange(40), tokens], rtol=1e-12)
    assert perplexity(losses) == pytest.approx(math.exp(expected.mean()))
    # A model that gives every token the same probability has the vocabulary's size.
    assert perplexity(token_losses(np.zeros((4, 300), np.float32), [1] * 4)) == pytest.approx(300)
    with pytest.raises(ValueError, match="at least one token"):
        perplexity(np.zeros(0))
    with pytest.raises(ValueError, match="each of 40 positions"):
        token_losses(logits, [1, 2])


def test_agreement_takes_the_first_of_equals():
    reference = np.array([[1, 2, 2], [3, 1, 0], [0, 0, 1]], np.float32)
    model = np.array([[0, 9, 9], [1, 3, 0], [0, 0, 1]], np.float32)
    assert top1_agreement(reference, model).tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"\[3, 3\] and \[3, 2\]"):
        top1_agreement(reference, model[:, :2])
    with pytest.raises(ValueError, match="same shape"):
        kl_divergence(reference, model[:2])


@pytest.mark.parametrize(
    ("answer", "best", "first", "divergent"),
    [
        ([4, 5, 6, 7], [4, 5, 6, 7], None, 0),
        ([4, 5, 6, 7], [9, 5, 6, 7], 0, 1),
        ([4, 5, 6, 7], [4, 5, 9, 9], 2, 2),
        ([4], [4], None, 0),
    ],
)
def test_divergent_tokens(answer, best, first, divergent):
    found = divergent_tokens(answer, best)
    assert (found.first, found.divergent, found.tokens) == (first, divergent, len(answer))
    assert found.share == divergent / len(answer)


def test_divergent_tokens_refuses():
    for answer, best in (([], []), ([1], [1, 2])):
        with pytest.raises(ValueError, match="two answers of the same length"):
            divergent_tokens(answer, best)


def test_similarity():
    assert similarity([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert similarity([1, 2], [3, 4]) == 0
    assert similarity([1, 2, 3, 4], [1, 2, 9, 9]) == pytest.approx(2 * 2 / 8)
    # Long answers have tokens that are frequent: none is taken for junk.
    assert similarity([7, 8] * 300, [7, 8] * 300) == 1


@pytest.mark.parametrize(
    ("ids", "unit"),
    [
        ([*range(30), *[5] * 34], 1),
        ([*range(10), *[1, 2, 3] * 11], 3),
        ([*range(10), *[1, 2, 3] * 11, 1], 3),  # the last time is cut
        ([*range(100, 132)] * 3, 32),
        ([*range(100, 132)] * 2, None),  # twice is no loop
        ([*range(100, 133)] * 3, None),  # too long a unit
        ([*range(40), *[5] * 31], None),  # too short
        ([*[5] * 60, 6], None),  # it got out
        (list(range(64)), None),
        ([], None),
    ],
)
def test_find_loop(ids, unit):
    assert find_loop(ids) == unit


def test_too_many_loops():
    assert too_many_loops(LoopShare(12, 7, None))
    assert not too_many_loops(LoopShare(12, 6, None))
    assert too_many_loops(LoopShare(12, 12, 4))
    assert not too_many_loops(LoopShare(12, 12, 3))


def test_check_finite():
    good = random_logits(0, 4)
    good[2, 3] = -np.inf  # a token that cannot be chosen
    check_finite(good, 0, "it", "text")
    for value in (np.nan, np.inf):
        bad = good.copy()
        bad[2, 3] = value
        with pytest.raises(NotFiniteError, match=rf"it gives no numbers: .* token 12 is {value}"):
            check_finite(bad, 10, "it", "text")
    with pytest.raises(NotFiniteError, match="'the end'"):
        check_finite(np.full((1, 3), -np.inf, np.float32), 0, "it", "the end")
