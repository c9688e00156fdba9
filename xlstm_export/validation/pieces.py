"""An engine that is built for shorter calls than a comparison makes: it gets them in pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import LENGTHS
from xlstm_export.runtime.choice import Choice
from xlstm_export.runtime.feeds import has_time
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.states import States


class InPieces:
    """``session``, whose calls may be of any length: it goes on from the states of each piece.

    What has rows of different lengths is given as it is. The rest is as in ``Session``.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.bundle, self.manifest, self.name = session.bundle, session.manifest, session.name
        self.most_steps = session.most_steps

    def run(
        self,
        feeds: Mapping[str, Array],
        states: Mapping[str, Array] | None = None,
        *,
        last: bool = False,
    ) -> tuple[Mapping[str, Array], States]:
        """As ``Session.run``."""
        name, parts = self.manifest.inputs[0].name, list[Mapping[str, Array]]()
        steps, most = feeds[name].shape[1], self.most_steps
        if steps <= most or LENGTHS in feeds:
            return self._session.run(feeds, states, last=last)
        after: States | None = None
        for start in range(0, steps, most):
            piece = {name: feeds[name][:, start : start + most]}
            outputs, after = self._session.run(piece, states if after is None else after, last=last)
            parts.append(outputs)
        assert after is not None
        whole: dict[str, Any] = dict(parts[-1])
        for tensor in self.manifest.outputs:
            if has_time(tensor) and not last:
                whole[tensor.name] = np.concatenate([part[tensor.name] for part in parts], axis=1)
        return whole, after

    def choose(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[Sequence[Choice], States]:
        """As ``Session.choose``, of a call that is one piece."""
        return self._session.choose(feeds, states)

    def describe(self) -> dict[str, str]:
        """As ``Session.describe``."""
        return self._session.describe()

    def close(self) -> None:
        """As ``Session.close``."""
        self._session.close()
