#!/usr/bin/env bash
# Compares the hierarchy with all flat baselines on a character-level language model of one text: 4,096 latents, total L0
# 16 and 32, three seeds each. Takes hours on two cores.
#
#   bash runs/characters.sh TEXT FOLDER
#
# A tree on such a model means little: see docs/results-characters.md. SEEDS and L0 may be set as for compare.sh.
set -euo pipefail
text=${1:?usage: bash runs/characters.sh TEXT FOLDER}
out=${2:?usage: bash runs/characters.sh TEXT FOLDER}
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/step.sh"

step "$out/host" hiersae lm "$text" -o "$out/host" --layers 4 --width 256 --context 128 --steps 1800
step "$out/acts.h5" hiersae cache "$text" --model "$out/host" --layer 2 --tokens 1M -o "$out/acts.h5"
export L0=${L0:-16 32} LEVELS="256 3840" NESTED=256,1024,2816
export HIER="--tree-weight 0.5 --orphan-weight 10 --root-weight 1 --sibling-weight 1 --rate-limit 0"
bash "$here/compare.sh" "$out/acts.h5" "$out/host" "$out" --tokens 1M --batch 2048 --lr 3e-3 --dtype bfloat16 --normalise overall
