"""The manifests of Kubernetes, by the schemas of its API and by what belongs together."""

import sys
import tempfile
from pathlib import Path

from common import DEPLOY, documents, output, relay_reads

FILE = DEPLOY / "kubernetes/rnostr.yaml"
KINDS = {
    "ServiceAccount",
    "ConfigMap",
    "Service",
    "Deployment",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "Ingress",
}
# The schemas of these versions of Kubernetes hold.
VERSIONS = ("1.30.0", "1.37.0")


def found(kind):
    [one] = [it for it in documents(FILE) if it["kind"] == kind]
    return one


def pod():
    return found("Deployment")["spec"]["template"]["spec"]


def the_schemas_of_kubernetes_take_them():
    assert {it["kind"] for it in documents(FILE)} == KINDS
    validate = [str(Path(sys.executable).parent / "kubernetes-validate"), "--strict", "--no-warn"]
    for version in VERSIONS:
        output([*validate, "--kubernetes-version", version, str(FILE)])
    return f"{len(KINDS)} resources, Kubernetes {' and '.join(VERSIONS)}"


def everything_selects_the_pods():
    labels = found("Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found("Deployment")["spec"]["selector"]["matchLabels"],
        found("Service")["spec"]["selector"],
        found("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        found("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels, selector
    target = found("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == found("Deployment")["metadata"]["name"]


def the_relay_reads_its_configuration():
    [relay] = pod()["containers"]
    secrets = {entry["name"] for entry in relay["env"] if "secretKeyRef" in entry["valueFrom"]}
    database = "RNOSTR_EXTENSIONS__MLS_GATEWAY__DATABASE_URL"
    assert secrets == {database, "RNOSTR_METRICS__AUTH"}, secrets
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(found("ConfigMap")["data"]["rnostr.toml"])
        file.flush()
        env = {database: "postgresql://rnostr:p@postgres/rnostr", "RNOSTR_METRICS__AUTH": "t"}
        # The range of the ingress controller's pods is the operator's to fill in, and the relay says so.
        told = relay_reads(env, ["-c", file.name], warned="trusted_proxies is empty")
    assert "data: PostgreSQL at postgres" in told, told
    mounted = {mount["mountPath"] for mount in relay["volumeMounts"]}
    assert any(relay["args"][2].startswith(path) for path in mounted), relay["args"]


def a_stop_has_the_time_that_the_relay_takes():
    [relay] = pod()["containers"]
    pause = int(relay["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] > pause + 10
    assert relay["readinessProbe"]["httpGet"]["path"] == relay["startupProbe"]["httpGet"]["path"] == "/ready"
    assert relay["livenessProbe"]["httpGet"]["path"] == "/health"


def the_pod_is_confined():
    [relay] = pod()["containers"]
    assert pod()["securityContext"]["runAsNonRoot"] and relay["securityContext"]["readOnlyRootFilesystem"]
    assert relay["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(found("NetworkPolicy")["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert not pod()["automountServiceAccountToken"] and not pod()["enableServiceLinks"]


CHECKS = [
    the_schemas_of_kubernetes_take_them,
    everything_selects_the_pods,
    the_relay_reads_its_configuration,
    a_stop_has_the_time_that_the_relay_takes,
    the_pod_is_confined,
]
