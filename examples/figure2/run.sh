#!/usr/bin/env bash
# The curves of the DRO paper's Figure 2, on a model of three million parameters from random weights.
#
# usage: examples/figure2/run.sh [RUN]
# RUN: where everything is written (runs/figure2); run again, it goes on where it was left. Python's standard library is enough; with
# matplotlib there is a plot.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/figure2}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
mkdir -p "$run"

# job FOLDER COMMAND…: a command that trains, unless its model is there; a killed one goes on.
job() {
  local folder=$1 resume=()
  shift
  if [ -e "$folder/model/config.json" ] || [ -e "$folder/sweep.json" ]; then return; fi
  if [ -e "$folder/config.toml" ]; then resume=(--resume); fi
  $setpoint "$@" --run "$folder" "${resume[@]}"
}
annotate() { [ -e "$3" ] || $setpoint annotate --model "$1" --data "$2" --output "$3"; }
# answers MODEL OUTPUT: four samples of each prompt of the report, and the greedy answer beside them.
answers() {
  local ask=(generate --model "$1" --data "$run/data/report-prompts.jsonl" --set generate.max_new_tokens=48 --set generate.batch_size=64 --quiet)
  [ -e "$2.jsonl" ] || $setpoint "${ask[@]}" --set generate.samples=4 --set generate.temperature=1.0 --output "$2.jsonl"
  [ -e "$2-greedy.jsonl" ] || $setpoint "${ask[@]}" --set generate.temperature=0.0 --output "$2-greedy.jsonl"
}

[ -e "$run/data/report-preferences.jsonl" ] || python3 "$here/make_data.py" "$run/data"
job "$run/base" sft "$here/base.toml" --data "$run/data/base.jsonl" \
  --set model.from_scratch="$here/config.json" --set model.tokenizer="$here/../demo/tokenizer"
job "$run/sft" sft "$here/sft.toml" --model "$run/base/model" --data "$run/data/sft.jsonl"
job "$run/reward" reward "$here/reward.toml" --model "$run/sft/model" --data "$run/data/preferences.jsonl" \
  --set eval_data.path="$run/data/select-preferences.jsonl"
annotate "$run/reward/model" "$run/data/responses.jsonl" "$run/rewards.jsonl"
annotate "$run/reward/model" "$run/data/report-preferences.jsonl" "$run/report-pairs.jsonl"
[ -e "$run/sft-logps.jsonl" ] || $setpoint logps --model "$run/sft/model" --data "$run/rewards.jsonl" --output "$run/sft-logps.jsonl"

# What a sweep trains on, and the rows that it measures on.
measured=(--model "$run/sft/model" --data "$run/rewards.jsonl" --set eval.reward.path="$run/reward/model")
on() {
  echo --set eval.data.path="$run/data/$1-prompts.jsonl" --set eval.pairs.path="$run/data/$1-preferences.jsonl"
}
report=(--set eval_data.path="$run/report-pairs.jsonl")
# shellcheck disable=SC2046
job "$run/sweep" sweep "$here/sweep.toml" "${measured[@]}" "${report[@]}" $(on report)

# Three of the settings with five times the steps: what of the ends is the objective's, and what is that training was short.
# shellcheck disable=SC2046
job "$run/long" sweep "$here/sweep.toml" "${measured[@]}" "${report[@]}" $(on report) --set train.epochs=15 --set train.eval_steps=50 \
  --set 'sweep.settings={"align.beta"=[0.5], "align.log_z0"=[20.0, 10.0, 5.0]}'

# DPO beside it: its learning rate is selected on the other prompts, by the reward.
dpo=(--set align.method=dpo)
# shellcheck disable=SC2046
job "$run/dpo-select" sweep "$here/sweep.toml" "${measured[@]}" $(on select) "${dpo[@]}" \
  --set 'sweep.settings={"align.beta"=[0.1], "train.learning_rate"=[2e-5, 5e-5, 1e-4, 2e-4, 4e-4]}'
rate=$(python3 -c '
import json, sys
trials = json.load(open(sys.argv[1]))["trials"]
print(max(trials, key=lambda t: t["figures"]["reward"])["settings"]["train.learning_rate"])' "$run/dpo-select/sweep.json")
# shellcheck disable=SC2046
job "$run/dpo" sweep "$here/sweep.toml" "${measured[@]}" "${report[@]}" $(on report) "${dpo[@]}" \
  --set "sweep.settings={\"align.beta\"=[0.1], \"train.learning_rate\"=[$rate]}"

mkdir -p "$run/gold"
answers "$run/sft/model" "$run/gold/sft"
for method in dro long dpo; do
  case $method in dro) sweep=sweep ;; *) sweep=$method ;; esac
  for trial in "$run/$sweep"/trials/*/; do
    answers "${trial%/}/model" "$run/gold/$method-$(basename "$trial")"
  done
done
python3 "$here/curves.py" "$run"
