"""What a service may be asked for at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from xlstm_export.errors import OptionError


@dataclass(frozen=True)
class Settings:
    """Limits of one service; all of them 1 or more. Raises OptionError.

    ``timeout`` in seconds is from a request to the end of its answer, ``grace`` from the word to
    stop to the end of answers that are under way; ``max_body`` in bytes.
    """

    name: str
    max_rows: int = 16
    max_waiting: int = 64
    max_prompt_tokens: int = 32_768
    max_new_tokens: int = 4_096
    max_series: int = 1_024
    timeout: float = 300.0
    grace: float = 30.0
    max_body: int = 16 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_waiting" else 1
            if not isinstance(value, str) and not value >= least:
                raise OptionError(field.name, f"{value} is not {least} or more")
