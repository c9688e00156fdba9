"""What an error in logits means to a language model: likelihoods, and the tokens it would choose.

Logarithms are natural. KL divergence D(p||q) = sum_v p_v (log p_v - log q_v), p being the exact
distribution. Perplexity is exp of the mean negative log-likelihood of the next token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from xlstm_export.runtime.session import Array

_BEST = 5


@dataclass(frozen=True)
class LanguageMeasures:
    """Distributions over the next token, the subject's against the exact ones, by position.

    ``top1`` is the part of ``positions`` where both have the same likeliest token, ``top5`` how
    much of the five likeliest they have in common. ``kl_mean`` and ``kl_largest`` are in nats.
    """

    positions: int
    top1: float
    top5: float
    kl_mean: float
    kl_largest: float


@dataclass(frozen=True)
class Perplexity:
    """Of one text of ``tokens`` predicted tokens, by the subject and by the reference."""

    tokens: int
    subject: float
    reference: float

    @property
    def change(self) -> float:
        """How much larger the subject's is, as a part of the reference's."""
        return self.subject / self.reference - 1


@dataclass
class LanguageTally:
    """Positions of logits, added up call by call."""

    divergence: list[Array] = field(default_factory=list)
    first: list[Array] = field(default_factory=list)
    shared: list[Array] = field(default_factory=list)

    def add(self, got: Array, exact: Array) -> None:
        """Logits [B,T,vocab] of subject and reference; positions that are not finite are left out,
        and are no agreement.
        """
        got, exact = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (got, exact))
        is_finite = np.isfinite(got).all(-1)
        self.divergence.append(kl_divergence(got[is_finite], exact[is_finite]))
        self.first.append(is_finite & (got.argmax(-1) == exact.argmax(-1)))
        self.shared.append(is_finite * best_shared(got, exact, _BEST))

    def measures(self) -> LanguageMeasures:
        """Over everything that was added."""
        divergence, first, shared = (
            np.concatenate(part) for part in (self.divergence, self.first, self.shared)
        )
        return LanguageMeasures(
            positions=first.size,
            top1=float(first.mean()),
            top5=float(shared.mean()),
            kl_mean=float(divergence.mean()) if divergence.size else math.inf,
            kl_largest=float(divergence.max(initial=0.0)),
        )


def kl_divergence(got: Array, exact: Array) -> Array:
    """D(exact || got) in nats, of logits [..., vocab] to [...]; never below zero."""
    p, q = log_softmax(exact), log_softmax(got)
    divergence: Array = (np.exp(p) * (p - q)).sum(-1)
    return np.maximum(divergence, 0.0)  # rounding may take it below


def best_shared(got: Array, exact: Array, best: int) -> Array:
    """How much of the ``best`` likeliest of logits [N, vocab] both have in common: [N]."""
    best = min(best, got.shape[-1])
    chosen = [np.argpartition(x, -best, axis=-1)[:, -best:] for x in (got, exact)]
    shared: Array = (chosen[0][:, :, None] == chosen[1][:, None, :]).any(-1).mean(-1)
    return shared


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of logits [..., vocab], in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def next_token_loss(logits: Array, tokens: Array) -> Array:
    """Negative log-likelihoods [B,T] in nats of ``tokens`` [B,T], those that follow each position
    of logits [B,T,vocab].
    """
    chosen = np.take_along_axis(log_softmax(logits), tokens[..., None], axis=-1)
    return -chosen[..., 0]


def perplexity(subject_loss: Array, reference_loss: Array) -> Perplexity:
    """Of one text, from the losses of its tokens."""
    return Perplexity(
        subject_loss.size,
        math.exp(float(subject_loss.mean())),
        math.exp(float(reference_loss.mean())),
    )
