#!/usr/bin/env bash
# The paper's offline methods, KTO and DRO-V from one small SFT model and one annotated file, judged by a reward model and by the gold judge.
#
# usage: examples/compare/run.sh [RUN]
# RUN: where everything is written (runs/compare); run again, it goes on where it was left.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/compare}
demo=$here/../demo
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
mkdir -p "$run"
job() {
  local folder=$1 resume=()
  shift
  if [ -e "$folder/model/config.json" ] || [ -e "$folder/compare.json" ]; then return; fi
  if [ -e "$folder/config.toml" ]; then resume=(--resume); fi
  $setpoint "$@" --run "$folder" "${resume[@]}"
}

if [ ! -e "$run/pairs.jsonl" ]; then
  python3 "$here/../figure2/make_data.py" "$run/data"
  # `compare` divides the held-out prompts itself.
  cat "$run"/data/{select,report}-prompts.jsonl > "$run/prompts.jsonl"
  cat "$run"/data/{select,report}-preferences.jsonl > "$run/pairs.jsonl"
fi
job "$run/sft" sft "$here/sft.toml" --data "$run/data/sft.jsonl" --set model.from_scratch="$demo/config.json" --set model.tokenizer="$demo/tokenizer"
job "$run/reward" reward "$here/reward.toml" --model "$run/sft/model" --data "$run/data/preferences.jsonl"
[ -e "$run/rewards.jsonl" ] || $setpoint annotate --model "$run/reward/model" --data "$run/data/responses.jsonl" --output "$run/rewards.jsonl"
job "$run/compare" compare "$here/compare.toml" --model "$run/sft/model" --data "$run/rewards.jsonl" --set eval.data.path="$run/prompts.jsonl" \
  --set eval.pairs.path="$run/pairs.jsonl" --set eval.reward.path="$run/reward/model"

# The gold judge on what was trained with the selected settings, on the prompts that no choice was made by.
mkdir -p "$run/gold"
answers() {
  local ask=(generate --model "$1" --data "$run/compare/data/report-prompts.jsonl" --set generate.max_new_tokens=48 --set generate.batch_size=64 --quiet)
  [ -e "$2.jsonl" ] || $setpoint "${ask[@]}" --set generate.samples=4 --set generate.temperature=1.0 --output "$2.jsonl"
  [ -e "$2-greedy.jsonl" ] || $setpoint "${ask[@]}" --set generate.temperature=0.0 --output "$2-greedy.jsonl"
}
answers "$run/sft/model" "$run/gold/sft"
python3 "$here/gold_table.py" trials "$run" | while read -r trial; do
  answers "$run/compare/trials/$trial/model" "$run/gold/$trial" < /dev/null
done
python3 "$here/gold_table.py" table "$run"
