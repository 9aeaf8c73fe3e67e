#!/usr/bin/env bash
# Compares the hierarchy with all flat baselines on a cache: the same rows in the same order for all, several values of
# L0 and several seeds. With the defaults, about four hours on two cores.
#
#   bash runs/compare.sh ACTS HOST FOLDER [FLAGS OF TRAIN...]
#
# Writes FOLDER/plan.toml, and carries it out with 'hiersae sweep': FOLDER/l0-32.{json,md,html} with its plots, the same
# for each L0, table.md and frontiers.svg. Run it again after an interruption: complete files are kept, and the step that
# was stopped resumes. Two processes may share FOLDER if they train different ARCHS or SEEDS and leave the evaluation to
# a third (EVAL=no). Each then has its own plan, such as FOLDER/plan-hier-0,1.toml.
# In the environment: SEEDS ("0 1 2"), L0 ("16 32 64"), ARCHS (all five), LEVELS ("1024 1024", the widths of the levels),
# SHARES ("50 50", the percentage of L0 of each level), NESTED ("512,1536", the widths of matryoshka), HIER (flags that
# only the hierarchy gets), WORDNET (a folder with WordNet's files: its nouns are measured too).
set -euo pipefail
usage="usage: bash runs/compare.sh ACTS HOST FOLDER [FLAGS OF TRAIN...]"
acts=${1:?$usage} host=${2:?$usage} out=${3:?$usage}
shift 3
levels=${LEVELS:-1024 1024}

# list WORDS...: a list of numbers in TOML.
list() { local IFS=,; echo "[$*]"; }

# options FLAGS...: flags of a command as options in TOML; a flag without a value is a switch.
options() {
  while (($#)); do
    local name=${1#--} value=true
    if (($# > 1)) && [[ $2 != --* ]]; then value="'$2'" && shift; fi
    echo "${name//-/_} = $value"
    shift
  done
}

plan() {
  echo "seeds = $(list ${SEEDS:-0 1 2})"
  echo "[train]" && options --acts "$acts" "$@"
  echo "[grid]" && echo "l0 = $(list ${L0:-16 32 64})"
  for arch in ${ARCHS:-hier batchtopk matryoshka topk jumprelu}; do
    echo "[[runs]]" && echo "arch = '$arch'"
    case $arch in
      hier) echo "shares = $(list ${SHARES:-50 50})" && options --widths "${levels// /,}" ${HIER:-} ;;
      matryoshka) options --widths "${NESTED:-512,1536}" ;;
      *) options --widths $((${levels// /+})) ;;
    esac
  done
  echo "[[eval]]"
  options --model "$host" --tasks probing,absorption,hierarchy --task-rows 32k --loss-tokens 4096
  [[ -z ${WORDNET:-} ]] || {
    echo "[[eval]]" && echo "name = 'wordnet'" && echo "controls = false"
    options --model "$host" --tasks hierarchy --labeller wordnet --wordnet "$WORDNET" --task-rows 200k \
      --loss-tokens 1024 --tokens 20k
  }
}

mkdir -p "$out"
if [[ ${EVAL:-yes} == yes ]]; then
  plan "$@" >"$out/plan.toml"
  hiersae sweep "$out/plan.toml" -o "$out"
else
  part=$out/plan-${ARCHS:-all}-${SEEDS:-all}.toml
  part=${part// /,}
  plan "$@" >"$part"
  hiersae sweep "$part" -o "$out" --no-eval
fi
