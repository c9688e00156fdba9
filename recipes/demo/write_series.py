"""Writes `forecaster/series.csv`: three made-up hourly series of 600 rows, a few values missing.

`load` has a day and a week, `temperature` a day on top of slow weather, `visitors` come by day, on
more days than not, and are more from the middle on.
"""

from pathlib import Path

import numpy as np
import pandas as pd

ROWS, DAY, WEEK = 600, 24, 168


def make_series(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    hour = np.arange(ROWS)
    day = 2 * np.pi * hour / DAY
    is_weekend = (hour % WEEK) >= 5 * DAY
    load = 52 - 9 * np.cos(day - 0.6) - 4 * np.cos(2 * day) - 7 * is_weekend
    load = load + 0.01 * hour + rng.normal(0, 1.0, ROWS)
    weather = np.zeros(ROWS)
    for at in range(1, ROWS):
        weather[at] = 0.99 * weather[at - 1] + rng.normal(0, 0.35)
    temperature = 12 + weather - 4 * np.cos(day - 0.8) + rng.normal(0, 0.25, ROWS)
    opening = np.clip(np.sin(day - 1.9), 0, None) ** 1.2
    visitors = np.where(hour < ROWS / 2, 180, 260) * opening * rng.lognormal(0, 0.12, ROWS)
    frame = pd.DataFrame(
        {"load": load.round(1), "temperature": temperature.round(1), "visitors": visitors.round()},
        index=pd.date_range("2026-03-02", periods=ROWS, freq="h", name="date"),
    )
    frame.iloc[rng.integers(0, ROWS - DAY, 9), 0] = np.nan
    frame.iloc[470:482, 1] = np.nan
    return frame


def main() -> None:
    path = Path(__file__).parent / "forecaster" / "series.csv"
    path.parent.mkdir(exist_ok=True)
    make_series().to_csv(path, float_format="%g", date_format="%Y-%m-%d %H:%M")


if __name__ == "__main__":
    main()
