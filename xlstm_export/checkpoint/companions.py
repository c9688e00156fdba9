"""What a bundle keeps of its source beside the weights: configuration, tokenizer, generation."""

from __future__ import annotations

from pathlib import Path

from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError

_PATTERNS = (
    "config.json", "config.yaml", "config.yml", "generation_config.json", "tokenizer*",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model",
    "sentencepiece*.model", "chat_template*", "preprocessor_config.json",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
"""transformers 5 writes the chat template into a file of its own, further ones into a folder."""


def copy_companions(source: Source, folder: Path) -> None:
    """Copy those files of ``source`` into the bundle ``folder``. Raises CheckpointError."""
    beside = source.path if source.path.is_dir() else source.path.parent
    for pattern in _PATTERNS:
        for path in sorted(beside.glob(pattern)):
            if path.is_file():
                _copy(path, folder / path.relative_to(beside))
    if source.config is not None:
        _copy(source.config, folder / f"config{source.config.suffix}")


def _copy(file: Path, target: Path) -> None:
    """Copy a small file; raises CheckpointError where it is the source that fails."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
