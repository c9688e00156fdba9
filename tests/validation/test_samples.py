"""A checkpoint's bundle against numbers recorded where it was trained, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from xlstm_export_cli.app import app

import xlstm_export as xe
from tests.families.block_stack_checkpoints import edit_config, make_block_stack

NAMES = {"input_names": ["input_ids"], "output_names": ["logits"]}


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
