"""The activation cache (``acts.h5``): specified in ``docs/file-formats.md``, written and read here."""

from hiersae_cli.formats.activations.activation_set import ActivationSet
from hiersae_cli.formats.activations.layout import (
    DROPPED,
    HELD_OUT,
    SCHEMA,
    SCHEMA_VERSION,
    TRAIN,
    TRUTH_VERSION,
)
from hiersae_cli.formats.activations.reader import Activations, load_acts
from hiersae_cli.formats.activations.truth import TrueFirings
from hiersae_cli.formats.activations.writer import ActivationsWriter, RowColumns, join_shards

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
    "RowColumns",
    "TrueFirings",
    "join_shards",
    "load_acts",
]
