"""``xlstm-export run`` of forecasters: tables in, quantiles and pictures out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.terminal import assert_short_error, run_cli, succeed, succeed_json
from tests.families.tirex2_checkpoints import write_tirex2
from tests.families.tirex_checkpoints import make_tirex
from xlstm_export.inference import forecast
from xlstm_export.pipeline import export

TABLE = "date,load,temperature\n" + "".join(
    f"2026-01-{day:02},{'' if day == 9 else day % 7},{day / 2}\n" for day in range(1, 31)
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forecasters")
    export(make_tirex(folder / "one").source.path, folder / "tirex")
    export(write_tirex2(folder / "several"), folder / "tirex2")
    (folder / "table.csv").write_text(TABLE)
    return folder


def test_a_table_becomes_quantiles_and_a_picture(bundles: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out.csv", tmp_path / "plot.svg"
    succeed(
        "run", bundles / "tirex", "--csv", bundles / "table.csv", "--column", "load,temperature",
        "--horizon", 20, "--output", out, "--plot", plot,
    )  # fmt: skip
    table = pd.read_csv(out)
    assert list(table.columns[:2]) == ["series", "time"]
    assert list(table["series"].unique()) == ["load", "temperature"]
    assert list(table["time"][[0, 19]]) == ["2026-01-31", "2026-02-19"]
    assert plot.read_text().count("<svg") == 1
    history = pd.read_csv(bundles / "table.csv")
    series = [history[name].to_numpy(np.float32) for name in ("load", "temperature")]
    found = forecast(bundles / "tirex", series, 20)
    np.testing.assert_allclose(
        table[[f"{level:g}" for level in found.levels]].to_numpy(),
        found.quantiles.reshape(40, -1), rtol=1e-5, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("horizon", [3, 8, 24])
def test_a_carried_forecast_is_near_the_one_begun_again(bundles: Path, horizon: int) -> None:
    """The first patch is one call in both; then other missing patches stand in front."""
    series = np.sin(np.arange(60)) + np.arange(60) / 30
    carried, rerun = (
        forecast(bundles / "tirex", series, horizon, rollout=rollout).quantiles
        for rollout in ("carried", "rerun")
    )
    assert carried.shape == (1, horizon, 5)
    np.testing.assert_array_equal(carried[:, :8], rerun[:, :8])
    assert np.sqrt(np.mean((carried - rerun) ** 2)) < 0.1 * rerun.std()


def test_the_same_as_json_and_on_stdin(bundles: Path) -> None:
    given = succeed_json(
        "run", bundles / "tirex", "--csv", bundles / "table.csv", "--column", "load",
        "--horizon", 4,
    )  # fmt: skip
    assert given["series"] == ["load"]
    assert np.array(given["quantiles"]).shape == (1, 4, len(given["levels"]))
    assert given["time"][0].startswith("2026-01-31")
    shown = run_cli("run", bundles / "tirex", "--csv", "-", "--horizon", 4, stdin=TABLE.encode())
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].startswith("series,time,")
    assert len(lines) == 1 + 2 * 4


def test_covariates_known_ahead(bundles: Path, tmp_path: Path) -> None:
    more = TABLE + "2026-01-31,,15\n2026-02-01,,15.5\n2026-02-02,,16\n"
    (tmp_path / "more.csv").write_text(more)
    run = ("run", bundles / "tirex2", "--csv", tmp_path / "more.csv", "--horizon", 3)
    with_them = succeed_json(*run, "--column", "load", "--future-covariates", "temperature")
    (tmp_path / "more.csv").write_text(TABLE)
    without = succeed_json(*run, "--column", "load")
    assert with_them["time"] == without["time"]
    assert np.array(with_them["quantiles"]).shape == np.array(without["quantiles"]).shape
    assert np.abs(np.subtract(with_them["quantiles"], without["quantiles"])).max() > 1e-3
    assert_short_error(
        run_cli("run", bundles / "tirex2", "--csv", tmp_path / "more.csv", "--horizon", 500),
        "--horizon", "500 is beyond the 24 steps", code=2,
    )  # fmt: skip


def test_what_is_not_given_is_asked_for(bundles: Path) -> None:
    outcome = run_cli("run", bundles / "tirex", "--csv", bundles / "table.csv")
    assert outcome.code == 2
    assert "--horizon" in outcome.err
    assert_short_error(
        run_cli("run", bundles / "tirex", "--prompt", "once"), "run it with --csv FILE --horizon N"
    )
    assert_short_error(
        run_cli("run", bundles / "tirex", "--csv", "absent.csv", "--horizon", 2),
        "absent.csv: cannot be read",
    )


def test_an_array_has_numbers_for_names(bundles: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(20.0))
    run = ("run", bundles / "tirex", "--csv", tmp_path / "a.npy", "--horizon", 2)
    assert succeed_json(*run, "--column", "0")["series"] == ["0"]
    assert_short_error(run_cli(*run, "--column", "temp"), "no series temp", "by their number, 0")
    assert_short_error(run_cli(*run, "--time", "date"), "--time", "leave it out", code=2)
