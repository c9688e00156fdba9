"""A copy of a bundle with one fault in it, to try a validation on: docs/validation/peers.md.

python -m benchmarks.plant_fault BUNDLE OUT state-not-carried|stale-projection
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir

_NOISE = 0.02
"""Of the standard deviation of the weights: a checkpoint a few steps older."""


def lose_state(model: ir.Model) -> str:
    """The first mLSTM hands back its memory as it came in; returns the state's name."""
    node = next(n for n in model.graph if n.op_type == "XlstmMLSTM")
    past, present = node.inputs[5], node.outputs[1]
    assert past is not None
    place = list(model.graph.outputs).index(present)
    kept = ir.node("Identity", [past])
    name, present.name = present.name, f"{present.name}/lost"
    kept.outputs[0].name, kept.outputs[0].type = name, present.type
    kept.outputs[0].shape = present.shape
    model.graph.append(kept)
    model.graph.outputs[place] = kept.outputs[0]
    return str(name)


def age_projection(model: ir.Model) -> str:
    """The first output projection of an mLSTM is a little off; returns its name."""
    weights = model.graph.initializers
    name = next(name for name in weights if name.endswith("mlstm/out.weight"))
    tensor = weights[name].const_value
    assert tensor is not None
    matrix, random = tensor.numpy(), np.random.default_rng(0)
    noise = _NOISE * matrix.std() * random.standard_normal(matrix.shape)
    weights[name].const_value = ir.tensor((matrix + noise).astype(matrix.dtype))
    return name


FAULTS = {"state-not-carried": lose_state, "stale-projection": age_projection}


def plant(bundle: Path, out: Path, fault: str) -> str:
    """Copy ``bundle`` to ``out`` with ``fault`` in it; returns the name of what is wrong."""
    shutil.copytree(bundle, out, ignore=shutil.ignore_patterns("reports"))
    model = ir.load(out / "model.onnx")
    name = FAULTS[fault](model)
    ir.save(model, out / "model.onnx")
    return name


def main() -> None:
    """Plant it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("fault", choices=FAULTS)
    given = parser.parse_args()
    print(f"{given.out}: {plant(given.bundle, given.out, given.fault)} is wrong")


if __name__ == "__main__":
    main()
