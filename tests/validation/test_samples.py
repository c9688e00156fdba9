"""A checkpoint's bundle against numbers recorded where it was trained, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from xlstm_export_cli.app import app

import xlstm_export as xe
from tests.families.block_stack_checkpoints import edit_config, make_block_stack
from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.validation.samples import read_samples

BATCH, STEPS = 2, 5
NAMES = {"input_names": ["input_ids"], "output_names": ["logits"]}


@pytest.mark.parametrize(
    ("case", "logits", "shape", "wanted"),
    [
        ("stack-mixed", "all", (BATCH, STEPS, 199), None),
        ("stack-mixed", "all", (BATCH, 1, 199), "[2, 5, 199]"),
        ("stack-mixed", "all", (BATCH, STEPS, 200), "[2, 5, 199]"),
        ("stack-mixed", "last", (BATCH, STEPS, 199), None),
        ("stack-mixed", "last", (BATCH, 1, 199), None),
        ("stack-mixed", "last", (BATCH, 3, 199), "[2, 1, 199]"),
        ("stack-mixed", "all", (BATCH, 199), "[2, 5, 199]"),
    ],
)
def test_shapes_are_looked_at_before_anything_runs(
    library: Library, tmp_path: Path, case: str, logits: str, shape: tuple[int, ...],
    wanted: str | None,
) -> None:  # fmt: skip
    manifest = read_manifest(library.bundle(BY_ID[case], logits=logits))
    path = tmp_path / "samples.npz"
    np.savez(path, input_ids=np.ones((BATCH, STEPS), np.int64), logits=np.zeros(shape))
    if wanted is None:
        assert read_samples(path, manifest)[0].outputs["logits"].shape == shape
        return
    told = f"logits was recorded as {list(shape)}, the bundle yields {wanted}"
    with pytest.raises(xe.InputError, match=re.escape(told)):
        read_samples(path, manifest)


@pytest.mark.parametrize("logits", ["all", "last"])
def test_a_configuration_that_fits_and_is_wrong(tmp_path: Path, logits: str) -> None:
    """The same shapes, another model: only what was recorded shows it."""
    source, module = make_block_stack(tmp_path / "source", num_blocks=2, slstm_at=[1])
    ids = torch.randint(0, 11, (2, 24), generator=torch.Generator().manual_seed(4))
    samples = xe.record_samples(module.eval(), ids, tmp_path / "samples.npz", **NAMES)
    verdicts = {}
    for is_wrong in (False, True):
        if is_wrong:
            edit_config(source, slstm_block__feedforward__act_fn="relu")
        out = tmp_path / f"out_{is_wrong}"
        xe.export(source.path, out, logits=logits)
        call = ["validate", str(out), "--reference", str(source.path), "--json", "--threads", "1"]
        alone = json.loads(CliRunner().invoke(app, call).stdout)
        found = CliRunner().invoke(app, [*call, "--samples", str(samples)])
        verdicts[is_wrong] = (alone["verdict"], json.loads(found.stdout)["verdict"])
        assert found.exit_code == int(is_wrong)
    assert verdicts == {False: ("validated", "validated"), True: ("validated", "failed")}
