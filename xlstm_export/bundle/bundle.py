"""A bundle on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xlstm_export.bundle.checksum import bundle_sha256, is_as_written
from xlstm_export.bundle.manifest import MODEL_FILE, Manifest, read_manifest


@dataclass(frozen=True)
class Bundle:
    """A folder with a graph, its weights and its manifest, which says what they are.

    ``nodes`` (of the graph, a recurrence counted as one), ``left_out`` (tensors of the source that
    are outside its prefix) and ``notes`` are what ``export`` has to tell; empty in one that was
    opened.
    """

    path: Path
    manifest: Manifest
    nodes: int = 0
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """The bundle in the folder ``path``. Raises BundleError where it holds none."""
        return cls(Path(path), read_manifest(Path(path)))

    @property
    def model_path(self) -> Path:
        """The graph, for ``onnxruntime.InferenceSession``."""
        return self.path / MODEL_FILE

    def files(self) -> dict[str, int]:
        """Size in bytes of each file, by name; folders in it left out."""
        return {f.name: f.stat().st_size for f in sorted(self.path.iterdir()) if f.is_file()}

    def sha256(self) -> str:
        """Digest of the graph and its data, which are read to the end."""
        return bundle_sha256(self.path)

    def is_unchanged(self) -> bool | None:
        """Whether graph, data and manifest are those that export wrote; None: it is not known."""
        return is_as_written(self.path, self.manifest, self.sha256())
