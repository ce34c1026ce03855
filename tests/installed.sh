#!/usr/bin/env bash
# Checks an installed command, away from the sources: its version, what is built in, and a small training with the demo's data.
# usage: installed.sh COMMAND
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
command=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
printed=$("$command" --version)
[ "$printed" = "setpoint $version" ] || { echo "the installed command prints '$printed', not 'setpoint $version'" >&2; exit 1; }
methods=$("$command" methods)
grep -q 'Direct Reward Optimization' <<<"$methods" || { echo "the installed command lists no DRO" >&2; exit 1; }

demo=$root/examples/demo
"$command" sft --quiet --run run --set model.from_scratch="$demo/config.json" --set model.tokenizer="$demo/tokenizer" \
  --set data.path="$demo/pretrain/sft.jsonl" --set data.max_rows=16 --set train.max_steps=2 --set train.batch_size=8
"$command" generate --quiet --model run/model --prompt "How much is one and two?" --set generate.max_new_tokens=4 >/dev/null
echo "$printed is installed, trains and generates"
