#!/usr/bin/env python3
"""Runs the blocks of code of the documents as a reader does who has a clone and nothing else.

    run.py [PAGE…]      the pages, by default all that git tracks

Each page runs in a directory that has the files of a clone and nothing else, its `sh` blocks one after the other in one
shell. The words of a block's first line, and comments in front of it, say how:

    ```sh                       the block ends, with exit code 0
    ```sh serves                the block goes on, as a relay at 127.0.0.1:8080 does, until another one serves there or
                                the page ends; `serves 8090` is the same at another port
    ```text prints              the block before printed this; `…` stands for anything
    <!-- not run: REASON -->    the next block is not run
    <!-- sh
    COMMANDS
    -->                         a block that no reader sees: it makes things that readers have; `stop 8080` ends a relay
    <!-- needs: VARIABLE -->    the next block is left out if the environment lacks the variable

Parts that mdBook includes from other pages are run where they stand, and lines are counted with them.

A block of TOML is a configuration, or the part of one, that `rnostr check-config` reads; one of JSON is parsed.

The pages name a relay at 127.0.0.1:8080 or relay.example.com, and a second one at 127.0.0.1:8081 or old.example.com.
The shell reads free ports instead, as for each other port that a block serves at, and the addresses of the tests'
engines for those of PostgreSQL (127.0.0.1:5432) and of the Firestore emulator (127.0.0.1:8085). Backups go to a
directory of the run instead of /var/backups/rnostr. A `cargo` runs the binaries that are built already. RNOSTR_BIN
names the relay's.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ["RNOSTR_BIN"])
# Longest time of a page.
PAGE_SECS_MAX = 300
# Characters of a page's output that a failure shows.
SHOWN_MAX = 6000

# Variables that the shell of a page has of this environment: those of the user, and those by which npm reaches its
# registry. Others, such as RUST_LOG, would change the relay's behaviour.
KEPT = (
    "HOME", "LANG", "TERM", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "NODE_EXTRA_CA_CERTS", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG",
)

# Commands of the shell in which a page runs. A block that serves has a process group of its own.
PRELUDE = r"""
set -euo pipefail
declare -A serving
stop() {
    local group=${serving[$1]:-}
    [ -n "$group" ] || return 0
    kill -TERM -- "-$group" 2>/dev/null || true
    for _ in $(seq 200); do kill -0 -- "-$group" 2>/dev/null || break; sleep 0.1; done
    unset "serving[$1]"
}
serves() {
    serving[$1]=$2
    echo "$2" >>"$GROUPS_FILE"
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        kill -0 -- "-$2" 2>/dev/null || { echo "the block ended, and does not serve" >&2; return 1; }
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    return 1
}
trap 'for port in "${!serving[@]}"; do stop "$port"; done' EXIT
"""

CARGO = """#!/bin/sh
# Runs a binary that is built already.
case "$1 $2" in
    "build --release") ;;
    "run --release") shift 3; exec rnostr "$@" ;;
    "run -p") program=$3; shift 4; exec "{binaries}/$program" "$@" ;;
    *) echo "the book has no binary for: cargo $*" >&2; exit 1 ;;
esac
"""


@dataclass
class Block:
    """A block of code."""

    line: int
    language: str
    words: list[str]
    text: str
    reason: str | None = None

    def port(self) -> str | None:
        """The port at which the block serves, as the page writes it."""
        if "serves" not in self.words:
            return None
        return next((word for word in self.words if word.isdigit()), "8080")


@dataclass
class Page:
    """A page's blocks."""

    path: pathlib.Path
    blocks: list[Block] = field(default_factory=list)


def read(path: pathlib.Path) -> Page:
    page = Page(path)
    lines = iter(enumerate(text_of(ROOT / path).splitlines(), 1))
    reason = None
    for number, line in lines:
        if found := re.match(r"( *)```(.*)", line):
            indent, info = len(found[1]), found[2].split()
            text = taken(lines, "```", indent)
            page.blocks.append(Block(number, info[0] if info else "", info[1:], text, reason))
            reason = None
        elif found := re.match(r" *<!-- not run: (.+) -->", line):
            reason = found[1]
        elif found := re.match(r"<!-- needs: (\w+) -->", line):
            if not os.environ.get(found[1]):
                reason = f"the environment has no {found[1]}"
        elif found := re.match(r"<!-- sh( .*)?$", line):
            words = ["hidden", *(found[1] or "").split()]
            page.blocks.append(Block(number, "sh", words, taken(lines, "-->", 0), reason))
            reason = None
    return page


def text_of(path: pathlib.Path) -> str:
    """The text of a page, with the parts of other pages that mdBook includes by their anchors."""

    def part(found: re.Match[str]) -> str:
        there = (path.parent / found[1]).read_text()
        return there.split(f"<!-- ANCHOR: {found[2]} -->\n")[1].split(f"<!-- ANCHOR_END: {found[2]} -->\n")[0]

    return re.sub(r"\{\{#include (\S+):(\w+)\}\}", part, path.read_text())


def taken(lines: Iterator[tuple[int, str]], end: str, indent: int) -> str:
    """The lines before the one that ends a block, without the block's indent."""
    text = ""
    for _, line in lines:
        if line.strip() == end:
            break
        text += line[indent:] + "\n"
    return text


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def script(page: Page, ports: dict[str, int], outputs: pathlib.Path) -> str:
    """The page as a script. The output of a block that ends goes to a file of its own as well."""
    text = PRELUDE
    for block in page.blocks:
        if block.language != "sh" or block.reason:
            continue
        text += f'\necho "-- {page.path}:{block.line}"\n'
        if port := block.port():
            text += f"stop {ports[port]}\nset -m\n(\n{block.text}) &\nset +m\nserves {ports[port]} $!\n"
        else:
            text += f"{{\n{block.text}}} > >(tee {outputs}/{block.line})\n"
    return text


def placed(text: str, ports: dict[str, int], directory: pathlib.Path) -> str:
    """The text with the addresses and the directory of this run."""
    for port, free in ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}").replace(f"stop {port}\n", f"stop {free}\n")
        text = text.replace(f"SERVER__PORT={port}", f"SERVER__PORT={free}")
    for host, port in (("relay.example.com", "8080"), ("old.example.com", "8081")):
        text = text.replace(f"wss://{host}", f"ws://127.0.0.1:{ports[port]}")
        text = text.replace(f"https://{host}", f"http://127.0.0.1:{ports[port]}")
    if database := os.environ.get("RNOSTR_TEST_POSTGRES"):
        text = text.replace("127.0.0.1:5432", urlsplit(database).netloc.split("@")[-1])
    if emulator := os.environ.get("RNOSTR_TEST_FIRESTORE"):
        text = text.replace("127.0.0.1:8085", emulator)
    return text.replace("/var/backups/rnostr", f"{directory}/backups")


def environment(directory: pathlib.Path, port: int) -> dict[str, str]:
    """The variables of a reader's shell, with a port that is free and a host that is this machine."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    kept |= {"PATH": f"{directory}/bin:{os.environ['PATH']}", "GROUPS_FILE": f"{directory}/groups"}
    kept |= {"RELAY_URL": f"ws://127.0.0.1:{port}"}
    kept |= {"RNOSTR_SERVER__HOST": "127.0.0.1", "RNOSTR_SERVER__PORT": str(port), "npm_config_prefer_offline": "true"}
    if database := os.environ.get("RNOSTR_TEST_POSTGRES"):
        url = urlsplit(database)
        kept |= {"PGHOST": url.hostname, "PGPORT": str(url.port), "PGUSER": url.username, "PGDATABASE": "postgres"}
    return kept


def prepare(directory: pathlib.Path) -> pathlib.Path:
    """A directory with the programs of a reader, and another one with the files of a clone."""
    binaries, clone = directory / "bin", directory / "clone"
    binaries.mkdir()
    clone.mkdir()
    (binaries / "rnostr").symlink_to(BINARY.resolve())
    (binaries / "cargo").write_text(CARGO.format(binaries=BINARY.resolve().parent))
    (binaries / "cargo").chmod(0o755)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for path in tracked.splitlines():
        if (ROOT / path).is_file():
            (clone / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, clone / path)
    return clone


def fits(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.rstrip("\n").split("…"))
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


def compare(page: Page, ports: dict[str, int], directory: pathlib.Path) -> list[str]:
    """Complaints about blocks that print something else than the page says."""
    faults, before, outputs = [], None, directory / "outputs"
    for block in page.blocks:
        if block.language == "text" and "prints" in block.words and not block.reason:
            printed = (outputs / str(before)).read_text() if before and (outputs / str(before)).exists() else ""
            if not fits(placed(block.text, ports, directory), printed):
                faults.append(f"{page.path}:{block.line}: the block before prints something else:\n{printed}")
        elif block.language == "sh" and "hidden" not in block.words:
            before = block.line
    return faults


def end(group: int) -> None:
    """Ends the processes of a group that this program started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_shell(page: Page) -> list[str]:
    ports = {port: free_port() for port in {"8080", "8081"} | {block.port() or "8080" for block in page.blocks}}
    with tempfile.TemporaryDirectory(prefix="rnostr-book-") as place:
        directory = pathlib.Path(place)
        clone, outputs = prepare(directory), directory / "outputs"
        outputs.mkdir()
        (directory / "groups").touch()
        path = directory / "page.sh"
        path.write_text(placed(script(page, ports, outputs), ports, directory))
        shell = subprocess.Popen(
            ["bash", str(path)], cwd=clone, env=environment(directory, ports["8080"]), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            printed, _ = shell.communicate(timeout=PAGE_SECS_MAX)
        except subprocess.TimeoutExpired:
            end(shell.pid)
            for group in (directory / "groups").read_text().split():
                end(int(group))
            printed, _ = shell.communicate()
            return [f"{page.path}: not done in {PAGE_SECS_MAX} s:\n{printed[-SHOWN_MAX:]}"]
        if shell.returncode != 0:
            return [f"{page.path}: exit code {shell.returncode}:\n{printed[-SHOWN_MAX:]}"]
        return compare(page, ports, directory)


def read_values(page: Page) -> list[str]:
    """Complaints about blocks of TOML and JSON that do not read."""
    faults = []
    for block in page.blocks:
        if block.reason:
            continue
        if block.language == "json":
            try:
                json.loads(block.text)
            except ValueError as error:
                faults.append(f"{page.path}:{block.line}: {error}")
        if block.language == "toml":
            with tempfile.TemporaryDirectory() as place:
                path = pathlib.Path(place, "rnostr.toml")
                path.write_text(block.text)
                checked = subprocess.run(
                    [BINARY, "check-config", "-c", path], cwd=place, env={}, capture_output=True, text=True)
                if checked.returncode != 0:
                    faults.append(f"{page.path}:{block.line}: {checked.stderr}")
    return faults


def run(path: pathlib.Path) -> tuple[int, int, list[str]]:
    """Runs a page: the numbers of blocks that ran and that did not, and the faults."""
    page = read(path)
    blocks = [block for block in page.blocks if "hidden" not in block.words]
    ran = [block for block in blocks if block.language in ("sh", "toml", "json") and not block.reason]
    left = [block for block in blocks if block.reason]
    faults = read_values(page)
    started = time.monotonic()
    if any(block.language == "sh" for block in ran):
        faults += run_shell(page)
    if ran or left:
        result = "FAILED" if faults else "ok"
        print(f"{path}: {len(ran)} blocks run, {len(left)} not run, {time.monotonic() - started:.1f} s, {result}")
        for block in left:
            print(f"   line {block.line} is not run: {block.reason}")
    return len(ran), len(left), faults


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    pages = sys.argv[1:] or listed.splitlines()
    passed = failed = skipped = 0
    for path in pages:
        ran, left, faults = run(pathlib.Path(path))
        for fault in faults:
            print(f"!! {fault}", file=sys.stderr)
        failed += len(faults)
        passed += 0 if faults else ran
        skipped += left
    print(f"{skipped} blocks were not run")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
