"""Errors a user can act on: each message names the file or key at fault and the cure."""

from __future__ import annotations


class XlstmExportError(Exception):
    """Base of every error the command line prints without a traceback."""


class CheckpointError(XlstmExportError):
    """The source is missing, damaged, or its tensors contradict its configuration."""


class UnsupportedModelError(XlstmExportError):
    """The source is readable, but uses an option this toolkit does not lower."""


class TargetError(XlstmExportError):
    """The output location cannot be written, or already exists."""


class BundleError(XlstmExportError):
    """A bundle is missing, damaged, or of a format this version cannot read."""


class BackendUnavailableError(XlstmExportError):
    """A package or device the command needs is not on this machine."""


class EngineError(XlstmExportError):
    """An engine cannot be built as asked for, or its record is missing or damaged."""


class InputError(XlstmExportError, ValueError):
    """What a session was given does not fit: a name, a shape, a type, or a value out of range."""


class OptionError(XlstmExportError, ValueError):
    """An option has a value that it cannot have; ``option`` is its name."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option
