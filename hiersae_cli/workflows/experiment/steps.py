"""The steps of the experiment for one data set and one seed of the host, each by the workflow of its own command.

A step is skipped if its file exists, because files get their names when they are complete; a step that was stopped
resumes or begins again. Host, samples, cache and dictionaries are reused from another run if they agree.

Legend of shapes: N characters.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats import atomic
from hiersae_cli.formats.activations import Activations
from hiersae_cli.formats.datasets import Dataset
from hiersae_cli.formats.host import DESCRIPTION
from hiersae_cli.formats.index import partial_folder
from hiersae_cli.formats.plan import Part
from hiersae_cli.formats.run import RunFolder, load_run
from hiersae_cli.hashing import sha256_file
from hiersae_cli.host import charlm
from hiersae_cli.host.generation import generate
from hiersae_cli.host.model import Host
from hiersae_cli.workflows import lm
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.dashboard import run as dashboard
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.experiment import reuse
from hiersae_cli.workflows.train import run as train
from hiersae_cli.workflows.tree import run as export_tree

PROMPT, TEMPERATURE, TOP_K = " ", 0.8, 200  # of the samples that time the host
_EVALUATION_SEQUENCES = 64
_RUN_FILES = ("config.json", "model.safetensors", "metrics.jsonl")  # an index next to them has another baseline


class Unit:
    """A data set and a seed of its host, in a folder of the run.

    Args:
        others: the same folder in the other runs, whose files are reused if they agree.
        log: receives the name and seconds of each step that is carried out, and the folder that it was reused from.
    """

    def __init__(
        self,
        part: Part,
        data: Dataset,
        seed: int,
        folder: Path,
        others: list[Path],
        device: str,
        log: Callable[[dict[str, Any]], None],
        console: Console,
    ):
        self.part, self.data, self.seed, self.folder = part, data, seed, folder
        self._others, self._device, self._log, self._console = others, device, log, console
        self.host, self.acts, self.report = folder / "host", folder / "acts.h5", folder / "report.json"

    def carry_out(self) -> None:
        """All steps, in order."""
        self._train_host()
        self._draw_samples()
        self._cache()
        for seed in self.part.sae_seeds:
            self._train(f"hier-{seed}", "hier", seed)
            self._train(f"flat-{seed}", "flat", seed)
        self._evaluate()
        for seed in self.part.sae_seeds:
            self._export(seed)
        self._check_host()

    def results(self) -> dict[str, Any]:
        """What the files of the steps hold, by ``host``, ``samples``, ``report`` and ``check``."""
        return {
            "host": atomic.read_json(self.host / DESCRIPTION),
            "samples": atomic.read_json(self.folder / "samples.json"),
            "report": atomic.read_json(self.report),
            "check": atomic.read_json(self.folder / "host-check.json"),
        }

    def _step(
        self,
        name: str,
        done: bool,
        make: Callable[[], object],
        agrees: Callable[[Path], bool] | None = None,
        link: Callable[[Path], None] | None = None,
    ) -> None:
        if done:
            return
        started, worked = time.monotonic(), time.process_time()
        source = next((other for other in self._others if agrees and agrees(other)), None)
        if source and link:
            link(source)
            self._console.say(f"{self.folder / name}: reused from {source / name}, which is the same")
        else:
            self._console.say(f"{self.folder / name}:")
            make()
        self._log(
            {
                "step": f"{self.data.name}/{self.folder.name}/{name}",
                "seconds": round(time.monotonic() - started, 1),
                "cpu_seconds": round(time.process_time() - worked, 1),
                "taken_over_from": str(source) if source else None,
            }
        )

    def _train_host(self) -> None:
        characters = self.data.training + self.data.validation
        config = self.part.config(
            "host",
            LMConfig,
            texts=[str(self.data.text)],
            out=str(self.host),
            # Half a character more, so that rounding cannot lose one.
            validation=(self.data.validation + 0.5) / characters,
            seed=self.seed,
            device=self._device,
        )
        self._step(
            "host",
            (self.host / DESCRIPTION).exists(),
            lambda: lm.run(config, self._console),
            lambda other: reuse.host_agrees(other / "host", config, self.data.sha256),
            lambda other: reuse.link_folder(other / "host", self.host),
        )

    @cached_property
    def _loaded(self) -> Host:
        return Host.load(str(self.host), torch.device(self._device))

    def _draw_samples(self) -> None:
        path = self.folder / "samples.json"
        asked = {
            "samples": self.part.samples,
            "tokens": self.part.sample_tokens,
            "prompt": PROMPT,
            "temperature": TEMPERATURE,
            "top_k": TOP_K,
        }

        def agrees(other: Path) -> bool:
            try:
                samples = atomic.read_json(other / path.name)
                return bool(samples["host"] == self._loaded.fingerprint and samples["asked"] == asked)
            except (HierSAEError, KeyError, TypeError):
                return False

        self._step(
            "samples",
            path.exists(),
            lambda: atomic.write_json(path, {"host": self._loaded.fingerprint, "asked": asked, **self._samples()}),
            agrees,
            lambda other: reuse.link_file(other / path.name, path),
        )

    def _samples(self) -> dict[str, Any]:
        """Texts sampled one at a time, and the tokens per second of each."""
        host, rates, texts = self._loaded, [], []
        prompt = host.tokenizer.encode(PROMPT, add_special_tokens=False)
        generator = torch.Generator(device=self._device).manual_seed(self.seed)
        with self._console.progress("samples", self.part.samples, "samples") as progress:
            for _ in range(self.part.samples):
                started = time.perf_counter()
                drawn = generate(
                    host.model,
                    prompt,
                    self.part.sample_tokens,
                    context=host.max_context,
                    temperature=TEMPERATURE,
                    top_k=TOP_K,
                    generator=generator,
                )
                rates.append(self.part.sample_tokens / (time.perf_counter() - started))
                texts.append(host.tokenizer.decode(drawn))
                progress.advance(1)
        return {"tokens_per_second": rates, "texts": texts}

    def _cache(self) -> None:
        text = self.folder / "rows.jsonl"
        if not text.exists():
            atomic.write_text(text, pieces(self.data, self.part.rows, self.part.document))
        config = self.part.config(
            "cache", CacheConfig, texts=[str(text)], model=str(self.host), out=str(self.acts), device=self._device
        )
        self._step(
            "acts.h5",
            self.acts.exists(),
            lambda: cache.run(config, self._console),
            lambda other: reuse.cache_agrees(other / "acts.h5", config, self._loaded.fingerprint, sha256_file(text)),
            lambda other: reuse.link_file(other / "acts.h5", self.acts),
        )

    def _train(self, name: str, step: str, seed: int) -> None:
        folder = self.folder / name
        config = self.part.config(
            step, TrainConfig, acts=[str(self.acts)], out=str(folder), seed=seed, device=self._device
        )
        run = RunFolder(folder)

        def agrees(other: Path) -> bool:
            with Activations(self.acts) as acts:
                return reuse.run_agrees(other / name, config, acts.fingerprint)

        self._step(
            name,
            run.config_file.exists() and run.is_complete(),
            lambda: train.run(config, self._console),
            # A run that was begun here resumes.
            None if run.config_file.exists() else agrees,
            lambda other: reuse.link_folder(other / name, folder, _RUN_FILES),
        )

    def _evaluate(self) -> None:
        config = self.part.config(
            "eval",
            EvalConfig,
            runs=[str(self.folder / f"hier-{seed}") for seed in self.part.sae_seeds],
            baseline=[str(self.folder / f"flat-{seed}") for seed in self.part.sae_seeds],
            acts=[str(self.acts)],
            model=str(self.host),
            out=str(self.report),
            markdown=str(self.folder / "report.md"),
            html=str(self.folder / "report.html"),
            device=self._device,
            overwrite=True,  # the files of an evaluation that was stopped
        )
        # An evaluation writes the report last.
        self._step("report.json", self.report.exists(), lambda: evaluate.run(config, self._console))

    def _export(self, seed: int) -> None:
        run, tree = self.folder / f"hier-{seed}", self.folder / f"tree-{seed}.json"
        common: dict[str, Any] = {
            "run": str(run),
            "acts": [str(self.acts)],
            "model": str(self.host),
            "device": self._device,
        }
        exported = self.part.config("tree", ExportTreeConfig, out=str(tree), **common)
        self._step(tree.name, tree.exists(), lambda: export_tree.run(exported, self._console))
        index = self.part.config(
            "index", DashboardConfig, baseline=str(self.folder / f"flat-{seed}"), report=str(self.report), **common
        )
        # After a kill between the two, the finished index still has the unfinished one next to it.
        finished = Path(index.index_file).exists() and not partial_folder(index.index_file).exists()
        self._step(f"{run.name}/dashboard.h5", finished, lambda: dashboard.run(index, self._console))

    def _check_host(self) -> None:
        path = self.folder / "host-check.json"
        self._step(path.name, path.exists(), lambda: atomic.write_json(path, self._checked()))

    def _checked(self) -> dict[str, Any]:
        run = load_run(self.folder / f"hier-{self.part.sae_seeds[0]}", self._device)
        text = self.data.text.read_bytes().decode()[self.data.training :][: self.part.check_tokens]
        return untouched(self._loaded, run.module, run.model, charlm.encode(self._loaded.tokenizer, text))


def untouched(host: Host, module: str, model: Any, tokens_N: torch.Tensor) -> dict[str, Any]:
    """The host's loss before, with and after reconstructions of ``model`` in place of what ``module`` gives.

    Raises ``HierSAEError`` if the loss before or after differs in any bit from that of the host's files, or if these
    files have changed.
    """

    def loss(of: Host) -> float:
        return charlm.mean_loss(
            of.model, tokens_N, context=of.max_context, batch=_EVALUATION_SEQUENCES, dtype=torch.float32
        )

    before = loss(host)
    with host.spliced(module, lambda x_BTD: model(x_BTD.flatten(0, 1)).view_as(x_BTD)):
        spliced = loss(host)
    after = loss(host)
    reloaded = Host.load(host.name, host.device)
    expected = loss(reloaded)
    if not before == after == expected or reloaded.fingerprint != host.fingerprint:
        raise HierSAEError(
            f"{host.name}: not the model that it was: loss {before!r} before and {after!r} after the hooks, "
            f"{expected!r} of its files",
            "Results of this run would describe a changed host.",
        )
    return {"loss_before": before, "loss_spliced": spliced, "loss_after": after, "fingerprint": host.fingerprint}


def pieces(data: Dataset, rows: int, document: int) -> str:
    """JSON lines of texts of ``document`` characters, ``rows`` in all, spread evenly over the training text."""
    text = data.text.read_bytes().decode()[: data.training]
    document = min(document, len(text))
    count = min(-(-rows // document), len(text) // document)
    starts = [number * (len(text) - document) // max(1, count - 1) for number in range(count)]
    lines = ({"text": text[start : start + document], "start": start} for start in starts)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
