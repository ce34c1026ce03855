#!/usr/bin/env bash
# Figure 2 of the DRO paper with its prompt term and without it, on the model of 0.45 million parameters of examples/compare.
#
# usage: examples/figure2/term.sh [RUN] [COMPARE]
# RUN: where everything is written (runs/term); run again, it goes on where it was left. COMPARE: the folder of
# examples/compare/run.sh better (runs/compare), whose SFT and reward model it takes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/term} from=${2:-runs/compare}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}

if [ ! -e "$run/sweep.json" ]; then
  resume=()
  if [ -e "$run/config.toml" ]; then resume=(--resume); fi
  $setpoint sweep "$here/term.toml" --model "$from/sft/model" --data "$from/better/rewards.jsonl" \
    --set eval.data.path="$from/data/report-prompts.jsonl" --set eval.pairs.path="$from/data/report-preferences.jsonl" \
    --set eval.reward.path="$from/reward/model" --run "$run" "${resume[@]}"
fi
for trial in "$run"/trials/*; do
  [ -e "$trial/eval-all-gold.json" ] || $setpoint eval "$trial/eval-all.toml" --quiet --set 'reward={}' \
    --set "command.run=[\"python3\", \"$here/../compare/gold_judge.py\"]" --output "$trial/eval-all-gold.json"
done
python3 "$here/term.py" "$run" "$run/term.svg"
