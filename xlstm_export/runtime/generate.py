"""Generation: the prompt in pieces, then one token at a time on the carried state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlstm_export.errors import BundleError
from xlstm_export.runtime.open import open_session
from xlstm_export.runtime.session import PIECE, Array, BundleSession, Session, pieces
from xlstm_export.runtime.text import NumberStream, TextCodec, TextStream, open_codec, stop_ids


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 and top_p 1 keep every token."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def generate(
    session: Session,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[int] = (),
    longest_piece: int = PIECE,
) -> Iterator[int]:
    """Continue ``prompt`` (at least one id); yields ids as they are chosen, a stop id last."""
    random = np.random.default_rng(sampling.seed)
    states: Mapping[str, Array] | None = None
    for piece in pieces(np.asarray([prompt], np.int64), longest_piece):
        logits, states = session.run(piece, states)
        last = logits[0, -1].copy()
        del logits  # before those of the next piece are made
    for made in range(1, max_new_tokens + 1):
        token = choose(last, sampling, random)
        yield token
        if token in stop or made == max_new_tokens:
            return
        logits, states = session.run(np.asarray([[token]], np.int64), states)
        last = logits[0, -1]


def choose(logits: Array, sampling: Sampling, random: np.random.Generator) -> int:
    """One id from ``logits`` [vocab]: arg max, or a draw from the tempered, cut distribution.

    top_k keeps the k best and those equal to the worst of them; of these, top_p keeps the
    smallest set of the likeliest whose probability reaches it. Raises BundleError where the
    best is no number.
    """
    best = int(np.argmax(logits))  # the first NaN counts as the largest
    if not np.isfinite(logits[best]):
        what = "NaN" if np.isnan(logits[best]) else "infinity"
        raise BundleError(f"the model computed {what} instead of logits; compare it with: validate")
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


@dataclass(frozen=True)
class Generation:
    """A bundle with a prompt, ready to generate."""

    session: BundleSession
    prompt: tuple[int, ...]
    codec: TextCodec | None
    stop: tuple[int, ...]

    def tokens(self, max_new_tokens: int, sampling: Sampling) -> Iterator[int]:
        """New ids as they are chosen."""
        longest = self.session.longest_piece
        return generate(self.session, self.prompt, max_new_tokens, sampling, self.stop, longest)

    def stream(self) -> TextStream | NumberStream:
        """Turns new ids into what is shown: text, or numbers where there is no codec."""
        if self.codec is None:
            return NumberStream()
        return TextStream(self.codec, self.prompt, self.stop)


def open_generation(
    bundle: Path,
    text: str | None,
    ids: str | None,
    threads: int | None,
    *,
    native: bool = True,
    engine: str | None = None,
) -> Generation:
    """Open ``bundle`` on a prompt: ``text`` through its tokenizer, or comma-separated ``ids``.

    Raises BundleError when the bundle is no language model or the prompt does not fit it, and what
    ``open_session`` raises.
    """
    session = open_session(bundle, engine, threads=threads, native=native)
    vocabulary = session.manifest.outputs[0].shape[-1]
    if not session.manifest.is_language_model or not isinstance(vocabulary, int):
        raise BundleError(
            f"{bundle}: takes embeddings, not tokens; "
            "run it with --inputs-embeds FILE.npy --output FILE.npy"
        )
    codec = None if ids is not None else open_codec(bundle)
    if ids is None and codec is None:
        raise BundleError(f"{bundle}: no tokenizer.json; give token ids with --ids 1,2,3")
    prompt = codec.encode(text or "") if codec is not None else _parse_ids(ids or "")
    if not prompt:
        raise BundleError("the prompt is empty; give text with --prompt or ids with --ids")
    wrong = [i for i in prompt if not 0 <= i < vocabulary]
    if wrong:
        raise BundleError(f"token id {wrong[0]} is outside the vocabulary of {vocabulary}")
    return Generation(session, tuple(prompt), codec, stop_ids(bundle))


def _parse_ids(ids: str) -> list[int]:
    try:
        return [int(part) for part in ids.replace(",", " ").split()]
    except ValueError as error:
        raise BundleError(f"--ids takes whole numbers separated by commas, not {ids!r}") from error
