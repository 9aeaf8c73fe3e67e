"""The activation cache (``acts.h5``): specified in ``docs/file-formats.md``, written and read here."""

from hiersae_cli.formats.activations.layout import (
    DROPPED,
    HELD_OUT,
    SCHEMA,
    SCHEMA_VERSION,
    TRAIN,
    TRUTH_VERSION,
)
from hiersae_cli.formats.activations.reader import Activations, ActivationSet
from hiersae_cli.formats.activations.truth import Firings
from hiersae_cli.formats.activations.writer import ActivationsWriter, Rows, join_shards

__all__ = [
    "DROPPED",
    "HELD_OUT",
    "SCHEMA",
    "SCHEMA_VERSION",
    "TRAIN",
    "TRUTH_VERSION",
    "ActivationSet",
    "Activations",
    "ActivationsWriter",
    "Firings",
    "Rows",
    "join_shards",
]
