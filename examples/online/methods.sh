#!/usr/bin/env bash
# Every method in rounds, by the gold judge of the demo's world: as many rounds, prompts, responses and steps for each. PPO also by the demo's
# reward model (learned_ppo), which is not what the judge wants.
#
# usage: examples/online/methods.sh [RUN] [SEED] [METHOD…]
# RUN: a folder of run.sh, whose SFT model is taken, or a new one (runs/online). SEED: of all trainings and samples (0). METHOD: all by default.
# Run again, it goes on where it was left. Python's standard library is enough.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/online} seed=${2:-0}
shift $(($# < 2 ? $# : 2))
methods=("${@:-ppo rloo grpo reinforce_pp dpo kto dro learned_ppo}")
demo=$here/../demo
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
judge="run=[\"python3\", \"$here/judge.py\"]"
mkdir -p "$run/methods"

# job FOLDER COMMAND…: a command that trains, unless its model is there; a killed one goes on.
job() {
  local folder=$1 resume=()
  shift
  if [ -e "$folder/finished.json" ]; then return; fi
  if [ -e "$folder/config.toml" ]; then resume=(--resume); fi
  echo "== $folder"
  $setpoint "$@" --run "$folder" --set train.seed="$seed" "${resume[@]}"
}

# Responses in a batch count one by one, as pairs, or as prompts: each makes four steps of a round.
settings() {
  case $1 in
    ppo) echo train.batch_size=256 align.value_learning_rate=2e-3 align.kl_coef=0.1 ;;
    rloo) echo train.batch_size=64 align.beta=0.1 ;;
    grpo) echo train.batch_size=64 align.beta=0.3 ;;
    reinforce_pp) echo train.batch_size=64 align.kl_coef=0.1 ;;
    dpo) echo train.batch_size=16 align.beta=1.0 ;;
    dro) echo train.batch_size=16 align.beta=0.2 ;;
    *) echo train.batch_size=64 align.beta=0.2 ;;
  esac
}

job "$run/sft" sft "$here/sft.toml" --data "$demo/pretrain/sft.jsonl" \
  --set model.from_scratch="$demo/config.json" --set model.tokenizer="$demo/tokenizer"
for method in ${methods[*]}; do
  folder=$run/methods/$method output=$run/methods/$method.json
  own=(--set align.method="${method#learned_}")
  for setting in $(settings "${method#learned_}"); do own+=(--set "$setting"); done
  source=(--set "reward.command.$judge")
  if [ "$method" != "${method#learned_}" ]; then
    job "$run/reward" reward "$here/reward.toml" --model "$run/sft/model" --data "$demo/preferences.jsonl"
    source=(--set reward.model.path="$run/reward/model" --set "watch.command.$judge")
  fi
  job "$folder" align "$here/methods.toml" --model "$run/sft/model" --data "$demo/responses.jsonl" "${source[@]}" "${own[@]}"
  answers=(eval "$here/eval.toml" --model "$folder/model" --set baseline.path="$run/sft/model" --data "$demo/eval_prompts.jsonl"
    --set generate.seed="$seed" --quiet)
  [ -e "$output" ] || $setpoint "${answers[@]}" --set "command.$judge" --output "$output"
  if [ ${#source[@]} -gt 2 ] && [ ! -e "$folder-reward.json" ]; then
    $setpoint "${answers[@]}" --set reward.path="$run/reward/model" --output "$folder-reward.json"
  fi
done
python3 "$here/methods.py" "$run"
