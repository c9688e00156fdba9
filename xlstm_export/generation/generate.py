"""Generation: the prompt in pieces, then one token at a time on the carried state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from xlstm_export.errors import OptionError
from xlstm_export.generation.continuation import Continuation, End, Limits
from xlstm_export.generation.prompt import Prompt, read_prompts
from xlstm_export.generation.sampling import Sampling
from xlstm_export.generation.text import stop_ids
from xlstm_export.runtime.choice import Choice
from xlstm_export.runtime.session import Array, Session, split_time
from xlstm_export.runtime.states import States
from xlstm_export.runtime.step_batch import StepBatch


class Generation:
    """A prompt that is being continued: iterate once, for text as it is made.

    ``generate`` makes it; ``session`` is the one that runs. Without a tokenizer the
    text is ids with spaces between. ``ids`` are the new ids so far, a stop id included; ``text``
    is what iterating has yielded.
    """

    def __init__(
        self, session: Session, made: Continuation, pieces: Callable[[], Iterator[str]]
    ) -> None:
        self.session = session
        self.begin = made.prompt.begin
        """The id of the beginning that the prompt was made to start with; None: it was left so."""
        self.prompt = made.prompt.ids
        """Ids, that of the beginning included where one was put in front."""
        self.has_text = made.prompt.codec is not None
        self.unknown = made.prompt.unknown
        """Ids of the prompt that stand for what the tokenizer does not know."""
        self._made = made
        self._pieces = pieces()

    @property
    def ids(self) -> list[int]:
        """New ids so far, a stop id included."""
        return self._made.ids

    @property
    def text(self) -> str:
        """The text so far; it ends before a stop string."""
        return self._made.text

    @property
    def end(self) -> End | None:
        """ "length" or "stop"; None while it goes on."""
        return self._made.end

    def __iter__(self) -> Iterator[str]:
        return self._pieces


def start_generation(
    session: Session,
    prompt: str | Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    bos: bool | None = None,
    stop: Sequence[str] = (),
) -> Generation:
    """``prompt`` in ``session``. Raises as ``read_prompts`` and ``Continuation`` do."""
    (read,) = read_prompts(session, [prompt], bos)
    limits = Limits(max_new_tokens, stop_ids(session.bundle), tuple(stop))
    made = Continuation(read, limits, sampling)
    return Generation(session, made, lambda: continue_alone(session, made))


def generate_together(
    session: Session,
    prompts: Sequence[str | Sequence[int]],
    max_new_tokens: int,
    samplings: Sequence[Sampling],
    batch_size: int,
    bos: bool | None = None,
    stop: Sequence[str] = (),
) -> list[Generation]:
    """Every prompt to its end, ``batch_size`` of them at a time. Raises as ``start_generation``."""
    if batch_size < 1:
        raise OptionError("batch_size", f"{batch_size} is not 1 or more")
    limits = Limits(max_new_tokens, stop_ids(session.bundle), tuple(stop))
    several = [
        Continuation(prompt, limits, sampling)
        for prompt, sampling in zip(read_prompts(session, prompts, bos), samplings, strict=True)
    ]
    continue_together(session, several, batch_size)
    return [Generation(session, made, lambda text=made.text: iter([text])) for made in several]  # type: ignore[misc]


def continue_alone(session: Session, made: Continuation) -> Iterator[str]:
    """Text as it is made; a token is computed no earlier than it is asked for."""
    states: Mapping[str, Array] | None = None
    for part in split_time(np.asarray([made.prompt.ids], np.int64), session.most_steps):
        found, states = _read(session, part, states, made.is_greedy)
    while True:
        yield made.take(found)
        if made.end is not None:
            return
        found, states = _read(session, np.asarray([[made.ids[-1]]]), states, made.is_greedy)


def _read(
    session: Session, ids: Array, states: Mapping[str, Array] | None, greedy: bool
) -> tuple[Array | Choice, States]:
    """After ``ids`` [1,T]: the likeliest next token where ``greedy``, else logits [vocab]."""
    feeds = {session.manifest.inputs[0].name: ids}
    if greedy:
        (choice,), after = session.choose(feeds, states)
        return choice, after
    outputs, after = session.run(feeds, states, last=True)
    return outputs[session.manifest.outputs[0].name][0, -1], after


def continue_together(session: Session, several: Sequence[Continuation], rows: int) -> None:
    """Every one of ``several`` to its end, ``rows`` at a time; who ends makes room."""
    batch, waiting = StepBatch(session, rows), list(reversed(several))
    there: dict[int, Continuation] = {}
    while waiting or there:
        while waiting and len(batch) < rows:
            made = waiting.pop()
            there[batch.join(made.prompt.ids)] = made
        tokens = {row: there[row].ids[-1] for row in batch.rows}
        for row, found in advance(batch, tokens, there.values()).items():
            there[row].take(found)
            if there[row].end is not None:
                batch.leave(row)
                del there[row]


def advance(
    batch: StepBatch, tokens: Mapping[int, int], several: Iterable[Continuation]
) -> Mapping[int, Array | Choice]:
    """One step of ``batch``: logits only where one of ``several`` needs them."""
    greedy = all(made.is_greedy for made in several)
    return batch.choose(tokens) if greedy else batch.step(tokens)


def generate_ids(
    session: Session,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[int] = (),
) -> Iterator[int]:
    """Continue ``prompt`` (at least one id); yields ids as they are chosen, a stop id last."""
    limits = Limits(max_new_tokens, tuple(stop))
    made = Continuation(Prompt(tuple(prompt), None, None), limits, sampling)
    return (made.ids[-1] for _ in continue_alone(session, made))
