# Setpoint for NVIDIA GPUs. The host needs NVIDIA's driver and its container toolkit. From the root of the repository:
#
#   docker build --file docker/cuda.Dockerfile --tag setpoint:cuda .
#   docker run --rm --gpus all --ipc host --volume "$PWD:/data" --user "$(id -u):$(id -g)" setpoint:cuda \
#     align /data/dro.toml --run /data/runs/dro --device cuda
#
# Linted with hadolint; the build itself is unverified, and so is Setpoint on a GPU.
FROM nvidia/cuda:12.9.1-devel-ubuntu24.04 AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential ca-certificates curl pkg-config \
    && rm -rf /var/lib/apt/lists/*
ENV RUSTUP_HOME=/opt/rustup CARGO_HOME=/opt/cargo PATH=/opt/cargo/bin:$PATH
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs \
    | sh -s -- -y --profile minimal --default-toolchain 1.95
WORKDIR /src
COPY . .
ENV RUSTUP_TOOLCHAIN=1.95
RUN cargo build --release --locked --features cuda,remote \
    && strip target/release/setpoint

# NVRTC compiles the kernels on first use and needs CUDA's headers, which only the image for development has.
FROM nvidia/cuda:12.9.1-devel-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/setpoint /usr/local/bin/setpoint
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/setpoint/
# The user 1000 of Ubuntu's image.
USER 1000
WORKDIR /data
ENTRYPOINT ["setpoint"]
CMD ["--help"]
