"""The Kubernetes manifests fit together, and the commands in them have the options they use.

That the services answer where they are probed is held by tests/serving.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cli.terminal import succeed
from tests.docs.manifests import container, manifests

DEPLOYMENTS = [one for one in manifests() if one["kind"] == "Deployment"]
SERVICES = [one for one in manifests() if one["kind"] == "Service"]


def test_each_deployment_has_its_service() -> None:
    kinds = [(one["apiVersion"], one["kind"]) for one in manifests()]
    assert kinds == [("apps/v1", "Deployment"), ("v1", "Service")] * 2
    names = [one["metadata"]["name"] for one in manifests()]
    assert names[::2] == names[1::2] == ["xlstm", "char-lm"]


@pytest.mark.parametrize("place", [0, 1])
def test_names_and_ports_fit_together(place: int) -> None:
    deployment, service = DEPLOYMENTS[place], SERVICES[place]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (pod,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in pod["ports"]}
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod[probe]["httpGet"]["port"] in ports
    scraped = template["metadata"]["annotations"]
    assert int(scraped["prometheus.io/port"]) in ports.values()
    assert (scraped["prometheus.io/scrape"], scraped["prometheus.io/path"]) == ("true", "/metrics")
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in pod["volumeMounts"]} == volumes
    assert "YOUR-" in pod["image"], "an image that nobody made"


def test_the_gpu_is_asked_for_by_its_plugins_name() -> None:
    limits: dict[str, Any] = container("triton")["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in container("serve")["resources"]["limits"]


def test_serves_options_are_the_commands() -> None:
    program, command, bundle, *options = container("serve")["args"]
    assert (program, command) == ("xlstm-export", "serve")
    (mount,) = container("serve")["volumeMounts"]
    assert bundle.startswith(f"{mount['mountPath']}/")
    told = succeed("serve", "--help")
    for option in options:
        name, value = option.split("=")
        assert re.search(rf"{name}\b", told), name
        if name == "--port":
            assert int(value) == container("serve")["ports"][0]["containerPort"]
