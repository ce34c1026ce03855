# Setpoint for CPUs, and for GPUs through Vulkan where the host has drivers. From the root of the repository:
#
#   docker build --file docker/cpu.Dockerfile --tag setpoint .
#   docker run --rm --volume "$PWD:/data" --user "$(id -u):$(id -g)" setpoint demo --run /data/runs/demo
#
# Linted with hadolint; the build itself is unverified.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The image's toolchain is the pinned one; rustup must not look for another.
ENV RUSTUP_TOOLCHAIN=1.95
RUN cargo build --release --locked --features wgpu,remote \
    && strip target/release/setpoint

FROM debian:bookworm-slim
# Certificates for the hub and for judges; the loader of Vulkan drivers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libvulkan1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 setpoint
COPY --from=build /src/target/release/setpoint /usr/local/bin/setpoint
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/setpoint/
USER 1000
WORKDIR /data
ENTRYPOINT ["setpoint"]
CMD ["--help"]
