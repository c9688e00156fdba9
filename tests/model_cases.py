"""Every model configuration the toolkit supports, as small random checkpoints, and their bundles.

The tests of ``equivalence``, ``lowering`` and ``runtime`` run over this grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tests.families.block_stack_checkpoints import FileName, make_block_stack
from tests.families.large_checkpoints import make_hf, make_xlstm_large
from tests.families.vil_checkpoints import make_vil
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.layers.feed_forward import Activation

VOCABULARY = 199
"""Large enough for many rows of one token to be all different."""

ACTIVATIONS: tuple[Activation, ...] = ("gelu", "relu", "relu^2", "selu", "sigmoid", "swish")


@dataclass(frozen=True)
class ModelCase:
    """A named configuration; ``maker`` writes a checkpoint of it into a folder."""

    id: str
    maker: Callable[[Path], Source]

    def __str__(self) -> str:
        """Test id."""
        return self.id


def _stack(name: str, **config: object) -> ModelCase:
    vocabulary = {"vocab_size": VOCABULARY} if config.get("lm", True) else {}

    def make(folder: Path) -> Source:
        return make_block_stack(folder, **vocabulary, **config)[0]  # type: ignore[arg-type]

    return ModelCase(f"stack-{name}", make)


def _large(name: str, **config: object) -> ModelCase:
    def make(folder: Path) -> Source:
        return make_xlstm_large(folder, vocab_size=VOCABULARY, **config).source  # type: ignore[arg-type]

    return ModelCase(f"large-{name}", make)


def _hf(name: str, **config: object) -> ModelCase:
    def make(folder: Path) -> Source:
        return make_hf(folder, vocab_size=VOCABULARY, **config).source  # type: ignore[arg-type]

    return ModelCase(f"hf-{name}", make)


def _vil(name: str, **config: object) -> ModelCase:
    def make(folder: Path) -> Source:
        return make_vil(folder, **config)  # type: ignore[arg-type]

    return ModelCase(f"vil-{name}", make)


def _tirex(name: str, **sizes: int) -> ModelCase:
    def make(folder: Path) -> Source:
        from tests.families.tirex_checkpoints import make_tirex  # takes scikit-learn along

        return make_tirex(folder, **sizes).source

    return ModelCase(f"tirex-{name}", make)


_PT: FileName = "model.pt"
_ODD_SIZES = {
    "embedding_dim": 24,
    "mlstm": {
        "num_heads": 3, "qkv_proj_blocksize": 6, "proj_factor": 1.5,
        "round_proj_up_to_multiple_of": 1,
    },
    "slstm": {"num_heads": 3},
    "feedforward": {"proj_factor": 2.0, "round_proj_up_to_multiple_of": 1},
}  # fmt: skip

BLOCK_STACKS: tuple[ModelCase, ...] = (
    _stack("mixed"),
    _stack("mlstm-only", slstm=None, slstm_at=[]),
    _stack("slstm-only", mlstm=None, num_blocks=2),
    _stack("slstm-all", slstm_at="all", num_blocks=2),
    _stack("bare", lm=False),
    _stack("bare-no-post-norm", lm=False, add_post_blocks_norm=False),
    _stack("no-post-norm", add_post_blocks_norm=False),
    _stack("slstm-no-conv", slstm={"conv1d_kernel_size": 0}, slstm_at=[0, 1]),
    _stack("conv-2-5", mlstm={"conv1d_kernel_size": 2}, slstm={"conv1d_kernel_size": 5}),
    _stack("bias", bias=True, feedforward={"bias": True}),
    _stack("tied", tie_weights=True),
    _stack("cuda-layout", layout="cuda", slstm={"num_heads": 4}),
    _stack("pt-file", file=_PT),
    _stack("one-head", mlstm={"num_heads": 1}, slstm={"num_heads": 1}),
    _stack("eight-heads", embedding_dim=32, mlstm={"num_heads": 8}, slstm={"num_heads": 8}),
    _stack("odd-sizes", **_ODD_SIZES),
    _stack("uneven-blocks", mlstm={"num_heads": 2, "qkv_proj_blocksize": 12}),
    _stack("wide", embedding_dim=96, num_blocks=2, slstm_at=[1]),
    _stack("no-group-norm-weight", slstm={"group_norm_weight": False}),
    _stack("no-feedforward", feedforward=None),
    _stack("bf16-file", stored_type=torch.bfloat16),
    *(
        _stack(f"ffn-{name.replace('^', '')}", feedforward={"act_fn": name}, slstm_at=[0],
               num_blocks=2)
        for name in ACTIVATIONS if name != "gelu"
    ),
)  # fmt: skip

LARGE: tuple[ModelCase, ...] = (
    _large("single"),
    _large("fused", weight_mode="fused"),
    _large("bias", use_bias=True),
    _large("fused-bias", weight_mode="fused", use_bias=True),
    _large("caps-off", gate_soft_cap=None, output_logit_soft_cap=None),
    _large("small-caps", gate_soft_cap=2.0, output_logit_soft_cap=5.0),
    _large("no-out-norm", add_out_norm=False),
    _large("files", shards=5),
    _large("head-96-192", embedding_dim=192, num_heads=1, num_blocks=1),
    _large("odd-sizes", embedding_dim=60, num_heads=3, qk_dim_factor=0.35, v_dim_factor=0.55),
    _large("other-eps", norm_eps=1e-3, eps=1e-2),
)

HF: tuple[ModelCase, ...] = (
    _hf("plain"),
    _hf("sharded", shards=3),
    _hf("bf16", dtype="bfloat16"),
    _hf("fp16", dtype="float16"),
    _hf("legacy-keys", legacy_keys=True, dtype="bfloat16"),
    _hf("tied", tied=True),
    _hf("fused-bias", weight_mode="fused", use_bias=True),
    _hf("backbone", bare=True),
)

VIL: tuple[ModelCase, ...] = (
    _vil("one", version=1),
    _vil("one-module", version=1, layout="module", file="vil.safetensors"),
    _vil("one-odd", version=1, size=12, blocks=3, patch=2, grid=(7, 2), channels=1, classes=3),
    _vil("one-overlap", version=1, settings={"stride": 2}),
    _vil("one-resized", version=1, resolution=(24, 16)),
    _vil("one-overlap-resized", version=1, settings={"stride": [2, 3], "input_shape": [3, 20, 16]}),
    _vil("one-bare", version=1, layout="module", classes=None),
    _vil("one-no-first-norm", version=1, layout="module", with_norms=False),
    _vil("two"),
    _vil("two-module", layout="module"),
    _vil("two-odd", size=24, blocks=2, grid=(1, 6), channels=4),
    _vil("two-resized", resolution=(36, 8)),
    _vil("two-bare", layout="module", classes=None),
    _vil("two-mean", mean=True),
    _vil("two-no-biases", layout="module", with_biases=False),
    _vil("two-no-last-norm", layout="module", with_norms=False),
    _vil("two-causal", layout="module", causal=True),
    _vil("two-bf16-file", stored_type=torch.bfloat16),
)
"""Vision-LSTMs, versions 1 and 2: they take images, and carry no states."""

CASES: tuple[ModelCase, ...] = BLOCK_STACKS + LARGE + HF
"""Those that take sequences of any length, and carry states."""

TIREX: tuple[ModelCase, ...] = (
    _tirex("small"),
    _tirex("one-head", heads=1, hidden=33, patch=16, levels=1),
    _tirex("odd-sizes", blocks=3, size=60, heads=3, context=70, patch=7, levels=9),
)

BY_ID = {case.id: case for case in (*CASES, *VIL, *TIREX)}

ONE_PER_FAMILY = tuple(BY_ID[name] for name in ("stack-mixed", "large-single", "hf-plain"))


@dataclass
class Library:
    """Checkpoints and bundles below ``root``, each made once."""

    root: Path
    _sources: dict[str, Source] = field(default_factory=dict)
    _bundles: dict[tuple[str, LoweringOptions], Path] = field(default_factory=dict)

    def source(self, case: ModelCase) -> Source:
        """The checkpoint of ``case``."""
        if case.id not in self._sources:
            self._sources[case.id] = case.maker(self.root / "sources" / case.id)
        return self._sources[case.id]

    def checkpoint(self, case: ModelCase) -> Checkpoint:
        """The checkpoint of ``case``, read."""
        return pipeline.read_checkpoint(self.source(case))

    def bundle(
        self, case: ModelCase, options: LoweringOptions | None = None, **changes: object
    ) -> Path:
        """The bundle of ``case`` lowered with ``options`` (defaults, with ``changes``)."""
        chosen = replace(options or LoweringOptions(), **changes)  # type: ignore[arg-type]
        key = (case.id, chosen)
        if key not in self._bundles:
            out = self.root / "bundles" / f"{len(self._bundles)}-{case.id}"
            pipeline.export_source(self.source(case), out, chosen)
            self._bundles[key] = out
        return self._bundles[key]
