#!/usr/bin/env bash
# Training in rounds in the demo's world: first by the gold judge itself, then by a learned reward model, which the policy outwits.
#
# usage: examples/online/run.sh [RUN] [SEED]
# RUN: where everything is written (runs/online); run again, it goes on where it was left. SEED: of all trainings and samples (0).
# Python's standard library is enough.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/online} seed=${2:-0}
demo=$here/../demo
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
judge="run=[\"python3\", \"$here/judge.py\"]"
mkdir -p "$run/eval/reward"

# job FOLDER COMMAND…: a command that trains, unless its model is there; a killed one goes on.
job() {
  local folder=$1 resume=()
  shift
  if [ -e "$folder/finished.json" ]; then return; fi
  if [ -e "$folder/config.toml" ]; then resume=(--resume); fi
  echo "== $folder"
  $setpoint "$@" --run "$folder" --set train.seed="$seed" "${resume[@]}"
}

# measure NAME: gold quality and KL of the models of a run on the held-out prompts; with a second argument the learned reward, too.
measure() {
  local models=("$run/$1"/steps/*/model) model step
  for model in "${models[@]}"; do
    step=$(basename "$(dirname "$model")")
    answer "$model" "$run/eval/$1-$step.json" --set "command.$judge"
    if [ $# -gt 1 ]; then answer "$model" "$run/eval/reward/$1-$step.json" --set reward.path="$run/reward/model"; fi
  done
}
answer() {
  local model=$1 output=$2
  shift 2
  [ -e "$output" ] || $setpoint eval "$here/eval.toml" --model "$model" --set baseline.path="$run/sft/model" \
    --data "$demo/eval_prompts.jsonl" --set generate.seed="$seed" --output "$output" --quiet "$@"
}

job "$run/sft" sft "$here/sft.toml" --data "$demo/pretrain/sft.jsonl" \
  --set model.from_scratch="$demo/config.json" --set model.tokenizer="$demo/tokenizer"
job "$run/reward" reward "$here/reward.toml" --model "$run/sft/model" --data "$demo/preferences.jsonl"

# 1. By the gold judge: offline on the responses of a file, on samples of the SFT model (a single round), and in rounds.
[ -e "$run/rewards.jsonl" ] || $setpoint annotate --data "$demo/responses.jsonl" --output "$run/rewards.jsonl" --set "command.$judge"
align=(align --model "$run/sft/model")
job "$run/offline-dro" "${align[@]}" "$here/offline-dro.toml" --data "$run/rewards.jsonl"
by_gold=(--data "$demo/responses.jsonl" --set "reward.command.$judge")
job "$run/once-dro" "${align[@]}" "$here/dro.toml" "${by_gold[@]}" --set rounds=1 --set rollout.prompts=320 --set rollout.epochs_per_round=4
for method in dro grpo; do
  job "$run/$method" "${align[@]}" "$here/$method.toml" "${by_gold[@]}"
done

# 2. By the reward model, watched by the gold judge: GRPO fast and free to go where it likes, and DRO as before.
by_model=(--data "$demo/responses.jsonl" --set reward.model.path="$run/reward/model" --set "watch.command.$judge")
job "$run/learned-grpo" "${align[@]}" "$here/grpo.toml" "${by_model[@]}" --set train.learning_rate=1e-3
job "$run/learned-dro" "${align[@]}" "$here/dro.toml" "${by_model[@]}"

for name in offline-dro once-dro dro grpo; do measure "$name"; done
for name in learned-grpo learned-dro; do measure "$name" reward; done
python3 "$here/curves.py" "$run"
