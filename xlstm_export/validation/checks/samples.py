"""A bundle against numbers that were recorded elsewhere, by the rule of every tensor.

What was recorded has a rounding error of its own, as large as that of PyTorch in the precision it
was computed in. The allowance is the rule's for the bundle's precision: numbers recorded in float32
fit it, numbers of a lower precision do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import InputError
from xlstm_export.runtime.session import Runner
from xlstm_export.validation.result import RECORDED
from xlstm_export.validation.samples import Sample
from xlstm_export.validation.tally import Tally, TensorResult


def compare_samples(
    subject: Runner, float64: Runner, baselines: Sequence[Runner], samples: Sequence[Sample],
    manifest: Manifest, notes: list[str],
) -> list[TensorResult]:  # fmt: skip
    """One result for each output that was recorded, named ``recorded {name}``; a note of them."""
    if samples:
        notes.append(_in_words(samples))
    tallies: dict[str, Tally] = {}
    for sample in samples:
        found = [runner.run(sample.inputs)[0] for runner in (subject, float64, *baselines)]
        for name, recorded in sample.outputs.items():
            tensors = [recorded, *(outputs[name] for outputs in found)]
            if manifest.logits == "last":
                tensors = [tensor[:, -1:] for tensor in tensors]
            recorded, got, *others = tensors
            if got.shape != recorded.shape:
                raise InputError(
                    f"samples: {name} was recorded as {list(recorded.shape)}, the bundle yields "
                    f"{list(got.shape)}"
                )
            tally = tallies.setdefault(name, Tally(is_logits=name == "logits"))
            tally.add([got, recorded, *others])
    dtype = manifest.dtype
    return [tally.result(RECORDED + name, "output", dtype) for name, tally in tallies.items()]


def _in_words(samples: Sequence[Sample]) -> str:
    """What took part, for the report."""
    outputs = sorted({name for sample in samples for name in sample.outputs})
    numbers = sum(int(np.prod(x.shape)) for sample in samples for x in sample.outputs.values())
    several = f"{len(samples)} samples" if len(samples) > 1 else "one sample"
    return (
        f"{several} recorded elsewhere took part: {numbers} numbers of {', '.join(outputs)}, "
        "compared with what the bundle computes from the same inputs"
    )
