"""An xLSTMLMModel as a network of one's own, and its checkpoint: one model in two bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch

import xlstm_export as xe
from tests.families.block_stack_checkpoints import make_block_stack
from xlstm_export.ops.catalog import DOMAIN


def test_both_bundles_are_one_model(tmp_path: Path) -> None:
    """Each within the rule of upstream's module, and as near to each other as that allows, from
    carried states too; as many operators and no more products, which is what speed follows from.
    """
    source, module = make_block_stack(tmp_path / "checkpoint")
    ids = torch.randint(0, 11, (2, 20), generator=torch.Generator().manual_seed(0))
    own = xe.export_module(
        module, {"idx": ids}, tmp_path / "own", states=True, output_names=["logits"]
    )
    other = xe.export(source.path, tmp_path / "other")
    report = xe.validate_module(own, module, {"idx": ids}, threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    twin = xe.validate(other, source.path, threads=1)
    assert twin.verdict == "validated", twin.in_order()[0]
    allowed = sum(
        r.judgement.max_allowed for found in (report, twin) for r in found.results
        if r.name == "logits"
    )  # fmt: skip
    sessions, states = [xe.open(bundle, threads=1) for bundle in (own, other)], [None, None]
    for start, end in ((0, 12), (12, 13), (13, 20)):
        part, found = ids[:, start:end].numpy(), []
        for at, (session, name) in enumerate(zip(sessions, ("idx", "input_ids"), strict=True)):
            outputs, states[at] = session.run({name: part}, states[at])  # type: ignore[call-overload]
            found.append(outputs["logits"])
        assert np.abs(found[0] - found[1]).max() <= allowed
    graphs = [onnx.load(str(bundle.model_path)).graph for bundle in (own, other)]
    operators = [sorted(n.op_type for n in g.node if n.domain == DOMAIN) for g in graphs]
    assert operators[0] == operators[1]
    products = [sum(n.op_type in ("MatMul", "Gemm") for n in g.node) for g in graphs]
    assert products[0] <= products[1]
