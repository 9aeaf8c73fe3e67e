#!/usr/bin/env bash
# Compares the hierarchy with all flat baselines on a cache: the same rows in the same order for all, several values of
# L0 and several seeds. With the defaults, about four hours on two cores.
#
#   bash runs/compare.sh ACTS HOST FOLDER [FLAGS OF TRAIN...]
#
# Writes FOLDER/l0-32.{json,md,html} with its plots, and the same for each L0. Run it again after an interruption:
# complete files are kept, and the step that was stopped resumes. Two processes may share FOLDER if they train different
# ARCHS or SEEDS and leave the evaluation to a third (EVAL=no).
# In the environment: SEEDS ("0 1 2"), L0 ("16 32 64"), ARCHS (all five), LEVELS ("1024 1024", the widths of two levels),
# NESTED ("512,1536", the widths of matryoshka), SHARE (the percentage of L0 that the first level gets: 37.5),
# HIER (flags that only the hierarchy gets), WORDNET (a folder with WordNet's files: its nouns are measured too).
set -euo pipefail
usage="usage: bash runs/compare.sh ACTS HOST FOLDER [FLAGS OF TRAIN...]"
acts=${1:?$usage} host=${2:?$usage} out=${3:?$usage}
shift 3
read -r parents children <<<"${LEVELS:-1024 1024}"
source "$(dirname "${BASH_SOURCE[0]}")/step.sh"

# train FLAGS...: the same rows in the same order for all.
train() {
  local run="$out/runs/$arch-$l0-$seed"
  step "$run" hiersae train "$acts" -o "$run" --seed "$seed" "$@"
}

for l0 in ${L0:-16 32 64}; do
  k=$(awk -v l0="$l0" -v share="${SHARE:-37.5}" 'BEGIN { k = l0 * share / 100; print k "," l0 - k }')
  for seed in ${SEEDS:-0 1 2}; do
    for arch in ${ARCHS:-hier batchtopk matryoshka topk jumprelu}; do
      case $arch in
        hier) train --arch hier --widths "$parents,$children" --k "$k" ${HIER:-} "$@" ;;
        matryoshka) train --arch matryoshka --widths "${NESTED:-512,1536}" --k "$l0" "$@" ;;
        *) train --arch "$arch" --widths $((parents + children)) --k "$l0" "$@" ;;
      esac
    done
  done
  [[ ${EVAL:-yes} == yes ]] || continue
  baselines=()
  for run in "$out"/runs/{topk,batchtopk,jumprelu,matryoshka}-"$l0"-*; do
    [[ ! -e $run ]] || baselines+=(--baseline "$run")
  done
  step "$out/l0-$l0.json" hiersae eval "$out"/runs/hier-"$l0"-* "${baselines[@]}" --acts "$acts" --model "$host" \
    --tasks probing,absorption,hierarchy --task-rows 32k --loss-tokens 4096 -o "$out/l0-$l0.json" \
    --markdown "$out/l0-$l0.md" --html "$out/l0-$l0.html" --plots "$out/plots-l0-$l0"
  [[ -z ${WORDNET:-} ]] || step "$out/wordnet-l0-$l0.json" hiersae eval "$out"/runs/hier-"$l0"-* "${baselines[@]}" \
    --acts "$acts" --model "$host" --tasks hierarchy --labeller wordnet --wordnet "$WORDNET" --task-rows 200k \
    --loss-tokens 1024 --tokens 20k --no-controls -o "$out/wordnet-l0-$l0.json"
done
