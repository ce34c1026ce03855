#!/usr/bin/env bash
# SFT → reward model → annotate → audit → DRO → evaluation on preference pairs of a polite and a rude answer.
#
# usage: examples/polite/run.sh MODEL ROWS [RUN]
# MODEL: a Hugging Face folder; the figures in docs/RESULTS.md are of stories260K (karpathy/tinyllamas, converted).
# ROWS: instruction-data-with-preference.json of rasbt/LLMs-from-scratch. RUN: where everything is written.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$1 rows=$2 run=${3:-runs/polite}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
mkdir -p "$run"
python3 "$here/split.py" "$rows" "$run"
template=model.template=plain

# The SFT model sees both answers, so that its own samples are of both kinds.
$setpoint sft "$here/sft.toml" --model "$model" --set $template --data "$run/train.json" --run "$run/sft"
$setpoint reward "$here/reward.toml" --model "$run/sft/model" --data "$run/train.json" --set eval_data.path="$run/eval.json" --run "$run/reward"
$setpoint annotate --model "$run/reward/model" --data "$run/train.json" --output "$run/rewards.jsonl"
$setpoint audit "$here/dro.toml" --model "$run/sft/model" --data "$run/rewards.jsonl"
$setpoint align "$here/dro.toml" --model "$run/sft/model" --data "$run/rewards.jsonl" --run "$run/dro"
$setpoint eval --model "$run/dro/model" --set baseline.path="$run/sft/model" --set reward.path="$run/reward/model" --data "$run/eval.json" \
  --set pairs.path="$run/eval.json" --set generate.max_new_tokens=160 --set generate.samples=2 --output "$run/eval-report.json"
