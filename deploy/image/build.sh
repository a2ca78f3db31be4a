#!/usr/bin/env bash
# Builds the image of the Dockerfile without a Docker engine and without a registry of images, and tries it.
#
#   deploy/image/build.sh DIRECTORY
#
# Leaves in DIRECTORY the image (rnostr.tar, which `docker load` reads), its list of parts (rnostr.cdx.json, CycloneDX)
# and the sums of the binary and the list (SHA256SUMS). Needs root, buildah, debootstrap, node with the packages of
# tests/clients/js, cargo-cyclonedx, and the Rust toolchain that rust-toolchain.toml names.
#
# The base images are Debian roots by debootstrap under the names that the Dockerfile uses; the one for the build gets
# the toolchain of this machine. They and the caches of the build stay in DIRECTORY (storage, cache) for the next run; a
# run without them makes new ones. The trial runs the image's root by chroot as the image's user, sends messages through
# the relay, asks `rnostr health`, and stops it by SIGTERM.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
mkdir -p "$1"
OUT="$(cd "$1" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly SUITE=bookworm
readonly IMAGE=rnostr
# The user of the Dockerfile.
readonly USER_ID=65532
readonly PATH_IN_IMAGES=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Longest time from SIGTERM to the end, in seconds: Cloud Run kills after it.
readonly STOP_SECS_MAX=10

# Storage in plain directories: a layer is a copy, and no file system needs to be mounted.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker
# The caches of the build's mounts stay for the next build.
export TMPDIR="$OUT/cache"
mkdir -p "$TMPDIR"
WORK="$(mktemp -d "$OUT/work.XXXXXX")"
RELAY_PID=
trap clean EXIT

say() { printf -- '-- %s\n' "$*"; }
die() { printf '!! %s\n' "$*" >&2; exit 1; }
b() { buildah --root "$OUT/storage" --runroot "$WORK/run" "$@"; }

clean() {
    if [ -n "$RELAY_PID" ]; then kill -KILL "$RELAY_PID" 2>/dev/null || true; fi
    b rm --all >/dev/null 2>&1 || true
    rm -rf "$WORK"
}

# The default of a build argument of the Dockerfile.
argument() { sed -n "s/^ARG $1=//p" Dockerfile; }

# Makes an image of a directory, which it removes.
image_of() {
    local name=$1 root=$2 container
    shift 2
    container="$(b from scratch)"
    b add --quiet "$container" "$root" / >/dev/null
    b config "$@" "$container"
    b commit --quiet --rm "$container" "$name" >/dev/null
    rm -rf "$root"
}

base_images() {
    local rust base toolchain
    rust="$(argument RUST_IMAGE)" base="$(argument BASE_IMAGE)"
    toolchain="$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)"
    case "$rust" in
        "rust:$toolchain-slim-$SUITE") ;;
        *) die "the Dockerfile builds with $rust, and rust-toolchain.toml names $toolchain" ;;
    esac
    if b inspect --type image "$rust" >/dev/null 2>&1 && b inspect --type image "$base" >/dev/null 2>&1; then
        say "the base images of an earlier run: $base, $rust"
        return
    fi
    say "base image $base"
    debootstrap --variant=minbase "$SUITE" "$WORK/base" >"$WORK/log" 2>&1 || die "$(tail -n 5 "$WORK/log")"
    rm -rf "$WORK"/base/var/cache/apt/archives/*.deb "$WORK"/base/var/lib/apt/lists/*
    cp -a "$WORK/base" "$WORK/rust"
    image_of "$base" "$WORK/base" --env "PATH=$PATH_IN_IMAGES"

    say "base image $rust"
    # The official image has these packages, and the toolchain at this place.
    cp -L /etc/resolv.conf "$WORK/rust/etc/resolv.conf"
    (
        # The place for temporary files is not in the root.
        unset TMPDIR
        export DEBIAN_FRONTEND=noninteractive
        chroot "$WORK/rust" apt-get update -q
        chroot "$WORK/rust" apt-get install -qy --no-install-recommends ca-certificates gcc libc6-dev
    ) >"$WORK/log" 2>&1 || die "$(tail -n 5 "$WORK/log")"
    local rustup="$WORK/rust/usr/local/rustup/toolchains/$toolchain"
    mkdir -p "$rustup" "$WORK/rust/usr/local/cargo/bin"
    (cd "$(rustc --print sysroot)" && tar -c --exclude=share --exclude=lib/rustlib/src .) | tar -x -C "$rustup"
    ln -s "/usr/local/rustup/toolchains/$toolchain/bin"/{cargo,rustc} "$WORK/rust/usr/local/cargo/bin/"
    image_of "$rust" "$WORK/rust" --env CARGO_HOME=/usr/local/cargo --env RUST_VERSION="$toolchain" \
        --env "PATH=/usr/local/cargo/bin:$PATH_IN_IMAGES"
}

build() {
    say "the image, by the Dockerfile; cargo builds a release in it"
    local epoch
    epoch="$(git log -1 --format=%ct)"
    # The build trusts the authorities that this machine trusts, which are not copied into the image.
    b bud --pull-never --layers=false --timestamp "$epoch" --build-arg SOURCE_DATE_EPOCH="$epoch" \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro --tag "$IMAGE" .
    b push --quiet "$IMAGE" "docker-archive:$WORK/rnostr.tar:$IMAGE:latest"
    mv -f "$WORK/rnostr.tar" "$OUT/rnostr.tar"
}

parts_list() {
    say "the list of parts"
    local made=rnostr.cdx
    SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" cargo cyclonedx --quiet --format json --spec-version 1.5 \
        --no-default-features --features "$(argument FEATURES)" --target x86_64-unknown-linux-gnu \
        --override-filename "$made"
    mv -f "$made.json" "$WORK/rnostr.cdx.json"
    # The command writes one for each crate of the workspace.
    find . -name "$made.json" -not -path './target/*' -delete
    node deploy/image/parts.mjs "$WORK/rnostr.cdx.json" "$(argument FEATURES)"
    mv -f "$WORK/rnostr.cdx.json" "$OUT/rnostr.cdx.json"
}

# A part of the image's configuration, a list as words.
config() {
    node -p 'process.argv[2].split(".").reduce((it, name) => it[name], require(process.argv[1]).Docker.config)
        .toString().replaceAll(",", " ")' "$WORK/image.json" "$1"
}

try() {
    say "the image's root by chroot, as user $USER_ID"
    local root
    root="$(b mount "$(b from --pull-never "$IMAGE")")"
    b inspect --type image "$IMAGE" >"$WORK/image.json"
    [ "$(config User)" = "$USER_ID:$USER_ID" ] || die "the image runs as another user"
    [ "$(config Healthcheck.Test)" = "CMD rnostr health" ] || die "the image has another HEALTHCHECK"
    mapfile -t ENVIRONMENT < <(node -p 'require(process.argv[1]).Docker.config.Env.join("\n")' "$WORK/image.json")
    ENVIRONMENT+=("PORT=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => {
        console.log(s.address().port); s.close() })')")
    # The trial listens on this machine alone.
    ENVIRONMENT+=(RNOSTR_SERVER__HOST=127.0.0.1)
    local port="${ENVIRONMENT[-2]#PORT=}"
    # Each part becomes the next one, so the relay has the process id of the first.
    local inside=(chroot --userspec="$USER_ID:$USER_ID" "$root" /usr/bin/env -i "${ENVIRONMENT[@]}" rnostr)

    if "${inside[@]}" health 2>"$WORK/log"; then die "a relay that does not run is healthy"; fi
    "${inside[@]}" relay >"$WORK/relay.log" 2>&1 &
    RELAY_PID=$!
    for _ in $(seq 100); do
        if "${inside[@]}" health --ready 2>"$WORK/log"; then break; fi
        kill -0 "$RELAY_PID" 2>/dev/null || die "$(cat "$WORK/relay.log")"
        sleep 0.1
    done
    "${inside[@]}" health
    node test-websocket.js "ws://127.0.0.1:$port"
    [ -s "$root/data/data.mdb" ] || die "the relay's data is not in /data"
    local pid=$RELAY_PID started=$SECONDS
    RELAY_PID=
    kill -TERM "$pid"
    wait "$pid" || die "the relay ended with $?: $(cat "$WORK/relay.log")"
    [ $((SECONDS - started)) -le "$STOP_SECS_MAX" ] || die "the stop took $((SECONDS - started)) s"
    (cd "$root/usr/local/bin" && sha256sum rnostr) >"$WORK/sums"
    (cd "$OUT" && sha256sum rnostr.cdx.json) >>"$WORK/sums"
    mv -f "$WORK/sums" "$OUT/SHA256SUMS"
    cat "$OUT/SHA256SUMS"
}

base_images
build
parts_list
try
say "$(du -h "$OUT/rnostr.tar" | cut -f1) in $OUT/rnostr.tar"
