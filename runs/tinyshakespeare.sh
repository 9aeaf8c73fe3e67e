#!/usr/bin/env bash
# The whole chain on one text, such as tinyshakespeare (1.1 MB): a host of 3.2M parameters, 1M activations,
# a hierarchy and a flat baseline with as many latents and the same L0, their report, the tree, and pages to browse it.
#
#   bash runs/tinyshakespeare.sh input.txt
#
# Writes into the current folder: host/, acts.h5, runs/hier/, runs/flat/, report.json, tree.json, dashboard/.
set -euo pipefail
text=${1:?usage: bash runs/tinyshakespeare.sh TEXT}

hiersae lm "$text" -o host --layers 4 --width 256 --context 128 --steps 1800
hiersae cache "$text" --model host --layer 2 --tokens 1M -o acts.h5
hiersae train acts.h5 --arch hier --widths 64,960 --k 8,8 --tokens 2M -o runs/hier
hiersae train acts.h5 --arch batchtopk --widths 1024 --k 16 --tokens 2M -o runs/flat
hiersae eval runs/hier --baseline runs/flat --acts acts.h5 --model host -o report.json
hiersae export-tree runs/hier --acts acts.h5 --model host -o tree.json
hiersae dashboard runs/hier --acts acts.h5 --baseline runs/flat --model host --report report.json -o dashboard
hiersae info acts.h5
