"""The relay's variables in all deployment files, and the Dockerfile."""

import re

from common import DEPLOY, RNOSTR, ROOT, output, relay_reads

FILES = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", ROOT / "deploy/systemd/rnostr.service"]
FILES += sorted(path for path in DEPLOY.rglob("*") if path.suffix in {".yaml", ".yml", ".tf", ".sh"})
# Variables without a section.
OWN = {"RNOSTR_SYSTEM_KEY"}


def every_variable_is_one_of_the_relay():
    known = set(re.findall(r"`(RNOSTR_[A-Z0-9_]+)`", output([RNOSTR, "check-config", "--keys"])))
    assert len(known) > 80, "the relay lists its keys"
    used = 0
    for path in FILES:
        for name in re.findall(r"\bRNOSTR_[A-Z0-9_]*[A-Z0-9]\b", path.read_text()):
            used += 1
            assert name in known | OWN, f"{path}: {name} is no variable of the relay"
    assert used > 30, used
    return f"{used} places"


def the_image_listens_everywhere_and_keeps_its_data_in_one_place():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    env = dict(re.findall(r"(RNOSTR_\w+)=(\S+)", text[text.rindex("FROM ") :]))
    told = relay_reads({**env, "RNOSTR_DATA__PATH": "/tmp/data"}, warned="public_url is not set")
    assert "listen: ws://0.0.0.0:8080" in told, told
    assert env["RNOSTR_DATA__PATH"] == "/data" and "VOLUME /data" in text, env
    assert re.search(r"^USER 65532:65532$", text, re.M), "the image has a user"
    assert 'CMD ["rnostr", "health"]' in text, "the image has a check"


def the_image_is_built_by_the_toolchain_of_the_repository():
    toolchain = re.search(r'^channel = "(.*)"$', (ROOT / "rust-toolchain.toml").read_text(), re.M)[1]
    assert f"ARG RUST_IMAGE=rust:{toolchain}-slim-" in (ROOT / "Dockerfile").read_text()


CHECKS = [
    every_variable_is_one_of_the_relay,
    the_image_listens_everywhere_and_keeps_its_data_in_one_place,
    the_image_is_built_by_the_toolchain_of_the_repository,
]
