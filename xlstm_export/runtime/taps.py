"""A bundle taken apart, in ONNX Runtime: every part on the inputs that are given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from xlstm_export.bundle.manifest import MODEL_FILE, Manifest
from xlstm_export.lowering.taps import tap_graph
from xlstm_export.runtime.bf16_emulation import widened
from xlstm_export.runtime.feeds import prepare_feeds
from xlstm_export.runtime.ort import DATA_FOLDER, import_onnxruntime, session_setting
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.states import States
from xlstm_export.runtime.widening import WIDE


class TappedBundle:
    """Runs the graph of ``bundle`` on the CPU, computed as in ``OrtSession``, with those of the
    taps that ``like`` has numbers for, cut there or not; their last axis keeps its size.
    """

    def __init__(
        self, bundle: Path, manifest: Manifest, like: Mapping[str, Array], *, threads: int | None,
        native: bool, is_cut: bool = True,
    ) -> None:  # fmt: skip
        ort = import_onnxruntime()
        self.manifest = manifest
        sizes = {name: [*[None] * (x.ndim - 1), x.shape[-1]] for name, x in like.items()}
        tapped = tap_graph(bundle / MODEL_FILE, sizes, is_cut)
        self.model = tapped.model
        self.taps = tapped.taps
        setting = session_setting(ort, threads, native)
        setting.options.add_session_config_entry(DATA_FOLDER, os.fsencode(bundle.resolve()))
        if manifest.low_bit is not None:  # as validate opens it: products of wide weights
            setting.options.add_session_config_entry(*WIDE)
            for node in tapped.model.graph:
                if "accuracy_level" in node.attributes:
                    node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
        if manifest.dtype == "bfloat16":
            graph = widened(tapped.model)
        else:
            graph = bytes(ir.to_proto(tapped.model).SerializeToString())
        self._session = setting.open(ort, graph)

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array], exact: Mapping[str, Array]
    ) -> tuple[dict[str, Array], States]:
        """What each part makes of its ``exact`` inputs, by the taps' names, and the states after.

        ``states`` are those of before the call; a bundle that begins every call ignores them.
        """
        given = dict(prepare_feeds(self.manifest, feeds))
        if self.manifest.takes_states:
            given |= {
                s.input: np.ascontiguousarray(states[s.key], s.dtype) for s in self.manifest.states
            }
        for tap in self.taps:
            if tap.exact:
                kind = "float32" if tap.dtype == "bfloat16" else tap.dtype
                given[tap.exact] = np.ascontiguousarray(exact[tap.name], kind)
        names = list(dict.fromkeys(tap.got for tap in self.taps))
        names += [s.output for s in self.manifest.states if s.output not in names]
        found = dict(zip(names, self._session.run(names, given), strict=True))
        after = States({s.key: found[s.output] for s in self.manifest.states})
        return {tap.name: found[tap.got] for tap in self.taps}, after
