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
from hiersae_cli.formats.dictionaries.places import same_place
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import SCHEMA, SCHEMA_VERSION, Run, RunFolder, load_run
from hiersae_cli.formats.tree import SCHEMA as TREE_SCHEMA
from hiersae_cli.formats.tree import SCHEMA_VERSION as TREE_VERSION
from hiersae_cli.formats.tree import Node, Tree, save_tree
from hiersae_cli.hashing import sha256_file
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums
from hiersae_cli.sae import SparseAutoencoder, build

TREE_FILE = "tree.json"
_WRITERS = {"sae-lens": saelens, "sparsify": sparsify}
_ROWS, _BATCH = 16_384, 4096  # of the cache, to see whether a dictionary belongs to it
# What a folder may hold that is to be replaced: a run, or what was converted before.
_REPLACEABLE = {"config.json", "model.safetensors", "metrics.jsonl", "state", "cfg.json", TREE_FILE}
_REPLACEABLE |= {module.WEIGHTS for module in _WRITERS.values()}


def run(config: ConvertConfig, console: Console | None = None) -> dict[str, Any]:
    """Convert; returns the summary that ``--json`` prints.

    Raises ``UsageError`` and ``FileError`` where the source is not what it should be, where the target cannot hold
    it, or where a dictionary does not belong to the activations.
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
        raise UsageError(f"{source}: is a run already", "Say what to write it for: --to sae-lens, or --to sparsify.")
    found = read_dictionary(source)
    acts = ActivationSet(config.acts, config.module)
    acts.check_finite()
    _check_place(found, source, acts, console)
    fvu, l0 = _measured(_model(found), source, acts)
    k = found.k or (float(f"{l0:.4g}"),)
    described = {
        **header(
            SCHEMA, SCHEMA_VERSION, config, {str(found.weights): sha256_file(found.weights), **acts.fingerprints()}
        ),
        "config": {"arch": found.arch, "widths": list(found.widths), "k": list(k), "refine": found.refine},
        "converted": {
            "tool": found.tool,
            "version": found.version,
            "architecture": found.architecture,
            "model": found.model,
            "module": found.module,
        },
        "module": acts.module,
        "width": acts.width,
        "host": acts.host,
    }
    with replacing_folder(out) as folder:
        RunFolder(folder).write_header(described)
        RunFolder(folder).write_model(found.tensors, 0, 0)
    acts.close()
    console.say(
        f"{out}: {found.architecture} of {found.tool} as {found.arch}, {sum(found.widths):,} latents on {acts.module} "
        f"({acts.width}); on {_ROWS:,} held-out rows or fewer: fvu {fvu:.4f}, L0 {l0:.1f}"
    )
    if fvu > 1:
        console.warn(
            f"{out}: worse than the mean (fvu {fvu:.2f}): are these the activations that {source} was made for?"
        )
    return {"run": str(out), **described["config"], "fvu": fvu, "l0": l0, **described["converted"]}


def _model(found: ForeignDictionary) -> SparseAutoencoder:
    # Where the wanted L0 is not known, it decides nothing.
    config = TrainConfig(acts=[], arch=found.arch, widths=found.widths, k=found.k or found.widths, refine=found.refine)
    model = build(config, found.width)
    try:
        model.load_weights(found.tensors)
    except RuntimeError as error:
        raise damaged(found.weights, str(error).splitlines()[-1].strip()) from None
    return model.eval()


def _check_place(found: ForeignDictionary, source: Path, acts: ActivationSet, console: Console) -> None:
    """Raise ``FileError`` where a dictionary is not of the cache's activations; warn where names leave that open."""
    paths = ", ".join(str(cache.path) for cache in acts.caches)
    if found.width != acts.width:
        raise FileError(
            f"{source}: reads activations of width {found.width}; {acts.module} of {paths} has width {acts.width}",
            "Give a cache of the model and module that it is of.",
        )
    same = same_place(found.module, acts.module) if found.module else None
    if same is False:
        raise FileError(
            f"{source}: was trained on {found.module}; {paths} holds {acts.module}",
            "Give a cache of that module: blocks.N.hook_resid_post is what 'hiersae cache --layer N' takes.",
        )
    if same is None and found.module:
        console.warn(f"{source}: was trained on {found.module}; the name does not tell whether that is {acts.module}")
    name = str(acts.host["name"])
    if found.model and Path(found.model).name.lower() != Path(name).name.lower():
        console.warn(f"{source}: is of the model {found.model}; the activations are of {name}")


@torch.inference_mode()
def _measured(model: SparseAutoencoder, source: Path, acts: ActivationSet) -> tuple[float, float]:
    """FVU and L0 on held-out rows; raises ``FileError`` where no latent ever fires."""
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
            "Give a cache of the model and module that it is of.",
        )
    return float(sums.fvu(data, whole)[0]), float(sums.l0(data, whole)[0])


def _export(config: ConvertConfig, source: Path, out: Path, console: Console) -> dict[str, Any]:
    if (tool := recognise(source)) is not None:
        raise UsageError(
            f"{source}: is a dictionary of {tool} already; --to writes runs",
            "Make a run of it first: leave --to away, and give --acts.",
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
    """The run's tree without statistics and evidence, for which no activations are at hand."""
    levels = trained.model.levels
    nodes = [
        Node(levels.ids[latent], levels.parent_id(parent), *levels.place(latent))
        for latent, parent in enumerate(trained.model.tree_F.tolist())
    ]
    described = {
        **header(TREE_SCHEMA, TREE_VERSION, config, {config.source: trained.sha256}),
        "run": trained.described,
        "host": trained.header["host"],
        "sample": {"rows": 0, "rows_held_out": 0, "statistics": "none", "contexts": "none"},
        "tokens": "ids",
    }
    return Tree(described, nodes)
