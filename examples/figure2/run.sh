#!/usr/bin/env bash
# The curves of the DRO paper's Figure 2, on what `setpoint demo` leaves.
#
# usage: examples/figure2/run.sh [DEMO] [RUN]
# DEMO: the folder of a finished `setpoint demo`. RUN: where everything is written; run again, it goes on where it was left.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
demo=${1:-runs/demo} run=${2:-runs/figure2}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
from_demo=(--model "$demo/sft/model" --data "$demo/rewards.jsonl" --set eval.data.path="$demo/data/eval_prompts.jsonl"
  --set eval.pairs.path="$demo/data/eval_preferences.jsonl" --set eval.reward.path="$demo/reward/model")
resume=()
if [ -e "$run/sweep/config.toml" ]; then resume=(--resume); fi
$setpoint sweep "$here/sweep.toml" "${from_demo[@]}" --run "$run/sweep" "${resume[@]}"

resume=()
if [ -e "$run/dpo/config.toml" ]; then resume=(--resume); fi
$setpoint sweep "$here/sweep.toml" "${from_demo[@]}" --set align.method=dpo --set 'sweep.settings={"align.beta"=[0.1]}' --run "$run/dpo" "${resume[@]}"
python3 "$here/curves.py" "$run"
