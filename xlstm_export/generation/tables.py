"""Series in files: tables of named columns with a time index, and arrays."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, InputError, OptionError
from xlstm_export.runtime.session import Array

if TYPE_CHECKING:
    import pandas as pd

_TIMES = ("time", "date", "datetime", "timestamp", "ds")
"""Columns that are taken for the time where none is named."""
_DELIMITERS = ",;\t|"
STDIN = "-"


@dataclass(frozen=True)
class Table:
    """Columns of a file: ``series`` float32 [length] by name, NaN where a value is missing.

    ``time`` is the index of the rows: dates, or whole numbers.
    """

    series: dict[str, Array]
    time: pd.Index
    note: str = ""
    """What a reader should know of how the time goes on."""

    def time_after(self, steps: int) -> pd.Index:
        """The index of the next ``steps`` rows: dates by their frequency, or the median step."""
        pandas = import_pandas()
        last, is_date = self.time[-1], isinstance(self.time, pandas.DatetimeIndex)
        frequency = frequency_of(self.time) if is_date else None
        if frequency is not None:
            return pandas.date_range(last, periods=steps + 1, freq=frequency)[1:]
        step = _median_step(self.time)
        return pandas.Index([last + step * (number + 1) for number in range(steps)])


def import_pandas() -> Any:
    """pandas. Raises BackendUnavailableError with the cure."""
    try:
        import pandas
    except ImportError as error:
        raise BackendUnavailableError(f"tables are read by pandas: {install('pandas')}") from error
    return pandas


def read_table(path: str | Path, columns: Sequence[str] = (), time: str | None = None) -> Table:
    """The ``columns`` of ``path`` (all numbers where none are named), or of stdin for ``-``.

    ``path`` is a table with a header, its values separated by commas, semicolons, tabs or bars, or
    a .npy array [length] or [series, length], its series named by their numbers. ``time`` names the
    column of the index; where none is named, the column called time, date, datetime, timestamp or
    ds is, or else the rows are numbered. Raises InputError naming the column, and the row of a
    value that is no number, OptionError for ``time`` of an array, which has none.
    """
    if str(path).endswith(".npy"):
        if time is not None:
            raise OptionError("time", f"{path}: an array has no column of times; leave it out")
        return _read_array(Path(path), columns)
    pandas = import_pandas()
    text = _read_text(path)
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        frame = pandas.read_csv(io.StringIO(text), sep=delimiter, skipinitialspace=True)
    except Exception as error:  # the parser's errors have no common type
        raise InputError(f"{path}: is no table with a header ({error})") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    if frame.empty:
        raise InputError(f"{path}: has no rows")
    index, named = _index(path, frame, time)
    wanted = list(columns) or [
        name for name in frame.columns
        if name != named and pandas.api.types.is_numeric_dtype(frame[name])
    ]  # fmt: skip
    if not wanted:
        raise InputError(f"{path}: has no column of numbers; it has {', '.join(frame.columns)}")
    series = {name: _column(path, frame, name) for name in wanted}
    note = ""
    if isinstance(index, pandas.DatetimeIndex) and frequency_of(index) is None:
        note = f"{path}: {named} has no regular step; it goes on by the median one"
    return Table(series, index, note)


def _read_text(path: str | Path) -> str:
    try:
        content = sys.stdin.buffer.read() if str(path) == STDIN else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text") from error


def _read_array(path: Path, columns: Sequence[str]) -> Table:
    pandas = import_pandas()
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file of numbers; use numpy.save") from error
    is_series = isinstance(array, np.ndarray) and array.ndim in (1, 2) and array.size > 0
    if not is_series or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers [length] or [series, length]")
    rows = np.atleast_2d(array).astype(np.float32)
    series = {str(number): row for number, row in enumerate(rows)}
    unknown = [name for name in columns if name not in series]
    if unknown:
        there = "0" if len(rows) == 1 else f"0 to {len(rows) - 1}"
        raise InputError(
            f"{path}: no series {unknown[0]}; an array's are called by their number, {there}"
        )
    return Table(series, pandas.RangeIndex(rows.shape[1]))


def _index(path: str | Path, frame: pd.DataFrame, time: str | None) -> tuple[pd.Index, str | None]:
    """The rows' index, and the column it is. Raises InputError."""
    pandas = import_pandas()
    if time is not None and time not in frame.columns:
        raise InputError(_unknown(path, time, frame))
    name = time or next((c for c in frame.columns if c.lower() in _TIMES), None)
    if name is None:
        return pandas.RangeIndex(len(frame)), None
    column = frame[name]
    if pandas.api.types.is_numeric_dtype(column):
        index = pandas.Index(column)
    else:
        try:
            with warnings.catch_warnings():  # of forms it tries one by one: the error says enough
                warnings.simplefilter("ignore")
                index = pandas.DatetimeIndex(pandas.to_datetime(column))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: column {name} is no time ({error})") from error
    if index.hasnans or not index.is_monotonic_increasing or index.has_duplicates:
        raise InputError(f"{path}: column {name} does not increase from row to row")
    return index, name


def _column(path: str | Path, frame: pd.DataFrame, name: str) -> Array:
    pandas = import_pandas()
    if name not in frame.columns:
        raise InputError(_unknown(path, name, frame))
    numbers = pandas.to_numeric(frame[name], errors="coerce")
    wrong = numbers.isna() & frame[name].notna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{path}: column {name}, row {row + 2}: {str(frame[name].iloc[row])!r} is no number"
        )
    return np.asarray(numbers.to_numpy(np.float32))


def _unknown(path: str | Path, name: str, frame: pd.DataFrame) -> str:
    return f"{path}: no column {name}; it has {', '.join(frame.columns)}"


def frequency_of(index: pd.Index) -> str | None:
    """The frequency of dates; None: they have none, or are too few to tell."""
    return import_pandas().infer_freq(index) if len(index) > 2 else None


def _median_step(index: pd.Index) -> Any:
    if len(index) < 2:
        is_date = isinstance(index, import_pandas().DatetimeIndex)
        return import_pandas().Timedelta(days=1) if is_date else 1
    return index.to_series().diff().median()
