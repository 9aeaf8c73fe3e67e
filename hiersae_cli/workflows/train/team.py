"""A training as one of several ranks: who writes files, what all decide together, and checkpoints of all.

``Solo`` is a process by itself, for which all of this is free; ``Team`` one of several that ``torchrun`` started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import torch

from hiersae_cli.config.architectures import ARCHITECTURES
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console, Mute
from hiersae_cli.device import resolve_device
from hiersae_cli.distributed import traffic
from hiersae_cli.distributed.launch import Launch, launched
from hiersae_cli.distributed.ranks import Mesh, Ranks
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.locking import exclusive
from hiersae_cli.sae import build
from hiersae_cli.sae.splitting import Split, build_part
from hiersae_cli.sae.training import Trainer

if TYPE_CHECKING:
    from hiersae_cli.distributed.group import Job

_MOST_SECONDS = 1.0  # between two moments at which ranks ask each other whether to stop or to save

T = TypeVar("T")


def team_of(config: TrainConfig, console: Console) -> Solo:
    """The ranks that this process trains with, as its launcher says."""
    place = launched()
    return Team(config, console, place) if place else Solo(config, console)


class Solo:
    """A training in one process.

    Attributes:
        config, console: as given; the ranks that do not print have a mute console.
        device: of the model.
        mesh: how the job is split.
        writes: whether this rank writes the files.
        restarted: whether the launcher has started all ranks again.
    """

    writes, restarted = True, False

    def __init__(self, config: TrainConfig, console: Console):
        self.config, self.console, self.mesh = config, console, Mesh()
        self.device = resolve_device(config.device)

    def locked(self, folder: RunFolder) -> AbstractContextManager[None]:
        """Keep other programs out of the run's folder."""
        return exclusive(folder.state_file.parent, wait=False)

    def together(self, work: Callable[[], T]) -> T:
        """Do something that may take long or fail on any rank."""
        return work()

    def overwrites(self, folder: RunFolder) -> bool:
        """Whether a run that is there is replaced."""
        return self.config.overwrite

    def trainer(self, width: int, make: Callable[..., Trainer]) -> Trainer:
        """The trainer of this rank's part of the model; ``make`` takes the model and the number of shared latents."""
        return make(build(self.config, width))

    def read_state(self, folder: RunFolder, trainer: Trainer) -> dict[str, torch.Tensor] | None:
        """This rank's part of the checkpoint."""
        return folder.read_state()

    def agree(self, step: int, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any rank asks to stop, and to save."""
        return stop, save

    def equalise(self, trainer: Trainer) -> None:
        """Give all ranks the same values of the weights that they share."""

    def figures(self, seconds: float) -> dict[str, Any]:
        """What a line of the log says of the ranks, ``seconds`` after the previous line."""
        return {}

    def checkpoint(self, folder: RunFolder, trainer: Trainer, sums: dict[str, torch.Tensor]) -> None:
        """Write the weights, and the state to resume from with the sums of an unfinished line of the log."""
        folder.write_model(trainer.folded(), trainer.step_number, trainer.config.steps)
        folder.write_state({**trainer.state(), **sums})

    def whole(self, trainer: Trainer) -> Trainer | None:
        """A trainer of the whole model, on the rank that writes, when training has ended."""
        return trainer


class Team(Solo):
    """One of several ranks.

    Raises ``UsageError`` for a batch or a mesh that the ranks cannot share.
    """

    def __init__(self, config: TrainConfig, console: Console, place: Launch):
        from hiersae_cli.distributed.group import Job

        super().__init__(config, Mute() if place.rank else console)
        latent_ranks = _latent_ranks(config, place.ranks)
        self.place, self.writes, self.restarted = place, place.rank == 0, place.restarts > 0
        self.device = resolve_device(config.device, place.local_rank)
        if self.device.type == "mps":
            raise UsageError("--device mps: torch.distributed does not know it", "Use --device cpu.")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.job: Job = Job(place, self.device)
        self.mesh = self.job.mesh(latent_ranks)
        self.split: Split | None = None
        self._asked_at, self._asked, self._next_question = time.monotonic(), -1, 0  # time and step
        self._requests = [False, False]

    def locked(self, folder: RunFolder) -> AbstractContextManager[None]:
        return super().locked(folder) if self.writes else nullcontext()

    def together(self, work: Callable[[], T]) -> T:
        return self.job.together(work)

    def overwrites(self, folder: RunFolder) -> bool:
        # After a restart the unfinished run is that of this command.
        resumes = self.place.restarts and folder.config_file.exists() and not folder.is_complete()
        return self.config.overwrite and not resumes

    def trainer(self, width: int, make: Callable[..., Trainer]) -> Trainer:
        model, self.split = build_part(self.config, width, self.mesh)
        return make(model, self.split.shared if self.split else 0)

    def read_state(self, folder: RunFolder, trainer: Trainer) -> dict[str, torch.Tensor] | None:
        if (split := self.split) is None:
            return folder.read_state()
        return folder.read_state(lambda name: split.runs_of(name, trainer))

    def agree(self, step: int, stop: bool, save: bool) -> tuple[bool, bool]:
        self._requests = [self._requests[0] or stop, self._requests[1] or save]
        if step < self._next_question:
            return False, False
        now = time.monotonic()
        steps = step - self._asked if self._asked >= 0 else 1
        microseconds = round(1e6 * (now - self._asked_at) / steps)
        answers = self.job.largest(*map(int, self._requests), microseconds)
        self._asked_at, self._asked, self._requests = now, step, [False, False]
        self._next_question = step + max(1, int(_MOST_SECONDS * 1e6 / max(1, answers[2])))
        return bool(answers[0]), bool(answers[1])

    @torch.no_grad()
    def equalise(self, trainer: Trainer) -> None:
        for name, tensor in trainer.model.state_dict().items():
            self.mesh.rows.from_first(tensor)
            if self.split and self.split.runs_of(f"model.{name}", trainer) is None:
                self.mesh.latents.from_first(tensor)
            elif self.split and self.split.shared and "counts." not in name:
                self.mesh.latents.from_first(tensor[: self.split.shared])

    def figures(self, seconds: float) -> dict[str, Any]:
        share = min(1.0, self.job.time_in_messages() / max(seconds, 1e-9))
        answers = self.job.said_by_all((share, _peak_memory(self.device)))
        ranks = {
            "data": self.mesh.rows.count,
            "tree": self.mesh.latents.count,
            "communication": round(sum(share for share, _ in answers) / len(answers), 4),
            "memory": [memory for _, memory in answers],
        }
        return {"ranks": ranks}

    def checkpoint(self, folder: RunFolder, trainer: Trainer, sums: dict[str, torch.Tensor]) -> None:
        split, step = self.split, trainer.step_number
        if split is None:
            self.together(lambda: super(Team, self).checkpoint(folder, trainer, sums) if self.writes else None)
            return
        weights = self._at_first(trainer.folded(), trainer)
        first_rows = self.mesh.rows.rank == 0  # other ranks have the same

        def write() -> tuple[str, list[str]] | None:
            if self.writes:
                folder.write_model(weights, step, trainer.config.steps)
            if not first_rows:
                return None
            state = split.pieces({**trainer.state(), **sums}, trainer)
            return folder.write_state_part(state, step, self.mesh.latents.rank, self.mesh.latents.count)

        parts = [part for part in self.job.said_by_all(self.together(write)) if part]
        self.together(lambda: folder.write_state_index(parts, step) if self.writes else None)

    def whole(self, trainer: Trainer) -> Trainer | None:
        if self.split is None:
            trainer.model.mesh = trainer.mesh = Mesh()
            return trainer if self.writes else None
        tensors = self._at_first(trainer.model.weights(), trainer)
        if not self.writes:
            return None
        model = build(self.config, trainer.model.width)
        model.load_weights({name: tensor.cpu() for name, tensor in tensors.items()})
        config = copy(self.config)
        config.optimizer = "adam"  # which has no state before its first step
        return Trainer(model.to(self.device).train(), config, trainer.scale, trainer.relative_D)

    def _at_first(self, tensors: dict[str, torch.Tensor], trainer: Trainer) -> dict[str, torch.Tensor]:
        """Tensors of the whole model on the first rank, made of those of all parts; nothing on others."""
        split = self.split
        assert split
        if self.mesh.rows.rank:
            return {}
        runs = [Split(self.config, _Place(rank, self.mesh.latents.count)).runs for rank in range(split.ranks.count)]
        own = [[run for run in line if run[0] >= split.shared] for line in runs]
        sizes = [sum(stop - start for start, stop in line) for line in own]
        whole: dict[str, torch.Tensor] = {}
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu()
            if split.runs_of(f"model.{name}", trainer) is None:
                whole[name] = tensor
                continue
            parts = self.job.at_first(tensor[split.shared :], sizes)
            if parts:
                whole[name] = tensor.new_empty(sum(self.config.widths), *tensor.shape[1:])
                whole[name][: split.shared] = tensor[: split.shared]
            for part, line in zip(parts, own, strict=False):
                row = 0
                for start, stop in line:
                    whole[name][start:stop] = part[row : row + stop - start]
                    row += stop - start
        return whole


class _Place(Ranks):
    """The place of another rank, to find out which latents it has."""

    def __init__(self, rank: int, count: int):
        self.rank, self.count = rank, count


def _latent_ranks(config: TrainConfig, ranks: int) -> int:
    """Over how many ranks latents are split; rows over the others."""
    count = config.tree_ranks
    if not count:
        tree = config.parallel == "tree" or (config.parallel == "auto" and _tree_sends_less(config, ranks))
        count = ranks if tree else 1
    if ranks % count:
        raise UsageError(f"--tree-ranks {count}: does not divide the {ranks} ranks")
    if config.batch % (ranks // count):
        raise UsageError(
            f"--batch {config.batch}: {ranks // count} ranks cannot have equally many rows of it",
            f"Give a multiple of {ranks // count}.",
        )
    return count


def _tree_sends_less(config: TrainConfig, ranks: int) -> bool:
    if ARCHITECTURES[config.arch].levels and (config.relevel or config.phases.closed >= 1):
        return False
    # Both are about in proportion to the width of the activations, which is not known yet.
    job = traffic.Sizes(
        config.batch,
        1024,
        config.widths,
        config.k,
        passes=1 + config.refine,
        selects=config.arch != "topk",
        by_row=config.optimizer == "row-adam",
        number=2 if config.dtype == "bfloat16" else 4,
    )
    data, tree = traffic.of_data(job, ranks), traffic.of_tree(job)
    return tree.bytes < data.bytes


def _peak_memory(device: torch.device) -> int:
    """The most bytes that this process has used: of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(psutil.Process().memory_info().rss)  # Windows
