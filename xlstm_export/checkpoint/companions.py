"""What a bundle keeps of its source beside the weights: configuration, tokenizer, generation."""

from __future__ import annotations

from pathlib import Path

from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError

_CONFIGURATION = (
    "config.json", "config.yaml", "config.yml", "generation_config.json",
    "preprocessor_config.json",
)  # fmt: skip
_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "spiece.model", "sentencepiece*.model", "chat_template*", "additional_chat_templates/*.jinja",
)  # fmt: skip
"""transformers 5 writes the chat template into a file of its own, further ones into a folder."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
"""One of them is there where there is a tokenizer."""


def copy_companions(source: Source, folder: Path) -> None:
    """Copy those files of ``source`` into the bundle ``folder``. Raises CheckpointError.

    A tokenizer may be one folder up: training writes one for all of its checkpoints.
    """
    _copy_all(_CONFIGURATION, _beside(source), folder)
    _copy_all(_TOKENIZER, tokenizer_folder(source), folder)
    if source.config is not None:
        _copy(source.config, folder / f"config{source.config.suffix}")


def tokenizer_folder(source: Source) -> Path:
    """Where the tokenizer of ``source`` is: beside its weights, or else one folder up."""
    beside = _beside(source)
    above = beside.resolve().parent  # of ".", too
    return next((place for place in (beside, above) if _has_tokenizer(place)), beside)


def _beside(source: Source) -> Path:
    return source.path if source.path.is_dir() else source.path.parent


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)


def _copy_all(patterns: tuple[str, ...], source: Path, folder: Path) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                _copy(path, folder / path.relative_to(source))


def _copy(file: Path, target: Path) -> None:
    """Copy a small file; raises CheckpointError where it is the source that fails."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
