"""The other side of the comparisons: upstream's packages on the CPU, as a careful user runs them.

float32, inference mode, native kernels, the thread count of our side, states carried.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xlstm_export.runtime.session import Array


class TransformersModel:
    """xLSTMForCausalLM with its cache; the checkpoint's configuration names native kernels."""

    def __init__(self, folder: Path) -> None:
        from transformers import xLSTMForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        model: Any = xLSTMForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()

    @torch.inference_mode()
    def run(self, ids: Array, cache: Any = None) -> tuple[Tensor, Any]:
        """Logits of every id [B,T,vocab], and the cache, which is changed in place."""
        output = self._model(torch.from_numpy(ids), cache_params=cache, use_cache=True)
        return output.logits, output.cache_params


class BlockStackModel:
    """xLSTMBlockStack: a parallel form without states, and a step."""

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module.eval()

    @torch.inference_mode()
    def forward(self, x: Array) -> Tensor:
        """Outputs [B,T,D] of the parallel form; it yields no state."""
        result: Tensor = self._module(torch.from_numpy(x))
        return result

    @torch.inference_mode()
    def run(self, x: Array, state: Any = None) -> tuple[Tensor, Any]:
        """Outputs [B,T,D] and the state after them, which only ``step`` can give."""
        steps = torch.from_numpy(x)
        outputs = []
        for t in range(x.shape[1]):
            output, state = self._module.step(steps[:, t : t + 1], state=state)
            outputs.append(output)
        return torch.cat(outputs, dim=1), state


def difference(ours: Array, theirs: Array | Tensor) -> float:
    """Largest difference relative to the largest number; refuses to time unequal work."""
    reference = theirs.float().numpy() if isinstance(theirs, Tensor) else theirs
    value = float(np.abs(ours - reference).max() / np.abs(reference).max())
    if not value < 1e-3:
        raise SystemExit(f"the contenders do not agree (difference {value:.1e}): nothing to time")
    return value
