"""Cloud Run: the service and the roles that deploy.sh makes, and the files of Terraform."""

import json
import re
import tempfile
from pathlib import Path

import hcl2
import yaml
from common import DEPLOY, output, refused, relay_reads

PRINT = ["deploy/cloudrun/deploy.sh", "--print"]
PROJECT = {"PROJECT": "your-project"}
SQL = {**PROJECT, "STORE": "cloudsql", "SQL_INSTANCE": "your-project:us-central1:relay"}
ADMIN = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
DATABASE = "postgresql://rnostr:secret@/rnostr?host=/cloudsql/your-project:us-central1:relay"


def service(env):
    text = output(PRINT, env)
    assert "@}" not in text and not re.search(r"@[A-Z_]+@", text), text
    return yaml.safe_load(text)


def container(env):
    [found] = service(env)["spec"]["template"]["spec"]["containers"]
    return found


def variables(env):
    """The variables of the instance; a secret has its name."""
    found = {}
    for entry in container(env)["env"]:
        secret = entry.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
        found[entry["name"]] = entry["value"] if secret is None else secret
    return found


def the_service_is_the_one_of_the_specification():
    found = service(PROJECT)
    template = found["spec"]["template"]
    annotations, spec = template["metadata"]["annotations"], template["spec"]
    assert annotations["autoscaling.knative.dev/minScale"] == "1"
    assert annotations["autoscaling.knative.dev/maxScale"] == "10"
    assert annotations["run.googleapis.com/sessionAffinity"] == "true"
    assert (spec["containerConcurrency"], spec["timeoutSeconds"]) == (80, 3600)
    [relay] = spec["containers"]
    assert relay["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert relay["ports"] == [{"name": "http1", "containerPort": 8080}]
    assert relay["startupProbe"]["httpGet"]["path"] == "/ready"
    assert relay["livenessProbe"]["httpGet"]["path"] == "/health"
    # Cloud Run gives a start at most 240 s, and the relay waits 60 s for its database.
    patience = relay["startupProbe"]["failureThreshold"] * relay["startupProbe"]["periodSeconds"]
    assert 60 < patience <= 240, patience


def the_relay_reads_its_variables():
    cloud_run = {"K_SERVICE": "rnostr", "PORT": "8080"}
    told = relay_reads({**variables({**PROJECT, "ADMIN_PUBKEYS": ADMIN}), **cloud_run})
    assert "data: Firestore in project your-project" in told, told
    env = variables({**SQL, "ADMIN_PUBKEYS": ADMIN})
    assert env["RNOSTR_EXTENSIONS__MLS_GATEWAY__DATABASE_URL"] == "rnostr-database-url"
    env["RNOSTR_EXTENSIONS__MLS_GATEWAY__DATABASE_URL"] = DATABASE
    told = relay_reads({**env, **cloud_run})
    assert "data: PostgreSQL at /cloudsql/your-project:us-central1:relay" in told, told
    relay_reads(cloud_run, warned="the embedded store's data goes with the instance")


def each_store_has_its_parts_alone():
    firestore, cloudsql = output(PRINT, PROJECT), output(PRINT, SQL)
    assert "cloudsql" not in re.sub(r"(?m)^ *#.*$", "", firestore), firestore
    assert 'run.googleapis.com/cloudsql-instances: "your-project:us-central1:relay"' in cloudsql, cloudsql
    assert "secretKeyRef" not in firestore
    chosen = variables({**PROJECT, "SECRETS": "rnostr-system-key rnostr-metrics-token"})
    assert chosen["RNOSTR_SYSTEM_KEY"] == "rnostr-system-key"
    assert chosen["RNOSTR_METRICS__AUTH"] == "rnostr-metrics-token"


def parameters_go_up_to_their_bounds():
    most = service({**PROJECT, "MAX_INSTANCES": "100", "CONCURRENCY": "1000"})["spec"]["template"]
    assert most["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"] == "100"
    assert most["spec"]["containerConcurrency"] == 1000
    for name, value in [("MAX_INSTANCES", "101"), ("CONCURRENCY", "1001"), ("MIN_INSTANCES", "11"), ("STORE", "x")]:
        refused(PRINT, {**PROJECT, name: value}, name)
    refused(PRINT, {**PROJECT, "CONCURRENCY": "80\nevil: 1"}, "CONCURRENCY")
    refused(PRINT, {**PROJECT, "PUBLIC_URL": 'wss://x"\nevil: 1'}, "PUBLIC_URL")
    refused(PRINT, {**PROJECT, "STORE": "cloudsql"}, "SQL_INSTANCE")
    refused(PRINT, {}, "PROJECT")


def the_roles_are_those_of_the_specification():
    roles = {binding["role"] for binding in json.loads((DEPLOY / "cloudrun/iam.json").read_text())["bindings"]}
    assert roles == {"roles/datastore.user", "roles/storage.objectViewer"}, roles
    for name in ("iam.json", "iam-cloudsql.json"):
        for binding in json.loads((DEPLOY / "cloudrun" / name).read_text())["bindings"]:
            assert binding["members"] == ["serviceAccount:@SERVICE_ACCOUNT@"], binding
            # deploy.sh reads the roles line by line.
            assert f'"role": "{binding["role"]}",\n' in (DEPLOY / "cloudrun" / name).read_text()


def storage_is_read_in_the_bucket_of_the_images_alone():
    bucket = "resource.name.startsWith('projects/_/buckets/artifacts.{}.appspot.com')"
    with tempfile.TemporaryDirectory() as directory:
        called = Path(directory) / "called"
        for name in ("gcloud", "docker"):
            program = Path(directory) / name
            program.write_text(f"""#!/bin/sh
echo "{name} $*" >>{called}
case "$*" in *"services replace"*) cat >/dev/null ;; esac
""")
            program.chmod(0o755)
        output(PRINT[:1], {**PROJECT, "PATH": f"{directory}:/usr/bin:/bin"})
        bound = [line for line in called.read_text().splitlines() if "projects add-iam-policy-binding" in line]
    conditions = {re.search(r"--role (\S+)", line)[1]: re.search(r"--condition (\S+)", line)[1] for line in bound}
    assert conditions == {
        "roles/datastore.user": "None",
        "roles/storage.objectViewer": "title=images,expression=" + bucket.format("your-project"),
    }, conditions
    text, _ = terraform()
    blocks = re.findall(r'resource "google_project_iam_member" "\w+" \{.*?\n\}', text["main.tf"], re.S)
    images = [block for block in blocks if "roles/storage.objectViewer" in block]
    assert len(images) == 1 == text["main.tf"].count('"roles/storage.objectViewer"'), images
    assert bucket.format("${var.project}") in images[0], images


def terraform():
    texts = {path.name: path.read_text() for path in sorted((DEPLOY / "terraform").glob("*.tf"))}
    return texts, {name: hcl2.loads(text) for name, text in texts.items()}


def terraform_parses_and_its_names_exist():
    texts, parsed = terraform()
    names = lambda kind: {name.strip('"') for file in parsed.values() for it in file.get(kind, []) for name in it}
    text = re.sub(r"(?m)^\s*#.*$", "", "\n".join(texts.values()))
    used = set(re.findall(r"\bvar\.(\w+)", text))
    assert used == names("variable"), used ^ names("variable")
    known = names("locals") - {"__is_block__", "__comments__"}
    used = set(re.findall(r"\blocal\.(\w+)", text))
    assert used == known, used ^ known
    made = {
        f"{sort.strip(chr(34))}.{name.strip(chr(34))}"
        for file in parsed.values()
        for resource in file.get("resource", [])
        for sort, named in resource.items()
        if isinstance(named, dict)
        for name in named
    }
    used = set(re.findall(r"\b((?:google|random)_\w+\.\w+)", text))
    assert len(used) > 8 and used <= made, used - made
    return f"{len(made)} resources"


def terraform_sets_what_the_service_sets():
    texts, _ = terraform()
    _, main = texts["main.tf"].split("locals {", 1)
    named = set(re.findall(r"^\s+(\w+) +=", main[: main.index("resource ")], re.M))
    service_sets = set(variables({**SQL, "SECRETS": "rnostr-system-key"}))
    set_by_terraform = {name for name in named if name.isupper()} | set(re.findall(r"\{ (RNOSTR_\w+) =", main))
    assert set_by_terraform == service_sets, set_by_terraform ^ service_sets


def terraform_makes_every_index_of_the_code():
    indexes = json.loads((DEPLOY / "firestore.indexes.json").read_text())
    # The names of Terraform's resources must differ.
    fields = [f"{it['collectionGroup']}-{it['fieldPath']}" for it in indexes["fieldOverrides"]]
    assert len(set(fields)) == len(fields) > 20
    known = {"collectionGroup", "fieldPath", "indexes", "ttl"}
    assert all(set(it) <= known for it in indexes["fieldOverrides"])
    parts = {part for it in indexes["fieldOverrides"] for index in it["indexes"] for part in index}
    assert parts <= {"order", "arrayConfig", "queryScope"}, parts
    return f"{len(indexes['indexes'])} indexes, {len(fields)} fields"


def the_file_of_the_service_is_yaml_itself_but_for_a_number():
    text = (DEPLOY / "cloudrun/service.yaml").read_text().replace("@CONCURRENCY@", "80")
    [found] = yaml.safe_load_all(text)
    assert found["kind"] == "Service"


CHECKS = [
    the_service_is_the_one_of_the_specification,
    the_relay_reads_its_variables,
    each_store_has_its_parts_alone,
    parameters_go_up_to_their_bounds,
    the_roles_are_those_of_the_specification,
    storage_is_read_in_the_bucket_of_the_images_alone,
    terraform_parses_and_its_names_exist,
    terraform_sets_what_the_service_sets,
    terraform_makes_every_index_of_the_code,
    the_file_of_the_service_is_yaml_itself_but_for_a_number,
]
