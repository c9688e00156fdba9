"""Which weights take few bits, by name, and what it makes of the size."""

from __future__ import annotations

import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.low_bit import Blocks, LowBit
from xlstm_export.bundle.manifest import DATA_FILE, read_manifest
from xlstm_export.errors import OptionError
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.layer import WeightSpec
from xlstm_export.model.low_bit import candidates, resolved
from xlstm_export.model.storage import Storage, stored

FOUR = LowBit(4, 32)


def test_gates_norms_recurrences_and_convolutions_stay_as_they_are(library: Library) -> None:
    """Names of every kind of weight that --weight-format leaves alone."""
    for case in ("stack-mixed", "hf-plain", "vil-two"):
        checkpoint = library.checkpoint(BY_ID[case])
        names = set(candidates(checkpoint.spec, checkpoint.weights))
        kept = {n for n in checkpoint.weights if n not in names}
        words = ("norm", "gate.bias", "input_gate", "forget_gate", "R.", "conv", "skip", "bias")
        assert {n for n in names if any(word in n for word in words)} == set()
        assert not [n for n in kept if n.endswith((".up.weight", ".down.weight", ".out.weight"))]


def test_a_table_takes_8_bits_at_least() -> None:
    table, square = (WeightSpec((4, 4), low_bit=kind) for kind in ("table", "matrix"))
    storage = Storage("float32", LowBit(4, 16, wide=("c",), eight=("b",)))
    assert storage.blocks("a", table) == Blocks(8, 16)
    assert storage.blocks("a", square) == Blocks(4, 16)
    assert storage.blocks("b", square) == Blocks(8, 16)
    assert storage.blocks("c", square) is None
    assert storage.blocks("a", WeightSpec((4, 4))) is None
    assert Storage("float32").blocks("a", square) is None


def test_patterns_become_names(library: Library) -> None:
    checkpoint = library.checkpoint(BY_ID["hf-plain"])
    asked = LowBit(4, 32, wide=("*.ffn.down.weight", "head.*"))
    found = resolved(checkpoint.spec, checkpoint.weights, asked)
    assert found.wide == tuple(
        n for n in candidates(checkpoint.spec, checkpoint.weights)
        if n.endswith("ffn.down.weight") or n.startswith("head.")
    )  # fmt: skip
    assert len(found.wide) > 2
    with pytest.raises(OptionError, match=r"nothing\.\* names no weight; they are "):
        resolved(checkpoint.spec, checkpoint.weights, LowBit(4, 32, wide=("nothing.*",)))


def test_parts_of_one_tensor_are_kept_alike(library: Library) -> None:
    """Upstream's module takes the tensor whole."""
    checkpoint = library.checkpoint(BY_ID["large-fused"])
    found = resolved(checkpoint.spec, checkpoint.weights, LowBit(4, 32, wide=("*.q.weight",)))
    kinds = {name.rsplit(".", 2)[-2] for name in found.wide}
    assert kinds == {"q", "k", "v", "output_gate"}


@pytest.mark.parametrize("case", ["stack-tied", "hf-plain"])
def test_the_bytes_of_a_step_are_those_of_the_data(library: Library, case: str) -> None:
    """All the numbers are read but a table that is looked up only; gates are spread in the file."""
    checkpoint = library.checkpoint(BY_ID[case])
    for low_bit in (None, FOUR, LowBit(8, 32, symmetric=False)):
        path = library.bundle(BY_ID[case], LoweringOptions(opset=21, low_bit=low_bit))
        manifest = read_manifest(path)
        kept = stored(checkpoint.spec, checkpoint.weights, Storage("float32", low_bit))
        table = kept["embedding.weight"]
        size = table.shape[0] * table.shape[1] * (4 if low_bit is None else 1)
        least = (path / DATA_FILE).stat().st_size * 0.35 - (0 if "tied" in case else size)
        assert least < manifest.step_bytes < (path / DATA_FILE).stat().st_size * 1.05
