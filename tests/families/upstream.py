"""The oracle of a checkpoint on disk, fed with its one input and asked for its one output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xlstm_export.checkpoint.source import Source
from xlstm_export.families.family import Family
from xlstm_export.families.oracle import FloatArray, Oracle
from xlstm_export.model.storage import Storage


class Upstream(NamedTuple):
    """An oracle, and the names of what it takes and yields."""

    oracle: Oracle
    input: str
    output: str

    def run(
        self, inputs: npt.NDArray[np.generic], states: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> tuple[FloatArray, Mapping[str, FloatArray]]:
        """Output and states of ``inputs`` [B,T] or [B,T,D]."""
        outputs, after = self.oracle.run({self.input: inputs}, states)
        assert list(outputs) == [self.output]
        return outputs[self.output], after


def upstream(family: Family, source: Source, dtype: str = "float64") -> Upstream:
    """The oracle of ``source`` on the numbers that a bundle of ``dtype`` keeps."""
    checkpoint = family.read(source)
    spec = checkpoint.spec
    oracle = family.oracle(checkpoint, Storage(dtype))
    return Upstream(oracle, spec.inputs[0].name, spec.outputs[0].name)
