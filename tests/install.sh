#!/usr/bin/env bash
# Installs the command from the clone, as INSTALL.md says, into a folder of its own, and runs it away from the sources.
# Arguments are those of `cargo install`; without any, an unoptimised build with default features.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- --debug
cargo install --quiet --locked --path . --root "$work" --no-track "$@"
tests/installed.sh "$work/bin/setpoint"
