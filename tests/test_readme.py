"""The README's Python, word for word, on a small bundle in place of out/model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.runtime.ort import OrtSession

ROOT = Path(__file__).resolve().parents[1]
PIECES = ([[3, 1, 4, 1, 5]], [[9]], [[2]])
AT_THE_END = """
np.save("logits.npy", logits)
print("libxlstm_ort.so" in open("/proc/self/maps").read())
"""


def snippets() -> list[str]:
    """The example, and what native kernels add to it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("native", [False, True])
def test_the_example_runs_as_written(library: Library, tmp_path: Path, native: bool) -> None:
    """The last step's logits are ours, by kernels or bodies; ONNX Runtime prints nothing."""
    example, addition = snippets()
    bundle = library.bundle(BY_ID["hf-plain"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").symlink_to(bundle)
    start, loop, end = example.partition("for piece in")
    assert loop
    program = [start, addition, loop + end] if native else [example]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*program, AT_THE_END])],
        cwd=tmp_path, env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{native}\n", "")
    session, state = OrtSession(bundle, threads=1, native=native), None
    for piece in PIECES:
        logits, state = session.run(np.array(piece), state)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=1e-4, atol=1e-5)
