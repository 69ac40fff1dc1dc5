"""docker/kubernetes checked by helm itself, and by the schemas of Kubernetes' oldest and newest version that there are.

No cluster runs here: whether one accepts and runs the objects is not tested. `lookup` is answered by a small server of our own.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml

from tests.pages import ROOT

TOOLS = ROOT / "build" / "tools" / "deployment"
HELM = TOOLS / "helm"
SCHEMAS = sorted(TOOLS.glob("v*.json"))
KUBERNETES = ROOT / "docker" / "kubernetes"
NAME = "ts-agent-http-relay"
CHART = KUBERNETES / NAME
needs_helm = pytest.mark.skipif(not HELM.is_file(), reason="no helm on this machine: make deployment")
needs_schemas = pytest.mark.skipif(not SCHEMAS, reason="no schemas of Kubernetes on this machine: make deployment")
REQUIRED: dict[str, Any] = {"agent": {"apiTarget": "https://api.example", "orgSlug": "lab", "id": "a-1"}, "existingSecret": NAME}
EVERYTHING: dict[str, Any] = {
    **REQUIRED,
    "existingSecret": "",
    "secret": {"jwt": "a.b.c", "secureCommandKey": "k"},
    "image": {"repository": "registry.example/relay", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "settings": {"RELAY_WORKERS": "32", "RELAY_MAX_RESPONSE_BYTES": "100000000"},
    "settingsSecret": "more",
    "drainSeconds": 300,
    "caCertificates": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
    "policyFiles": {"policy.toml": "[[rule]]\n", "client.pem": "x\n"},
    "replicas": 2,
    "retire": [2, 3],
    "persistence": {"storageClassName": "fast", "accessMode": "ReadWriteOncePod"},
    "networkPolicy": {"targets": [{"cidr": "10.1.2.0/24", "ports": [9005, 80]}], "egress": [{"ports": [{"port": 3128}]}]},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"zone": "lab"},
    "tolerations": [{"key": "lab", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}
Objects = dict[tuple[str, str], dict[str, Any]]


def helm(*arguments: str, values: dict[str, Any], place: Path) -> subprocess.CompletedProcess[str]:
    """Run helm with these values."""
    file = place / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    environment = {"HOME": str(place), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(place / "kubeconfig")}
    return subprocess.run(
        [HELM, *arguments, "--values", file], env=environment, capture_output=True, text=True, timeout=50, check=False, cwd=place
    )


def by_name(text: str) -> Objects:
    """The objects of a manifest, by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


_RENDERED: dict[tuple[str, str], str] = {}


def rendered(values: dict[str, Any], place: Path, release: str = NAME) -> Objects:
    """What the chart makes of these values. Helm takes a second, so it is asked once."""
    key = (json.dumps(values), release)
    if key not in _RENDERED:
        done = helm("template", release, str(CHART), values=values, place=place)
        assert done.returncode == 0, done.stderr
        _RENDERED[key] = done.stdout
    return by_name(_RENDERED[key])


def plain() -> Objects:
    """The objects of the manifests for kubectl."""
    return {key: one for name in ("settings", "agent", "retire") for key, one in by_name((KUBERNETES / f"{name}.yaml").read_text()).items()}


def pod(objects: Objects, kind: str = "StatefulSet", name: str = NAME) -> dict[str, Any]:
    """The specification of a pod."""
    found: dict[str, Any] = objects[kind, name]["spec"]["template"]["spec"]
    return found


def check(objects: Objects, schema: Path) -> None:
    """Fail at the first object with a field that is unknown or of a wrong kind."""
    definitions = json.loads(schema.read_text(encoding="utf-8"))["$defs"]
    groups = {"v1": "core.v1", "apps/v1": "apps.v1", "batch/v1": "batch.v1", "networking.k8s.io/v1": "networking.v1"}
    for one in objects.values():
        name = f"io.k8s.api.{groups[one['apiVersion']]}.{one['kind']}"
        jsonschema.Draft202012Validator({"$defs": definitions, "$ref": f"#/$defs/{name}"}).validate(one)


# --- the objects are Kubernetes' ---


@needs_schemas
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_the_manifests_have_only_fields_that_kubernetes_knows(schema: Path) -> None:
    check(plain(), schema)


@needs_helm
@needs_schemas
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
@pytest.mark.parametrize("values", [REQUIRED, EVERYTHING, {**REQUIRED, "user": None}], ids=["required", "everything", "openshift"])
def test_what_the_chart_makes_has_only_fields_that_kubernetes_knows(values: dict[str, Any], schema: Path, tmp_path: Path) -> None:
    check(rendered(values, tmp_path), schema)


@needs_schemas
def test_a_misspelt_field_is_found() -> None:
    objects = plain()
    pod(objects)["terminationGracePeriod"] = 40
    with pytest.raises(jsonschema.ValidationError, match="terminationGracePeriod"):
        check(objects, SCHEMAS[-1])


# --- the chart ---


@needs_helm
@pytest.mark.parametrize("values", [REQUIRED, EVERYTHING], ids=["required", "everything"])
def test_helm_lints_the_chart(values: dict[str, Any], tmp_path: Path) -> None:
    done = helm("lint", "--strict", str(CHART), values=values, place=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def without_helm(one: Any) -> Any:
    """An object without what only helm adds."""
    if isinstance(one, dict):
        mine = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "checksum/settings", "annotations")
        return {key: without_helm(value) for key, value in one.items() if key not in mine}
    return [without_helm(part) for part in one] if isinstance(one, list) else one


@needs_helm
def test_the_manifests_are_what_the_chart_makes(tmp_path: Path) -> None:
    values = {
        "agent": {"apiTarget": "https://address-of-the-platform", "orgSlug": "o", "id": "a"},
        "secret": {"jwt": "<token>"},
        "image": {"tag": "latest"},
        "retire": [1],
    }
    made, ours = without_helm(rendered(values, tmp_path)), without_helm(plain())
    for objects in (made, ours):
        for name in ("API_TARGET", "ORG_SLUG", "AGENT_ID"):
            objects["ConfigMap", NAME]["data"][name] = ""
    assert made == ours


@needs_helm
@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"existingSecret": ""}, "Set existingSecret"),
        ({"agent": {**REQUIRED["agent"], "id": ""}}, "Set agent.id"),
        ({"agent": {**REQUIRED["agent"], "id": "<agent-id>"}}, "/agent/id"),
        ({"agent": {**REQUIRED["agent"], "apiTarget": "api.example"}}, "/agent/apiTarget"),
        ({"settings": {"JWT": "a.b.c"}}, "propertyName 'JWT'"),
        ({"settings": {"RELAY_SHARED_QUEUE": "true"}}, "propertyName 'RELAY_SHARED_QUEUE'"),
        ({"settings": {"RELAY_WORKERS": 32}}, "/settings/RELAY_WORKERS"),
        ({"replica": 2}, "replica"),
        ({"policyFiles": {"rules.toml": ""}}, "/policyFiles"),
        ({"networkPolicy": {"targets": [{"cidr": "10.1.2.3", "ports": [80]}]}}, "/networkPolicy/targets"),
        ({"replicas": 2, "retire": [1]}, "the agent 1 still runs"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_values_that_cannot_be_meant_are_refused(changes: dict[str, Any], reported: str, tmp_path: Path) -> None:
    done = helm("template", NAME, str(CHART), values={**REQUIRED, **changes}, place=tmp_path)
    assert done.returncode != 0
    assert reported in done.stderr


@needs_helm
def test_several_agents_share_the_queue_and_each_has_its_volume(tmp_path: Path) -> None:
    objects = rendered({**REQUIRED, "replicas": 3}, tmp_path)
    assert objects["ConfigMap", NAME]["data"]["RELAY_SHARED_QUEUE"] == "true"
    assert [claim["metadata"]["name"] for claim in objects["StatefulSet", NAME]["spec"]["volumeClaimTemplates"]] == ["state"]
    assert rendered(REQUIRED, tmp_path)["ConfigMap", NAME]["data"]["RELAY_SHARED_QUEUE"] == "false"


@needs_helm
@pytest.mark.parametrize("release", [NAME, "lab"])
def test_retire_runs_on_the_volume_of_a_given_up_agent_and_leaves_the_others_theirs(release: str, tmp_path: Path) -> None:
    objects = rendered({**REQUIRED, "replicas": 1, "retire": [1]}, tmp_path, release)
    (stateful,) = (name for kind, name in objects if kind == "StatefulSet")
    job = pod(objects, "Job", f"{stateful}-retire-1")
    assert job["volumes"][0] == {"name": "state", "persistentVolumeClaim": {"claimName": f"state-{stateful}-1"}}
    (container,) = job["containers"]
    assert container["args"] == ["retire"]
    assert {"name": "RELAY_SHARED_QUEUE", "value": "true"} in container["env"]
    policy = next(one for (kind, _), one in objects.items() if kind == "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    labels = objects["Job", f"{stateful}-retire-1"]["spec"]["template"]["metadata"]["labels"]
    assert policy.items() <= labels.items()
    assert not objects["StatefulSet", stateful]["spec"]["selector"]["matchLabels"].items() <= labels.items()


@needs_helm
def test_kubernetes_waits_longer_than_the_drain_and_a_changed_setting_starts_the_agents_anew(tmp_path: Path) -> None:
    before, after = (rendered({**REQUIRED, "drainSeconds": drain}, tmp_path) for drain in (25, 300))
    assert [pod(objects)["terminationGracePeriodSeconds"] for objects in (before, after)] == [40, 315]
    sums = {objects["StatefulSet", NAME]["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] for objects in (before, after)}
    assert len(sums) == 2


@needs_helm
def test_large_numbers_and_certificates_arrive_unchanged(tmp_path: Path) -> None:
    objects = rendered(EVERYTHING, tmp_path)
    assert objects["ConfigMap", NAME]["data"]["RELAY_MAX_RESPONSE_BYTES"] == "100000000"
    assert objects["ConfigMap", f"{NAME}-ca"]["data"]["ca.pem"] == EVERYTHING["caCertificates"]
    assert objects["ConfigMap", f"{NAME}-policy"]["data"] == EVERYTHING["policyFiles"]


# --- what the chart sees of the cluster ---


class Cluster(ThreadingHTTPServer):
    """As much of Kubernetes' API as `lookup` asks."""

    daemon_threads = True
    objects: ClassVar[dict[str, Any]] = {}


class Api(BaseHTTPRequestHandler):
    """Discovery of two groups, and the objects of the test."""

    def do_GET(self) -> None:
        """Answer one question."""
        kinds = {"/api/v1": ("configmaps", "ConfigMap"), "/apis/apps/v1": ("statefulsets", "StatefulSet")}
        path = self.path.partition("?")[0]
        found: Any = Cluster.objects.get(path)
        if path == "/version":
            found = {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        elif path == "/api":
            found = {"kind": "APIVersions", "versions": ["v1"]}
        elif path == "/apis":
            version = {"groupVersion": "apps/v1", "version": "v1"}
            found = {"kind": "APIGroupList", "groups": [{"name": "apps", "versions": [version], "preferredVersion": version}]}
        elif path in kinds:
            plural, kind = kinds[path]
            resource = {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
            group = path.removeprefix("/apis/").removeprefix("/api/")
            found = {"kind": "APIResourceList", "groupVersion": group, "resources": [resource]}
        body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """Say what runs: the number of agents, and whether they share their queue."""
    server = Cluster(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    clusters = [{"name": "c", "cluster": {"server": address}}]
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "contexts": [context], "current-context": "c"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump({**kubeconfig, "users": [{"name": "u", "user": {}}]}), encoding="utf-8")

    def runs(replicas: int, shared: str) -> None:
        mine = {"meta.helm.sh/release-name": NAME, "meta.helm.sh/release-namespace": "default"}
        meta = {"name": NAME, "namespace": "default", "labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": mine}
        stateful = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": {"replicas": replicas}}
        settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"RELAY_SHARED_QUEUE": shared}}
        Cluster.objects = {
            f"/apis/apps/v1/namespaces/default/statefulsets/{NAME}": stateful,
            f"/api/v1/namespaces/default/configmaps/{NAME}": settings,
        }

    yield runs
    Cluster.objects = {}
    server.shutdown()
    server.server_close()
    thread.join(5)


@needs_helm
@pytest.mark.parametrize(
    ("running", "wanted", "reported"),
    [
        ((1, "false"), {"replicas": 2}, "does not share its queue yet"),
        ((1, "false"), {"replicas": 1, "sharedQueue": True}, ""),
        ((1, "true"), {"replicas": 2}, ""),
        ((2, "true"), {"replicas": 1}, "keep sharedQueue=true"),
        ((2, "true"), {"replicas": 1, "sharedQueue": True}, ""),
        ((1, "false"), {}, ""),
    ],
)
def test_a_second_agent_starts_only_beside_one_that_shares_its_queue(
    cluster: Any, running: tuple[int, str], wanted: dict[str, Any], reported: str, tmp_path: Path
) -> None:
    cluster(*running)
    values = {**REQUIRED, **wanted, "networkPolicy": {"enabled": False}}  # The server does not know its kind.
    done = helm("template", NAME, str(CHART), "--dry-run=server", "--disable-openapi-validation", values=values, place=tmp_path)
    assert (done.returncode != 0) == bool(reported), done.stderr
    assert reported in done.stderr


# --- the pages ---


@needs_helm
def test_the_values_that_the_page_shows_are_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```yaml\n(agent:.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert shown
    for block in shown:
        filled = re.sub(r"<([a-z-]+)>", r"\1", block.replace("<address-of-the-platform>", "https://api.example"))
        assert rendered(yaml.safe_load(filled), tmp_path)
