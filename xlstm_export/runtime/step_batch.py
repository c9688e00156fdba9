"""Continuous batching: rows join with a prompt, step together, and leave, at any time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from xlstm_export.errors import BundleError, InputError
from xlstm_export.runtime.choice import Choice
from xlstm_export.runtime.feeds import check_goes_on, check_ids
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.states import States, check_states

T = TypeVar("T")
_Call = Callable[[Array, States | None], tuple[Sequence[T], States]]
_LEAST_ROWS = 2
"""A product with one row is computed by another routine, which rounds otherwise: a row alone steps
beside an idle one, so that it gets the bits that it would get among many."""


@dataclass
class _Joining:
    """A row whose prompt is not computed to its end."""

    row: int
    rest: Array
    states: States | None


class StepBatch:
    """Rows of one language model that step together: continuous batching.

    ``join`` gives a row its prompt, ``step`` computes one token of every row that has made its
    prompt and one piece of the oldest prompt that has not, ``leave`` ends a row. ``choose`` is a
    step for rows that take the likeliest token. For one thread.

    On the CPU every row gets bit for bit what it gets alone in a StepBatch: prompts are computed
    one by one, rows do not see each other, and ONNX Runtime's products treat two rows and more
    alike. With ``most_rows`` 1 a row is stepped as ``session.run`` does for a batch of one, which
    rounds otherwise. On a GPU, rounding may depend on the number of rows.
    """

    def __init__(self, session: Session, most_rows: int = 64) -> None:
        if not session.manifest.is_language_model:
            raise BundleError(f"{session.bundle}: is no language model, whose rows could step")
        check_goes_on(session.bundle, session.manifest)
        if most_rows < 1:
            raise InputError(f"most_rows: {most_rows} is not 1 or more")
        self.session = session
        self.most_rows = most_rows
        self._input = session.manifest.inputs[0].name
        self._output = session.manifest.outputs[0].name
        self._next = 0
        self._joining: deque[_Joining] = deque()
        self._arrived: dict[int, States] = {}
        self._places: list[int | None] = []
        """The row at each place of ``_states``; None is an idle one."""
        self._states: States | None = None

    def __len__(self) -> int:
        return len(self.rows) + len(self._joining)

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows that have made their prompt: each needs a token to step."""
        return (*(row for row in self._places if row is not None), *self._arrived)

    @property
    def joining(self) -> tuple[int, ...]:
        """Rows whose prompt is not computed to its end, the next one first."""
        return tuple(joining.row for joining in self._joining)

    def join(self, prompt: Sequence[int], states: States | None = None) -> int:
        """A new row that goes on over ``prompt`` from ``states`` of one row (None: from zero).

        Returns its number, which no later row has. Raises InputError where the batch is full, or
        prompt or states do not fit.
        """
        if len(self) >= self.most_rows:
            raise InputError(f"the batch is full: it takes {self.most_rows} rows")
        ids = np.asarray(prompt)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise InputError("the prompt: give one token id or more (whole numbers)")
        check_ids("prompt", ids, self.session.manifest)
        if states is not None and states.batch != 1:
            raise InputError(f"states of {states.batch} rows, where one row joins; take rows([n])")
        if states is not None:
            check_states(self.session.manifest, states, 1)
        row, self._next = self._next, self._next + 1
        self._joining.append(_Joining(row, ids.astype(np.int64), states))
        return row

    def step(self, tokens: Mapping[int, int] | None = None) -> dict[int, Array]:
        """One token more in every row of ``rows``, and one piece of the oldest prompt.

        ``tokens`` has the next token of every row in ``rows``. Returns float32 logits [vocab] by
        row, of those that stepped and of one whose prompt came to its end. Raises InputError.
        Where it raises, nothing has stepped.
        """
        return self._advance(tokens, self._logits)

    def choose(self, tokens: Mapping[int, int] | None = None) -> dict[int, Choice]:
        """As ``step``, with each row's likeliest next token in place of its logits.

        It is chosen where the session computes (``Session.choose``).
        """
        return self._advance(tokens, self._choices)

    def _advance(self, tokens: Mapping[int, int] | None, call: _Call[T]) -> dict[int, T]:
        """As ``step``; ``call`` makes of ids and states what each row is given."""
        given = dict(tokens or {})
        expected = set(self.rows)
        if given.keys() != expected:
            row = min(given.keys() ^ expected)
            what = "has no token; leave() it, or give one" if row in expected else "is not stepping"
            raise InputError(f"row {row} {what}")
        check_ids("tokens", np.array([*given.values()], np.int64), self.session.manifest)
        piece = self._prompt_piece(call) if self._joining else None
        found = self._decode(given, call) if given else {}
        return found | (self._arrive(*piece) if piece else {})

    def leave(self, row: int) -> None:
        """End ``row``, wherever it is. Raises InputError where there is none of that number."""
        if row in self._arrived:
            del self._arrived[row]
        elif row in self._places:
            self._places[self._places.index(row)] = None
        else:
            kept = [joining for joining in self._joining if joining.row != row]
            if len(kept) == len(self._joining):
                raise self._unknown(row)
            self._joining = deque(kept)

    def states(self, row: int) -> States:
        """The states of ``row`` in memory of their own: to keep, or to ``join`` as a fork.

        Raises InputError for a row that is not in ``rows``.
        """
        if row in self._arrived:
            return self._arrived[row].copy()
        if row not in self._places or self._states is None:
            raise self._unknown(row)
        return self._states.rows([self._places.index(row)])

    def _unknown(self, row: int) -> InputError:
        return InputError(f"row {row}: is not in this batch, or its prompt is not computed yet")

    def _prompt_piece(self, call: _Call[T]) -> tuple[Sequence[T], States]:
        """What ``call`` makes of the next piece of the oldest prompt; nothing is changed yet."""
        first = self._joining[0]
        return call(first.rest[None, : self.session.most_steps], first.states)

    def _arrive(self, found: Sequence[T], states: States) -> dict[int, T]:
        """The piece is done; what its row is given where it was the last of the prompt."""
        first = self._joining[0]
        first.states, first.rest = states, first.rest[self.session.most_steps :]
        if first.rest.size:
            return {}
        self._joining.popleft()
        self._arrived[first.row] = states
        return {first.row: found[0]}

    def _decode(self, tokens: Mapping[int, int], call: _Call[T]) -> dict[int, T]:
        self._gather()
        ids = np.array([[0 if row is None else tokens[row]] for row in self._places], np.int64)
        found, self._states = call(ids, self._states)
        return {row: found[at] for at, row in enumerate(self._places) if row is not None}

    def _gather(self) -> None:
        """Bring in who has arrived, close the gaps of who has left; most steps change nothing."""
        least = min(_LEAST_ROWS, self.most_rows)
        kept = [place for place, row in enumerate(self._places) if row is not None]
        size = max(least, len(kept) + len(self._arrived))
        if not self._arrived and len(self._places) == size:
            return
        several = [s for s in (self._states, *self._arrived.values()) if s is not None]
        before = len(self._places)
        arrived = range(before, before + len(self._arrived))
        idle = size - len(kept) - len(self._arrived)
        self._places = [
            *(self._places[place] for place in kept), *self._arrived, *[None] * idle
        ]  # fmt: skip
        indices = np.array([*kept, *arrived, *[-1] * idle], np.int64)
        self._states = several[0].gathered(several[1:], indices)
        self._arrived = {}

    def _logits(self, ids: Array, states: States | None) -> tuple[Sequence[Array], States]:
        """Logits [vocab] of the last step for each row, and the states after it."""
        outputs, after = self.session.run({self._input: ids}, states, last=True)
        return list(np.asarray(outputs[self._output])[:, -1]), after

    def _choices(self, ids: Array, states: States | None) -> tuple[Sequence[Choice], States]:
        """The likeliest token after the last step, and the states after it."""
        return self.session.choose({self._input: ids}, states)
