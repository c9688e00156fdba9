"""Where native libraries are looked for, and libraries that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import xlstm_export
from tests.native_libraries import StandIn, build
from xlstm_export import native
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.native import (
    FOLDER_VARIABLE,
    c_library_path,
    load_ort_library,
    ort_library_path,
)

PATHS = [(ort_library_path, "libxlstm_ort.so"), (c_library_path, "libxlstm_c.so")]


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it were installed in a folder of its own, without libraries."""
    folder = tmp_path / "xlstm_export"
    folder.mkdir()
    monkeypatch.setattr(native, "__file__", str(folder / "native.py"))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    return folder


@pytest.mark.parametrize(("path_of", "name"), PATHS)
def test_libraries_lie_beside_the_package(
    package: Path, path_of: Callable[[], Path | None], name: str
) -> None:
    assert path_of() is None
    (package / "lib").mkdir()
    (package / "lib" / name).touch()
    assert path_of() == package / "lib" / name


@pytest.mark.parametrize(("path_of", "name"), PATHS)
def test_the_variable_names_another_folder(
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path_of: Callable[[], Path | None],
    name: str,
) -> None:
    (package / "lib").mkdir()
    (package / "lib" / name).touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(BackendUnavailableError, match=f"{FOLDER_VARIABLE}={tmp_path}: has no"):
        path_of()
    (tmp_path / name).touch()
    assert path_of() == tmp_path / name
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert path_of() == package / "lib" / name


def test_no_library_is_no_error() -> None:
    assert load_ort_library() is None


def test_the_package_hands_out_the_path() -> None:
    assert xlstm_export.ort_library_path is ort_library_path
    with pytest.raises(AttributeError, match="ort_library"):
        _ = xlstm_export.ort_library  # type: ignore[attr-defined]


def test_a_library_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    library = load_ort_library()
    assert library is not None
    assert library.path == path
    assert str(library) == f"native CPU kernels (avx2), libxlstm_ort {xlstm_export.__version__}"


@pytest.mark.parametrize(
    ("stand_in", "reason"),
    [
        (None, "cannot be loaded"),
        (StandIn(says_what_it_is=False), "no library of xlstm-export"),
        (StandIn(version="0.0.1"), "version 0.0.1, where xlstm-export is"),
    ],
    ids=["another machine's", "another project's", "another version's"],
)
def test_a_library_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn | None, reason: str
) -> None:
    if stand_in is None:
        (tmp_path / "libxlstm_ort.so").write_bytes(b"\x7fELF of another machine")
    else:
        build(tmp_path, stand_in)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(BackendUnavailableError) as error:
        load_ort_library()
    for words in (str(tmp_path / "libxlstm_ort.so"), reason, "make wheel", "--no-native"):
        assert words in str(error.value)
