#!/usr/bin/env bash
# Runs every check: format, lints, tests, documentation, dependencies, and real clients against a real relay.
#
#   ./test.sh                  every check except the long parts; 30 minutes at most, once all is compiled
#   ./test.sh --long           all long parts
#   ./test.sh --long PART      one of them
#
# The long parts:
#
#   faults     ten rounds of each fault: instances that stop, connections that fall silent, restored databases, forged
#              messages, wrong clocks; over PostgreSQL, Redis and the Firestore emulator. Each round draws its choices
#              from a seed, and the test prints the seed and the time to recovery. RNOSTR_TEST_SEED repeats the choices,
#              RNOSTR_TEST_ROUNDS changes the number of rounds.
#   claims     twenty races of 64 claimants on four instances for 20 KeyPackages, over PostgreSQL and over the Firestore
#              emulator; one of each belongs to the other tests.
#   moving     100,000 events from another relay, and as many from a SQLite file of nostr-rs-relay: each run is killed
#              and resumed, and the events are counted; with a build of the release profile.
#   backup     a backup while at least 5,000 events a second come in, with a build of the release profile: it holds all
#              that was acknowledged before, and flipped bytes are found.
#   simulation 10,000 seeds of the simulation; and each break of the relay that its list names, until one of 500 seeds
#              notices it.
#   image      builds the image of the Dockerfile by buildah on base images by debootstrap, lists its parts, and sends
#              messages through a relay in the image's root; needs root.
#
# Needs Rust and a C compiler. It installs missing tools by package name, and says so: PostgreSQL, Redis, faketime,
# Java, Node, npm, nginx, Caddy, HAProxy, OpenSSL, Chromium, curl, docker-compose, strace and Prometheus by apt-get (as
# root or by sudo), the Firestore emulator too if Google's repository is set up, cargo-deny and mdbook by cargo, the
# clients' packages by cargo and npm, artillery by npm, the checks of deployment files by pip; for the image buildah and
# debootstrap by apt-get and cargo-cyclonedx by cargo.
# Compiled files go to CARGO_TARGET_DIR, by default ~/.cache/rnostr/target, and later runs use them again.
#
# One database server of each sort runs for all tests, on free ports of this machine and in temporary directories, and
# ends with them. Servers that the system has started are not touched, and the services of the packages for proxies and
# metrics are not started.
#
# The parts run one after the other, whether or not one fails. The last line counts, and the exit code is 0 if none
# failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly LONG_PARTS=(faults claims moving backup simulation image)

usage() {
    echo "usage: $0 [--long [PART]]; the long parts are: ${LONG_PARTS[*]}" >&2
    exit 2
}

# The long parts to run; none of them, and all others, without --long.
CHOSEN=()
case "${1:-}" in
    "") [ $# = 0 ] || usage ;;
    --long)
        case $# in
            1) CHOSEN=("${LONG_PARTS[@]}") ;;
            2)
                for name in "${LONG_PARTS[@]}"; do
                    if [ "$name" = "$2" ]; then CHOSEN=("$name"); fi
                done
                [ ${#CHOSEN[@]} != 0 ] || usage
                ;;
            *) usage ;;
        esac
        ;;
    *) usage ;;
esac

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/rnostr/target}"
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR="$(cd "$CARGO_TARGET_DIR" && pwd)"
export CARGO_NET_RETRY="${CARGO_NET_RETRY:-5}"
readonly TOOLS="$CARGO_TARGET_DIR/tools"
readonly MDK_TARGET_DIR="$CARGO_TARGET_DIR/mdk-target"
readonly CARGO_DENY_VERSION=0.20.2
readonly CARGO_CYCLONEDX_VERSION=0.5.9
readonly MDBOOK_VERSION=0.5.4
readonly ARTILLERY_VERSION=2.0.34
# nostr-tools' cryptography needs it.
readonly NODE_MAJOR_MIN=20
export PATH="$TOOLS/bin:$TOOLS/node_modules/.bin:$PATH"
export RNOSTR_BIN="$CARGO_TARGET_DIR/debug/rnostr"
# All parts build with the same features, so that each crate is compiled once.
readonly FEATURES=integration,mls_gateway_firestore,otlp
readonly ENGINES_BIN="$CARGO_TARGET_DIR/debug/rnostr-test-engines"
readonly EMULATOR_PACKAGE=google-cloud-cli-firestore-emulator

SCRATCH="$(mktemp -d)"
# The engines run until this closes. Descriptor 9 belongs to this shell; no child inherits it.
mkfifo "$SCRATCH/engines.stdin"
exec 9<>"$SCRATCH/engines.stdin"
trap 'stop_engines; rm -rf "$SCRATCH"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }
warn() { printf '!! %s\n' "$*" >&2; }

# Runs a command for at most so many seconds, if the system has `timeout`.
limit() {
    if command -v timeout >/dev/null; then timeout --kill-after=20 "$@"; else shift && "$@"; fi
}

# Tries a command that downloads up to three times, since registries fail now and then.
retry() {
    local attempt
    for attempt in 1 2 3; do
        if "$@"; then return 0; fi
        if [ "$attempt" -lt 3 ]; then
            warn "failed, trying again in $((attempt * 5)) s: $*"
            sleep $((attempt * 5))
        fi
    done
    warn "failed three times: $*"
    return 1
}

# --- tools and packages ---------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        warn "this needs root or sudo: $*"
        return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null || { warn "no apt-get here; install by hand: $*"; return 1; }
    say "installing with apt-get: $*"
    retry as_root apt-get update -q && retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy "$@"
}

# Installs packages without starting their services: Debian's tool for services asks this file, and 101 forbids it.
apt_install_without_services() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then
        apt_install "$@"
        return
    fi
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    apt_install "$@" || status=$?
    as_root rm -f "$policy"
    trap - EXIT
    return "$status"
}

node_major() { node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p'; }

install_node() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        apt_install nodejs npm
    fi
    if [ "$(node_major)" -lt "$NODE_MAJOR_MIN" ]; then
        say "node is older than $NODE_MAJOR_MIN; installing the npm package node@22 into $TOOLS"
        retry npm install --no-audit --no-fund --prefix "$TOOLS" node@22
        hash -r
    fi
}

# Installs the engines' missing packages. The emulator is in Google's repository alone, and Java serves nothing else.
install_engines() {
    local missing debian google
    missing="$("$ENGINES_BIN" --missing)"
    debian="$(grep -x -e postgresql -e redis-server -e faketime <<<"$missing")" || true
    google="$(grep -x -e "$EMULATOR_PACKAGE" -e 'openjdk-.*' <<<"$missing")" || true
    # shellcheck disable=SC2086 # one word a package
    if [ -n "$debian" ]; then apt_install $debian; fi
    if grep -qx prometheus <<<"$missing"; then apt_install_without_services prometheus; fi
    if grep -qx "$EMULATOR_PACKAGE" <<<"$google" && ! apt_knows "$EMULATOR_PACKAGE"; then return; fi
    # shellcheck disable=SC2086
    if [ -n "$google" ]; then apt_install $google; fi
}

# Tells whether apt-get can install a package.
apt_knows() {
    command -v apt-cache >/dev/null || return 1
    as_root apt-get update -q >/dev/null || warn "the lists of packages cannot be brought up to date"
    apt-cache policy "$1" | grep -q '^ *Candidate: [^(]'
}

# Installs a subcommand of cargo, if it is missing.
install_cargo() {
    local name=$1 version=$2
    if ! cargo "${name#cargo-}" --version >/dev/null 2>&1; then
        say "installing with cargo into $TOOLS: $name $version"
        CARGO_TARGET_DIR="$TOOLS/build" retry cargo install --debug --locked --root "$TOOLS" "$name@$version"
        rm -rf "$TOOLS/build"
    fi
}

# python_packages DIRECTORY NAME: installs the packages of requirements.txt into a place of their own, and prints its
# path.
python_packages() {
    local directory=$1 venv="$TOOLS/$2"
    if ! cmp -s "$directory/requirements.txt" "$venv/requirements.txt"; then
        python3 -m venv --help >/dev/null 2>&1 || { warn "python3 with venv is missing"; return "$SKIPPED"; }
        say "installing with pip into $venv: $2" >&2
        # A command substitution passes over failures.
        python3 -m venv "$venv" && retry "$venv/bin/pip" install --quiet -r "$directory/requirements.txt" >&2 &&
            cp "$directory/requirements.txt" "$venv/requirements.txt" || return 1
    fi
    echo "$venv"
}

check_rust() {
    command -v cargo >/dev/null || { warn "cargo is missing: install Rust"; return 1; }
    command -v cc >/dev/null || { warn "cc is missing: install a C compiler"; return 1; }
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        say "installing with rustup: rustfmt, clippy"
        retry rustup component add rustfmt clippy
    fi
    cargo --version
}

# --- the parts ------------------------------------------------------------------------------------------------------

part_format() {
    cargo fmt --all -- --check -l || { warn "these files are not formatted: run cargo fmt --all"; return 1; }
}

part_fetch() {
    retry cargo fetch --locked --quiet
    retry cargo fetch --locked --quiet --manifest-path tests/clients/mdk/Cargo.toml
    echo "the crates are here"
}

part_lints() {
    limit 1800 cargo clippy --locked --workspace --all-targets --features "$FEATURES,nostr-store/firestore-tests" -- \
        -D warnings
}

# Starts one engine of each sort and leaves it running for the later parts. If one is missing, the tests over it do not
# run, and say so; on CI that is a failure.
part_engines() {
    # Builds with the whole workspace's features, so that the tests use the same compiled crates.
    limit 1200 cargo build --locked --workspace --features "$FEATURES" --bin rnostr-test-engines
    install_engines || warn "not all that is missing could be installed"
    exec 8<"$SCRATCH/engines.stdin"
    env -u CI -u RNOSTR_TEST_REQUIRE_ENGINES "$ENGINES_BIN" \
        <&8 8<&- >"$SCRATCH/engines" 2>"$SCRATCH/engines.log" &
    local pid=$!
    for _ in $(seq 1800); do
        if grep -q '^RNOSTR_TEST_ENGINES=' "$SCRATCH/engines" || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    cat "$SCRATCH/engines.log" "$SCRATCH/engines"
    grep -q '^RNOSTR_TEST_ENGINES=' "$SCRATCH/engines" || { warn "the engines do not start"; return 1; }
    local missing
    missing="$("$ENGINES_BIN" --missing)"
    if [ -z "$missing" ]; then
        echo "RNOSTR_TEST_REQUIRE_ENGINES=1" >>"$SCRATCH/engines"
        return
    fi
    if grep -qx "$EMULATOR_PACKAGE" <<<"$missing"; then
        warn "THE FIRESTORE EMULATOR IS MISSING: the tests over Firestore do NOT run"
    fi
    warn "NOT INSTALLED: ${missing//$'\n'/ }"
    if [ "${CI:-}" = true ]; then return 1; fi
    return "$SKIPPED"
}

part_tests() { limit 2700 cargo test --locked --workspace --features "$FEATURES" --no-fail-fast; }

part_docs() {
    RUSTDOCFLAGS="-D warnings" limit 1200 cargo doc --locked --workspace --no-deps
    build_book
}

part_dependencies() {
    install_cargo cargo-deny "$CARGO_DENY_VERSION"
    cargo deny --locked check licenses bans sources
}

part_advisories() {
    if ! limit 90 cargo deny fetch db; then
        warn "THE ADVISORY DATABASE CANNOT BE FETCHED: known vulnerabilities were NOT looked for"
        return "$SKIPPED"
    fi
    cargo deny --locked check --disable-fetch advisories
}

# Runs more tests at one time than there are cores, because the emulator takes a while for each call.
readonly EMULATOR_TEST_THREADS=8

# Runs the clients' suites over a shared store, with each client on the next one of so many instances.
over_instances() {
    local backend=$1 count
    shift
    for count in "$@"; do
        echo "-- $backend, instances: $count"
        RNOSTR_TEST_BACKEND="$backend" RNOSTR_TEST_INSTANCES="$count" limit 1500 \
            cargo test --locked --workspace --features "$FEATURES" --test integration -- \
            mls_protocol_compliance table hidden every_path_agrees openmls noise
    done
}

part_instances_memory() { over_instances memory 2; }

part_instances_postgres() {
    needs_engine RNOSTR_TEST_POSTGRES || return "$SKIPPED"
    over_instances postgres 2 4
}

part_instances_firestore() {
    needs_engine RNOSTR_TEST_FIRESTORE || return "$SKIPPED"
    export RUST_TEST_THREADS="$EMULATOR_TEST_THREADS"
    twice over_instances firestore 2 4
}

# Kills relay processes and cuts them off. Over PostgreSQL these tests belong to the part "tests".
part_processes_firestore() {
    needs_engine RNOSTR_TEST_FIRESTORE || return "$SKIPPED"
    export RNOSTR_TEST_BACKEND=firestore
    twice limit 1500 cargo test --locked --workspace --features "$FEATURES" --test integration -- processes
}

part_firestore() {
    needs_engine RNOSTR_TEST_FIRESTORE || return "$SKIPPED"
    export RUST_TEST_THREADS="$EMULATOR_TEST_THREADS"
    twice limit 1500 cargo test --locked --workspace --features "$FEATURES,nostr-store/firestore-tests" --test firestore
    twice limit 1500 cargo test --locked --workspace --features "$FEATURES,nostr-store/firestore-tests" --test moving
}

# Tries a command a second time if it fails, and keeps the output of the first try aside. On a busy machine the emulator
# may answer later than the 5 s that a call of the store waits.
twice() {
    if "$@" >"$SCRATCH/first" 2>&1; then
        cat "$SCRATCH/first"
    else
        grep -E '^test .* FAILED$|panicked at' "$SCRATCH/first" | sed 's/^/!! failed once: /' >&2 || true
        "$@"
    fi
}

readonly FAULT_ROUNDS=10

# Runs the tests of these names in rounds, one test at a time, so that each round's time is that of its fault.
faults_over() {
    export RNOSTR_TEST_BACKEND="$1" RNOSTR_TEST_ROUNDS="${RNOSTR_TEST_ROUNDS:-$FAULT_ROUNDS}"
    shift
    limit 3600 cargo test --locked --workspace --features "$FEATURES" --test integration -- \
        --nocapture --test-threads=1 "$@"
}

part_faults_postgres() {
    needs_engine RNOSTR_TEST_POSTGRES || return "$SKIPPED"
    faults_over postgres processes::faults instances::overtaken
}

part_faults_firestore() {
    needs_engine RNOSTR_TEST_FIRESTORE || return "$SKIPPED"
    faults_over firestore processes::faults
}

readonly CLAIM_ROUNDS=20

part_claims() {
    needs_engine RNOSTR_TEST_POSTGRES || return "$SKIPPED"
    needs_engine RNOSTR_TEST_FIRESTORE || return "$SKIPPED"
    export RNOSTR_TEST_ROUNDS="${RNOSTR_TEST_ROUNDS:-$CLAIM_ROUNDS}"
    limit 1500 cargo test --locked --workspace --features "$FEATURES" --test integration -- \
        --nocapture --test-threads=1 instances::claims
}

# Runs tests of the command line, with the binary of the release profile.
with_release() {
    limit 3000 cargo build --locked --release --bin rnostr
    export RNOSTR_TEST_BINARY="$CARGO_TARGET_DIR/release/rnostr"
    limit 1500 cargo test --locked --workspace --features "$FEATURES" --test cli -- --nocapture --test-threads=1 "$@"
}

part_moving() { RNOSTR_TEST_EVENTS=100000 with_release goes_on nostr_rs_relay_is_imported; }

part_backup() { RNOSTR_TEST_RATE_MIN=5000 with_release a_backup_of_a_busy_relay; }

readonly SIMULATION_BIN="$CARGO_TARGET_DIR/debug/rnostr-simulation"

# Runs so many seeds of the simulation. Each line of a violation names its seed.
simulate() {
    limit 1200 cargo build --locked --workspace --features "$FEATURES" --bin rnostr-simulation
    for seed in 1 2 3; do "$SIMULATION_BIN" --repeat --seed "$seed"; done
    limit 7200 "$SIMULATION_BIN" --jobs "$(nproc)" --seeds "$1"
}

part_simulation() { simulate 500; }

part_simulation_long() { simulate 10000; }

# Has the simulation notice each break, with a build of its own.
part_mutations() {
    limit 1200 cargo build --locked --workspace --features "$FEATURES,rnostr-simulation/mutations" \
        --bin rnostr-simulation
    limit 7200 "$SIMULATION_BIN" --jobs "$(nproc)" --mutations 500
}

needs_engine() {
    if [ -n "${!1:-}" ]; then return 0; fi
    warn "THERE IS NO ENGINE FOR $1: these tests did NOT run"
    return 1
}

part_mdk() {
    needs_relay
    cd tests/clients/mdk
    CARGO_TARGET_DIR="$MDK_TARGET_DIR" limit 2700 cargo test --locked --no-fail-fast
}

# Runs the same tests, each client on another instance.
mdk_over_instances() {
    local count
    for count in 2 4; do
        echo "-- instances: $count"
        (export RNOSTR_TEST_STORE="$1" RNOSTR_TEST_INSTANCES="$count" && part_mdk)
    done
}

part_mdk_postgres() {
    needs_engine RNOSTR_TEST_POSTGRES || return "$SKIPPED"
    local store="storage_backend = \"cloudsql\""
    mdk_over_instances "$store"$'\n'"database_url = \"$RNOSTR_TEST_POSTGRES\""
}

part_mdk_firestore() {
    needs_engine RNOSTR_TEST_FIRESTORE || return "$SKIPPED"
    export FIRESTORE_EMULATOR_HOST="$RNOSTR_TEST_FIRESTORE"
    mdk_over_instances "storage_backend = \"firestore\""$'\n'"project_id = \"mdk-clients\""
}

part_nostr_tools() {
    needs_relay
    install_node
    cd tests/clients/js
    retry npm ci --no-audit --no-fund
    limit 900 npm test
}

# Runs applesauce, NDK, welshman and nostr-sdk as WebAssembly.
part_libraries() {
    needs_relay
    install_node
    cd tests/clients/libraries
    retry npm ci --no-audit --no-fund
    limit 600 npm test
}

# Runs clients through nginx, Caddy and HAProxy, each with its example of deploy/proxies.
part_proxies() {
    needs_relay
    needs_packages
    local missing=() program
    for program in nginx caddy haproxy openssl; do
        # Only root has the place of servers in its path.
        PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("$program")
    done
    if [ ${#missing[@]} != 0 ]; then apt_install_without_services "${missing[@]}"; fi
    cd tests/clients/proxies
    limit 300 npm test
}

# Checks that the console's committed files are those that its sources give, and opens the relay's pages and the browser
# chat in Chromium. The suites start their own relays and their own Chromium, and end them.
part_browser() {
    needs_relay
    needs_packages
    install_node
    if ! command -v chromium >/dev/null && [ -z "${CHROMIUM_BIN:-}" ]; then apt_install chromium; fi
    (cd examples/chat && retry npm ci --no-audit --no-fund)
    (cd console && retry npm ci --no-audit --no-fund && npm run check && npm test)
    cd tests/browser
    retry npm ci --no-audit --no-fund
    limit 900 npm test
}

# Has Prometheus' own tool check the configuration and the alerts, try each alert, and read what the relay counts once
# clients have talked to it. The test `every_query_of_specification_alerts_and_dashboard_returns_data` has Prometheus
# itself scrape relays.
part_metrics() {
    needs_relay
    needs_packages
    if ! command -v promtool >/dev/null; then apt_install_without_services prometheus; fi
    promtool check config deploy/prometheus/prometheus.yml
    promtool test rules deploy/prometheus/alerts_test.yml
    start_relay
    limit 120 node test-websocket.js "$RELAY_URL"
    node -e 'fetch(process.argv[1]).then(response => response.text()).then(text => process.stdout.write(text))' \
        "${RELAY_URL/ws:/http:}/metrics" >"$SCRATCH/metrics"
    stop_relay
    grep -q '^mls_gateway_events_processed_total' "$SCRATCH/metrics" || { warn "the relay counted no event"; return 1; }
    promtool check metrics <"$SCRATCH/metrics"
    echo "promtool finds no fault in $(grep -c '^# TYPE' "$SCRATCH/metrics") metrics"
}

part_websocket() {
    needs_relay
    needs_packages
    start_relay
    limit 120 node test-websocket.js "$RELAY_URL"
    stop_relay
}

# Runs Schemathesis over the OpenAPI document of a relay: it makes requests of every sort, signs them (`hooks.py`), and
# checks each answer against the document. Prints its own counts.
part_rest() {
    needs_relay
    local venv here=tests/clients/rest
    venv="$(python_packages "$here" schemathesis)"
    # `hooks.py` signs with the secret of this key, which is 1.
    local key=79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798
    start_relay "RNOSTR_EXTENSIONS__MLS_GATEWAY__ADMIN_PUBKEYS=$key"
    # An address sends 20 requests a second; a schema-valid event has no valid signature.
    (cd "$SCRATCH" && export REST_URL="http${RELAY_URL#ws}" SCHEMATHESIS_HOOKS=hooks PYTHONPATH="$OLDPWD/$here" &&
        limit 900 "$venv/bin/schemathesis" run "$REST_URL/api/v1/mls/openapi.json" --checks all \
            --exclude-checks positive_data_acceptance --rate-limit 18/s --max-examples 20 --seed 1)
    stop_relay
}

# Reads the files of deploy/, the Dockerfile and docker-compose.yml as those do who run them.
part_deploy() {
    needs_relay
    local packages=() program venv
    for program in docker-compose caddy strace; do
        command -v "$program" >/dev/null || packages+=("$program")
    done
    if ! command -v promtool >/dev/null; then packages+=(prometheus); fi
    if [ ${#packages[@]} != 0 ]; then apt_install_without_services "${packages[@]}"; fi
    venv="$(python_packages tests/deploy deploy)"
    limit 300 "$venv/bin/python" tests/deploy/check.py
}

# Runs the load test of artillery in its short form. The packages that artillery needs to install browsers and the like
# are not run.
part_artillery() {
    needs_relay
    needs_packages
    local place="$TOOLS/artillery" rates=RNOSTR_EXTENSIONS__MLS_GATEWAY__RATE_LIMITS__MAX
    if ! [ -x "$place/node_modules/.bin/artillery" ]; then
        say "installing with npm into $place: artillery $ARTILLERY_VERSION"
        retry npm install --ignore-scripts --no-audit --no-fund --prefix "$place" "artillery@$ARTILLERY_VERSION"
    fi
    start_relay RNOSTR_SERVER__HANDSHAKES_PER_MINUTE_MAX=0 "${rates}_EVENTS_PER_MINUTE=0" \
        "${rates}_GROUP_MESSAGES_PER_MINUTE=0"
    ARTILLERY_DISABLE_TELEMETRY=true limit 180 "$place/node_modules/.bin/artillery" run -e short \
        --target "$RELAY_URL" tests/load/websocket-test.yml
    stop_relay
}

# Builds the image and tries it. The toolchain of this machine builds it.
part_image() {
    [ "$(id -u)" = 0 ] || { warn "only root can build the image"; return "$SKIPPED"; }
    install_node
    (cd tests/clients/js && retry npm ci --no-audit --no-fund)
    local packages=() program
    for program in buildah debootstrap; do command -v "$program" >/dev/null || packages+=("$program"); done
    if [ ${#packages[@]} != 0 ]; then apt_install_without_services "${packages[@]}"; fi
    install_cargo cargo-cyclonedx "$CARGO_CYCLONEDX_VERSION"
    limit 3000 deploy/image/build.sh "$CARGO_TARGET_DIR/image"
}

# Builds the book, and looks for links of it that lead nowhere.
build_book() {
    if ! cmp -s <(echo "$MDBOOK_VERSION") "$TOOLS/mdbook.version"; then
        say "installing with cargo into $TOOLS: mdbook $MDBOOK_VERSION"
        CARGO_TARGET_DIR="$TOOLS/build" retry cargo install --debug --locked --root "$TOOLS" --no-default-features \
            --features search "mdbook@$MDBOOK_VERSION"
        rm -rf "$TOOLS/build"
        echo "$MDBOOK_VERSION" >"$TOOLS/mdbook.version"
    fi
    command -v python3 >/dev/null || { warn "python3 is missing"; return "$SKIPPED"; }
    limit 120 mdbook build --dest-dir "$CARGO_TARGET_DIR/book" docs
    python3 tests/book/links.py "$CARGO_TARGET_DIR/book"
}

# Runs the blocks of code of all documents.
part_book() {
    needs_relay
    install_node
    local packages=() program
    for program in curl openssl; do command -v "$program" >/dev/null || packages+=("$program"); done
    if [ ${#packages[@]} != 0 ]; then apt_install "${packages[@]}"; fi
    command -v python3 >/dev/null || { warn "python3 is missing"; return "$SKIPPED"; }
    PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)" limit 1500 python3 tests/book/run.py
}

needs_relay() {
    [ -x "$RNOSTR_BIN" ] || { warn "there is no $RNOSTR_BIN: it did not compile"; return 1; }
}

needs_packages() {
    [ -d tests/clients/js/node_modules ] || { warn "the clients' npm packages are not installed"; return 1; }
}

# Starts a relay on a free port over an empty directory, with the arguments as its environment. Sets RELAY_URL.
start_relay() {
    local data
    data="$(mktemp -d "$SCRATCH/relay.XXXXXX")"
    env -i RNOSTR_SERVER__PORT=0 RNOSTR_DATA__PATH="$data/data" "$@" "$RNOSTR_BIN" relay >"$data/log" 2>&1 &
    RELAY_PID=$!
    # A part runs in a shell of its own, which must end the relay even if the part fails.
    trap 'if [ -n "$RELAY_PID" ]; then kill -KILL "$RELAY_PID"; fi' EXIT
    RELAY_URL=
    for _ in $(seq 100); do
        RELAY_URL="$(sed -n 's/.*listening on \(ws:[^ ]*\).*/\1/p' "$data/log" | head -n 1)"
        if [ -n "$RELAY_URL" ]; then break; fi
        if ! kill -0 "$RELAY_PID" 2>/dev/null; then break; fi
        sleep 0.1
    done
    if [ -z "$RELAY_URL" ]; then
        warn "the relay does not start:"
        cat "$data/log" >&2
        return 1
    fi
    export RELAY_URL
}

# Asks the relay to stop, and expects exit code 0.
stop_relay() {
    local pid=$RELAY_PID
    RELAY_PID=
    kill -TERM "$pid"
    wait "$pid"
}

# Exports the running engines' addresses to the later parts.
use_engines() {
    local line
    if ! grep -q '^RNOSTR_TEST_ENGINES=' "$SCRATCH/engines" 2>/dev/null; then return; fi
    while IFS= read -r line; do export "${line?}"; done <"$SCRATCH/engines"
}

# Ends the engines, and waits until they are gone.
stop_engines() {
    exec 9>&-
    if [ -z "${RNOSTR_TEST_ENGINES:-}" ]; then return; fi
    for _ in $(seq 300); do
        if ! kill -0 "$RNOSTR_TEST_ENGINES" 2>/dev/null; then return; fi
        sleep 0.1
    done
    warn "the engines do not end; killing $RNOSTR_TEST_ENGINES"
    # The engines end with the process that started them.
    kill -KILL "$RNOSTR_TEST_ENGINES" || true
}

# --- running and counting -------------------------------------------------------------------------------------------

readonly SKIPPED=77
PASSED_ALL=0
FAILED_ALL=0
SKIPPED_ALL=0
SUMMARY=()

# Adds up the results that cargo test, Node's runner and test-websocket.js print at their ends.
count() {
    sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        /^test result: /                  { passed += $4; failed += $6; skipped += $8 }
        /^(#|ℹ) pass [0-9]+$/             { passed += $3 }
        /^(#|ℹ) (fail|cancelled) [0-9]+$/ { failed += $3 }
        /^(#|ℹ) (skipped|todo) [0-9]+$/   { skipped += $3 }
        /^[0-9]+ passed, [0-9]+ failed$/  { passed += $1; failed += $3 }
        END { print passed + 0, failed + 0, skipped + 0 }'
}

# part NAME check|tests FUNCTION: runs it in a shell of its own, shows and keeps its output, counts.
part() {
    local name=$1 sort=$2 function=$3
    local log="$SCRATCH/$function.log" started=$SECONDS status passed=0 failed=0 skipped=0 result=ok
    say "$name"
    set +e
    (set -e; "$function") 2>&1 </dev/null 9>&- | tee "$log" 9>&-
    status=${PIPESTATUS[0]}
    set -e
    if [ "$sort" = tests ]; then read -r passed failed skipped < <(count "$log"); fi
    if [ "$status" = "$SKIPPED" ]; then
        skipped=1 result=SKIPPED
    elif [ "$status" != 0 ]; then
        # A part that ends before it counts, as one that does not compile, has failed once.
        if [ "$failed" = 0 ]; then failed=1; fi
        result=FAILED
    elif [ "$sort" = check ]; then
        passed=1
    elif [ "$passed" = 0 ] || [ "$failed" != 0 ]; then
        warn "$name ended well with $passed passed and $failed failed: that is a failure too"
        if [ "$failed" = 0 ]; then failed=1; fi
        result=FAILED
    fi
    PASSED_ALL=$((PASSED_ALL + passed))
    FAILED_ALL=$((FAILED_ALL + failed))
    SKIPPED_ALL=$((SKIPPED_ALL + skipped))
    local seconds=$((SECONDS - started))
    SUMMARY+=("$(printf '%-34s %-8s %6d %6d %7d %7d s' "$name" "$result" "$passed" "$failed" "$skipped" "$seconds")")
}

say "Rust"
check_rust
echo "compiled files: $CARGO_TARGET_DIR"

all_but_long_parts() {
    part "format" check part_format
    part "crates" check part_fetch
    part "lints" check part_lints
    part "engines" check part_engines
    use_engines
    part "tests" tests part_tests
    part "simulation" tests part_simulation
    part "instances over memory" tests part_instances_memory
    part "instances over PostgreSQL" tests part_instances_postgres
    part "Firestore" tests part_firestore
    part "instances over Firestore" tests part_instances_firestore
    part "processes over Firestore" tests part_processes_firestore
    part "documentation" check part_docs
    part "dependencies" check part_dependencies
    part "advisories" check part_advisories
    part "clients: MDK and nostr-sdk" tests part_mdk
    part "clients: MDK, PostgreSQL" tests part_mdk_postgres
    part "clients: MDK, Firestore" tests part_mdk_firestore
    part "clients: nostr-tools" tests part_nostr_tools
    part "clients: libraries" tests part_libraries
    part "clients: proxies" tests part_proxies
    part "clients: test-websocket.js" tests part_websocket
    part "browser" tests part_browser
    part "metrics" check part_metrics
    part "REST: Schemathesis" check part_rest
    part "deployment files" tests part_deploy
    part "load: artillery" check part_artillery
    part "the book" tests part_book
}

long_faults() {
    part "faults over PostgreSQL" tests part_faults_postgres
    part "faults over Firestore" tests part_faults_firestore
}

long_image() {
    part "the image" tests part_image
}

long_claims() {
    part "races of claimants" tests part_claims
}

long_moving() {
    part "moving 100,000 events" tests part_moving
}

long_simulation() {
    part "10,000 simulations" tests part_simulation_long
    part "mutations" tests part_mutations
}

long_backup() {
    part "a backup at 5,000 events a second" tests part_backup
}

if [ ${#CHOSEN[@]} = 0 ]; then
    all_but_long_parts
else
    part "crates" check part_fetch
    if [[ " ${CHOSEN[*]} " == *" faults "* || " ${CHOSEN[*]} " == *" claims "* ]]; then
        part "engines" check part_engines
        use_engines
    fi
    for name in "${CHOSEN[@]}"; do "long_$name"; done
fi

say "Summary"
printf '%-34s %-8s %6s %6s %7s %9s\n' part result passed failed skipped time
printf '%s\n' "${SUMMARY[@]}"
printf '\n%d passed, %d failed, %d skipped\n' "$PASSED_ALL" "$FAILED_ALL" "$SKIPPED_ALL"
[ "$FAILED_ALL" = 0 ]
