#!/usr/bin/env bash
# Builds the wheel, installs it in a fresh environment of Python and runs the command from there.
# Arguments are those of `maturin build`; without any, an unoptimised build with the features of pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet 'maturin>=1.9,<2'
[ $# -gt 0 ] || set -- --profile dev
"$work/tools/bin/maturin" build --quiet --locked --out "$work/wheels" "$@"

python3 -m venv "$work/fresh"
"$work/fresh/bin/pip" install --quiet --no-index "$work"/wheels/setpoint-*.whl
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
"$work/fresh/bin/pip" show setpoint | grep -qx "Version: $version" || { echo "the wheel is not of $version" >&2; exit 1; }
tests/installed.sh "$work/fresh/bin/setpoint"
