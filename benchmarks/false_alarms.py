"""Right bundles of all families and precisions, validated: how many are called wrong.

python -m benchmarks.false_alarms [--models N] [--work DIR]

Random small models of the suite's grid, each in another precision and with other inputs. Prints a
line for each, and the number of false alarms; the exit code is 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import xlstm_export as xe
from tests.model_cases import CASES, TIREX, VIL, Library
from xlstm_export.bundle.manifest import BUNDLE_DTYPES
from xlstm_export.lowering.options import LoweringOptions

_MODELS = 50


def alarm_of(library: Library, number: int) -> str:
    """What is wrong with right model ``number`` by validate; nothing where it is right."""
    cases = (*CASES, *TIREX, *VIL)
    case = cases[number * 7 % len(cases)]  # 7 shares no factor with their number: all in turn
    dtype = BUNDLE_DTYPES[number % len(BUNDLE_DTYPES)]
    bundle = library.bundle(case, LoweringOptions(dtype=dtype))  # type: ignore[arg-type]
    source = library.source(case)
    report = xe.validate(
        bundle, source.path, config=source.config, prefix=source.prefix, seed=number, upstream=False
    )
    wrong = [r.name for r in report.results if not r.judgement.ok]
    wrong += [f"{check.name} ({check.reason})" for check in report.checks if not check.ok]
    print(f"{case.id} {dtype}: {report.verdict} {'; '.join(wrong)}", flush=True)
    return "; ".join(wrong)


def main() -> None:
    """Validate, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=_MODELS)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = Library(arguments.work or Path(folder))
        alarms = [alarm_of(library, number) for number in range(arguments.models)]
    count = sum(map(bool, alarms))
    print(f"{count} false alarms among {len(alarms)} models")
    sys.exit(min(count, 1))


if __name__ == "__main__":
    main()
