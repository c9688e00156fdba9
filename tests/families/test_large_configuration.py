"""Fields of older and of other people's xLSTMLarge configurations, and what they meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.families.large_checkpoints import make_xlstm_large
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.ops.schema import Attribute


def with_fields(folder: Path, **fields: Any) -> Source:
    """A checkpoint whose configuration states ``fields`` too: norm_eps 1e-5, heads of 32."""
    source = make_xlstm_large(folder, norm_eps=1e-5).source
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))
    return source


def test_an_older_configuration_is_the_same_model(tmp_path: Path) -> None:
    plain = pipeline.read_checkpoint(with_fields(tmp_path / "new"))
    older = with_fields(
        tmp_path / "old", add_forward_backend_padding=True, add_post_norm=False,
        forward_backend_name="chunkwise--triton_xl_chunk", step_backend_name="triton_fused",
        mlstm_backend={"chunkwise_kernel": "chunkwise--triton_xl_chunk", "eps": "1e-6"},
        head_dim=32, add_post_blocks_norm=True, cell_norm_eps=1e-5, igate_bias_init_range=-10.0,
        mlstm_round_up_to_multiple_of=64, add_embedding_dropout=False, tags=["a"], seed=3,
    )  # fmt: skip
    assert pipeline.read_checkpoint(older).spec == plain.spec
    named = with_fields(tmp_path / "named", mlstm_backend="triton_kernels")
    assert pipeline.read_checkpoint(named).spec == plain.spec


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"add_post_norm": True}, UnsupportedModelError, "add_post_norm: True is not supported"),
        ({"add_post_blocks_norm": False}, UnsupportedModelError, "add_post_blocks_norm: False"),
        ({"cell_norm_eps": 1e-3}, UnsupportedModelError, "cell_norm_eps: 0.001"),
        ({"mlstm_backend": {"eps": 1e-3}}, UnsupportedModelError, "mlstm_backend.eps: 0.001"),
        ({"mlstm_backend": {"kernel": "native_siging"}}, UnsupportedModelError, "siging"),
        ({"forward_backend_name": "chunkwise--siging"}, UnsupportedModelError, "siging"),
        ({"step_backend_name": "siging"}, UnsupportedModelError, "step_backend_name: siging"),
        ({"head_dim": 16}, CheckpointError, "head_dim is 16, but the weights have 32"),
        ({"rope": 1, "window": 2}, CheckpointError, "unknown fields: rope, window; what upstream"),
    ],
)
def test_what_is_other_maths_is_refused(
    tmp_path: Path, fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        pipeline.read_checkpoint(with_fields(tmp_path, **fields))
    assert words in str(caught.value)
    assert str(tmp_path / "config.yaml") in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
def test_a_number_has_the_range_of_its_attribute(value: float) -> None:
    with pytest.raises(ValueError, match=r"eps is .*, expected"):
        Attribute("eps", "float", 0.0, "", least=0).check(value)
