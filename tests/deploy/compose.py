"""docker-compose.yml and the files that it mounts, read by docker-compose, Caddy and promtool."""

import ipaddress
import tempfile

import yaml
from common import ROOT, documents, output, refused, relay_reads

# The variables that example.env asks for.
SETTINGS = {"RELAY_HOST": "relay.example.com", "POSTGRES_PASSWORD": "p", "METRICS_TOKEN": "t", "GRAFANA_PASSWORD": "g"}
# An empty file in the place of the .env of this machine.
NO_SETTINGS = tempfile.NamedTemporaryFile(suffix=".env")
CONFIG = ["docker-compose", "--env-file", NO_SETTINGS.name, "--file", "docker-compose.yml", "config"]
SERVICES = {"relay-1", "relay-2", "postgres", "redis", "caddy", "prometheus", "grafana"}


def services(more=None):
    return yaml.safe_load(output(CONFIG, {**SETTINGS, **(more or {})}))["services"]


def docker_compose_reads_two_relays_and_all_that_they_need():
    found = services()
    assert set(found) == SERVICES, set(found)
    assert found["relay-1"] == found["relay-2"], "both relays are the same"
    for name in ("relay-1", "redis"):
        assert found[name]["read_only"] and found[name]["cap_drop"] == ["ALL"], name


def no_secret_has_a_default():
    for name in SETTINGS:
        rest = {other: value for other, value in SETTINGS.items() if other != name}
        refused(CONFIG, rest, name)
        assert f"{{{name}:-" not in (ROOT / "docker-compose.yml").read_text(), name
        assert f"\n{name}=" in (ROOT / "deploy/compose/example.env").read_text(), name


def caddy_alone_listens_on_all_addresses():
    networks = yaml.safe_load(output(CONFIG, SETTINGS))["networks"]
    assert networks["store"]["internal"] is True
    for name, service in services().items():
        for port in service.get("ports", []):
            on_loopback = isinstance(port, str) and port.startswith("127.0.0.1:")
            assert name == "caddy" or on_loopback, f"{name}: {port}"
        if name in {"postgres", "redis"}:
            assert set(service["networks"]) == {"store"}, name


def the_relays_read_their_variables():
    env = services({"ADMIN_PUBKEYS": "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"})
    told = relay_reads(env["relay-1"]["environment"])
    assert "data: PostgreSQL at postgres" in told and "keys: 1 admins" in told, told
    # The relays believe the address that Caddy has.
    caddy = env["caddy"]["networks"]["front"]["ipv4_address"]
    assert env["relay-1"]["environment"]["RNOSTR_SERVER__TRUSTED_PROXIES"] == f"{caddy}/32"


def no_other_container_takes_the_address_of_caddy():
    [front] = yaml.safe_load(output(CONFIG, SETTINGS))["networks"]["front"]["ipam"]["config"]
    caddy = ipaddress.ip_address(services()["caddy"]["networks"]["front"]["ipv4_address"])
    given_out = ipaddress.ip_network(front["ip_range"])
    assert given_out.subnet_of(ipaddress.ip_network(front["subnet"])), given_out
    assert caddy in ipaddress.ip_network(front["subnet"]) and caddy not in given_out, caddy


def the_relays_fit_into_postgresql():
    found = services()
    each = int(found["relay-1"]["environment"]["RNOSTR_EXTENSIONS__MLS_GATEWAY__MAX_CONNECTIONS"]) + 2
    words = found["postgres"]["command"].split()
    room = next(int(word.split("=")[1]) for word in words if word.startswith("max_connections="))
    assert 2 * each + 3 <= room, (each, room)


def the_files_of_compose_are_there():
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if "/deploy/compose/" in source:
                assert (ROOT / source).is_file(), source


def caddy_reads_its_file():
    told = output(["caddy", "adapt", "--config", "deploy/compose/Caddyfile", "--adapter", "caddyfile"], SETTINGS)
    for part in ("relay.example.com", "relay-1:8080", "relay-2:8080", "/ready"):
        assert part in told, part


def promtool_reads_its_file():
    output(["promtool", "check", "config", "--syntax-only", "deploy/compose/prometheus.yml"])
    [config] = documents(ROOT / "deploy/compose/prometheus.yml")
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == ["relay-1:8080", "relay-2:8080"], targets


CHECKS = [
    docker_compose_reads_two_relays_and_all_that_they_need,
    no_secret_has_a_default,
    caddy_alone_listens_on_all_addresses,
    the_relays_read_their_variables,
    no_other_container_takes_the_address_of_caddy,
    the_relays_fit_into_postgresql,
    the_files_of_compose_are_there,
    caddy_reads_its_file,
    promtool_reads_its_file,
]
