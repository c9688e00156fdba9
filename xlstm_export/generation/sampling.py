"""How the next token is chosen from its logits."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from xlstm_export.errors import BundleError, OptionError
from xlstm_export.runtime.choice import Choice, likeliest
from xlstm_export.runtime.session import Array


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 and top_p 1 keep every token; penalty 1 changes nothing."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise OptionError("temperature", f"{self.temperature} is not 0 or more")
        if not 0 <= self.top_p <= 1:
            raise OptionError("top_p", f"{self.top_p} is not between 0 and 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise OptionError("repetition_penalty", f"{self.repetition_penalty} is not above 0")
        for name in ("top_k", "seed"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name)} is not 0 or more")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever came before."""
        return self.temperature == 0 and self.repetition_penalty == 1


def choose(
    logits: Array, sampling: Sampling, random: np.random.Generator, seen: Collection[int] = ()
) -> int:
    """One id from ``logits`` [vocab]: arg max, or a draw from the tempered, cut distribution.

    The repetition penalty p comes first: of ids ``seen``, a logit above 0 is divided by p, one
    below multiplied (Keskar et al. 2019, CTRL, as transformers has it). top_k keeps the k best and
    those equal to the worst of them; of these, top_p keeps the smallest set of the likeliest whose
    probability reaches it. Raises BundleError where the best is no number.
    """
    if sampling.repetition_penalty != 1 and seen:
        logits = _penalised(logits, sampling.repetition_penalty, seen)
    best = token_of(*likeliest(logits[None]))
    if sampling.temperature <= 0:
        return best
    # shifted before it is divided: a tiny temperature must not make inf - inf
    with np.errstate(over="ignore"):
        scores = (logits.astype(np.float64) - float(logits[best])) / sampling.temperature
    ids = np.arange(len(scores))
    if 0 < sampling.top_k < len(scores):
        ids = np.flatnonzero(scores >= np.partition(scores, -sampling.top_k)[-sampling.top_k])
    weights = np.exp(scores[ids])
    if sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        total = np.cumsum(weights[order])
        kept = order[: int(np.searchsorted(total, sampling.top_p * total[-1])) + 1]
        ids, weights = ids[kept], weights[kept]
    return int(random.choice(ids, p=weights / weights.sum()))


def token_of(choice: Choice) -> int:
    """The id. Raises BundleError where its logit is no number."""
    if not math.isfinite(choice.logit):
        what = "NaN" if math.isnan(choice.logit) else "infinity"
        raise BundleError(f"the model computed {what} instead of logits; compare it with: validate")
    return choice.token


def _penalised(logits: Array, penalty: float, seen: Collection[int]) -> Array:
    ids = np.array(sorted(set(seen)))
    changed = logits.copy()
    some = changed[ids]
    changed[ids] = np.where(some > 0, some / penalty, some * penalty)
    return changed
