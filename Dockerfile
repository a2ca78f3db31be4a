# syntax=docker/dockerfile:1
# The relay as an image: one binary with the embedded store, PostgreSQL and Firestore, which runs as a user without a
# name and writes to /data alone. docs/deployment.md explains it; deploy/image/build.sh builds it without Docker.
#
#   docker build -t rnostr .
#   docker run -p 8080:8080 -v rnostr:/data rnostr

# For a build that can be repeated for years, name both by their digests: --build-arg BASE_IMAGE=debian@sha256:…
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
# Seconds since 1970 for compilers that write a date; the binary holds none.
ARG SOURCE_DATE_EPOCH=0
ARG FEATURES=mls_gateway_firestore
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    RUSTFLAGS="--remap-path-prefix=/usr/local/cargo/registry/src=/crates -Clink-arg=-Wl,--build-id=none"
WORKDIR /src
COPY . .
RUN --mount=type=cache,id=rnostr-crates,target=/usr/local/cargo/registry \
    --mount=type=cache,id=rnostr-target,target=/src/target \
    cargo build --locked --release --bin rnostr --features "${FEATURES}" \
    && install -D -m 0755 target/release/rnostr /out/usr/local/bin/rnostr \
    && install -D -m 0644 -t /out/etc/rnostr config/rnostr.toml config/marmot.toml \
    && install -D -m 0644 -t /out/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && install -d -o 65532 -g 65532 -m 0700 /out/data \
    && find /out -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="rnostr" \
      org.opencontainers.image.description="A Nostr relay and the delivery service of MLS groups" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out /
ENV RNOSTR_SERVER__HOST=0.0.0.0 \
    RNOSTR_DATA__PATH=/data
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# The start may wait 60 s for a database. With `relay -c FILE` give the check the same file.
HEALTHCHECK --interval=30s --timeout=6s --start-period=70s --retries=3 CMD ["rnostr", "health"]
ENTRYPOINT ["rnostr"]
CMD ["relay"]
