"""Generation: the prompt in pieces, then one token at a time on the carried state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xlstm_export.errors import BundleError, InputError, OptionError
from xlstm_export.generation.text import (
    NumberStream,
    TextCodec,
    TextStream,
    begin_id,
    open_codec,
    stop_ids,
)
from xlstm_export.runtime.feeds import check_ids
from xlstm_export.runtime.session import Array, Session, split_time


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 and top_p 1 keep every token."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise OptionError("temperature", f"{self.temperature} is not 0 or more")
        if not 0 <= self.top_p <= 1:
            raise OptionError("top_p", f"{self.top_p} is not between 0 and 1")
        for name in ("top_k", "seed"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name)} is not 0 or more")


def generate_ids(
    session: Session,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[int] = (),
) -> Iterator[int]:
    """Continue ``prompt`` (at least one id); yields ids as they are chosen, a stop id last."""
    random = np.random.default_rng(sampling.seed)
    name, output = session.manifest.inputs[0].name, session.manifest.outputs[0].name
    states: Mapping[str, Array] | None = None
    for part in split_time(np.asarray([prompt], np.int64), session.most_steps):
        outputs, states = session.run({name: part}, states)
        last = outputs[output][0, -1].copy()
        del outputs  # before those of the next part are made
    for made in range(1, max_new_tokens + 1):
        token = choose(last, sampling, random)
        yield token
        if token in stop or made == max_new_tokens:
            return
        outputs, states = session.run({name: np.asarray([[token]], np.int64)}, states)
        last = outputs[output][0, -1]


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


class Generation:
    """A prompt that is being continued: iterate once, for text as it is made.

    ``generate`` makes it; ``session`` is the one that runs. Without a tokenizer the
    text is ids with spaces between. ``ids`` are the new ids so far, a stop id included; ``text``
    is what iterating has yielded.
    """

    def __init__(
        self,
        session: Session,
        prompt: tuple[int, ...],
        codec: TextCodec | None,
        tokens: Iterator[int],
        stop: tuple[int, ...],
        begin: tuple[int, ...] = (),
    ) -> None:
        self.session = session
        self.begin = begin[0] if begin else None
        """The id of the beginning that the prompt was made to start with; None: it was left so."""
        self.prompt = prompt
        """Ids, that of the beginning included where one was put in front."""
        self.has_text = codec is not None
        self.unknown = codec.count_unknown(prompt) if codec else 0
        """Ids of the prompt that stand for what the tokenizer does not know."""
        self.ids: list[int] = []
        self.text = ""
        self._tokens = tokens
        self._stream = NumberStream() if codec is None else TextStream(codec, prompt, stop)

    def __iter__(self) -> Iterator[str]:
        for token in self._tokens:
            self.ids.append(token)
            yield self._shown(self._stream.push(token))
        yield self._shown(self._stream.finish())

    def _shown(self, piece: str) -> str:
        self.text += piece
        return piece


def start_generation(
    session: Session,
    prompt: str | Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    bos: bool | None = None,
) -> Generation:
    """``prompt`` in ``session``: text through the bundle's tokenizer, or ids.

    Raises BundleError when the bundle is no language model or has no tokenizer for a text,
    InputError where the prompt does not fit it.
    """
    bundle, manifest = session.bundle, session.manifest
    if not manifest.is_language_model:
        takes, yields = manifest.inputs[0].name, manifest.outputs[0].name
        cure = f'xlstm_export.open(BUNDLE).run({{"{takes}": array}}) gives them'
        if takes == "inputs_embeds":
            cure = "run it with --inputs-embeds FILE.npy --output FILE.npy"
        if manifest.forecast is not None:
            cure = "run it with --csv FILE --horizon N"
        raise BundleError(
            f"{bundle}: takes {takes} and yields {yields}: it generates no text; {cure}"
        )
    codec = open_codec(bundle, bos) if isinstance(prompt, str) else None
    begin: tuple[int, ...] = ()
    if not isinstance(prompt, str):
        begin = begin_id(bundle) if bos else ()
        ids = (*begin, *_ids(prompt))
    elif codec is not None:
        begin = codec.first
        ids = tuple(codec.encode(prompt))
    else:
        raise BundleError(f"{bundle}: no tokenizer.json; give token ids (--ids 1,2,3)")
    if not ids:
        raise InputError("the prompt is empty; give text (--prompt) or ids (--ids)")
    check_ids("prompt", np.asarray(ids), manifest)
    stop = stop_ids(bundle)
    tokens = generate_ids(session, ids, max_new_tokens, sampling, stop)
    return Generation(session, ids, codec, tokens, stop, begin)


def _ids(prompt: Sequence[int]) -> list[int]:
    try:
        numbers = np.asarray(prompt)
    except ValueError:  # lists of different lengths in it
        numbers = np.asarray(None)
    if numbers.size and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
        raise InputError("the prompt: give text, or a list of token ids (whole numbers)")
    return [int(number) for number in numbers]
