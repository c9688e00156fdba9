"""Likelihoods and chosen tokens, against other ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from xlstm_export.validation.measures.language import (
    LanguageTally,
    kl_divergence,
    next_token_loss,
    perplexity,
)

RANDOM = np.random.default_rng(0)


def test_divergence_is_torchs() -> None:
    got, exact = RANDOM.standard_normal((2, 3, 7, 11)) * 4
    log_q, log_p = (torch.log_softmax(torch.from_numpy(x), -1) for x in (got, exact))
    expected = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(kl_divergence(got, exact), expected.numpy(), rtol=1e-9)
    assert kl_divergence(exact, exact).max() == 0


def test_divergence_of_distributions_is_not_of_logits() -> None:
    exact = RANDOM.standard_normal((1, 5, 9))
    np.testing.assert_allclose(kl_divergence(exact + 100, exact), 0, atol=1e-12)


def test_agreement_counts_likeliest_tokens() -> None:
    exact = np.array([[[9.0, 8, 7, 6, 5, 0], [9.0, 8, 7, 6, 5, 0]]])
    got = exact.copy()
    got[0, 1, 0] = -1  # the likeliest of the second position is the least likely
    tally = LanguageTally()
    tally.add(got, exact)
    found = tally.measures()
    assert (found.positions, found.top1) == (2, 0.5)
    assert found.top5 == pytest.approx((1 + 4 / 5) / 2)
    assert found.kl_largest == pytest.approx(2 * found.kl_mean)


def test_positions_that_are_not_finite_are_no_agreement() -> None:
    exact = RANDOM.standard_normal((1, 4, 6))
    got = exact.copy()
    got[0, 2, 3] = np.nan
    tally = LanguageTally()
    tally.add(got, exact)
    assert tally.measures().top1 == tally.measures().top5 == 0.75
    assert tally.measures().kl_largest == 0


def test_perplexity_is_that_of_the_mean_loss() -> None:
    logits, tokens = RANDOM.standard_normal((2, 6, 5)), RANDOM.integers(0, 5, (2, 6))
    loss = next_token_loss(logits, tokens)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(tokens).flatten()
    )
    assert loss.mean() == pytest.approx(float(expected))
    found = perplexity(loss + math.log(1.1), loss)
    assert found.tokens == 12
    assert found.reference == pytest.approx(math.exp(float(expected)))
    assert found.change == pytest.approx(0.1)
