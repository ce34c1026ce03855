#!/usr/bin/env bash
# The DRO paper's Table 1 on what run.sh has made: reward models from the base and from the SFT model beside DPO's implicit reward,
# on few and on all preference pairs; then DRO on the rewards of the better explicit and of the implicit one.
#
# usage: examples/figure2/table1.sh [RUN], the folder of run.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${1:-runs/figure2}
setpoint=${SETPOINT:-"cargo run --release --quiet --"}
out=$run/table1
mkdir -p "$out"
sft=$run/sft/model

# The log-probabilities that the implicit reward is measured against.
for part in select report; do
  [ -e "$out/sft-$part.jsonl" ] || $setpoint logps --model "$sft" --data "$run/data/$part-preferences.jsonl" --output "$out/sft-$part.jsonl"
done
for size in small large; do
  case $size in
    small) pairs=$run/data/preferences-small.jsonl epochs=3 ;;
    large) pairs=$run/data/preferences.jsonl epochs=1 ;;
  esac
  for rate in 2e-4 5e-4; do
    train=(--data "$pairs" --set "train.epochs=$epochs" --set "train.learning_rate=$rate" --quiet)
    for kind in base sft dpo; do
      name=$kind-$size-$rate
      [ -e "$out/$name-report.jsonl" ] && continue
      rm -rf "${out:?}/$name"
      case $kind in
        dpo) $setpoint align "$here/dpo-pairs.toml" --model "$sft" "${train[@]}" --run "$out/$name" ;;
        *) $setpoint reward "$here/reward.toml" --model "$run/$kind/model" "${train[@]}" --run "$out/$name" ;;
      esac
      for part in select report; do
        case $kind in
          dpo) $setpoint logps --model "$out/$name/model" --data "$run/data/$part-preferences.jsonl" --output "$out/$name-$part.jsonl" ;;
          *) $setpoint annotate --model "$out/$name/model" --data "$run/data/$part-preferences.jsonl" --output "$out/$name-$part.jsonl" ;;
        esac
      done
      rm -rf "$out/$name/checkpoints"
    done
  done
done
python3 "$here/table1.py" table "$out"

# The reward of DPO's policy for every training response, as a file that `setpoint align` reads; the same policy optimization on either.
best=$(python3 "$here/table1.py" best "$out")
[ -e "$out/dpo-responses.jsonl" ] || $setpoint logps --model "$out/$best/model" --data "$run/data/responses.jsonl" --output "$out/dpo-responses.jsonl"
[ -e "$out/sft-responses.jsonl" ] || $setpoint logps --model "$sft" --data "$run/data/responses.jsonl" --output "$out/sft-responses.jsonl"
python3 "$here/table1.py" implicit "$run/data/responses.jsonl" "$out/dpo-responses.jsonl" "$out/sft-responses.jsonl" "$out/implicit.jsonl"
for source in explicit implicit; do
  case $source in
    explicit) rows=$run/rewards.jsonl ;;
    implicit) rows=$out/implicit.jsonl ;;
  esac
  [ -e "$out/dro-$source/model/config.json" ] ||
    $setpoint align "$here/dro.toml" --model "$sft" --data "$rows" --run "$out/dro-$source" --quiet
  for way in "" "-greedy"; do
    if [ -z "$way" ]; then how=(--set generate.samples=4 --set generate.temperature=1.0); else how=(--set generate.temperature=0.0); fi
    [ -e "$out/gold-$source$way.jsonl" ] || $setpoint generate --model "$out/dro-$source/model" --data "$run/data/report-prompts.jsonl" \
      --output "$out/gold-$source$way.jsonl" --set generate.max_new_tokens=48 --set generate.batch_size=64 "${how[@]}" --quiet
    echo "DRO on the $source reward$way"
    python3 "$here/../demo/gold.py" "$out/gold-$source$way.jsonl" | tail -1
  done
done
