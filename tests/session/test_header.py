"""``xlstm/session.hpp`` in a program of its own, beside Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, VOCABULARY, Library
from tests.session.c_session import BUNDLE, INPUT, runtime_library
from xlstm_export.generation.forecast import forecast_series
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.states import States

SOURCE = Path(__file__).with_name("use_header.cpp")
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_program_gets_what_python_gets(library: Library, tmp_path: Path, compiler: str) -> None:
    package = xe.cmake_dir().parent
    program, saved = tmp_path / "program", tmp_path / "states"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{package / 'include'}"]
    link = [f"-L{package / 'lib'}", "-lxlstm_session", f"-Wl,-rpath,{package / 'lib'}"]
    subprocess.run([*command, SOURCE, "-o", program, *link], check=True)
    bundle, forecaster = (library.bundle(BY_ID[case]) for case in ("stack-mixed", "tirex-small"))
    done = subprocess.run(
        [program, runtime_library(), bundle, forecaster, saved],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    errors = []
    for name, _, rest in (line.partition(" ") for line in done.stdout.splitlines()):
        errors += [rest] if name == "error" else []
        found[name] = rest.split()

    session = OrtSession(bundle, threads=1)
    outputs, states = session.run({"input_ids": np.array([[3, 1, 4], [1, 5, 9]])})
    assert np.array_equal(np.array(found["logits"], np.float32), outputs["logits"].ravel())
    kept = States.load(saved, session.manifest)
    for key, array in states.items():
        assert np.array_equal(kept[key], np.stack([array[1], np.zeros_like(array[0])]))
    joined, _ = session.run({"input_ids": np.array([[1], [2]])}, kept)
    assert np.array_equal(np.array(found["joined"], np.float32), joined["logits"].ravel())
    keys = list(states)
    assert found["states"] == ["2", str(kept.nbytes), str(len(keys)), keys[0]]
    first = list(generate_ids(session, [3, 1, 4], 4, Sampling()))
    # the last id chosen was not read: here another one is, in its place
    more = list(generate_ids(session, [3, 1, 4, *first[:-1], 1], 4, Sampling()))
    # of the tempered draw a top_p of 0 leaves the likeliest id
    assert [int(word) for word in found["ids"]] == first + more + first
    assert found["input"] == ["input_ids", "2"]
    assert found["sizes"] == [str(VOCABULARY), "1", str(len(keys))]
    told = (
        f"{INPUT} states: of 1 rows, where this batch has 2",
        f"{INPUT} input_ids: is given twice",
        "own mine",
        *[f"{INPUT} states: used after it was moved from"] * 5,
        f"{INPUT} outputs: used after it was moved from",
        f"{INPUT} session: used after it was moved from",
        f"{INPUT} nothing: no output of this bundle",
        f"{INPUT} logits: holds elements of another type",
        f"{BUNDLE} /nowhere: no such folder; make a bundle with: xlstm-export export",
    )
    assert tuple(errors) == told
    series = np.arange(1, 7, dtype=np.float32)
    expected = forecast_series(OrtSession(forecaster, threads=1), series, 2).quantiles.ravel()
    assert np.array_equal(np.array(found["quantiles"], np.float32), expected)
