#!/usr/bin/env bash
# Packs every crate as crates.io would get it, and checks that the packed files are all that the workspace needs.
# Arguments are those of `cargo check`, such as `--features ndarray,wgpu,remote`. `cargo publish --dry-run` does more: it
# builds each crate with the features that it has by itself, which builds Burn several times.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo package --workspace --no-verify --quiet --target-dir "$work/packed"
unpack() { mkdir -p "$2" && tar --extract --gzip --strip-components=1 --file "$1" --directory "$2" && mv "$2/Cargo.toml.orig" "$2/Cargo.toml"; }
for package in "$work"/packed/package/*.crate; do
  name=$(basename "$package" | sed 's/-[0-9][^-]*\.crate$//')
  case $name in
    setpoint-cli) unpack "$package" "$work/tree" ;;
    *) unpack "$package" "$work/tree/crates/$name" ;;
  esac
done
packed=$(find "$work/tree/crates" -mindepth 1 -maxdepth 1 | wc -l)
[ "$packed" -eq "$(find crates -mindepth 1 -maxdepth 1 -type d | wc -l)" ] || { echo "$packed crates were packed" >&2; exit 1; }

# That of a package names the other crates as crates.io's.
cp Cargo.lock "$work/tree/Cargo.lock"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cd "$work/tree"
cargo check --locked --quiet --workspace "$@"
echo "$((packed + 1)) crates build from their packages"
