"""What the checks of deployment files share: paths, commands, and the relay's own reading of a configuration."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
# The relay whose reading of keys and variables counts.
RNOSTR = os.environ["RNOSTR_BIN"]
# Longest time for one command, in seconds.
COMMAND_SECS_MAX = 120


def run(command, env=None, **more):
    """Runs a command in the repository with PATH and these variables alone."""
    env = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": "/nonexistent", **(env or {})}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=COMMAND_SECS_MAX, **more)


def output(command, env=None, **more):
    """Standard output of a command, which must succeed."""
    ran = run(command, env, **more)
    assert ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def refused(command, env, why):
    """Asserts that a command fails and says why."""
    ran = run(command, env)
    said = ran.stdout + ran.stderr
    assert ran.returncode != 0 and why in said, f"{command}: {ran.returncode}\n{said}"


def relay_reads(env, arguments=(), warned=None):
    """Asserts that the relay takes these variables. Its warnings are none, or the one that holds `warned`."""
    told = output([RNOSTR, "check-config", *arguments], {name: str(value) for name, value in env.items()})
    warnings = [line for line in told.splitlines() if line.startswith("warning: ")]
    if warned is None:
        assert not warnings, "\n".join(warnings)
    else:
        assert len(warnings) == 1 and warned in warnings[0], "\n".join(warnings)
    return told


def documents(path):
    """The documents of a YAML file."""
    import yaml

    return list(yaml.safe_load_all(path.read_text()))
