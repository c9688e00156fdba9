"""What is derived from the catalogue agrees with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_export.lowering.functions import function_body
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES
from xlstm_export.ops.document import markdown

ROOT = Path(__file__).resolve().parents[2]


def test_operator_document_is_current() -> None:
    document = (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")
    assert document == markdown(), "python -m xlstm_export.ops.document > docs/ops.md"


@pytest.mark.parametrize("name", CATALOG)
def test_body_has_the_catalogue_signature(name: str) -> None:
    schema, body = CATALOG[name], function_body(name, 18)
    assert body.domain == DOMAIN
    assert list(body.input) == [t.name for t in schema.inputs]
    assert list(body.output) == [t.name for t in schema.outputs]
    declared = {a.name for a in body.attribute_proto}
    assert declared == {a.name for a in schema.attributes} | set(PLUGIN_ATTRIBUTES)
    assert not body.attribute, "every attribute has a default"


@pytest.mark.parametrize("name", CATALOG)
def test_body_uses_only_standard_operators(name: str) -> None:
    body = function_body(name, 18)
    assert {o.domain for o in body.opset_import} == {""}
    assert {node.domain for node in body.node} == {""}
    assert not {"Pad", "Softplus"} & {node.op_type for node in body.node}
