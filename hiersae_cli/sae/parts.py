"""The parts of a training step, labelled for ``torch.profiler``: ``hiersae bench`` reads the labels.

A label costs some 6 microseconds if no profiler runs.
"""

from __future__ import annotations

from torch.profiler import record_function

PREFIX = "hiersae: "
DENSE = "dense product"
GROUPED = "grouped product"
SELECTION = "selection and exact values"
DECODING = "decoding and loss"
BACKWARD = "backward"
OPTIMIZER = "optimizer"
PARTS = (DENSE, GROUPED, SELECTION, DECODING, BACKWARD, OPTIMIZER)


def profiled(name: str) -> record_function:
    """A context whose operations the profiler shows under ``name``, one of ``PARTS``."""
    return record_function(PREFIX + name)
