"""Fixtures that every test file may ask for."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Without a GPU, Triton's interpreter runs the kernels. It must be asked for before torch imports Triton.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["tests.fixtures_chain"]

# The same examples in every run, and no time limit: a busy machine must not fail a test.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Leave Ctrl-C as it was: ``main`` ignores it in the end, and so would the processes of later tests."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
