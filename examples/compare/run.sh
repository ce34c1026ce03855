#!/usr/bin/env bash
# Methods at equal distance from one SFT model: ten offline ones in three worlds, and online ones next to them.
#
# usage: examples/compare/run.sh WORLD [RUN]
# WORLD: better (responses better than the model's own), own (the model's own), rounds (methods that sample, next to DRO and DPO on the
# model's own) or long (long ones; needs MODEL, the Hugging Face folder of stories260K). RUN: where everything is written (runs/compare); run again, it goes on where it was left.
# SCALE=large trains four times as many steps with five seeds: some two hours for each world on a desktop computer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
world=${1:?better, own, rounds or long} run=${2:-runs/compare}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
demo=$here/../demo stories=$here/../stories260k

# job FOLDER COMMAND…: a command that trains, unless its model is there; a killed one goes on.
job() {
  local folder=$1 resume=()
  shift
  if [ -e "$folder/model/config.json" ]; then return; fi
  if [ -e "$folder/config.toml" ]; then resume=(--resume); fi
  $setpoint "$@" --run "$folder" "${resume[@]}"
}
# file OUTPUT COMMAND…: a command that writes a file, unless it is there.
file() {
  local output=$1
  shift
  [ -e "$output" ] || $setpoint "$@" --output "$output"
}

mkdir -p "$run/$world"
case $world in
  better | own | rounds)
    if [ ! -e "$run/pairs.jsonl" ]; then
      python3 "$here/../figure2/make_data.py" "$run/data"
      # `compare` divides the held-out prompts itself.
      cat "$run"/data/{select,report}-prompts.jsonl > "$run/prompts.jsonl"
      cat "$run"/data/{select,report}-preferences.jsonl > "$run/pairs.jsonl"
    fi
    job "$run/sft" sft "$here/sft.toml" --data "$run/data/sft.jsonl" \
      --set model.from_scratch="$demo/config.json" --set model.tokenizer="$demo/tokenizer"
    job "$run/reward" reward "$here/reward.toml" --model "$run/sft/model" --data "$run/data/preferences.jsonl"
    responses=$run/data/responses.jsonl
    if [ "$world" != better ]; then
      mkdir -p "$run/own"
      responses=$run/own/samples.jsonl
      file "$responses" generate --model "$run/sft/model" --data "$run/data/responses.jsonl" --set generate.samples=4 \
        --set generate.temperature=1.0 --set generate.max_new_tokens=48 --set generate.seed=1 --set generate.batch_size=128
    fi
    file "$run/$world/all-rewards.jsonl" annotate --model "$run/reward/model" --data "$responses"
    [ -e "$run/$world/rewards.jsonl" ] || python3 "$here/distinct.py" "$run/$world/all-rewards.jsonl" "$run/$world/rewards.jsonl"
    config=$here/short.toml sampled=()
    if [ "$world" = rounds ]; then
      config=$here/rounds.toml sampled=(--set reward.model.path="$run/reward/model")
    fi
    settings=(compare "$config" "${sampled[@]}" --model "$run/sft/model" --set eval.data.path="$run/prompts.jsonl"
      --set eval.pairs.path="$run/pairs.jsonl" --set eval.reward.path="$run/reward/model")
    second=gold
    judge=(--set 'reward={}' --set "command.run=[\"python3\", \"$here/gold_judge.py\"]")
    ;;
  long)
    model=${MODEL:?the Hugging Face folder of stories260K (karpathy/tinyllamas, converted)}
    base=$run/long/base
    mkdir -p "$base"
    # This model ends a story with the token that begins the next one: say so in a copy of its folder.
    cp "$model"/{config.json,model.safetensors,tokenizer.json} "$base/"
    echo '{"bos_token": "<s>", "eos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}' > "$base/tokenizer_config.json"
    echo '{"bos_token_id": 1, "eos_token_id": [1], "do_sample": true}' > "$base/generation_config.json"
    # Its stories have some 330 tokens. It learns from its own, cut after 62 to 82 words, to end them there.
    sample=(generate --set generate.temperature=1.0 --set generate.batch_size=64 --data "$stories/prompts.jsonl")
    file "$run/long/whole.jsonl" "${sample[@]}" --model "$base" --set generate.max_new_tokens=240 --set generate.samples=6 \
      --set generate.seed=11
    [ -e "$run/long/short.jsonl" ] || python3 "$here/cut.py" "$run/long/whole.jsonl" "$run/long/short.jsonl"
    job "$run/long/sft" sft "$here/long-sft.toml" --model "$base" --data "$run/long/short.jsonl"
    file "$run/long/samples.jsonl" "${sample[@]}" --model "$run/long/sft/model" --set generate.max_new_tokens=320 \
      --set generate.samples=4 --set generate.seed=1 --set generate.only_finished=true
    file "$run/long/all-rewards.jsonl" annotate "$here/long-rule.toml" --data "$run/long/samples.jsonl"
    [ -e "$run/long/rewards.jsonl" ] || python3 "$here/distinct.py" "$run/long/all-rewards.jsonl" "$run/long/rewards.jsonl"
    settings=(compare "$here/long.toml" --model "$run/long/sft/model" --set eval.data.path="$stories/eval_prompts.jsonl")
    second=repetition
    judge=(--set 'rule={kind = "repetition"}')
    ;;
  *) sed -n '2,9s/^# //p' "$0" && exit 2 ;;
esac

compare=$run/$world/compare
if [ "${SCALE:-small}" = large ]; then
  steps=$(sed -n 's/^max_steps = //p' "${settings[1]}")
  settings+=(--set train.max_steps=$((4 * steps)) --set 'compare.seeds=[0, 1, 2, 3, 4]')
fi
if [ ! -e "$compare/compare.json" ]; then
  resume=()
  if [ -e "$compare/config.toml" ]; then resume=(--resume); fi
  $setpoint "${settings[@]}" --data "$run/$world/rewards.jsonl" --run "$compare" "${resume[@]}"
fi

# Every model judged once more, by what it was not trained for: the same samples, another judge.
for trial in "$compare"/trials/*; do
  [ -e "$trial/eval-report.toml" ] || continue
  file "$trial/eval-report-$second.json" eval "$trial/eval-report.toml" --quiet "${judge[@]}"
done
$setpoint compare --run "$compare" --resume
python3 "$here/tables.py" "$compare"
