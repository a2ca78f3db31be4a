"""Checks of the files in deploy/, of the Dockerfile and of docker-compose.yml, without an account anywhere.

    RNOSTR_BIN=target/debug/rnostr python tests/deploy/check.py [WORD…]

runs the checks whose names hold one of the words, or all. Needs docker-compose, caddy, promtool, systemd-analyze,
strace, and the packages of requirements.txt.
"""

import sys
import traceback

import cloud
import compose
import kubernetes
import systemd
import variables


def main():
    words = sys.argv[1:]
    passed = failed = 0
    for module in (variables, compose, cloud, kubernetes, systemd):
        for check in module.CHECKS:
            name = f"{module.__name__}: {check.__name__.replace('_', ' ')}"
            if words and not any(word in name for word in words):
                continue
            try:
                detail = check()
                passed += 1
                print(f"ok      {name}{f': {detail}' if detail else ''}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
