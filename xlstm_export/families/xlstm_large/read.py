"""``xlstm.xlstm_large.xLSTMLarge``: config.yaml and one or many safetensors files.

The fields may also stand beside the tensors of a training checkpoint.
"""

from __future__ import annotations

from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.checkpoint.tensor_table import TensorTable
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.families.large.blocks import LargeLayout, read_model
from xlstm_export.families.large.fields import refuse_contradiction
from xlstm_export.families.xlstm_large.config import configuration
from xlstm_export.model.layers.mlstm import MLSTM


def read(source: Source) -> Checkpoint:
    """The model in ``source``.

    Raises CheckpointError for missing, damaged, or contradictory files, UnsupportedModelError
    for options with other maths.
    """
    files = find_weight_files(source.path)
    stored = read_weight_files(files, source.prefix)
    found = configuration(source, stored)
    fields = found.fields
    table = TensorTable(stored.tensors, str(source.path))
    layout = LargeLayout(
        family="xlstm_large",
        embedding="embedding.weight",
        has_out_norm=fields.add_out_norm,
        out_norm_bias=fields.use_bias,
        tied_without_head=False,
    )
    spec, weights = read_model(table, fields, layout, found.origin)
    table.finish()
    v_size = spec.layers_of(MLSTM)[0].cell.v_size
    refuse_contradiction(found.origin, "head_dim", fields.head_dim, v_size)
    files, notes = (*found.files, *files), (*stored.notes, *found.notes)
    return Checkpoint(spec, weights, files, stored.tensors, fields, stored.left_out, notes)
