"""Generation: the prompt in pieces, then one token at a time on the carried state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlstm_export.errors import BundleError
from xlstm_export.runtime.ort import PIECE, OrtSession
from xlstm_export.runtime.session import Array, Session, pieces
from xlstm_export.runtime.text import TextCodec, open_codec, stop_ids


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
    states: dict[str, Array] | None = None
    for piece in pieces(np.asarray([prompt], np.int64), longest_piece):
        logits, states = session.run(piece, states)
    for made in range(1, max_new_tokens + 1):
        token = choose(logits[0, -1], sampling, random)
        yield token
        if token in stop or made == max_new_tokens:
            return
        logits, states = session.run(np.asarray([[token]], np.int64), states)


def choose(logits: Array, sampling: Sampling, random: np.random.Generator) -> int:
    """One id from ``logits`` [vocab]: arg max, or a draw from the tempered, cut distribution."""
    if sampling.temperature <= 0:
        return int(np.argmax(logits))
    scores = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scores, kind="stable")
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    weights = np.exp(scores[order] - scores[order[0]])
    weights /= weights.sum()
    # the smallest set whose probability reaches top_p; the most likely token always stays
    kept = max(1, int(np.searchsorted(np.cumsum(weights), sampling.top_p)) + 1)
    weights = weights[:kept] / weights[:kept].sum()
    return int(random.choice(order[:kept], p=weights))


@dataclass(frozen=True)
class Generation:
    """A bundle with a prompt, ready to generate."""

    session: OrtSession
    prompt: tuple[int, ...]
    codec: TextCodec | None
    stop: tuple[int, ...]

    def tokens(self, max_new_tokens: int, sampling: Sampling) -> Iterator[int]:
        """New ids as they are chosen."""
        return generate(self.session, self.prompt, max_new_tokens, sampling, self.stop)

    def render(self, ids: Sequence[int]) -> str:
        """New ids as text, or as numbers where the bundle has no tokenizer."""
        return " ".join(map(str, ids)) if self.codec is None else self.codec.decode(ids)


def open_generation(bundle: Path, text: str, ids: str, threads: int | None) -> Generation:
    """Open ``bundle`` on a prompt: ``text`` through its tokenizer, or comma-separated ``ids``.

    Raises BundleError when the bundle is no language model or the prompt does not fit it.
    """
    session = OrtSession(bundle, threads=threads)
    vocabulary = session.manifest.outputs[0].shape[-1]
    if not session.manifest.is_language_model or not isinstance(vocabulary, int):
        raise BundleError(
            f"{bundle}: takes embeddings, not tokens, so it cannot generate; "
            "feed model.onnx from your own program"
        )
    codec = None if ids else open_codec(bundle)
    if not ids and codec is None:
        raise BundleError(f"{bundle}: no tokenizer.json; give token ids with --ids 1,2,3")
    prompt = _parse_ids(ids) if codec is None else codec.encode(text)
    if not prompt:
        raise BundleError("the prompt is empty; give text with --prompt or ids with --ids")
    wrong = [i for i in prompt if not 0 <= i < vocabulary]
    if wrong:
        raise BundleError(f"token id {wrong[0]} is outside the vocabulary of {vocabulary}")
    return Generation(session, tuple(prompt), codec, stop_ids(bundle))


def _parse_ids(ids: str) -> list[int]:
    try:
        return [int(part) for part in ids.replace(" ", ",").split(",") if part]
    except ValueError as error:
        raise BundleError(f"--ids takes whole numbers separated by commas, not {ids!r}") from error
