#!/usr/bin/env bash
# All measurements that need a GPU, in at most eight minutes, on a bare machine with CUDA and PyTorch.
#
#   bash benchmarks/gpu.sh FOLDER [FLAGS OF benchmarks.gpu...]
#
# Uses PYTHON (python3), which must have torch. What else is missing is installed into an environment in FOLDER/env,
# which sees the machine's packages. With --device cpu it runs in a tiny form on any machine. Writes FOLDER/gpu.json
# and FOLDER/gpu.md.
set -euo pipefail
out=$(mkdir -p "${1:?usage: bash benchmarks/gpu.sh FOLDER [FLAGS...]}" && cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

# has MODULES...: whether Python finds them all. It does not import them, which would take seconds.
has() { "$python" -c 'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "$@"; }
has torch || { echo "$python has no torch: install it, or name another one with PYTHON" >&2; exit 1; }
if ! has h5py hypothesis pytest sparsify transformers typer xdist; then
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" -m venv "$out/env"
  echo "$packages" >"$(echo "$out"/env/lib/python3*/site-packages)/machine.pth"
  # torch must stay what the machine has, because it fits the driver.
  grep -v '^torch==' constraints.txt >"$out/constraints.txt"
  "$python" -c 'import torch; print(f"torch=={torch.__version__}")' >>"$out/constraints.txt"
  "$out/env/bin/python" -m pip install -q -c "$out/constraints.txt" -e . accelerate eai-sparsify hypothesis pytest \
    pytest-xdist || echo "some packages are missing: parts that need them fail" >&2
  python=$out/env/bin/python
fi
exec "$python" -m benchmarks.gpu -o "$out" "$@"
