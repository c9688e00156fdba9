"""Fields of a configuration that upstream's model does not have: harmless, or another model.

A fork adds fields that change the mathematics, and its tensors may look the same. So an unknown
field is refused, unless it is listed here as one that trains, logs or names a model, and where its
value could matter the value is one that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from xlstm_export.errors import CheckpointError

TRAINING = frozenset({
    "tags", "description", "comment", "comments", "notes", "run_name", "project", "version",
    "wandb", "wandb_project", "wandb_tags", "log_every", "log_dir", "output_dir", "save_dir",
    "seed", "epochs", "num_epochs", "num_steps", "max_steps", "batch_size", "train_batch_size",
    "eval_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
    "activation_checkpointing", "checkpoint_blocks", "optimizer", "scheduler", "lr",
    "learning_rate", "weight_decay", "betas", "grad_clip", "warmup_steps", "label_smoothing",
    "num_workers", "device", "compile", "use_cache", "initializer_range", "torch_dtype",
    "transformers_version", "return_last_state", "return_last_states",
})  # fmt: skip
"""Harmless at any level, whatever their value."""

_CLASSES = ("xLSTMLMModel", "xLSTMBlockStack")
_OFF = (None, False, "none")

_WITH_VALUES: dict[str, tuple[Any, ...]] = {
    "type": _CLASSES,
    "_target_": (*_CLASSES, *(f"xlstm.{name}" for name in _CLASSES)),
    "mlstm_block.mlstm.backend": (None, "parallel", "chunkwise", "chunkwise_simple"),
    "position_embeddings": _OFF,
}
"""Harmless with one of these values. The backends compute the same in another order."""

_POSITIONS = ("rope_base_frequency", "max_position_embeddings", "max_seq_position_embeddings")
"""Read by a fork where it embeds positions."""


def refuse_extra_fields(kind: type, fields: Mapping[str, Any]) -> None:
    """Raise CheckpointError that names every field which the dataclass ``kind`` does not have.

    Dataclasses within it are looked into; harmless fields pass.
    """
    positions_off = "position_embeddings" in fields and fields["position_embeddings"] in _OFF
    harmless = (*_POSITIONS, "mlstm_block.mlstm.chunk_size")
    named = []
    for name, value in _extra_fields(kind, fields):
        is_training = name.rpartition(".")[2] in TRAINING
        if is_training or (name in harmless and (name not in _POSITIONS or positions_off)):
            continue
        if name not in _WITH_VALUES:
            named.append(name)
        elif value not in _WITH_VALUES[name]:
            named.append(f"{name} ({value})")
    if named:
        raise unknown_fields(named)


def unknown_fields(names: Iterable[str]) -> CheckpointError:
    """The error about the fields ``names``."""
    return CheckpointError(
        f"unknown fields: {', '.join(names)}; what upstream does not have may make it another "
        "model: correct a name, remove one only if nothing is computed by it"
    )


def _extra_fields(kind: type, fields: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of the fields that ``kind`` does not have."""
    known = get_type_hints(kind)
    for name, value in fields.items():
        if name not in known:
            yield f"{at}{name}", value
            continue
        inner = next((k for k in (known[name], *get_args(known[name])) if is_dataclass(k)), None)
        if isinstance(inner, type) and isinstance(value, Mapping):
            yield from _extra_fields(inner, value, f"{at}{name}.")
