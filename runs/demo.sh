#!/usr/bin/env bash
# The chain, small enough for a laptop: a few minutes on two cores, no downloads.
# The text is the reference documentation that every Python carries, the default text of lm and cache.
#
#   bash runs/demo.sh [FOLDER]
#
# Run it again after an interruption: complete files are kept, and the step that was stopped resumes.
set -euo pipefail
out=${1:-demo}

source "$(dirname "${BASH_SOURCE[0]}")/step.sh"

# A character-level GPT with 3 blocks of width 128.
step "$out/host" hiersae lm -o "$out/host" --layers 3 --width 128 --context 128 --steps 500

# The output of its middle block for every character of the text: one row each.
step "$out/acts.h5" hiersae cache --model "$out/host" --layer 1 -o "$out/acts.h5"

# A tree of 32 parents and 480 children, and the flat dictionary that it has to beat: as many latents, the same
# L0, the same rows in the same order.
step "$out/runs/hier" hiersae train "$out/acts.h5" --arch hier --widths 32,480 --k 8,8 --tokens 1M -o "$out/runs/hier"
step "$out/runs/flat" hiersae train "$out/acts.h5" --arch batchtopk --widths 512 --k 16 --tokens 1M -o "$out/runs/flat"

# Measure both on held-out rows: reconstruction, the loss of the host, the tree.
step "$out/report.json" hiersae eval "$out/runs/hier" --baseline "$out/runs/flat" --acts "$out/acts.h5" \
  --model "$out/host" -o "$out/report.json"

# The tree with its evidence; other endings (.csv, .dot, .graphml, .nwk) give other formats.
step "$out/tree.json" hiersae export-tree "$out/runs/hier" --acts "$out/acts.h5" --model "$out/host" -o "$out/tree.json"

hiersae info "$out/tree.json"

# Pages to browse the tree: a folder that opens from the disk.
if [[ -e $out/dashboard/index.html ]]; then
  echo "$out/dashboard exists already" >&2
else
  hiersae dashboard "$out/runs/hier" --acts "$out/acts.h5" --baseline "$out/runs/flat" --model "$out/host" \
    --report "$out/report.json" --tokens 200k -o "$out/dashboard"
fi

cat <<END

Made in $out:
  host/                   the language model, as Hugging Face saves one
  acts.h5                 its activations
  runs/hier/, runs/flat/  the hierarchical and the flat sparse autoencoder
  report.json             both measured on held-out rows
  tree.json               the tree of features, with contexts and tokens
  dashboard/              the tree as pages

Next:
  hiersae info $out/acts.h5
  hiersae export-tree $out/runs/hier --acts $out/acts.h5 --model $out/host -o $out/tree.csv
  bash runs/tinyshakespeare.sh YOUR.txt

Open the dashboard in a browser:
  file://$(cd "$out" && pwd)/dashboard/index.html

Or serve it, which can also show what fires on your own text, and save labels:
  source .venv/bin/activate && cd $out
  hiersae dashboard runs/hier --acts acts.h5 --baseline runs/flat --model host --report report.json --serve
END
