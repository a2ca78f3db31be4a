#!/bin/sh
# Installs the pinned packages and runs the suites against the binary that RNOSTR_BIN names.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${RNOSTR_BIN:?set it to the relay binary, as RNOSTR_BIN=\$PWD/target/debug/rnostr}"
npm ci --prefix "$here"
npm test --prefix "$here"
