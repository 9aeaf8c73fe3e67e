"""SAEBench's own evaluations of runs, which are converted for SAELens first.

    python -m benchmarks.saebench RUN... --acts acts.h5 --model HOST -o FOLDER
        [--evaluations core,absorption,sparse-probing] [--words 4000] [--characters 60000] [--windows 256]

Needs no network. The code and the settings are SAEBench's, except for what they are run on:

core            held-out windows of the cache, instead of OpenWebText
absorption      a random sample of the tokenizer's words, because a small host takes a second for ten prompts
sparse-probing  ``sparse_probing_sae_probes``; of the data sets that the package ``sae-probes`` holds, those with the
                fewest characters. The older ``sparse_probing`` downloads its data sets, so it is not run.

The host is loaded with ``TransformerBridge``, which takes any model; SAEBench takes only those with a name in
TransformerLens. Words are prefixed with a token for the beginning of the text only if the cache was.
FOLDER gets SAEBench's result files and ``saebench.json`` and ``saebench.md`` with one table. A second call skips the
dictionaries whose result files are there. Needs ``pip install -r benchmarks/requirements-saebench.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hiersae_cli.saelens  # noqa: F401 (registers the hierarchical architecture)
from hiersae_cli.config.base import parse_count
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.formats.activations import HELD_OUT, Activations
from hiersae_cli.workflows import convert

EVALUATIONS = ("core", "absorption", "sparse-probing")
_BATCH = 16  # windows or prompts

# The columns of the table: evaluation, heading, and the path to the figure in SAEBench's file.
COLUMNS = (
    ("core", "L0", "sparsity.l0"),
    ("core", "explained variance (legacy)", "reconstruction_quality.explained_variance_legacy"),
    ("core", "cosine", "reconstruction_quality.cossim"),
    ("core", "CE loss score", "model_performance_preservation.ce_loss_score"),
    ("core", "KL score", "model_behavior_preservation.kl_div_score"),
    ("absorption", "absorption: mean fraction", "mean.mean_absorption_fraction_score"),
    ("absorption", "full absorption", "mean.mean_full_absorption_score"),
    ("absorption", "splits", "mean.mean_num_split_features"),
    ("sparse-probing", "probing, 1 latent", "sae.sae_top_1_test_accuracy"),
    ("sparse-probing", "2 latents", "sae.sae_top_2_test_accuracy"),
    ("sparse-probing", "5 latents", "sae.sae_top_5_test_accuracy"),
    ("sparse-probing", "activations", "llm.llm_test_accuracy"),
)


def load_saes(runs: list[Path], host: str, folder: Path) -> list[tuple[str, Any]]:
    """Each run as an SAE of SAELens that names its activations as TransformerLens does."""
    from sae_lens import SAE

    saes = []
    for run in runs:
        place = folder / run.name
        convert.run(ConvertConfig(source=str(run), to="sae-lens", out=str(place), overwrite=True))
        sae = SAE.load_from_disk(place)
        block = int("".join(filter(str.isdigit, sae.cfg.metadata.hf_hook_name)))
        sae.cfg.metadata.hook_name = f"blocks.{block}.hook_resid_post"
        sae.cfg.metadata.model_name = host
        saes.append((run.name, sae))
    return saes


def load_host(folder: str, bos: bool) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float32)
    model.cfg.default_prepend_bos = bos
    model.cfg.model_name = Path(folder).name  # of files
    return model


@contextmanager
def hosted_by(model: Any) -> Iterator[None]:
    """Inside, SAEBench gets this model whatever name it asks for."""
    from transformer_lens import HookedTransformer

    before = HookedTransformer.from_pretrained_no_processing
    HookedTransformer.from_pretrained_no_processing = lambda *_, **__: model
    try:
        yield
    finally:
        HookedTransformer.from_pretrained_no_processing = before


def write_windows(acts: Path, folder: Path) -> None:
    """The tokens of the cache's held-out windows, as a data set that ``datasets`` loads from its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with Activations(acts) as cache:
        tokens, position, split = (cache.column(name) for name in ("tokens", "position", "split"))
    edges = np.append(np.flatnonzero(position == 0), len(tokens))
    longest = int(np.diff(edges).max())
    with open(folder / "windows.jsonl", "w") as file:
        for start, stop in pairwise(edges):
            if stop - start == longest and split[start] == HELD_OUT:
                file.write(json.dumps({"tokens": tokens[start:stop].tolist()}) + "\n")


def core(saes: list[tuple[str, Any]], arguments: argparse.Namespace, folder: Path) -> None:
    from sae_bench.evals.core.main import multiple_evals
    from sae_lens.training import activations_store

    # It would look on the hub for the tokenizer of the windows, which is the host's.
    activations_store.validate_pretokenized_dataset_tokenizer = lambda **_: None
    write_windows(arguments.acts, folder / "windows")
    batch = min(_BATCH, arguments.windows)
    batches = arguments.windows // batch
    multiple_evals(
        saes,
        n_eval_reconstruction_batches=batches,
        n_eval_sparsity_variance_batches=batches,
        eval_batch_size_prompts=batch,
        dataset=str(folder / "windows"),
        context_size=saes[0][1].cfg.metadata.context_size,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        output_folder=str(folder / "core"),
        device="cpu",
    )


def absorption(saes: list[tuple[str, Any]], model: Any, arguments: argparse.Namespace, folder: Path) -> None:
    from sae_bench.evals.absorption import common, feature_absorption, main
    from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig

    # SAEBench keeps probes and scores in its package, by names that do not tell calls apart.
    shutil.rmtree(common.RESULTS_DIR, ignore_errors=True)
    words = one_token_words(model.tokenizer, common.get_alpha_tokens(model.tokenizer), arguments.words)
    common.get_alpha_tokens = feature_absorption.get_alpha_tokens = lambda _: words
    cached = model.run_with_cache
    blocks = 1 + int(saes[0][1].cfg.metadata.hook_name.split(".")[1])
    # The blocks after the hook change nothing.
    model.run_with_cache = lambda *args, **flags: cached(*args, **{"stop_at_layer": blocks, **flags})
    random.seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    config = AbsorptionEvalConfig(
        model_name=model.cfg.model_name,
        random_seed=arguments.seed,
        llm_batch_size=_BATCH,
        llm_dtype="float32",
        precalc_k_sparse_probe_sae_acts=True,
    )
    main.run_eval(config, saes, "cpu", str(folder / "absorption"))


def one_token_words(tokenizer: Any, words: list[str], count: int) -> list[str]:
    """A random sample of the words that are one token at the beginning of a line: prompts must have one length."""
    line = tokenizer("\n", add_special_tokens=False)["input_ids"]
    lengths = [
        len(ids) - len(line)
        for ids in tokenizer([f"\n{word}" for word in words], add_special_tokens=False)["input_ids"]
    ]
    fitting = sorted(word for word, length in zip(words, lengths, strict=True) if length == 1)
    return random.Random(0).sample(fitting, min(count, len(fitting)))


def sparse_probing(saes: list[tuple[str, Any]], model: Any, arguments: argparse.Namespace, folder: Path) -> None:
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
    from sae_bench.evals.sparse_probing_sae_probes.main import run_eval

    config = SparseProbingSaeProbesEvalConfig(
        model_name=model.cfg.model_name,
        random_seed=arguments.seed,
        dataset_names=short_data_sets(arguments.characters),
        results_path=str(folder / "sparse-probing" / "parts"),
        model_cache_path=str(folder / "sparse-probing" / "activations"),
    )
    run_eval(config, saes, "cpu", str(folder / "sparse-probing"))


def short_data_sets(most_characters: int) -> list[str]:
    """The data sets of ``sae-probes`` whose texts have at most this many characters together."""
    from sae_probes import DATASETS
    from sae_probes.utils_data import read_numbered_dataset_df

    return [name for name in DATASETS if read_numbered_dataset_df(name)["prompt"].str.len().sum() <= most_characters]


def result_file(folder: Path, evaluation: str, name: str) -> Path:
    return folder / evaluation / f"{name}_custom_sae_eval_results.json"


def gather(names: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """The figures of every dictionary by heading, from SAEBench's files."""
    figures: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        for evaluation, heading, place in COLUMNS:
            file = result_file(folder, evaluation, name)
            if not file.exists():
                continue
            value: Any = json.loads(file.read_text())["eval_result_metrics"]
            for key in place.split("."):
                value = value[key]
            figures[name][heading] = value
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table, a line for each figure."""
    names = list(figures)
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for _, heading, _ in COLUMNS:
        if all(heading in figures[name] for name in names):
            lines.append(f"| {heading} | " + " | ".join(f"{figures[name][heading]:.3f}" for name in names) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--acts", type=Path, required=True, help="the cache whose held-out windows core reads")
    parser.add_argument("--model", required=True, help="folder of the host")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--evaluations", default=",".join(EVALUATIONS))
    parser.add_argument("--words", type=parse_count, default=4000, help="of absorption")
    parser.add_argument("--characters", type=parse_count, default=60_000, help="most, of a data set of sparse probing")
    parser.add_argument("--windows", type=parse_count, default=256, help="of core")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    unknown = set(arguments.evaluations.split(",")) - set(EVALUATIONS)
    if unknown:
        parser.error(f"--evaluations: no {', '.join(sorted(unknown))}; there are {', '.join(EVALUATIONS)}")

    folder, names = arguments.out.absolute(), [run.name for run in arguments.runs]
    runs = [run.absolute() for run in arguments.runs]
    arguments.acts = arguments.acts.absolute()
    host = str(Path(arguments.model).absolute())
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # SAEBench writes "artifacts" into the working directory
    saes = load_saes(runs, Path(host).name, folder / "saes")
    model = load_host(host, bool(saes[0][1].cfg.metadata.prepend_bos))
    steps: dict[str, Callable[[], None]] = {
        "core": lambda: core(saes, arguments, folder),
        "absorption": lambda: absorption(saes, model, arguments, folder),
        "sparse-probing": lambda: sparse_probing(saes, model, arguments, folder),
    }
    seconds = {}
    with hosted_by(model):
        for evaluation in arguments.evaluations.split(","):
            started = time.process_time()
            steps[evaluation]()
            seconds[evaluation] = round(time.process_time() - started, 1)
            for name in names:  # SAEBench reports its errors and goes on
                if not result_file(folder, evaluation, name).exists():
                    print(f"{evaluation}: no result for {name}; its messages are above", file=sys.stderr)
    figures = gather(names, folder)
    described = {"config": {**vars(arguments), "runs": names}, "processor_seconds": seconds, "figures": figures}
    (folder / "saebench.json").write_text(json.dumps(described, indent=2, default=str) + "\n")
    (folder / "saebench.md").write_text(table(figures))
    print(table(figures), end="")


if __name__ == "__main__":
    main()
