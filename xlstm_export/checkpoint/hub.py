"""SOURCE as users type it: a path, or ``org/name`` on the Hugging Face Hub.

``org/name/sub/folder`` is a folder of the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from xlstm_export.checkpoint.source import Source
from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, CheckpointError

_NAME = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"({_NAME}/{_NAME})((?:/{_NAME})*)")

_FILE_SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".th", ".bin", ".yaml", ".yml", ".json"}

_SAFE_FILES = ["*.json", "*.yaml", "*.yml", "*.safetensors", "*.txt", "*.jinja", "tokenizer*"]
_PICKLES = ["*.ckpt", "*.bin", "*.pt", "*.pth", "*.th"]

_SHARED_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "generation_config.json", "chat_template.jinja",
)  # fmt: skip
"""What lies at the top of a repository for all checkpoints in its folders."""

_TIMEOUT_S = 5.0

_UNREACHABLE = "it cannot be reached (offline?), and the download cache does not have it"

_REASONS = {
    "GatedRepoError": "its licence has to be accepted there, then: hf auth login",
    "RepositoryNotFoundError": "it has no such repository, or a private one (hf auth login)",
    "LocalEntryNotFoundError": _UNREACHABLE,
    "ConnectionError": _UNREACHABLE,
}
"""By class name: huggingface_hub has moved its errors between modules."""


def resolve_source(text: str, config: Path | None, prefix: str = "") -> Source:
    """The checkpoint ``text`` names, downloaded first where it is ``org/name`` and no path.

    Pickles are downloaded only from a repository without safetensors. Raises CheckpointError
    where there is no such file, folder, or reachable repository, BackendUnavailableError where
    huggingface_hub is not installed.
    """
    if config is not None and not config.is_file():
        raise CheckpointError(f"{config}: no such file")
    path = Path(os.path.expanduser(text))  # Path's own raises where there is no such user
    if path.exists():
        return Source(path, config, prefix=prefix)
    named = _REPOSITORY.fullmatch(text)
    if named is None or path.suffix in _FILE_SUFFIXES:
        raise CheckpointError(f"{text}: no such file or folder")
    return Source(_download(named[1], named[2][1:]), config, text, prefix)


def _download(repository: str, below: str) -> Path:
    """``repository``, or only its folder ``below``, as a folder here."""
    text = f"{repository}/{below}".rstrip("/")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f"{text}: no such folder; to take it from the Hugging Face Hub: "
            f"{install('huggingface_hub')}\n{_by_hand(text)}"
        ) from error
    try:
        folder = _snapshot(repository, below, _SAFE_FILES)
        if not any(folder.glob("*.safetensors")):
            folder = _snapshot(repository, below, _PICKLES)
    except Exception as error:  # network libraries below raise types of their own
        raise CheckpointError(
            f"{text}: no such folder here, and not from the Hugging Face Hub: "
            f"{_reason(error)}.\n{_by_hand(text)}"
        ) from error
    if not folder.is_dir():
        raise CheckpointError(f"{text}: {repository} on the Hugging Face Hub has no folder {below}")
    return folder


def _snapshot(repository: str, below: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    start = f"{below}/" if below else ""
    shared = list(_SHARED_FILES) if below else []
    whole = snapshot_download(
        repository,
        allow_patterns=[start + pattern for pattern in patterns] + shared,
        ignore_patterns=[f"{start}*/*"],  # copies of the same weights for other programs
        etag_timeout=_TIMEOUT_S,
    )
    return Path(whole) / below


def _reason(error: Exception) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in _REASONS:
            return _REASONS[kind.__name__]
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _by_hand(repository: str) -> str:
    return (
        f"Or download by hand, of {repository} into one folder: config.json or config.yaml; the "
        "weights\n(model.safetensors, or model.safetensors.index.json and all it lists, or "
        "model.ckpt); tokenizer*.json.\nThen give that folder as SOURCE."
    )
