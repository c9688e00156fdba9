"""Tokens and text for a bundle: its tokenizer file, and the ids that stop generation."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, BundleError

TOKENIZER_FILE = "tokenizer.json"
_INCOMPLETE = "\ufffd"
"""What a tokenizer makes of bytes that are no character, or not yet."""


@dataclass(frozen=True)
class TextCodec:
    """Turns text into ids and back. ``first`` is prepended where the model wants a BOS id."""

    tokenizer: Any
    first: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``. Raises BundleError where it holds what is no character."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BundleError(
                f"the prompt is not text: {error.reason} at character {error.start}"
            ) from error
        ids: list[int] = self.tokenizer.encode(text).ids
        return [*self.first, *ids] if tuple(ids[: len(self.first)]) != self.first else ids

    def count_unknown(self, ids: Sequence[int]) -> int:
        """How many of ``ids`` stand for what the tokenizer does not know."""
        name = getattr(self.tokenizer.model, "unk_token", None)  # Unigram has none by name
        unknown = None if name is None else self.tokenizer.token_to_id(name)
        return 0 if unknown is None else list(ids).count(unknown)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


class TextStream:
    """New ids as text, piece by piece: the pieces joined are the continuation of the prompt.

    A token may hold a part of a character: it is held back until the character is complete. What
    was yielded is never taken back, though bytes that fit nowhere may change how a tokenizer reads
    those before them: the text goes on after as many characters.
    """

    def __init__(self, codec: TextCodec, prompt: Sequence[int], stop: Collection[int] = ()) -> None:
        self._codec = codec
        self._stop = frozenset(stop)
        # the ids that are decoded: what came last, and before it enough for the space between them
        self._window = list(prompt)
        self._told = len(self._window)
        self._known = codec.decode(prompt)
        """Text of the first ``_told`` ids of the window: the prompt's, or yielded."""

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character lacks bytes."""
        if token in self._stop:
            return ""
        self._window.append(token)
        text = self._codec.decode(self._window)
        new = text[self._known_length(text) :]
        if not new or text.endswith(_INCOMPLETE):
            return ""
        self._window = self._window[self._told :]
        self._told = len(self._window)
        self._known = self._codec.decode(self._window)
        return new

    def finish(self) -> str:
        """What was held back, an incomplete character as the replacement character."""
        text = self._codec.decode(self._window)
        return text[self._known_length(text) :]

    def _known_length(self, text: str) -> int:
        """Of ``text``, that of the window, how much is the prompt's or was yielded."""
        known = self._known
        # a character of the prompt that was incomplete is another one where ``text`` completes it
        while known.endswith(_INCOMPLETE) and not text.startswith(known):
            known = known[:-1]
        return len(known)


class NumberStream:
    """New ids as numbers with spaces between, for a bundle without a tokenizer."""

    def __init__(self) -> None:
        self._separator = ""

    def push(self, token: int) -> str:
        """``token``, after a space where it is not the first."""
        piece = f"{self._separator}{token}"
        self._separator = " "
        return piece

    def finish(self) -> str:
        """Nothing is held back."""
        return ""


def open_codec(bundle: Path, bos: bool | None = None) -> TextCodec | None:
    """The codec of ``bundle``, or None when it carries no tokenizer.json.

    ``bos`` puts the beginning-of-sequence id in front; None: where the configuration says so.

    Raises BackendUnavailableError when the tokenizers package is missing, BundleError when the
    file is damaged.
    """
    path = bundle / TOKENIZER_FILE
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: text needs the tokenizers package: {install('tokenizers')}, "
            "or give ids with --ids"
        ) from error
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # the library raises plain Exception
        raise BundleError(f"{path}: not a readable tokenizer ({error})") from error
    # left in the file by training: a prompt is neither cut nor filled up
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if bos is None:
        config = _config(bundle, "config.json")
        is_forced = config.get("force_bos_token_insert") is True
        bos = is_forced and isinstance(config.get("bos_token_id"), int)
    return TextCodec(tokenizer, begin_id(bundle) if bos else ())


def begin_id(bundle: Path) -> tuple[int, ...]:
    """The beginning-of-sequence id. Raises BundleError where the configuration has none."""
    for name in ("config.json", "generation_config.json"):
        bos = _config(bundle, name).get("bos_token_id")
        if isinstance(bos, int):
            return (bos,)
    raise BundleError(
        f"{bundle}: no bos_token_id in its configuration; give the ids themselves, with the first"
    )


def stop_ids(bundle: Path) -> tuple[int, ...]:
    """End-of-sequence ids from generation_config.json, else from config.json."""
    for name in ("generation_config.json", "config.json"):
        eos = _config(bundle, name).get("eos_token_id")
        ids = eos if isinstance(eos, list) else [eos]
        if ids and all(isinstance(e, int) for e in ids):
            return tuple(ids)
    return ()


def _config(bundle: Path, name: str) -> dict[str, Any]:
    path = bundle / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error})") from error
    return content if isinstance(content, dict) else {}
