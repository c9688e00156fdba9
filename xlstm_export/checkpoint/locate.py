"""Which files of a folder are the weights, by the names that people and libraries give them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from xlstm_export.checkpoint.foreign import ForeignError, foreign_folder
from xlstm_export.checkpoint.json_file import load_json
from xlstm_export.checkpoint.weight_files import WEIGHT_SUFFIXES
from xlstm_export.errors import CheckpointError

Files = tuple[Path, ...]

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_NUMBERED = re.compile(r"model_(0|[1-9]\d*)\.safetensors")
_INDEX = re.compile(r"(.+)\.\w+\.index(\.\w+)?\.json")

_BESIDE = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args|adapter)([._-].*)?")
"""What training leaves beside the weights."""

_ORDER = [
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors",
        r"model\.safetensors\.index\.json",
        r"model-\*-of-\d+\.safetensors",
        r"model_\*\.safetensors",
        r"pytorch_model\.bin",
        r"pytorch_model\.bin\.index\.json",
        r"pytorch_model-\*-of-\d+\.bin",
        r"model\.\w+",
        r"(pytorch_)?model[.-].*",  # a variant: model.bf16.safetensors
        r".*",
    )
]
"""The first that is there is taken, as transformers takes them; * stands for a shard's number."""

_EXPECTED = (
    "expected one of model.safetensors, model.pt, model.safetensors.index.json and its shards, "
    "model_0.safetensors and so on, pytorch_model.bin, or a single file that ends in "
    f"{', '.join(WEIGHT_SUFFIXES)}"
)


def find_weight_files(path: Path) -> Files:
    """The weight files of the folder ``path``, in a stable order; or the file itself.

    An index (``model.safetensors.index.json``) stands for its shards. Raises CheckpointError where
    there are none, where a shard is missing or given alone, and where two could be meant.
    """
    if _INDEX.fullmatch(path.name) and path.is_file():
        return _indexed(path)
    if not path.is_dir():
        _refuse_shard(path)
        return (path,)
    candidates = _candidates(path)
    for pattern in _ORDER:
        found = [name for name in candidates if pattern.fullmatch(name)]
        if len(found) > 1:
            raise CheckpointError(
                f"{path}: weights in {' and in '.join(found)}; give the one that is meant itself, "
                "with --config where its configuration is elsewhere"
            )
        if found:
            return candidates[found[0]]()
    if what := foreign_folder(path):
        raise ForeignError(f"{path}: holds {what}")
    raise CheckpointError(f"{path}: no weights; {_EXPECTED}")


def _candidates(folder: Path) -> dict[str, Callable[[], Files]]:
    """What could be the weights, by name, * for the number of a shard; and their files."""
    found: dict[str, Callable[[], Files]] = {}
    listing = _listing(folder)
    indexes = [match for path in listing if (match := _INDEX.fullmatch(path.name))]
    listed = {f"{index[1]}{index[2] or ''}" for index in indexes}
    are_shards = _are_shards(_numbers(listing))
    for path in listing:
        is_weights = path.suffix in WEIGHT_SUFFIXES and not _BESIDE.fullmatch(path.stem)
        if _INDEX.fullmatch(path.name):
            found[path.name] = partial(_indexed, path)
        elif is_weights and (match := _SHARD.fullmatch(path.name)):
            stem, _, count, end = match.groups()
            if stem in listed:
                continue
            found[f"{stem}-*-of-{count}{end}"] = partial(_shards, folder, stem, count, end)
        elif are_shards and _NUMBERED.fullmatch(path.name):
            found["model_*.safetensors"] = partial(_numbered, folder)
        elif is_weights:
            found[path.name] = lambda path=path: (path,)  # type: ignore[misc]
    return found


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error.strerror})") from error


def _refuse_shard(path: Path) -> None:
    """Raise CheckpointError where the file ``path`` is a part of several."""
    shard = _SHARD.fullmatch(path.name)
    count = int(shard[3]) if shard else 1
    if _NUMBERED.fullmatch(path.name) and path.is_file():
        numbers = _numbers(_listing(path.parent))
        count = len(numbers) if len(numbers) == max(numbers) + 1 else 1
    if count > 1:
        raise CheckpointError(f"{path}: is one of {count} shards; give their folder instead")


def _indexed(index: Path) -> Files:
    places = load_json(index).get("weight_map")
    if not (
        isinstance(places, dict) and places and all(isinstance(p, str) for p in places.values())
    ):
        raise CheckpointError(f"{index}: no weight_map of tensor to file")
    files = []
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: lists {name}, which is not in its folder; download it")
        files.append(index.parent / name)
    return tuple(files)


def _shards(folder: Path, stem: str, count: str, end: str) -> Files:
    return _all_there(folder, [f"{stem}-{n + 1:05d}-of-{count}{end}" for n in range(int(count))])


def _numbered(folder: Path) -> Files:
    count = max(_numbers(_listing(folder))) + 1
    cure = "download it, or give one of the others itself, where each is a whole model"
    return _all_there(folder, [f"model_{n}.safetensors" for n in range(count)], cure)


def _numbers(listing: list[Path]) -> set[int]:
    found = (_NUMBERED.fullmatch(path.name) for path in listing)
    return {int(match[1]) for match in found if match}


def _are_shards(numbers: set[int]) -> bool:
    """Whether most from 0 up to the largest are there; numbers of steps and dates are far apart."""
    return 2 * len(numbers) > max(numbers, default=0) + 1


def _all_there(folder: Path, names: list[str], cure: str = "download it") -> Files:
    files = tuple(folder / name for name in names)
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file, one of {len(files)} shards; {cure}")
    return files
