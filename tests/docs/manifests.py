"""The Kubernetes manifests of docs/serving.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.docs.run_blocks import blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def manifests() -> list[dict[str, Any]]:
    """Every object of the page, in order."""
    pages = [block.code for block in blocks(PAGE) if block.language == "yaml"]
    return [found for page in pages for found in yaml.safe_load_all(page)]


def container(name: str) -> dict[str, Any]:
    """The container ``name`` of a Deployment."""
    deployments = [one for one in manifests() if one["kind"] == "Deployment"]
    every = [c for one in deployments for c in one["spec"]["template"]["spec"]["containers"]]
    return next(one for one in every if one["name"] == name)


def probed(name: str) -> set[str]:
    """The paths by which the container ``name`` is probed."""
    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    return {str(container(name)[probe]["httpGet"]["path"]) for probe in probes}
