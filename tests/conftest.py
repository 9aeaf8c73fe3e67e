"""Fixtures that every test file may ask for."""

import os

# Without a GPU, Triton's interpreter runs the kernels. It must be asked for before torch imports Triton.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["tests.fixtures_chain"]
