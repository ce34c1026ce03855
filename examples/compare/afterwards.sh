#!/usr/bin/env bash
# Two questions that came after the comparison of run.sh: DRO at lower levels than "auto", and which settings the gold judge itself would
# have selected.
#
# usage: examples/compare/afterwards.sh [RUN], the folder of run.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/compare}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
answers() {
  local ask=(generate --model "$1" --data "$3" --set generate.max_new_tokens=48 --set generate.batch_size=64 --quiet)
  [ -e "$2.jsonl" ] || $setpoint "${ask[@]}" --set generate.samples=4 --set generate.temperature=1.0 --output "$2.jsonl"
  [ -z "${4:-}" ] || [ -e "$2-greedy.jsonl" ] || $setpoint "${ask[@]}" --set generate.temperature=0.0 --output "$2-greedy.jsonl"
}

level=$run/level
mkdir -p "$level/gold" "$run/by-gold"
[ -e "$level/compare/compare.json" ] || $setpoint compare "$here/compare.toml" --model "$run/sft/model" --data "$run/rewards.jsonl" \
  --set eval.data.path="$run/prompts.jsonl" --set eval.pairs.path="$run/pairs.jsonl" --set eval.reward.path="$run/reward/model" \
  --set 'compare.methods=["dro"]' --set 'compare.learning_rates=[3e-4, 1e-3]' \
  --set 'compare.grids={dro={"align.beta"=[0.1, 0.5, 1.0], "align.log_z0"=[0.0, 2.0], "align.prompt_term"=["full"]}}' --run "$level/compare"
cp "$run"/gold/sft*.jsonl "$level/gold"
python3 "$here/gold_table.py" trials "$level" | while read -r trial; do
  answers "$level/compare/trials/$trial/model" "$level/gold/$trial" "$run/compare/data/report-prompts.jsonl" greedy < /dev/null
done
python3 "$here/gold_table.py" table "$level"

# Every setting of the selection stage (its first seed), on both parts of the held-out prompts.
for trial in "$run"/compare/trials/*-seed0 "$level"/compare/trials/*-seed0; do
  name=$(basename "$trial")
  case $trial in "$level"/*) name=level-$name ;; esac
  for part in select report; do answers "$trial/model" "$run/by-gold/$name-$part" "$run/compare/data/$part-prompts.jsonl"; done
done
python3 "$here/by_gold.py" "$run"
