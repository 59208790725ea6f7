"""The Kubernetes manifests: built by kustomize, validated strictly, and what no schema says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.config import load
from tests.deploy.tools import DEPLOY, run, tool

HOME = DEPLOY / "kubernetes"
FOLDERS = ["base", "overlays/irsa", "overlays/gke"]


@cache
def built(folder: Path) -> str:
    kubectl = tool("kubectl")
    if folder != HOME / "base" and 'Minor:"20"' in run([kubectl, "version", "--client"]):
        pytest.skip("this is Debian 12's kubectl, 1.20: it knows neither components nor patches of several kinds")
    return run([kubectl, "kustomize", folder])


def objects(folder: str) -> dict[str, Any]:
    """By kind; there is one of each."""
    found = list(yaml.safe_load_all(built(HOME / folder)))
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


def validate(text: str) -> str:
    return run([tool("kubernetes-validate"), "--strict", "/dev/stdin"], text=text)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_manifest_is_valid(folder: str) -> None:
    said = validate(built(HOME / folder))
    assert len(objects(folder)) == said.count(" passed "), said


def test_a_mistake_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="readOnlyRootFs"):
        validate(built(HOME / "base").replace("readOnlyRootFilesystem", "readOnlyRootFs"))


def test_the_example_of_a_secret_is_valid_and_is_what_the_pod_mounts() -> None:
    example = (HOME / "base/secret.example.yaml").read_text()
    assert " passed " in validate(example)
    secret = yaml.safe_load(example)
    mounted = volumes(objects("base")["StatefulSet"])["secrets"]["secret"]
    assert secret["metadata"]["name"] == mounted["secretName"]
    assert set(secret["stringData"]) == {Path(path).name for path in re.findall(r"token_file: ([^\s}]+)", (HOME / "base/syncd.yaml").read_text())}


def test_the_service_monitor_finds_the_service(tmp_path: Path) -> None:
    relative = os.path.relpath(HOME, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{relative}/base]\ncomponents: [{relative}/components/prometheus-operator]\n")
    found = {each["kind"]: each for each in yaml.safe_load_all(built(tmp_path))}
    monitor, service = found["ServiceMonitor"], found["Service"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {port["name"] for port in service["spec"]["ports"]} == {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}


def volumes(stateful: dict[str, Any]) -> dict[str, Any]:
    return {volume["name"]: volume for volume in stateful["spec"]["template"]["spec"]["volumes"]}


def selectors(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    yield "Service", found["Service"]["spec"]["selector"]
    yield "StatefulSet", found["StatefulSet"]["spec"]["selector"]["matchLabels"]
    yield "NetworkPolicy", found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    yield "PodDisruptionBudget", found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_selector_means_the_pod_and_nothing_else(folder: str) -> None:
    """An empty one is valid and means every pod of the namespace."""
    found = objects(folder)
    pod = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    for kind, selector in selectors(found):
        assert selector, kind
        assert selector.items() <= pod.items(), kind


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pod_keeps_the_restricted_security_standard(folder: str) -> None:
    pod = objects(folder)["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert "RuntimeDefault" == pod["securityContext"]["seccompProfile"]["type"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"configMap", "secret", "emptyDir", "projected"}
    (container,) = pod["containers"]
    assert {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}} == container["securityContext"]
    assert not any("hostPort" in port for port in container["ports"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_there_is_never_a_second_daemon(folder: str) -> None:
    stateful = objects(folder)["StatefulSet"]["spec"]
    assert 1 == stateful["replicas"]
    assert ["ReadWriteOnce"] == stateful["volumeClaimTemplates"][0]["spec"]["accessModes"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_config_in_the_config_map_is_right_and_answers_where_the_probes_ask(folder: str, tmp_path: Path) -> None:
    found = objects(folder)
    (tmp_path / "label-studio").write_text("0123456789abcdef")
    text = found["ConfigMap"]["data"]["syncd.yaml"].replace("/run/secrets/syncd", str(tmp_path))
    (tmp_path / "syncd.yaml").write_text(text)
    config = load(tmp_path / "syncd.yaml", {})
    assert config.http
    host, port = config.http.listen.rsplit(":", 1)
    (container,) = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert "0.0.0.0" == host
    assert [int(port)] == [each["containerPort"] for each in container["ports"]] == [each["port"] for each in found["Service"]["spec"]["ports"]]
    asked = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {"/healthz", "/readyz"} == asked


def test_the_pod_and_the_image_mean_the_same_places() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    pod = objects("base")["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert f"STATE_DIRECTORY={mounts['state']}" in dockerfile
    assert f"SYNCD_CONFIG={mounts['config']}/syncd.yaml" in dockerfile
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in dockerfile
