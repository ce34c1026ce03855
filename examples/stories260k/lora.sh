#!/usr/bin/env bash
# The alignment of run.sh with a low-rank adapter, which is then merged, exported to GGUF and asked for stories.
#
# usage: examples/stories260k/lora.sh MODEL [RUN]
# MODEL: the Hugging Face folder of stories260K (karpathy/tinyllamas, converted). RUN: where everything is written.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$1 run=${2:-runs/stories260k-lora}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
mkdir -p "$run/base"

# This model ends a story with the token that begins the next one: say so in a copy of its folder.
cp "$model"/{config.json,model.safetensors,tokenizer.json} "$run/base/"
echo '{"bos_token": "<s>", "eos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}' >"$run/base/tokenizer_config.json"
echo '{"bos_token_id": 1, "eos_token_id": [1], "do_sample": true}' >"$run/base/generation_config.json"

$setpoint generate --model "$run/base" --data "$here/prompts.jsonl" --output "$run/samples.jsonl" "$here/generate.toml" \
  --set generate.seed=1 --set generate.only_finished=true --set generate.samples=8
$setpoint annotate "$here/rule.toml" --data "$run/samples.jsonl" --output "$run/rewards.jsonl"
$setpoint align "$here/lora.toml" --model "$run/base" --data "$run/rewards.jsonl" --run "$run/dro"
$setpoint eval "$here/rule.toml" --model "$run/dro/model" --set baseline.path="$run/base" --data "$here/eval_prompts.jsonl" \
  --set generate.max_new_tokens=400 --set generate.samples=8 --set generate.seed=2 --output "$run/eval.json"

$setpoint merge --model "$run/dro/model" --output "$run/merged"
$setpoint export gguf --model "$run/merged" --type f32 --output "$run/gguf/stories.gguf"
$setpoint generate --model "$run/merged" --prompt "Lily was in the park." --set generate.max_new_tokens=200 --set generate.seed=3
