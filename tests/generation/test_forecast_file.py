"""Tables in, tables and plots out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.generation.forecaster import ONE_BY_ONE, TOGETHER, Sums
from xlstm_export.errors import InputError, OptionError
from xlstm_export.generation.forecast_file import run_file
from xlstm_export.generation.tables import read_table

DAYS = """date,sales,price,note
2026-01-28,10,1.5,a
2026-01-29,,1.5,b
2026-01-30,30,1.25,c
2026-01-31,40,1,d
"""


def written(folder: Path, text: str, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_of_numbers_and_the_days_after(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, DAYS))
    assert list(table.series) == ["sales", "price"]
    np.testing.assert_array_equal(table.series["sales"], [10, np.nan, 30, 40])
    assert [str(day.date()) for day in table.time_after(2)] == ["2026-02-01", "2026-02-02"]
    assert not table.note


@pytest.mark.parametrize(
    ("times", "after"),
    [
        (["2026-01-01", "2026-02-01", "2026-03-01"], ["2026-04-01", "2026-05-01"]),
        (["2026-01-31", "2026-02-28", "2026-03-31"], ["2026-04-30", "2026-05-31"]),
        (["2026-01-01 00:00", "2026-01-01 00:15", "2026-01-01 00:30"],
         ["2026-01-01 00:45:00", "2026-01-01 01:00:00"]),
        (["2026-01-01", "2026-01-02", "2026-01-09"], ["2026-01-13", "2026-01-17"]),
        (["5", "7", "9"], ["11", "13"]),
    ],
)  # fmt: skip
def test_the_time_goes_on(tmp_path: Path, times: list[str], after: list[str]) -> None:
    """By the calendar where there is one, else by the median step, which is said."""
    text = "ds;y\n" + "".join(f"{time};{number}\n" for number, time in enumerate(times))
    table = read_table(written(tmp_path, text))
    found = [str(moment) for moment in table.time_after(2)]
    assert [a.startswith(b) for a, b in zip(found, after, strict=True)] == [True, True], found
    assert ("no regular step" in table.note) == (times[-1] == "2026-01-09")


def test_rows_without_a_time_are_numbered(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a\tb\n1\t2\n3\t4\n"), ["b"])
    assert list(table.series) == ["b"]
    assert list(table.time_after(2)) == [2, 3]


def test_an_array_is_series_of_their_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    table = read_table(tmp_path / "a.npy")
    assert list(table.series) == ["0", "1"]
    np.testing.assert_array_equal(table.series["1"], [3, 4, 5])
    assert list(read_table(tmp_path / "a.npy", ["1"]).series) == ["0", "1"]
    with pytest.raises(InputError, match=r"a.npy: no series temp; .* by their number, 0 to 1"):
        read_table(tmp_path / "a.npy", ["temp"])
    with pytest.raises(OptionError, match="an array has no column of times") as error:
        read_table(tmp_path / "a.npy", time="date")
    assert error.value.option == "time"


def test_a_table_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"y\n1\n2\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    np.testing.assert_array_equal(read_table("-").series["y"], [1, 2])


@pytest.mark.parametrize(
    ("text", "columns", "time", "message"),
    [
        (DAYS, ["cost"], None, r"no column cost; it has date, sales, price, note"),
        (DAYS, ["note"], None, r"column note, row 2: 'a' is no number"),
        (DAYS, [], "day", r"no column day; it has"),
        (DAYS, [], "note", r"column note is no time"),
        ("date,y\n2026-01-02,1\n2026-01-01,2\n", [], None, "does not increase from row to row"),
        ("date,y\n2026-01-02,1\n,2\n", [], None, "does not increase from row to row"),
        ("x\na\n", [], None, "has no column of numbers; it has x"),
        ("x,y\n", [], None, "has no rows"),
        ("", [], None, "is no table with a header"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    tmp_path: Path, text: str, columns: list[str], time: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_table(written(tmp_path, text), columns, time)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.csv: is no UTF-8 text"):
        read_table(tmp_path / "bytes.csv")
    (tmp_path / "text.npy").write_text("no")
    with pytest.raises(InputError, match=r"text\.npy: not a readable \.npy"):
        read_table(tmp_path / "text.npy")
    np.save(tmp_path / "cube.npy", np.zeros((1, 1, 1)))
    with pytest.raises(InputError, match=r"cube\.npy: expected numbers"):
        read_table(tmp_path / "cube.npy")


def test_quantiles_with_their_time(tmp_path: Path) -> None:
    session = Sums(ONE_BY_ONE)
    out, plot = tmp_path / "new" / "out.csv", tmp_path / "out.png"
    made = run_file(session, written(tmp_path, DAYS), 6, columns=["sales"], output=out, plot=plot)
    table = pd.read_csv(out)
    assert list(table.columns) == ["series", "time", "0.1", "0.5", "0.9"]
    assert list(table["time"][[0, 5]]) == ["2026-02-01", "2026-02-06"]
    np.testing.assert_allclose(table["0.5"], [80.5, 81.5, 82.5, 83.5, 180.5, 181.5])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert made.names == ("sales",)
    run_file(session, written(tmp_path, DAYS), 6, output=tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (2, 6, 3)


def test_what_is_known_ahead_has_more_rows(tmp_path: Path) -> None:
    session = Sums(TOGETHER)
    text = DAYS.replace("d\n", "d\n2026-02-01,,2,e\n2026-02-02,,3,f\n")
    made = run_file(
        session, written(tmp_path, text), 2, columns=["sales"], future_covariates=["price"]
    )
    (call,) = session.calls
    np.testing.assert_array_equal(call["context"][0], [[10, np.nan, 30, 40]])
    np.testing.assert_array_equal(call["future_covariates"][0], [[1.5, 1.5, 1.25, 1, 2, 3]])
    assert [str(day.date()) for day in made.time] == ["2026-02-01", "2026-02-02"]
    with pytest.raises(InputError, match="need 2 more rows after the last value"):
        run_file(
            session, written(tmp_path, DAYS), 2, columns=["sales"], future_covariates=["price"]
        )


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [("output", "out.xlsx", r"does not end in \.csv, \.npy"), ("plot", "p.jpg", r"\.png, \.svg")],
)
def test_an_ending_that_says_no_format(
    tmp_path: Path, option: str, name: str, message: str
) -> None:
    options: dict[str, Any] = {option: tmp_path / name}
    with pytest.raises(OptionError, match=message):
        run_file(Sums(ONE_BY_ONE), written(tmp_path, DAYS), 2, **options)
    assert not (tmp_path / name).exists()


def test_more_series_than_a_page_holds(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.ones((13, 4)))
    with pytest.raises(OptionError, match="13 series are more than the 12 of one page"):
        run_file(Sums(ONE_BY_ONE), tmp_path / "many.npy", 2, plot=tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
