"""The manifests of docs/clusters.md, against the schemas of Kubernetes and the models of JobSet."""

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from tests.workers import page

MANIFESTS: list[dict] = [yaml.safe_load(text) for text in page.manifests()]
BY_KIND = {each["kind"]: each for each in MANIFESTS}


def check(manifest: dict) -> None:
    """Raise for what the newest Kubernetes that is known would not take; fields that it does not know are refused."""
    if manifest["kind"] != "JobSet":
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        return
    assert unknown(manifest, JobsetV1alpha2JobSet.from_dict(manifest).to_dict()) == []  # type: ignore[union-attr]
    for replicated in manifest["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, **replicated["template"]}
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def unknown(given: Any, read: Any, path: str = "") -> list[str]:
    """Where what was given is not in what was read from it."""
    if isinstance(given, dict):
        missing = [f"{path}/{name}" for name in given if name not in (read or {})]
        inside = (unknown(value, read[name], f"{path}/{name}") for name, value in given.items() if name in (read or {}))
        return missing + [each for some in inside for each in some]
    if isinstance(given, list):
        pairs = enumerate(zip(given, read, strict=True))
        return [each for at, (one, other) in pairs for each in unknown(one, other, f"{path}/{at}")]
    return [] if given == read else [path]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_takes_it(manifest: dict) -> None:
    check(manifest)


def test_all_are_read() -> None:
    assert list(BY_KIND) == ["Service", "Job", "JobSet"]
    service, job = BY_KIND["Service"], BY_KIND["Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    args = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert args["--processes"] == str(job["spec"]["completions"])
    host, port = args["--coordinator"].split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert container["ports"] == [{"containerPort": int(port)}]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Service", ("spec", "clusterIPs"), "None"),
        ("Job", ("spec", "completionModes"), "Indexed"),
        ("Job", ("spec", "completions"), "four"),
        ("JobSet", ("spec", "failurePolicies"), {}),
        ("JobSet", ("spec", "replicatedJobs", 0, "replicaz"), 1),
        ("JobSet", ("spec", "replicatedJobs", 0, "template", "spec", "completionz"), 4),
    ],
)
def test_what_is_wrong_is_seen(kind: str, path: tuple, value: object) -> None:
    manifest = copy.deepcopy(BY_KIND[kind])
    place = manifest
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check(manifest)
