"""From images to patches with positions: the front of a Vision-LSTM, for images of one size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.tensor_table import TensorTable
from xlstm_export.errors import CheckpointError, OptionError
from xlstm_export.families.vil.keys import PATCHES, TABLE
from xlstm_export.families.vil.positions import Grid, position_table
from xlstm_export.families.vil.settings import read_settings
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.patch_convolution import PatchConvolution
from xlstm_export.model.layers.position_embedding import PositionEmbedding
from xlstm_export.model.weights import Weight


@dataclass(frozen=True)
class Images:
    """The layers in front of the blocks, their ``weights``, and what they take and make.

    ``resolution`` of the images, ``grid`` of the patches, and ``whole``, what it is where patches
    do not overlap: (height, width).
    """

    patches: PatchConvolution
    positions: PositionEmbedding
    weights: dict[str, Weight]
    resolution: tuple[int, int]
    grid: Grid
    whole: Grid

    @property
    def layers(self) -> list[tuple[str, Layer]]:
        """By path."""
        return [("patches", self.patches), ("positions", self.positions)]


def read_images(
    source: Source, files: Iterable[Path], table: TensorTable, model_size: int
) -> Images:
    """The front of the model in ``table``, for images of the size that ``source`` asks for.

    ``files`` are those of the weights, whose names may say the stride.

    Unless it does, images have the size that the stored positions are for. Raises CheckpointError,
    OptionError.
    """
    settings = read_settings(source, files)
    kernel = table.take(f"{PATCHES}.weight", model_size, None, None, None)
    stored = table.take(TABLE, 1, None, None, model_size)
    patch = (kernel.shape[2], kernel.shape[3])
    own = (stored.shape[1] * patch[0], stored.shape[2] * patch[1])
    resolution = source.resolution or settings.resolution or own
    _check_whole(source, resolution, patch)
    stride = settings.stride or patch
    whole = (resolution[0] // patch[0], resolution[1] // patch[1])
    grid = _steps(resolution, patch, stride)
    patches = PatchConvolution(kernel.shape[1], patch, stride, model_size)
    positions = PositionEmbedding(grid[0] * grid[1], model_size)
    weights = {
        "patches.weight": kernel,
        "patches.bias": table.take(f"{PATCHES}.bias", model_size),
        # upstream's way: a table of whole patches, and from that the one it adds
        "positions.weight": position_table(stored, (whole, grid)),
    }
    return Images(patches, positions, weights, resolution, grid, whole)


def _check_whole(source: Source, resolution: tuple[int, int], patch: tuple[int, int]) -> None:
    """Raise unless the images are whole patches high and wide, as upstream wants them."""
    if all(size and size % part == 0 for size, part in zip(resolution, patch, strict=True)):
        return
    what = "{}x{} is not a multiple of the patches' {}x{}".format(*resolution, *patch)
    if source.resolution:
        raise OptionError("resolution", what)
    raise CheckpointError(f"{source.config}: input_shape: {what}")


def _steps(
    resolution: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int]:
    """Rows and columns of patches."""
    rows, columns = (
        (size - part) // step + 1
        for size, part, step in zip(resolution, patch, stride, strict=True)
    )
    return rows, columns
