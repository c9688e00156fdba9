"""Weights in few bits in ONNX Runtime: when they are made wide at once, as the file is loaded.

ONNX Runtime makes one low-bit product of DequantizeLinear and MatMul where it knows how. Where it
does not, it would dequantise the matrix again in every call, several times as slow as a product of
float32. ``session.disable_quant_qdq`` lets it fold the dequantised matrix into the session instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.bundle.manifest import Manifest

WIDE = ("session.disable_quant_qdq", "1")
"""The entry of a session's configuration."""
_ALL_FUSED = (1, 31)
"""Makes low-bit products of 8 bits, and of float16, as 1.20 to 1.23 do not."""


def version_of(ort: Any) -> tuple[int, int]:
    """Major and minor version of the onnxruntime module."""
    major, minor = re.findall(r"\d+", ort.__version__)[:2]
    return int(major), int(minor)


def is_slower_in_blocks(manifest: Manifest, version: tuple[int, int]) -> bool:
    """Whether ONNX Runtime of ``version`` would dequantise matrices in every call, some of which
    take longer than all the others wide.
    """
    low_bit = manifest.low_bit
    if low_bit is None or low_bit.matmul_nbits or version >= _ALL_FUSED:
        return False
    return low_bit.bits == 8 or bool(low_bit.eight) or manifest.dtype != "float32"


def exact_graph(path: Path, low_bit: LowBit | None) -> bytes | None:
    """The graph ``path`` with activations that stay as they are; None where it is so already.

    MatMulNBits otherwise rounds them to 8 bits, in blocks.
    """
    if low_bit is None or not low_bit.matmul_nbits:
        return None
    import onnx  # takes a while, and only validation comes here

    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    return bytes(model.SerializeToString())
