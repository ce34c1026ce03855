#!/usr/bin/env bash
# On-policy samples → a rule's rewards → audit → DRO → evaluation, on a real pretrained Llama of 260,032 parameters.
#
# usage: examples/stories260k/run.sh MODEL [RUN]
# MODEL: the Hugging Face folder of stories260K (karpathy/tinyllamas, converted). RUN: where everything is written.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$1 run=${2:-runs/stories260k}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
mkdir -p "$run/base"

# This model ends a story with the token that begins the next one: say so in a copy of its folder.
cp "$model"/{config.json,model.safetensors,tokenizer.json} "$run/base/"
echo '{"bos_token": "<s>", "eos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}' >"$run/base/tokenizer_config.json"
echo '{"bos_token_id": 1, "eos_token_id": [1], "do_sample": true}' >"$run/base/generation_config.json"

$setpoint generate --model "$run/base" --data "$here/prompts.jsonl" --output "$run/samples.jsonl" "$here/generate.toml" \
  --set generate.seed=1 --set generate.only_finished=true --set generate.samples=8
$setpoint annotate "$here/rule.toml" --data "$run/samples.jsonl" --output "$run/rewards.jsonl"
$setpoint audit "$here/dro.toml" --model "$run/base" --data "$run/rewards.jsonl"
$setpoint align "$here/dro.toml" --model "$run/base" --data "$run/rewards.jsonl" --run "$run/dro"
$setpoint eval "$here/rule.toml" --model "$run/dro/model" --set baseline.path="$run/base" --data "$here/eval_prompts.jsonl" \
  --set generate.max_new_tokens=400 --set generate.samples=8 --set generate.seed=2 --output "$run/eval.json"
