#!/usr/bin/env bash
# Compares the hierarchy with all four flat baselines on one text, with a character-level host: 4,096 latents, total L0
# 16 and 32, three seeds each, all on the same rows in the same order. Takes hours on two cores. A comparison on such a
# host says how the code works, not what a tree is worth: see docs/results-characters.md.
#
#   bash runs/compare.sh TEXT FOLDER
#
# Writes FOLDER/l0-16.{json,md,html} and FOLDER/l0-32.{json,md,html}, and plots in the same folder. Run it again
# after an interruption: complete files are kept, and the step that was stopped resumes.
# SEEDS ("0 1 2") and L0 ("16 32") may be set in the environment.
set -euo pipefail
text=${1:?usage: bash runs/compare.sh TEXT FOLDER}
out=${2:?usage: bash runs/compare.sh TEXT FOLDER}
seeds=${SEEDS:-0 1 2}
l0s=${L0:-16 32}
source "$(dirname "${BASH_SOURCE[0]}")/step.sh"

step "$out/host" hiersae lm "$text" -o "$out/host" --layers 4 --width 256 --context 128 --steps 1800
step "$out/acts.h5" hiersae cache "$text" --model "$out/host" --layer 2 --tokens 1M -o "$out/acts.h5"

# train NAME FLAGS...: the same rows, learning rate and length for all.
train() {
  local run="$out/runs/$1-$seed"
  shift
  step "$run" hiersae train "$out/acts.h5" -o "$run" --seed "$seed" --tokens 1M --lr 3e-3 --dtype bfloat16 "$@"
}

for l0 in $l0s; do
  for seed in $seeds; do
    train "hier-$l0" --arch hier --widths 256,3840 --k $((l0 / 2)),$((l0 / 2))
    train "topk-$l0" --arch topk --widths 4096 --k "$l0"
    train "batchtopk-$l0" --arch batchtopk --widths 4096 --k "$l0"
    train "jumprelu-$l0" --arch jumprelu --widths 4096 --k "$l0"
    train "matryoshka-$l0" --arch matryoshka --widths 256,1024,2816 --k "$l0"
  done
  baselines=()
  for run in "$out"/runs/{topk,batchtopk,jumprelu,matryoshka}-"$l0"-*; do baselines+=(--baseline "$run"); done
  step "$out/l0-$l0.json" hiersae eval "$out"/runs/hier-"$l0"-* "${baselines[@]}" --acts "$out/acts.h5" \
    --model "$out/host" --tasks all --task-rows 32k --loss-tokens 16k -o "$out/l0-$l0.json" \
    --markdown "$out/l0-$l0.md" --html "$out/l0-$l0.html" --plots "$out/plots-l0-$l0"
done
