"""Options that would change nothing of a model are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.errors import OptionError
from xlstm_export.lowering.options import LoweringOptions, check_options
from xlstm_export.pipeline import export


@pytest.mark.parametrize("case", ["stack-bare", "hf-backbone"])
def test_a_model_without_a_head_has_no_last_logits(
    library: Library, tmp_path: Path, case: str
) -> None:
    """The manifest would say ``last``, and the comparison cut what the graph does not."""
    with pytest.raises(OptionError, match="has no head, and yields last_hidden_state of") as told:
        export(library.source(BY_ID[case]).path, tmp_path / "out", logits="last")
    assert told.value.option == "logits"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["stack-mixed", "hf-tied", "large-single"])
def test_a_language_model_may_yield_the_last_step_alone(library: Library, case: str) -> None:
    check_options(library.checkpoint(BY_ID[case]).spec, LoweringOptions(logits="last"))
