"""The commands of docs/clusters.md parse, and Kubernetes and the operator of Dask take its manifest."""

import copy
import functools
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from lottery_jax.cli.main import parse
from tests.workers import page

(JOB,) = (yaml.safe_load(text) for text in page.manifests())
ROLES = {"job": ("job",), "worker": ("cluster", "spec", "worker"), "scheduler": ("cluster", "spec", "scheduler")}
"""Where the pods are in it."""
SCHEMAS = Path(sys.prefix, "share", "dask-kubernetes")
"""The operator's package. It is not installed as one, because it needs 34 others."""


def part(manifest: dict, *path: str | int) -> Any:
    """What is at a path below the specification."""
    found = manifest["spec"]
    for name in path:
        found = found[name]
    return found


def strict(schema: Any) -> Any:
    """A schema that also refuses unknown fields, which Kubernetes would drop."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(each) for name, each in schema.items()}
    return found | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else found


@functools.cache
def resource(kind: str) -> tuple[str, jsonschema.Draft202012Validator]:
    """The version of a custom resource and its schema, from the files of the operator's package."""
    files = list(SCHEMAS.rglob(f"crds/{kind.lower()}.yaml"))
    if not files:
        pytest.skip(f"no {SCHEMAS}: pip install --no-deps --target {SCHEMAS} dask-kubernetes")
    (file,) = files
    definition = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
    (version,) = definition["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    return f"{definition['group']}/{version['name']}", jsonschema.Draft202012Validator(schema)


def check_resource(manifest: dict) -> None:
    """Raise for what the operator would not take."""
    version, validator = resource(manifest["kind"])
    assert manifest["apiVersion"] == version
    validator.validate({"spec": manifest["spec"]})


def check_core(manifest: dict) -> None:
    """Raise for what the newest known Kubernetes would not take of its pods and its service."""
    pods = [("Pod", part(manifest, *path, "spec")) for path in ROLES.values()]
    for kind, spec in (*pods, ("Service", part(manifest, *ROLES["scheduler"], "service"))):
        one = {"apiVersion": "v1", "kind": kind, "metadata": manifest["metadata"], "spec": spec}
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("check", [check_core, check_resource])
def test_kubernetes_takes_it(check: Callable[[dict], None]) -> None:
    check(JOB)


@pytest.mark.parametrize(
    ("check", "path", "value"),
    [
        (check_core, ("job", "spec", "restartPolicies"), "Never"),
        (check_core, ("cluster", "spec", "worker", "spec", "containers", 0, "imagePullPolicies"), "Always"),
        (check_core, ("cluster", "spec", "scheduler", "service", "ports", 0, "portz"), 8786),
        (check_resource, ("jobs",), {}),
        (check_resource, ("cluster", "spec", "worker", "replicas"), "four"),
        (check_resource, ("cluster", "spec", "scheduler", "service", "ports", 0, "targetPort"), 8786),
    ],
)
def test_what_is_wrong_is_seen(check: Callable[[dict], None], path: tuple, value: object) -> None:
    manifest = copy.deepcopy(JOB)
    part(manifest, *path[:-1])[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(manifest)


def test_parts_of_the_manifest_fit_each_other() -> None:
    pods = {role: part(JOB, *path, "spec", "containers", 0) for role, path in ROLES.items()}
    assert len({pod["image"] for pod in pods.values()}) == 1
    service = part(JOB, *ROLES["scheduler"], "service")
    ports = {each["name"]: each["containerPort"] for each in pods["scheduler"]["ports"]}
    # The operator looks for these names.
    assert (
        {each["targetPort"]: each["port"] for each in service["ports"]}
        == ports
        == {
            "tcp-comm": 8786,
            "http-dashboard": 8787,
        }
    )
    assert service["selector"] == {"dask.org/cluster-name": JOB["metadata"]["name"], "dask.org/component": "scheduler"}
    for role in ("job", "worker"):
        (volume,), (mount,) = part(JOB, *ROLES[role], "spec", "volumes"), pods[role]["volumeMounts"]
        assert volume["name"] == mount["name"] and mount["mountPath"] == "/shared"


def commands() -> list[str]:
    """Those of the page, in scripts and in the manifest."""
    pods = [part(JOB, *path, "spec", "containers", 0, "args") for path in ROLES.values()]
    lines = re.findall(r"^ {4}(?:srun [^d]*)?(dask [a-z].*?)(?: &)?$", page.TEXT, re.MULTILINE)
    return page.commands() + lines + [shlex.join(words) for words in pods]


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    if program == "lottery-jax":
        assert type(parse(words)).__name__.lower().endswith(words[0])
    else:
        main = {"worker": dask_worker, "scheduler": dask_scheduler}[words[0]].main
        assert main.make_context("dask", words[1:])


@pytest.mark.parametrize("block", page.python())
def test_python_compiles(block: str) -> None:
    compile(block, "docs/clusters.md", "exec")
