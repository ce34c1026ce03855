#!/usr/bin/env bash
# Installs the command from the clone, as INSTALL.md says, into a folder of its own, and runs it away from the sources.
# Arguments are those of `cargo install`; without any, an unoptimised build with default features.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- --debug
cargo install --quiet --locked --path . --root "$work" --no-track "$@"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
printed=$(cd "$work" && bin/setpoint --version)
[ "$printed" = "setpoint $version" ] || { echo "the installed command prints '$printed'" >&2; exit 1; }
# It finds what is built in.
methods=$(cd "$work" && bin/setpoint methods)
grep -q 'Direct Reward Optimization' <<<"$methods"
echo "$printed is installed and runs"
