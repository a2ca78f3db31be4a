"""The unit of systemd: how far it confines the relay, and that the relay runs within that."""

import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

from common import COMMAND_SECS_MAX, DEPLOY, RNOSTR, ROOT, output, relay_reads, run

UNIT = DEPLOY / "systemd/rnostr.service"
# Most exposure by systemd's own count, of 10.
EXPOSURE_MAX = 2.0
# Longest time for the relay to start under strace, in seconds.
START_SECS_MAX = 60


def systemd_counts_little_exposure():
    told = output(["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)])
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)[1])
    assert exposure < EXPOSURE_MAX, told
    return f"{exposure}"


def systemd_finds_no_fault():
    with tempfile.TemporaryDirectory() as directory:
        text = UNIT.read_text()
        # The programs that this machine need not have.
        for path in ("/usr/local/bin/rnostr", "/bin/kill"):
            assert path in text
            text = text.replace(path, RNOSTR if path.endswith("rnostr") else shutil.which("true"))
        unit = Path(directory) / "rnostr.service"
        unit.write_text(text)
        ran = run(["systemd-analyze", "verify", "--man=no", str(unit)])
        told = [line for line in (ran.stdout + ran.stderr).splitlines() if str(unit) in line]
        assert not told and ran.returncode == 0, ran.stdout + ran.stderr


def the_relay_reads_its_variables():
    text = UNIT.read_text()
    env = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.M))
    gigabytes = int(re.search(r"^MemoryMax=(\d+)G$", text, re.M)[1])
    assert int(env["RNOSTR_SERVER__MEMORY_BYTES_MAX"]) * 4 == gigabytes << 30
    # The operator's commands read the configuration alone.
    assert "RNOSTR_DATA__PATH" not in env, env
    with tempfile.TemporaryDirectory() as directory:
        env["RNOSTR_DATA__PATH"] = directory
        relay_reads(env, ["-c", "config/marmot.toml"], warned="public_url is not set")


def the_documented_configuration_has_the_directory_of_the_unit():
    state = "/var/lib/" + re.search(r"^StateDirectory=(.*)$", UNIT.read_text(), re.M)[1]
    edits = re.findall(r"^(sed -i .*) /etc/rnostr/rnostr.toml$", (ROOT / "docs/deployment.md").read_text(), re.M)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "rnostr.toml"
        shutil.copy(ROOT / "config/rnostr.toml", file)
        for edit in edits:
            output(["sh", "-c", f"{edit} {file}"])
        path = tomllib.loads(file.read_text())["data"]["path"]
        assert path == state, path


def allowed_calls():
    """The system calls that SystemCallFilter= of the unit leaves, as systemd resolves its sets."""
    sets, name = {}, None
    for line in output(["systemd-analyze", "syscall-filter"]).splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = []
        elif name and line.strip() and not line.strip().startswith("#"):
            sets[name].append(line.strip())

    def calls(word):
        return {call for part in sets[word] for call in calls(part)} if word.startswith("@") else {word}

    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M):
        for word in line.lstrip("~").split():
            allowed = allowed - calls(word) if line.startswith("~") else allowed | calls(word)
    # systemd allows these in every list of what is allowed.
    return allowed | calls("@default") | {"execve"}


def the_relay_makes_no_call_that_the_unit_forbids():
    allowed = allowed_calls()
    assert "mount" not in allowed and "socket" in allowed
    with tempfile.TemporaryDirectory() as directory:
        counts = Path(directory) / "calls"
        relay = [RNOSTR, "relay"]
        env = {"RNOSTR_SERVER__PORT": "0", "RNOSTR_DATA__PATH": f"{directory}/data"}
        strace = ["strace", "-f", "-c", "-U", "name", "-o", str(counts), *relay]
        process = subprocess.Popen(strace, env=env, cwd=directory, stderr=subprocess.PIPE, text=True)
        try:
            until = time.monotonic() + START_SECS_MAX
            port = None
            while port is None and time.monotonic() < until:
                found = re.search(r"listening on ws://127.0.0.1:(\d+)", process.stderr.readline())
                port = found and found[1]
            assert port, "the relay starts"
            for path in ("/health", "/ready", "/"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            subprocess.run(["kill", "-TERM", children[0]], check=True)
            process.wait(timeout=COMMAND_SECS_MAX)
        finally:
            process.send_signal(signal.SIGKILL)
        made = {line.strip() for line in counts.read_text().splitlines() if re.fullmatch(r"\s*[a-z0-9_]+", line)}
    made -= {"syscall", "total"}
    assert len(made) > 20, made
    assert made <= allowed, sorted(made - allowed)
    return f"{len(made)} calls"


CHECKS = [
    systemd_counts_little_exposure,
    systemd_finds_no_fault,
    the_relay_reads_its_variables,
    the_documented_configuration_has_the_directory_of_the_unit,
    the_relay_makes_no_call_that_the_unit_forbids,
]
