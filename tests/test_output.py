"""Folders and files that appear all at once, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from xlstm_export.errors import TargetError
from xlstm_export.output import check_target, new_file, new_folder, write_text


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    with new_folder(out) as work:
        fill(work, "old")
    return out


def fill(folder: Path, text: str) -> None:
    (folder / "xlstm_export.json").write_text("{}")
    (folder / "text").write_text(text)


def write_in_vain(out: Path, error: BaseException, overwrite: bool = False) -> None:
    """Fail with ``error`` after something was written."""
    with new_folder(out, overwrite) as work:
        fill(work, "new")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "down" / "out"
    with new_folder(out) as work:
        assert work.parent == out.parent  # a rename never crosses file systems
        assert work.name.startswith(".out.")
        (work / "text").write_text("new")
        assert not out.exists()
    assert names(out) == ["text"]
    assert names(out.parent) == ["out"]


def test_the_mode_is_that_of_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "any").mkdir()
    with new_folder(tmp_path / "out"):
        pass
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("any", "out")}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(error):
        write_in_vain(tmp_path / "there" / "new" / "out", error())
    assert names(tmp_path) == ["there"]
    assert names(tmp_path / "there") == []


def test_parents_that_others_use_stay(tmp_path: Path) -> None:
    def write_beside() -> None:
        with new_folder(tmp_path / "new" / "out"):
            (tmp_path / "new" / "other").mkdir()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        write_beside()
    assert names(tmp_path / "new") == ["other"]


def test_operating_system_errors_name_the_target(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TargetError, match=r"out: cannot be written \(No such file or directory\)"):
        with new_folder(out) as work:
            (work / "absent" / "file").write_text("")
    with pytest.raises(TargetError, match="cannot be written"):
        with new_folder(tmp_path / ("x" * 300)):
            pass
    assert names(tmp_path) == []


def test_existing_targets(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="already exists"):
        check_target(bundle)
    check_target(bundle, overwrite=True)
    check_target(tmp_path / "new", overwrite=True)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", overwrite=True)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(TargetError, match="already exists"):
        check_target(tmp_path / "link")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    with pytest.raises(TargetError, match="holds other files than a bundle"):
        check_target(tmp_path / "photos", overwrite=True)


def test_the_source_is_not_overwritten(bundle: Path) -> None:
    (bundle / "checkpoint").mkdir()
    for source in (bundle, bundle / "checkpoint"):
        with pytest.raises(TargetError, match="holds the source"):
            check_target(bundle, overwrite=True, source=source)
    check_target(bundle, overwrite=True, source=bundle.parent)


def test_overwriting_swaps(bundle: Path) -> None:
    (bundle / "engines").mkdir()
    with new_folder(bundle, overwrite=True) as work:
        fill(work, "new")
        assert (bundle / "text").read_text() == "old"
    assert (bundle / "text").read_text() == "new"
    assert names(bundle) == ["text", "xlstm_export.json"]
    assert names(bundle.parent) == ["out"]


def test_a_failed_overwrite_keeps_the_old(bundle: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        write_in_vain(bundle, ValueError("no"), overwrite=True)
    assert (bundle / "text").read_text() == "old"
    assert names(bundle.parent) == ["out"]


def test_a_failed_second_rename_puts_the_old_back(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_on_new(self: Path, to: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises(TargetError, match="Input/output error"):
        with new_folder(bundle, overwrite=True) as work:
            fill(work, "new")
    assert (bundle / "text").read_text() == "old"
    assert names(bundle.parent) == ["out"]


def test_a_link_is_replaced_and_what_it_points_at_stays(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(bundle)
    with new_folder(link, overwrite=True) as work:
        fill(work, "new")
    assert not link.is_symlink()
    assert (link / "text").read_text() == "new"
    assert (bundle / "text").read_text() == "old"
    assert names(tmp_path) == ["latest", "out"]


def test_two_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write_slowly() -> None:
        with new_folder(out) as slow:
            fill(slow, "slow")
            with new_folder(out) as fast:
                fill(fast, "fast")

    with pytest.raises(TargetError, match="already exists"):
        write_slowly()
    assert (out / "text").read_text() == "fast"
    assert names(tmp_path) == ["out"]


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "x.md"
    write_text(path, "ünï")
    assert path.read_text(encoding="utf-8") == "ünï"

    def write_half() -> None:
        with new_file(path) as work:
            work.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_half()
    assert path.read_text(encoding="utf-8") == "ünï"
    assert names(path.parent) == ["x.md"]


def test_files_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="is a folder"):
        write_text(tmp_path, "")
    with pytest.raises(TargetError, match="cannot be written"):
        write_text(tmp_path / "file" / "x", "")
    with pytest.raises(TargetError, match="cannot be written"):
        write_text(Path("/proc/self/x"), "")
    assert names(tmp_path) == ["file"]


def test_folders_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # the tests may run as root, who may do anything
    with pytest.raises(TargetError, match=r"out: cannot be written \(Permission denied\)"):
        write_in_vain(tmp_path / "out", ValueError())


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A report names its bundle, whose name may be any bytes."""
    write_text(tmp_path / "report.md", os.fsdecode(b"bundle odd\xff"))
    assert (tmp_path / "report.md").read_bytes() == b"bundle odd\xff"
