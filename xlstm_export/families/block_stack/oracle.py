"""Upstream's block stack in float64, driven by the canonical states of ``model.state``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy.typing as npt
import torch

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.errors import CheckpointError
from xlstm_export.families.block_stack.config import StackConfig
from xlstm_export.families.oracle import FloatArray
from xlstm_export.families.tensors import float64_tensors
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage

_KERNEL, _BIAS = "slstm_cell._recurrent_kernel_", "slstm_cell._bias_"
_LM_FIELDS = ("vocab_size", "tie_weights", "weight_decay_on_embedding", "add_embedding_dropout")


class BlockStackOracle:
    """The module upstream builds from a configuration, with a checkpoint's tensors in float64.

    Upstream takes its sLSTM rule for n = 0 over the whole batch: rows of ``states`` must be all
    fresh or all used for its stabiliser m to be that of each row alone (outputs never differ).
    """

    def __init__(
        self, checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None = None
    ) -> None:
        """The tensors of ``checkpoint``, or of ``part`` of it, as ``storage`` leaves them.

        Raises ImportError where the package is missing, CheckpointError where its module does not
        take the weights.
        """
        spec, config, origin = checkpoint.spec, checkpoint.fields, str(checkpoint.files[-1])
        package = importlib.import_module("xlstm")
        class_name = "xLSTMBlockStack" if spec.vocab_size is None else "xLSTMLMModel"
        self.name = (
            f"xlstm {version('xlstm')} {class_name}.step, sLSTM vanilla, mLSTM native, float64"
        )
        self._spec, self._is_part = part or spec, part is not None
        self._bare = spec.vocab_size is None
        self._first = self._spec.states_before
        kinds = (SLSTM, UpProjectedMLSTM)
        self._blocks = [layer for _, layer in self._spec.leaves() if isinstance(layer, kinds)]
        # upstream initialises; callers keep their seed, and of a part the rest takes no memory
        device = "cpu" if part is None else "meta"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            module = getattr(package, class_name)(_upstream_config(package, config, spec))
        self._module = module.double().eval().requires_grad_(False)
        _forget_context_length(self._module)
        self._load(_stored_tensors(checkpoint, storage, part), origin)
        self._step = self._module.step if part is None else self._step_of_part

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        states: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As ``Oracle.run``: upstream's ``step`` for each of the T inputs."""
        x = self._inputs(feeds)
        state = None if states is None else self._to_upstream(states)
        outputs = []
        with torch.no_grad():
            for t in range(x.shape[1]):
                output, state = self._step(x[:, t : t + 1], state=state)
                outputs.append(output)
        output = torch.cat(outputs, dim=1).numpy()
        return {self._spec.outputs[0].name: output}, self._from_upstream(state)

    def forward(self, feeds: Mapping[str, npt.NDArray[Any]]) -> FloatArray:
        """Upstream's parallel form over all T inputs from zero states; the output of ``run``."""
        with torch.no_grad():
            result: FloatArray = self._module(self._inputs(feeds)).numpy()
        return result

    def _step_of_part(
        self, x: torch.Tensor, state: dict[str, dict[str, Any]] | None
    ) -> tuple[torch.Tensor, dict[str, dict[str, Any]]]:
        """What upstream's ``step`` does, by the modules of the part alone."""
        kinds, module = {type(layer) for _, layer in self._spec.layers}, self._module
        stack = module if self._bare else module.xlstm_block_stack
        x = module.token_embedding(x) if TokenEmbedding in kinds else x
        state = state or {}
        for number in range(self._first, self._first + len(self._blocks)):
            name = f"block_{number}"
            x, state[name] = stack.blocks[number].step(x, **state.get(name, {}))
        x = stack.post_blocks_norm(x) if Norm in kinds else x
        return module.lm_head(x) if LogitHead in kinds else x, state

    def _inputs(self, feeds: Mapping[str, npt.NDArray[Any]]) -> torch.Tensor:
        kind = torch.float64 if self._spec.vocab_size is None else torch.int64
        return torch.tensor(feeds[self._spec.inputs[0].name], dtype=kind)

    def _load(self, state: dict[str, torch.Tensor], origin: str) -> None:
        if any(head.tied_to for head in self._spec.layers_of(LogitHead)):
            ends = ("token_embedding.weight", "lm_head.weight")
            shared = next(state[key] for key in ends if key in state)
            state |= dict.fromkeys(ends, shared)
        try:
            self._module.load_state_dict(state, strict=not self._is_part, assign=self._is_part)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise CheckpointError(
                f"{origin}: upstream's module does not take these weights: {reason}"
            ) from error

    def _to_upstream(self, states: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, Any]]:
        """Copies of ``states`` as the nested state of ``step``, which changes them in place."""

        def get(key: str) -> torch.Tensor:
            return torch.tensor(states[key], dtype=torch.float64)

        nested: dict[str, dict[str, Any]] = {}
        for i, layer in enumerate(self._blocks, self._first):
            entry: dict[str, Any] = {}
            if isinstance(layer, SLSTM):
                cells = [get(f"{i}.slstm.{letter}").flatten(1) for letter in "ycnm"]
                entry["slstm_state"] = torch.stack(cells)  # [4, B, N*H]
            else:
                C, n, m = (get(f"{i}.mlstm.{letter}") for letter in "Cnm")
                entry["mlstm_state"] = (C, n[..., None], m[..., None, None])
            if f"{i}.conv.x" in states:  # upstream keeps W inputs and drops the oldest unread
                window = get(f"{i}.conv.x")
                entry["conv_state"] = (torch.cat([window[:, :1], window], dim=1),)
            nested[f"block_{i}"] = entry
        return nested

    def _from_upstream(self, nested: Any) -> dict[str, FloatArray]:
        states: dict[str, torch.Tensor] = {}
        for i, layer in enumerate(self._blocks, self._first):
            entry = nested[f"block_{i}"]
            if entry["conv_state"] is not None:
                states[f"{i}.conv.x"] = entry["conv_state"][0][:, 1:]
            if isinstance(layer, SLSTM):
                shape = (-1, layer.heads, layer.head_size)
                for letter, value in zip("ycnm", entry["slstm_state"], strict=True):
                    states[f"{i}.slstm.{letter}"] = value.reshape(shape)
            else:
                C, n, m = entry["mlstm_state"]
                states[f"{i}.mlstm.C"] = C
                states[f"{i}.mlstm.n"] = n.squeeze(-1)
                states[f"{i}.mlstm.m"] = m.squeeze(-1).squeeze(-1)
        return {key: value.numpy().copy() for key, value in states.items()}


def _upstream_config(package: Any, config: StackConfig, spec: ModelSpec) -> Any:
    """Upstream's configuration object; blocks that do not occur are left out."""
    values = dict(vars(config), mlstm_block=None, slstm_block=None, context_length=1)
    if config.slstm_block is not None and "slstm" in config.block_kinds:
        ffn = config.slstm_block.feedforward
        values["slstm_block"] = package.sLSTMBlockConfig(
            slstm=package.sLSTMLayerConfig(
                **vars(config.slstm_block.slstm) | {"backend": "vanilla"}
            ),
            feedforward=None if ffn is None else package.FeedForwardConfig(**vars(ffn)),
        )
    if config.mlstm_block is not None and "mlstm" in config.block_kinds:
        layer = package.mLSTMLayerConfig(**vars(config.mlstm_block.mlstm))
        values["mlstm_block"] = package.mLSTMBlockConfig(mlstm=layer)
    if spec.vocab_size is not None:
        return package.xLSTMLMModelConfig(**values)
    return package.xLSTMBlockStackConfig(
        **{name: value for name, value in values.items() if name not in _LM_FIELDS}
    )


def _forget_context_length(module: torch.nn.Module) -> None:
    """Drop the stored causal masks; upstream then makes one of the length it is given."""
    for cell in module.modules():
        if hasattr(cell, "causal_mask"):
            cell.register_buffer("causal_mask", None, persistent=False)


def _stored_tensors(
    checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None
) -> dict[str, torch.Tensor]:
    """Every tensor in float64 as ``storage`` leaves it, sLSTM cells in the vanilla layout."""
    state = float64_tensors(checkpoint, storage, part)
    for key in [k for k in state if k.endswith(_KERNEL)]:
        heads, rows, columns = state[key].shape
        if rows < columns:  # cuda layout: R [N, H(in), 4 H(out)], bias by head, gate, unit
            state[key] = state[key].reshape(heads, rows, 4, rows).permute(0, 2, 3, 1).flatten(1, 2)
            bias = key.removesuffix(_KERNEL) + _BIAS
            state[bias] = state[bias].reshape(heads, 4, rows).transpose(0, 1).flatten()
    return state


def build(
    checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None = None
) -> BlockStackOracle:
    """The module of ``checkpoint``, or ``part`` of it, its numbers as ``storage`` leaves them."""
    return BlockStackOracle(checkpoint, storage, part)
