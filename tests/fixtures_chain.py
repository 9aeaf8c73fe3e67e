"""A tiny chain that many tests start from: host, cache, a hierarchical and a flat run; made once a session."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hiersae_cli import load_run
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.host.charlm import character_tokenizer
from hiersae_cli.sae import HierarchicalSAE
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.dashboard import run as dashboard
from hiersae_cli.workflows.train import run as train

CONTEXT = 64
_SUBJECTS = ("The old king", "A small bird", "Our neighbour", "Every sailor", "The clock", "My sister")
_VERBS = ("sees", "remembers", "follows", "mends", "forgets", "sings of")
_PRICES = {"tree_weight": 0.5, "orphan_weight": 10.0, "root_weight": 1.0, "rate_limit": 0.0, "sibling_weight": 1.0}
_OBJECTS = ("the river", "a broken lamp", "winter", "seven letters", "the long road", "her own name")


def sentences(characters: int, seed: int = 0) -> str:
    """Plain sentences, ``characters`` in all."""
    choose = random.Random(seed).choice
    text = ""
    while len(text) < characters:
        text += f"{choose(_SUBJECTS)} {choose(_VERBS)} {choose(_OBJECTS)}{choose('.!?')}\n"
    return text[:characters]


def save_host(folder: Path, text: str, layers: int = 3, width: int = 32, seed: int = 0) -> Path:
    """A character-level GPT-2 with random weights over the characters of ``text``."""
    tokenizer = character_tokenizer(text, CONTEXT)
    sizes = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        GPT2LMHeadModel(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The sums of a command run by ``helpers`` and of this process add up in one order, and no thread waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small or read-only disk can be made only by a user who may mount one")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 characters of sentences."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(sentences(20_000))
    return path


@pytest.fixture(scope="session")
def tiny_host(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host model of 3 layers x width 32 over the characters of ``tiny_text``, untrained."""
    return save_host(tmp_path_factory.mktemp("chain") / "host", tiny_text.read_text())


@pytest.fixture(scope="session")
def tiny_acts(tiny_text: Path, tiny_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 20,000 rows of block 1, width 32, in documents of 512 tokens of which a fifth is held out."""
    path = tmp_path_factory.mktemp("chain") / "acts.h5"
    cache.run(
        CacheConfig(
            texts=[str(tiny_text)],
            model=str(tiny_host),
            layer="1",
            out=str(path),
            document_tokens=512,
            held_out=0.2,
            device="cpu",
        )
    )
    return path


@pytest.fixture(scope="session")
def tiny_hier(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hierarchical run of 16 + 112 latents, L0 4 + 4."""
    return _train(tiny_acts, tmp_path_factory.mktemp("chain") / "hier", "hier", (16, 112), (4, 4))


@pytest.fixture(scope="session")
def tiny_flat(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat run of 128 latents, L0 8."""
    return _train(tiny_acts, tmp_path_factory.mktemp("chain") / "flat", "batchtopk", (128,), (8,))


@pytest.fixture(scope="session")
def tiny_deep(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hierarchical run of three levels, 8 + 24 + 96 latents, L0 2 + 3 + 3."""
    return _train(tiny_acts, tmp_path_factory.mktemp("chain") / "deep", "hier", (8, 24, 96), (2, 3, 3))


@pytest.fixture(scope="session")
def tiny_hard(tiny_deep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of three levels with its tree hardened after training."""
    folder = RunFolder(tmp_path_factory.mktemp("chain") / "hard")
    folder.write_header(RunFolder(tiny_deep).read_header())
    model = load_run(tiny_deep).model
    assert isinstance(model, HierarchicalSAE)
    model.harden()
    folder.write_model(model.weights(), 195, 195)
    return folder.path


def _train(acts: Path, out: Path, arch: str, widths: tuple[int, ...], k: tuple[int, ...]) -> Path:
    train.run(
        TrainConfig(
            acts=[str(acts)],
            out=str(out),
            arch=arch,
            widths=widths,
            k=k,
            tokens=100_000,
            batch=512,
            lr=3e-3 * (1024 / sum(widths)) ** 0.5,  # with this rate and price some latents die, which tests need
            **(_PRICES if arch == "hier" else {}),
            buffer=16,
            device="cpu",
        )
    )
    return out


@pytest.fixture(scope="session")
def tiny_dashboard(
    tiny_acts: Path, tiny_host: Path, tiny_hier: Path, tiny_flat: Path, tmp_path_factory: pytest.TempPathFactory
) -> DashboardConfig:
    """What opens the dashboard of a copy of the hierarchical run, beside the flat one; its index is built."""
    run = tmp_path_factory.mktemp("dashboard") / "hier"
    shutil.copytree(tiny_hier, run)
    config = DashboardConfig(
        run=str(run), acts=[str(tiny_acts)], baseline=str(tiny_flat), model=str(tiny_host), device="cpu"
    )
    dashboard.open_dashboard(config)
    return config
