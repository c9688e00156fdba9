"""The zip archive of ``torch.save``: its table first, then what the table is believed."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  gives numpy the names bfloat16 and float8_*
import numpy as np

from xlstm_export.errors import CheckpointError
from xlstm_export.model.weights import Array

ZIP_MAGIC = b"PK\x03\x04"

_PICKLE = "data.pkl"
_MOST_PICKLE_BYTES = 1 << 28
"""Of the values beside the tensors, which are read at once; a 7B checkpoint has some 10^5."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip member: its magic, and the lengths of the name and the extra field that follow."""


@dataclass(frozen=True)
class _Member:
    offset: int
    """Of its content in the file."""
    size: int


class TorchArchive:
    """Members by name, none of which is larger than what the file has of it."""

    def __init__(self, path: Path) -> None:
        """Read the table. Raises CheckpointError where it is damaged, or no archive of torch."""
        self.path = path
        self.size = path.stat().st_size
        try:
            with path.open("rb") as file:
                with zipfile.ZipFile(file) as archive:
                    infos = archive.infolist()
                self._check_table(infos)
                members = {info.filename: self._member(file, info) for info in infos}
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # zipfile raises whatever a damaged table leads to
            raise self.damaged(error) from error
        roots = [n.removesuffix(_PICKLE) for n in members if n.rpartition("/")[2] == _PICKLE]
        if len(roots) != 1:
            raise self.damaged("a zip archive without data.pkl")
        root = roots[0]
        self._members = {n.removeprefix(root): m for n, m in members.items() if n.startswith(root)}
        order = self._members.get("byteorder")
        self._swapped = order is not None and self._content(order) == b"big"

    def damaged(self, reason: object) -> CheckpointError:
        """The error that this file cannot be read for ``reason``."""
        return not_readable(self.path, reason)

    def pickled(self) -> bytes:
        """The pickle of everything but the numbers. Raises CheckpointError for a huge one."""
        member = self._members[_PICKLE]
        if member.size > _MOST_PICKLE_BYTES:
            raise CheckpointError(
                f"{self.path}: holds {member.size >> 20} MiB of Python values beside its tensors; "
                "save model.state_dict()"
            )
        return self._content(member)

    def storage_bytes(self, key: str) -> int:
        """Size of the storage ``key``. Raises CheckpointError where there is none."""
        member = self._members.get(f"data/{key}")
        if member is None:
            raise self.damaged(f"its member data/{key} is missing")
        return member.size

    def numbers(self, key: str, dtype: str, start: int, count: int) -> Array:
        """``count`` numbers of the storage ``key`` from its number ``start``, in fresh memory.

        Raises CheckpointError where the file has become shorter.
        """
        kind: np.dtype[Any] = np.dtype(dtype)
        offset = self._members[f"data/{key}"].offset + start * kind.itemsize
        try:
            # fromfile, not mmap: pages of a finished tensor do not stay in memory
            flat = np.fromfile(self.path, kind, count=count, offset=offset)
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"{self.path}: cannot be read ({reason})") from error
        if flat.size != count:
            raise CheckpointError(f"{self.path}: became shorter while it was read")
        if self._swapped:
            flat = flat.view(f"u{kind.itemsize}").byteswap().view(kind)
        return flat

    def _check_table(self, infos: list[zipfile.ZipInfo]) -> None:
        """What would grow in memory, or what two readers would read differently, is refused."""
        if any(info.filename.endswith("/constants.pkl") for info in infos):
            raise CheckpointError(f"{self.path}: is a TorchScript program; save model.state_dict()")
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise CheckpointError(
                    f"{self.path}: member {info.filename} is compressed ({info.compress_size} "
                    f"bytes for {info.file_size}), which torch.save never does; write the file "
                    "again: torch.save(torch.load(FILE), FILE)"
                )
        if len({info.filename for info in infos}) != len(infos):
            raise self.damaged("two members of one name")
        if sum(info.file_size for info in infos) > self.size:
            raise self.damaged("its members are larger than the file")

    def _member(self, file: Any, info: zipfile.ZipInfo) -> _Member:
        file.seek(info.header_offset)
        magic, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        offset = info.header_offset + _LOCAL_HEADER.size + name + extra
        if magic != ZIP_MAGIC or offset + info.file_size > self.size:
            raise self.damaged(f"member {info.filename} is not where its table says")
        return _Member(offset, info.file_size)

    def _content(self, member: _Member) -> bytes:
        with self.path.open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


def not_readable(path: Path, reason: object) -> CheckpointError:
    """The error that ``path`` cannot be read as a torch file."""
    return CheckpointError(
        f"{path}: not a readable torch file ({reason}); download or save it again"
    )
