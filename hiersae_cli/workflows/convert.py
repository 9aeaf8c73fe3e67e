"""``hiersae convert``: another tool's dictionary -> run folder, and run folder -> another tool's dictionary.

Legend of shapes: B rows of a batch, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import HELD_OUT, ActivationSet
from hiersae_cli.formats.atomic import refuse_folder, replacing_folder
from hiersae_cli.formats.dictionaries import ForeignDictionary, read_dictionary, recognise, saelens, sparsify
from hiersae_cli.formats.dictionaries.base import damaged
from hiersae_cli.formats.places import same_place
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import SCHEMA, SCHEMA_VERSION, Run, RunFolder, load_run
from hiersae_cli.formats.tree import SCHEMA as TREE_SCHEMA
from hiersae_cli.formats.tree import SCHEMA_VERSION as TREE_VERSION
from hiersae_cli.formats.tree import Tree, bare_nodes, save_tree
from hiersae_cli.hashing import sha256_file
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums
from hiersae_cli.sae import SparseAutoencoder, build

TREE_FILE = "tree.json"
_WRITERS = {"sae-lens": saelens, "sparsify": sparsify}
_ROWS, _BATCH = 16_384, 4096  # of the cache, to check whether a dictionary belongs to it
# Names in a folder that may be replaced: those of a run, or of an earlier conversion.
_REPLACEABLE = {"config.json", "model.safetensors", "metrics.jsonl", "state", "cfg.json", TREE_FILE}
_REPLACEABLE |= {module.WEIGHTS for module in _WRITERS.values()}


def run(config: ConvertConfig, console: Console | None = None) -> dict[str, Any]:
    """Convert; returns the summary that ``--json`` prints.

    Raises ``UsageError`` and ``FileError`` if the source is not valid, if the target cannot hold it, or if a dictionary
    does not belong to the activations.
    """
    console = console or Console.silent()
    source, out = Path(config.source), Path(config.out)
    refuse_folder(out, config.overwrite, _REPLACEABLE.__contains__)
    if RunFolder(out).config_file.exists():
        RunFolder(out).read_header()  # other tools' folders have a config.json too
    if out.resolve() == source.resolve():
        raise UsageError(f"--out {out}: is the source", "Choose another folder.")
    return _export(config, source, out, console) if config.to else _import(config, source, out, console)


def _import(config: ConvertConfig, source: Path, out: Path, console: Console) -> dict[str, Any]:
    if RunFolder(source).config_file.exists() and recognise(source) is None:
        RunFolder(source).read_header()
        raise UsageError(f"{source}: is already a run", "Name a tool to write it for: --to sae-lens or --to sparsify.")
    foreign = read_dictionary(source)
    acts = ActivationSet(config.acts, config.module)
    acts.check_finite()
    _check_place(foreign, source, acts, console)
    fvu, l0 = _measure(_model(foreign), source, acts)
    k = foreign.k or (float(f"{l0:.4g}"),)
    inputs = {str(foreign.weights): sha256_file(foreign.weights), **acts.fingerprints()}
    described = {
        **header(SCHEMA, SCHEMA_VERSION, config, inputs),
        "config": {
            "arch": foreign.arch,
            "widths": list(foreign.widths),
            "k": list(k),
            "refine": foreign.refine,
            "sibling_weight": foreign.sibling_weight,
        },
        "converted": {
            "tool": foreign.tool,
            "version": foreign.version,
            "architecture": foreign.architecture,
            "model": foreign.model,
            "module": foreign.module,
        },
        "module": acts.module,
        "width": acts.width,
        "host": acts.host,
    }
    with replacing_folder(out) as folder:
        RunFolder(folder).write_header(described)
        RunFolder(folder).write_model(foreign.tensors, 0, 0)
    acts.close()
    console.say(
        f"{out}: {foreign.architecture} of {foreign.tool} as {foreign.arch}, {sum(foreign.widths):,} latents on "
        f"{acts.module} ({acts.width}); on {_ROWS:,} held-out rows or fewer: fvu {fvu:.4f}, L0 {l0:.1f}"
    )
    if fvu > 1:
        console.warn(f"{out}: worse than the mean (fvu {fvu:.2f}): was {source} made for these activations?")
    return {"run": str(out), **described["config"], "fvu": fvu, "l0": l0, **described["converted"]}


def _model(foreign: ForeignDictionary) -> SparseAutoencoder:
    # The target L0 decides nothing here, so any will do if it is not known.
    k = foreign.k or foreign.widths
    config = TrainConfig(
        acts=[],
        arch=foreign.arch,
        widths=foreign.widths,
        k=k,
        refine=foreign.refine,
        sibling_weight=foreign.sibling_weight,
    )
    model = build(config, foreign.width)
    try:
        model.load_weights(foreign.tensors)
    except RuntimeError as error:
        raise damaged(foreign.weights, str(error).splitlines()[-1].strip()) from None
    return model.eval()


def _check_place(foreign: ForeignDictionary, source: Path, acts: ActivationSet, console: Console) -> None:
    """Raise ``FileError`` if a dictionary is not of the cache's activations; warn if names leave that open."""
    paths = ", ".join(str(cache.path) for cache in acts.caches)
    if foreign.width != acts.width:
        raise FileError(
            f"{source}: reads activations of width {foreign.width}; {acts.module} of {paths} has width {acts.width}",
            "Give a cache of its model and module.",
        )
    same = same_place(foreign.module, acts.module) if foreign.module else None
    if same is False:
        raise FileError(
            f"{source}: was trained on {foreign.module}; {paths} holds {acts.module}",
            "Give a cache of that module: blocks.N.hook_resid_post is the module of 'hiersae cache --layer N'.",
        )
    if same is None and foreign.module:
        console.warn(f"{source}: was trained on {foreign.module}; the name does not say whether that is {acts.module}")
    name = str(acts.host["name"])
    if foreign.model and Path(foreign.model).name.lower() != Path(name).name.lower():
        console.warn(f"{source}: was trained on the model {foreign.model}; the activations come from {name}")


@torch.inference_mode()
def _measure(model: SparseAutoencoder, source: Path, acts: ActivationSet) -> tuple[float, float]:
    """FVU and L0 on held-out rows; raises ``FileError`` if no latent ever fires."""
    rows = np.flatnonzero(acts.usable(HELD_OUT))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).astype(int))]
    data, sums, whole = DataSums(1, acts.width), CodeSums(1, model.widths), np.ones((1, 1))
    for start in range(0, len(rows), _BATCH):
        x_BD = acts.rows_at(rows[start : start + _BATCH]).float()
        block_B = torch.zeros(len(x_BD), dtype=torch.int64)
        code_BF = model.encode(x_BD)
        data.add(x_BD, block_B)
        sums.add(x_BD, Firings.of(code_BF), model.decode(code_BF), block_B)
    if sums.dead() == model.latents:
        raise FileError(
            f"{source}: none of its latents fires in {len(rows):,} held-out rows of the cache",
            "Give a cache of its model and module.",
        )
    return float(sums.fvu(data, whole)[0]), float(sums.l0(data, whole)[0])


def _export(config: ConvertConfig, source: Path, out: Path, console: Console) -> dict[str, Any]:
    if (tool := recognise(source)) is not None:
        raise UsageError(
            f"{source}: is already a dictionary of {tool}; --to writes runs",
            "Make a run from it first: leave out --to, and give --acts.",
        )
    trained = load_run(source)
    if trained.steps_done < trained.config.steps:
        console.warn(f"{source}: training not ended (step {trained.steps_done:,} of {trained.config.steps:,})")
    with replacing_folder(out) as folder:
        _WRITERS[config.to].write(folder, trained)
        if trained.model.learned_F is not None:
            save_tree(folder / TREE_FILE, _tree(config, trained))
        files = sorted(file.name for file in folder.iterdir())
    console.say(f"{out}: {', '.join(files)}")
    if TREE_FILE in files:
        console.say("to load it: import hiersae_cli.saelens; sae = sae_lens.SAE.load_from_disk(FOLDER)")
    return {"folder": str(out), "tool": config.to, "arch": trained.config.arch, "files": files}


def _tree(config: ConvertConfig, trained: Run) -> Tree:
    """The run's tree without statistics and evidence, which would need activations."""
    nodes = bare_nodes(trained.model.levels, trained.model.tree_F.tolist())
    described = {
        **header(TREE_SCHEMA, TREE_VERSION, config, {config.source: trained.sha256}),
        "run": trained.described,
        "host": trained.header["host"],
        "sample": {"rows": 0, "rows_held_out": 0, "statistics": "none", "contexts": "none"},
        "tokens": "ids",
    }
    return Tree(described, nodes)
