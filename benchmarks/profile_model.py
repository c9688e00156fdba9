"""Where a bundle's time goes in ONNX Runtime: by operator, in our layers and in the recurrences.

python -m benchmarks.profile_model BUNDLE [--steps 512] [--threads 2] [--no-native] [--nodes]
                                   [--top 25] [--json F]

A recurrence is a node of our domain: one native kernel, or every node of its function body.

The profiler itself costs some microseconds per node: shares of a one-token step are those of a
slower step. Each node's time is the median over the runs, less that of the nodes inside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine_facts, write_json
from xlstm_export.bundle.manifest import MODEL_FILE, Manifest, read_manifest
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.runtime.ort import BODIES, cpu_threads, session_setting

_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """One executed node: median seconds of its own, and where it comes from."""

    name: str
    op_type: str
    seconds: float
    recurrence: bool
    """Whether it is a native kernel of our domain, or a node of one of its function bodies."""


@dataclass(frozen=True)
class Profile:
    """The nodes that one call over ``steps`` executes, in order, and who computed the operators."""

    what: str
    operators: str
    nodes: tuple[NodeTime, ...]

    @property
    def seconds(self) -> float:
        """Of all nodes."""
        return sum(node.seconds for node in self.nodes)

    @property
    def recurrent_share(self) -> float:
        """Part of the time that the recurrences take, 0 to 1."""
        return sum(node.seconds for node in self.nodes if node.recurrence) / self.seconds


def profile(
    bundle: Path, steps: int, *, threads: int, runs: int, native: bool = True, batch: int = 1
) -> Profile:
    """Times of every node of a call over ``steps``, on states that are not zero."""
    with tempfile.TemporaryDirectory(prefix="xlstm-profile-") as folder:
        setting = session_setting(ort, threads, native)
        options, operators = setting.options, setting.operators
        options.enable_mem_pattern = False  # as OrtSession has it
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "ort")
        path = str(bundle / MODEL_FILE)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = _feeds(session, read_manifest(bundle), batch, steps)
        for _ in range(runs):
            session.run(None, feeds)
        log = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [e for e in log if e.get("cat") == "Node" and e["name"].endswith(_KERNEL)]
    # the first run made the states, and warmed up
    nodes = node_times(kernels, runs + 1, bodies=operators == BODIES)
    return Profile(f"{bundle.name}, {steps} steps", operators, tuple(nodes))


def node_times(events: list[dict[str, Any]], runs: int, *, bodies: bool) -> list[NodeTime]:
    """Kernel events of ``runs`` equal runs, the first left out, as one list of nodes.

    ``bodies`` says that function bodies ran: their nodes are known by having no path for a name,
    like the few nodes that fusion of our layers makes.
    """
    events = sorted(events, key=lambda e: (e["ts"], -e["dur"]))
    per_run = len(events) // runs
    if per_run * runs != len(events):
        raise RuntimeError(f"{len(events)} events do not divide into {runs} equal runs")
    own, depth = _own_times(events)
    medians = np.median(own.reshape(runs, per_run)[1:], axis=0) * 1e-6
    nodes = []
    for index in range(per_run):
        name = events[-per_run + index]["name"].removesuffix(_KERNEL)
        op_type = events[-per_run + index]["args"]["op_name"]
        in_body = bodies and (depth[-per_run + index] > 0 or not name.startswith("/"))
        recurrence = in_body or op_type in CATALOG
        nodes.append(NodeTime(name, op_type, float(medians[index]), recurrence))
    return nodes


def _own_times(events: list[dict[str, Any]]) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Microseconds of each event less those of the events inside it, and nesting depths."""
    own = np.array([e["dur"] for e in events], np.float64)
    depth: list[int] = []
    open_: list[int] = []
    for index, event in enumerate(events):
        while open_ and event["ts"] >= events[open_[-1]]["ts"] + events[open_[-1]]["dur"]:
            open_.pop()
        if open_:
            own[open_[-1]] -= event["dur"]
        depth.append(len(open_))
        open_.append(index)
    return own, depth


def _feeds(
    session: ort.InferenceSession, manifest: Manifest, batch: int, steps: int
) -> dict[str, Any]:
    """Random inputs, and states from a first call so that they are not zero."""
    random = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for state in manifest.states:
        feeds[state.input] = np.zeros((batch, *(int(d) for d in state.shape[1:])), state.dtype)
    first = manifest.inputs[0]
    if first.dtype == "int64":
        feeds[first.name] = random.integers(0, int(manifest.outputs[0].shape[-1]), (batch, steps))
    else:
        width = int(first.shape[-1])
        feeds[first.name] = random.standard_normal((batch, steps, width)).astype(first.dtype)
    if manifest.ragged:
        feeds["sequence_lengths"] = np.full(batch, -1, np.int32)
    outputs = [s.output for s in manifest.states]
    for state, value in zip(manifest.states, session.run(outputs, feeds), strict=True):
        feeds[state.input] = value
    return feeds


def main() -> None:
    """Profile one bundle and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=int, default=512, help="tokens per call; 1 is a decode")
    parser.add_argument("--threads", type=int, default=cpu_threads())
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--top", type=int, default=25, help="rows to print")
    parser.add_argument("--no-native", action="store_true", help="function bodies, not kernels")
    parser.add_argument("--nodes", action="store_true", help="rows are nodes, not operator types")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    arguments = parser.parse_args()
    measured = profile(
        arguments.bundle,
        arguments.steps,
        threads=arguments.threads,
        runs=arguments.runs,
        native=not arguments.no_native,
    )
    print_profile(measured, Console(), top=arguments.top, by_node=arguments.nodes)
    if arguments.json:
        facts = machine_facts(arguments.threads)
        write_json(arguments.json, {"machine": facts, "profile": measured})


def print_profile(
    measured: Profile, console: Console, *, top: int = 12, by_node: bool = False
) -> None:
    """The ``top`` rows by time, by operator type or ``by_node``, and the recurrences' share."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    calls: Counter[tuple[str, str]] = Counter()
    for node in measured.nodes:
        where = "recurrence" if node.recurrence else "layer"
        key = (where, node.name if by_node else node.op_type)
        seconds[key] += node.seconds
        calls[key] += 1
    count, total = len(measured.nodes), measured.seconds
    table = Table(title=f"{measured.what}: {count} nodes run\n{measured.operators}")
    for column in ("where", "node" if by_node else "operator"):
        table.add_column(column)
    for column in ("runs", "ms", "share"):
        table.add_column(column, justify="right")
    for (where, what), value in sorted(seconds.items(), key=lambda row: -row[1])[:top]:
        runs = str(calls[where, what])
        table.add_row(where, what, runs, f"{value * 1e3:.3f}", f"{value / total:.1%}")
    share = measured.recurrent_share
    table.add_section()
    table.add_row("recurrence", "all", "", f"{share * total * 1e3:.3f}", f"{share:.1%}")
    table.add_row("all", "all", "", f"{total * 1e3:.3f}", "100%")
    console.print(table)


if __name__ == "__main__":
    main()
