"""Vision-LSTMs of the published sizes against torch on the CPU: images to logits.

python -m benchmarks.bench_images [tiny] [tiny1] [small] [--quick] [--threads N] [--work DIR]
                                  [--json F] [--check]

The peer is upstream's module where it can be imported (PYTHONPATH), else the one that validate
assembles from the xlstm package, whose parts it is made of; in float32 and inference mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Contender, compare
from benchmarks.model_run import Plan, Result, export, measure_parts, open_bodies, open_native
from benchmarks.upstream import difference
from tests.families.vil_checkpoints import make_vil
from xlstm_export.checkpoint.source import Source
from xlstm_export.families import vil
from xlstm_export.families.vil.oracle import build
from xlstm_export.model.storage import Storage
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"version": 2, "size": 192, "blocks": 24},
    "tiny1": {"version": 1, "size": 192, "blocks": 24},
    "small": {"version": 2, "size": 384, "blocks": 24},
}
"""ViL2-T, ViL-T and ViL2-S, of patches of 16 in images of 224."""
IMAGES = {"patch": 16, "grid": (14, 14), "classes": 1000}
QUICK = {"size": 32, "blocks": 2}
BATCHES = {1: 15, 16: 5}
"""Images in a call -> turns."""
OURS, STOCK, PEER = 0, 1, 2
LEAST = {1: 1.5, 16: 1.5}
"""How many times as fast as the peer native kernels are to be."""


class TorchModel:
    """The float64 module of ``validate``, in float32."""

    def __init__(self, source: Source) -> None:
        oracle = build(vil.read(source), Storage("float32"))
        self.name = f"torch, {oracle.name.partition(',')[0]}"
        self._module = oracle.module.float()

    @torch.inference_mode()
    def run(self, images: Array) -> Array:
        """Logits [B, classes] of images [B,C,H,W]."""
        logits: Array = self._module(torch.from_numpy(images)).numpy()
        return logits


def bench(part: str, plan: Plan, result: Result) -> None:
    """Each batch size of the model ``part``."""
    sizes = {**SIZES[part], **IMAGES, **(QUICK if plan.quick else {})}
    source = make_vil(plan.work / f"vil-{part}-{sizes['size']}", **sizes)
    bundle, peer = export(source, plan), TorchModel(source)
    sessions = [open_native(bundle, plan), open_bodies(bundle, plan)]
    shape = sessions[OURS].manifest.inputs[0].shape[1:]
    for batch, turns in BATCHES.items():
        images = np.random.default_rng(0).standard_normal((batch, *shape), np.float32)
        sides = _sides(sessions, peer, images)
        what = f"{part}: batch {batch}"
        measured = compare(what, sides, turns=plan.turns(turns))
        result.comparisons.append(measured)
        result.faster(measured, OURS, PEER, LEAST[batch])


def _sides(sessions: list[OrtSession], peer: TorchModel, images: Array) -> list[Contender]:
    """Native kernels, function bodies and torch, each on all of ``images``."""

    def session_run(session: OrtSession) -> Callable[[], Array]:
        return lambda: session.run({"pixel_values": images})[0]["logits"]

    runs = [*map(session_run, sessions), lambda: peer.run(images)]
    ours = runs[OURS]()
    names = ("native kernels", "function bodies", peer.name)
    return [
        Contender(name, run, None if run is runs[OURS] else difference(ours, run()))
        for name, run in zip(names, runs, strict=True)
    ]


def main() -> None:
    """Measure the chosen models, print, and say whether the bars hold."""
    measure_parts(__doc__, SIZES, bench, quick="small models, few turns: a try-out")


if __name__ == "__main__":
    main()
