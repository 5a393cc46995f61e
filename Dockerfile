# The program and the C library that it was measured with: no shell, no package manager,
# no root.
#
#   docker build -t cloakroom .
#   docker run -p 8080:8080 -v ./cloakroom.toml:/etc/cloakroom/cloakroom.toml:ro \
#     -v cloakroom-data:/data -e CLOAKROOM_SECRET cloakroom

FROM rust:1.95-bookworm AS build
# The program is built twice: the first one is driven, and the second one laid out by what
# that showed (scripts/release.sh). On Alpine it would be static, with another C library
# than the one that is measured.
RUN apt-get update \
    && apt-get install -y --no-install-recommends nghttp2-client openssl python3 redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && rustup component add llvm-tools
WORKDIR /source
COPY . .
# `no`: built once, in less than half of the time.
ARG OPTIMIZED=yes
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    if [ "$OPTIMIZED" = yes ]; then scripts/release.sh; \
    else cargo build --release --locked --bin cloakroom \
        && install -D target/release/cloakroom target/optimized/cloakroom; fi \
    && install -D target/optimized/cloakroom /image/cloakroom \
    && install -d -m 0700 /image/data

FROM gcr.io/distroless/cc-debian12
COPY --from=build --chown=0:0 /image/cloakroom /cloakroom
COPY --from=build --chown=65532:65532 /image/data /data

# In a container the outside decides which ports are reachable. The admin
# listener answers probes and metrics: publish it to nobody else.
ENV CLOAKROOM__SERVER__LISTEN="[\"0.0.0.0:8080\"]" \
    CLOAKROOM__ADMIN__LISTEN="\"0.0.0.0:9180\""

USER 65532:65532
# The embedded store lies in the current folder unless told otherwise.
WORKDIR /data
VOLUME /data
EXPOSE 8080 9180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/cloakroom", "healthcheck"]
ENTRYPOINT ["/cloakroom"]
CMD ["run"]
