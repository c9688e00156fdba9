"""What is not a checkpoint of ours, by its first bytes, its name, its neighbours or its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from xlstm_export.checkpoint.json_file import load_json
from xlstm_export.errors import CheckpointError


class ForeignError(CheckpointError):
    """The source is no xLSTM checkpoint; the message says what it is, and the cure."""


_FROM_TORCH = "give the PyTorch weights it was made from"
_MERGE = (
    "load it with peft on its base model, merge_and_unload(), save_pretrained(), and give the "
    "folder of that"
)
_DCP = (
    "a distributed checkpoint of torch (DCP): make one file of its folder by python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt"
)
_KERAS = f"a Keras file: {_FROM_TORCH}"

_MAGICS = (
    (0, b"GGUF", f"a GGUF file (llama.cpp): {_FROM_TORCH}"),
    (0, b"\x89HDF\r\n\x1a\n", _KERAS),
    (0, b"\x93NUMPY", "a numpy array: save a state dict as safetensors"),
    (4, b"TFL3", f"a TensorFlow Lite model: {_FROM_TORCH}"),
    (0, b"version https://git-lfs", "a Git LFS pointer and not the file itself: git lfs pull"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it"),
    (0, b"<!DOCTYPE html", "a web page and not the file itself: download it again"),
    (0, b"<html", "a web page and not the file itself: download it again"),
)
_ENDINGS = {
    ".gguf": f"a GGUF file (llama.cpp): {_FROM_TORCH}",
    ".onnx": f"an ONNX graph: {_FROM_TORCH}",
    ".h5": _KERAS,
    ".hdf5": _KERAS,
    ".keras": _KERAS,
    ".distcp": _DCP,
    ".msgpack": f"a Flax file: {_FROM_TORCH}",
    ".tflite": f"a TensorFlow Lite model: {_FROM_TORCH}",
    ".pb": f"a TensorFlow graph: {_FROM_TORCH}",
    ".npy": "a numpy array: save a state dict as safetensors",
    ".npz": "numpy arrays: save them as safetensors",
    ".pt2": f"a program of torch.export: {_FROM_TORCH}",
    ".pte": f"an ExecuTorch program: {_FROM_TORCH}",
    ".mlmodel": f"a Core ML model: {_FROM_TORCH}",
    ".engine": f"a TensorRT engine: {_FROM_TORCH}",
    ".plan": f"a TensorRT engine: {_FROM_TORCH}",
    ".nemo": "a NeMo archive: unpack it, and give the checkpoint in it",
}
_NEIGHBOURS = {
    "zero_to_fp32.py": "a DeepSpeed checkpoint: python zero_to_fp32.py . model.pt, and give that",
    "_CHECKPOINT_METADATA": f"an Orbax checkpoint (JAX): {_FROM_TORCH}, or convert it",
    "manifest.ocdbt": f"an Orbax checkpoint (JAX): {_FROM_TORCH}, or convert it",
}
_ADAPTER = "adapter_config.json"

_MODELS = (
    (
        (r"(^|\.)lora_(embedding_)?[AB]\b",),
        f"a LoRA adapter and not a whole model: {_MERGE}",
    ),
    (
        (r"(^|\.)patch_embed\.proj\.weight$", r"\.attn\.(qkv|q_proj|in_proj_weight)\b"),
        "a Vision Transformer (ViT), whose attention is no xLSTM",
    ),
    (
        (r"(^|\.)patch_embed\.proj\.weight$", r"\.mixer\.A_(b_)?log$"),
        "a Vision Mamba (Vim), which is no xLSTM",
    ),
    (
        (r"(^|\.)blocks\.\d+\.lstm\.", r"(^|\.)output_layer\."),
        "a model of PyxLSTM, whose equations are not those of the xlstm package",
    ),
)


def foreign_content(start: bytes) -> str:
    """What a file is that begins with ``start``, and the cure; "" where that does not tell."""
    found = (what for place, magic, what in _MAGICS if start[place:].startswith(magic))
    return next(found, "")


def foreign_name(path: Path) -> str:
    """What a file of the name ``path`` is, and the cure; "" where that does not tell."""
    return _ENDINGS.get(path.suffix.lower(), "")


def foreign_folder(folder: Path) -> str:
    """What else ``folder`` holds than a checkpoint of ours, and the cure; "" for nothing known."""
    if (folder / _ADAPTER).is_file():
        return f"a LoRA adapter{_base_model(folder / _ADAPTER)}: {_MERGE}"
    names = sorted(path.name for path in folder.iterdir())
    found = [_NEIGHBOURS[name] for name in names if name in _NEIGHBOURS]
    found += [what for name in names if (what := foreign_name(Path(name)))]
    return found[0] if found else ""


def foreign_model(names: Collection[str]) -> str:
    """Which other model's tensors have these ``names``, and the cure; "" for none known."""
    for patterns, what in _MODELS:
        if all(any(re.search(pattern, name) for name in names) for pattern in patterns):
            return what
    return ""


def _base_model(config: Path) -> str:
    try:
        name = load_json(config).get("base_model_name_or_path")
    except CheckpointError:
        return ""
    return f" of {name}" if isinstance(name, str) and name else ""
