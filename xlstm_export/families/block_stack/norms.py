"""Norm weights that look as if another code than upstream's had stored them."""

from __future__ import annotations

import numpy as np

from xlstm_export.model.weights import Weights

_KINDS = {
    "the norms of the blocks": ("xlstm_norm.weight", "ffn_norm.weight"),
    "the norms of the heads": ("outnorm.weight", "group_norm.weight"),
}
"""A final norm may well have grown to twice the usual in training; all of these have not."""


def notes_on_norms(tensors: Weights) -> tuple[str, ...]:
    """A warning for each kind of norm whose stored weights all lie nearer to 1 than to 0.

    Upstream stores w - 1, near 0. A fork with RMS norms stores w under the same names and shapes:
    its model is another, and no comparison with upstream's module would show it.
    """
    notes = []
    for what, ends in _KINDS.items():
        of_kind = [weight for name, weight in tensors.items() if name.endswith(ends)]
        means = [float(np.mean(weight.load().astype(np.float64))) for weight in of_kind]
        if means and all(0.5 < mean < 1.5 for mean in means):
            notes.append(
                f"WARNING: the stored weights of {what} all lie near 1 (mean "
                f"{np.mean(means):.2f}), where the xlstm package stores w - 1, near 0: were they "
                "trained by a fork, with RMS norms for instance? Then this is another model, and "
                "a comparison with the xlstm package cannot show it"
            )
    return tuple(notes)
