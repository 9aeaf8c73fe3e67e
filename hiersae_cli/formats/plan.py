"""The plan of an experiment, ``experiment.toml``: its runs, and the options of each step on a CPU and on a GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hiersae_cli.config.base import Config, has_type
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.data import DATASETS
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.reading import read_utf8, reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIGURATIONS = ("cpu", "gpu")
# The steps by their names in the plan. Options that the experiment itself decides cannot be set there.
STEPS: dict[str, type[Config]] = {
    "host": LMConfig,
    "cache": CacheConfig,
    "hier": TrainConfig,
    "flat": TrainConfig,
    "eval": EvalConfig,
    "tree": ExportTreeConfig,
    "index": DashboardConfig,
}
_DECIDED = {
    *("texts", "out", "model", "acts", "run", "runs", "baseline", "device", "overwrite", "report"),
    *("seed", "init_seed", "order_seed"),
    *("validation", "markdown", "html"),
    *("edges", "plots", "format", "index", "neuronpedia", "serve"),  # a path that runs would share, or no end
}
_MATCHED = ("tokens", "batch")
# Stand for the paths of a run, which are not known yet when a plan is checked.
_STAND_INS: dict[str, Any] = {"model": "host", "acts": ["acts.h5"], "run": "hier-0", "runs": ["hier-0"]}

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Part:
    """The part of a run with one data set.

    Attributes:
        dataset: its name.
        host_seeds, sae_seeds: of the host models, and of the dictionaries of each host; one of the two has one member.
        rows: activations to cache of each host.
        document: characters of each piece of their text.
        samples, sample_tokens: number and length of the texts that are drawn to time the host.
        check_tokens: characters of the check that the host is unchanged.
        steps: values of the fields of each step's configuration.
    """

    dataset: str
    host_seeds: list[int]
    sae_seeds: list[int]
    rows: int
    document: int
    samples: int
    sample_tokens: int
    check_tokens: int
    steps: dict[str, dict[str, Any]]

    def config(self, step: str, kind: type[C], **decided: Any) -> C:
        """The configuration of a step: the plan's values, and those that the experiment decides."""
        return kind(**self.steps[step], **decided)


@dataclass(frozen=True)
class Planned:
    """One run of the plan on one kind of machine; ``others`` are the plan's other runs, in its order."""

    name: str
    tests: str
    configuration: str
    parts: list[Part]
    others: list[str]


def load(path: str | Path, run: str, configuration: str) -> Planned:
    """The run called ``run``; raises ``UsageError`` if there is none, ``FileError`` for an invalid plan."""
    path = Path(path)
    try:
        plan = tomllib.loads(read_utf8(path))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such plan", "Run it where experiment.toml is, or name it with --plan.") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a TOML file ({reason(error)})", "Correct it.") from None
    runs = plan.get("runs")
    if not isinstance(runs, dict) or not runs or not all(isinstance(section, dict) for section in runs.values()):
        raise FileError(f"{path}: plans no run", 'Add one: [runs.run_1] with tests = "what it tests".')
    if others := sorted(set(plan) - {"runs", *CONFIGURATIONS}):
        raise FileError(f"{path}: [{others[0]}] is not part of a plan", f"Parts: runs, {', '.join(CONFIGURATIONS)}.")
    if run not in runs:
        listed = "\n".join(f"  {name}: {planned.get('tests', '')}" for name, planned in runs.items())
        raise UsageError(f"--out_dir: no run of {path} is called {run!r}", f"Name the folder as one of them:\n{listed}")
    try:
        return _planned(plan, run, configuration)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FileError(
            f"{path}: [{configuration}] or [runs.{run}] is not as expected ({error})", "Correct it."
        ) from None
    except UsageError as error:
        raise FileError(f"{path}: {error.message}", error.hint) from None


def _planned(plan: dict[str, Any], run: str, configuration: str) -> Planned:
    planned, base = dict(plan["runs"][run]), dict(plan[configuration])
    tests, of_sets = str(planned.pop("tests")), base.pop("data")
    of_machine = [planned.pop(name, {}) for name in CONFIGURATIONS][CONFIGURATIONS.index(configuration)]
    planned = {**planned, **of_machine}
    parts = [_part(name, base, of_sets[name], planned) for name in of_sets]
    return Planned(run, tests, configuration, parts, [name for name in plan["runs"] if name != run])


def _part(name: str, *layers: dict[str, Any]) -> Part:
    """Merge sections of the plan: of the machine, the data set and the run, where later ones win."""
    if name not in DATASETS:
        raise UsageError(f"{name} is not a known data set", f"Known: {', '.join(DATASETS)}.")
    merged: dict[str, Any] = {step: {} for step in STEPS}
    for layer in layers:
        for key, value in layer.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    steps = {step: _checked(step, merged.pop(step)) for step in STEPS}
    text, sampling = merged.pop("text"), merged.pop("samples")
    part = Part(
        dataset=name,
        host_seeds=merged.pop("host_seeds"),
        sae_seeds=merged.pop("sae_seeds"),
        rows=text.pop("rows"),
        document=text.pop("document"),
        samples=sampling.pop("count"),
        sample_tokens=sampling.pop("tokens"),
        check_tokens=merged.pop("check_tokens"),
        steps=steps,
    )
    for section, unknown in (("text", text), ("samples", sampling)):
        if unknown:
            raise UsageError(
                f"{section}.{next(iter(unknown))} cannot be set", "Only the options in experiment.toml can be."
            )
    if merged:
        raise UsageError(f"{next(iter(merged))} is not part of a plan", f"Parts: {', '.join(STEPS)}, text, samples.")
    for key, hint in get_type_hints(Part).items():
        value = getattr(part, key)
        if key != "steps" and not has_type(value, hint):
            raise UsageError(f"{name}: {key} cannot be {value!r}", "Whole numbers are needed.")
        if hint is int and value < 1:
            raise UsageError(f"{name}: {key} must be at least 1")
    if len(part.host_seeds) > 1 and len(part.sae_seeds) > 1:
        raise UsageError(
            f"{name}: several host_seeds and several sae_seeds",
            "Dictionaries of one host are not an independent sample of hosts: give one of the two a single seed.",
        )
    for seeds in (part.host_seeds, part.sae_seeds):
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise UsageError(f"{name}: host_seeds and sae_seeds need one or more different seeds, from 0 up")
    _check_steps(part)
    return part


def _checked(step: str, values: dict[str, Any]) -> dict[str, Any]:
    types, names = get_type_hints(STEPS[step]), {field.name for field in fields(STEPS[step])}
    hints = {name: types[name] for name in names - set(_DECIDED)}
    for name, value in values.items():
        if name not in hints:
            raise UsageError(f"{step}.{name} cannot be set", f"Options of {step}: {', '.join(sorted(hints))}.")
        if not has_type(value, hints[name]):
            raise UsageError(f"{step}.{name} cannot be {value!r}", "It has another type: see docs/commands.md.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _check_steps(part: Part) -> None:
    """Raise ``UsageError`` if a step cannot have this configuration; otherwise that would show only during the run.

    The baseline must have as many latents, active latents, rows and rows a step, or the comparison says nothing.
    """
    configs: dict[str, Any] = {}
    for step, kind in STEPS.items():
        names = {field.name for field in fields(kind)}
        decided = {name: value for name, value in _STAND_INS.items() if name in names}
        try:
            configs[step] = part.config(step, kind, **decided)
        except UsageError as error:
            raise UsageError(f"{part.dataset}: {step}: {error.message}", error.hint) from None
    ours, theirs = (
        [sum(config.widths), sum(config.k), *(getattr(config, name) for name in _MATCHED)]
        for config in (configs["hier"], configs["flat"])
    )
    if ours != theirs:
        raise UsageError(
            f"{part.dataset}: hier and flat differ: latents, L0, tokens, batch are {ours} and {theirs}",
            "A baseline is matched in all four.",
        )
