"""The downstream tasks of one dictionary, from its codes of the tasks' rows.

Legend of shapes: N rows, F latents, C concepts, V vocabulary, E edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.formats.report import OWN
from hiersae_cli.metrics.absorption import absorption
from hiersae_cli.metrics.catalogue import CHOW_LIU, SHUFFLED
from hiersae_cli.metrics.concept_tree import depths, detectors, in_tree
from hiersae_cli.metrics.detection import sums_by_block
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.perturbation import ABLATED, Perturbation, effects
from hiersae_cli.metrics.probing import LatentSums, Probe, best_latents, f1_of, sparse_probe
from hiersae_cli.metrics.recovery import shuffled_parents
from hiersae_cli.metrics.splitting import MOST, latents_split
from hiersae_cli.metrics.steering import DAMAGE, Steering, targets
from hiersae_cli.workflows.common.encoding import firings_of
from hiersae_cli.workflows.eval.passes import Encoded
from hiersae_cli.workflows.eval.tasks import SPARSE, Absorbed, Detected, Tasks, TaskSums

Array = np.ndarray[Any, Any]

_SHUFFLES = 100  # of parents: a single one would join a pair or none
_STEERED = 12  # families of a tree that are steered by
_FIRST_STRENGTH = 0.3  # of what is added first, as a share of the activations' deviation
_LEAST_FIRINGS = 20  # of a latent that is steered by


@torch.inference_mode()
def measure(tasks: Tasks, subject: Encoded, config: EvalConfig, device: torch.device) -> TaskSums:
    """Every task that is asked for, of one dictionary."""
    fit, held_out = (
        firings_of(subject.subject.model, torch.from_numpy(rows.x_ND).to(device), config.batch)
        for rows in (tasks.fit, tasks.held_out)
    )
    return Measurement(tasks, subject, fit, held_out, config.tasks).found


class Measurement:
    """A dictionary's codes of the rows of the tasks, and what the tasks find in them.

    Args:
        fit, held_out: its code of either kind of rows.
        wanted: which tasks.
    """

    def __init__(self, tasks: Tasks, subject: Encoded, fit: Firings, held_out: Firings, wanted: tuple[str, ...]):
        self.tasks, self.subject = tasks, subject
        self.fit, self.held_out = _values(fit), _values(held_out)
        self.columns, self.held_out_columns = csc_array(self.fit), csc_array(self.held_out)
        self.decoder_FD = subject.subject.model.W_dec_FD.detach().cpu().double().numpy()
        self.sums = LatentSums(self.fit, tasks.fit.member_NC, tasks.fit.known_NC)
        self.ranked_CF = best_latents(self.sums.correlations(), max(*SPARSE, MOST))
        self.found = TaskSums(tasks)
        if "probing" in wanted:
            self._probe()
        if "absorption" in wanted:
            self._absorption()
        if "ablation" in wanted:
            self._ablation()
        if "hierarchy" in wanted:
            self._hierarchy(fit)
        if "steering" in wanted and tasks.steering:
            self._steering(tasks.steering)

    def _sparse(self, concept: int, number: int) -> tuple[Probe, Array]:
        latents = self.ranked_CF[concept, :number]
        rows = self.tasks.fit
        return sparse_probe(self.columns, latents, rows.member_NC[:, concept], rows.known_NC[:, concept]), latents

    def _probe(self) -> None:
        tasks = self.tasks
        for number in SPARSE:
            score_NC, probes = np.zeros_like(tasks.score_NC), []
            for concept in range(len(tasks.concepts)):
                probe, latents = self._sparse(concept, number)
                probes.append(probe)
                score_NC[:, concept] = probe.score(self.held_out_columns[:, latents])
            self.found.probes[number] = tasks.confusions(score_NC, probes)
        decoded_ND = self.held_out @ self.decoder_FD + self.subject.subject.model.b_dec_D.detach().cpu().numpy()
        self.found.probes[0] = tasks.confusions(tasks.scores(decoded_ND), tasks.probes)

    def _absorption(self) -> None:
        tasks = self.tasks
        shape = len(tasks.block_N), len(tasks.concepts)
        rows_NC, absorbed_NC, share_NC = np.zeros((3, *shape))
        split_C = np.zeros(shape[1], np.int64)
        for concept in tasks.parents:

            def f1_of_k(number: int, concept: int = concept) -> float:
                probe, latents = self._sparse(concept, number)
                known_N = tasks.fit.known_NC[:, concept]
                yes_N = probe.score(self.columns[:, latents]) >= probe.f1_score
                return f1_of(yes_N & known_N, tasks.fit.member_NC[:, concept] & known_N)

            split_C[concept] = latents_split(f1_of_k)
            held_out, weight_D = tasks.held_out, tasks.weight_DC[:, concept]
            detected_N = tasks.score_NC[:, concept] >= tasks.probes[concept].balanced_score
            rows = np.flatnonzero(detected_N & held_out.member_NC[:, concept])
            absorbed_NC[rows, concept], share_NC[rows, concept] = absorption(
                self.held_out[rows],
                self.decoder_FD,
                weight_D,
                (held_out.x_ND[rows] - tasks.mean_D) @ (weight_D / max(float(np.linalg.norm(weight_D)), 1e-30)),
                self.ranked_CF[concept, : split_C[concept]],
            )
            rows_NC[rows, concept] = 1
        sums = (sums_by_block(each, tasks.block_N, tasks.blocks) for each in (rows_NC, absorbed_NC, share_NC))
        self.found.absorbed = Absorbed(split_C, *sums)

    def _ablation(self) -> None:
        tasks, model = self.tasks, self.subject.subject.model
        along_FC = self.decoder_FD @ tasks.weight_DC
        effect_CF = effects(self.sums.mean_differences(), along_FC)
        coarse_F = np.arange(model.latents) < model.widths[0]
        is_parent_C = np.isin(np.arange(len(tasks.concepts)), tasks.parents)
        child_C = np.flatnonzero(tasks.concepts.parent_C != NONE)
        top_C = np.flatnonzero(is_parent_C & (tasks.concepts.parent_C == NONE))
        settings = {"tpp": (np.ones_like(coarse_F), np.arange(len(tasks.concepts)))}
        if len(child_C):
            settings["tpp_level_0"] = (coarse_F, top_C)
            settings["tpp_level_1"] = (~coarse_F if len(model.widths) > 1 else coarse_F, child_C)
        for name, (allowed_F, which) in settings.items():
            useful_CF = np.where(allowed_F, effect_CF.clip(0), 0.0)
            ranked_CF = best_latents(useful_CF, ABLATED)
            useful_CF[~np.isin(np.arange(len(useful_CF)), which)] = 0  # nothing is told of the others
            chosen = [latents[useful_F[latents] > 0] for latents, useful_F in zip(ranked_CF, useful_CF, strict=True)]
            self.found.perturbed[name] = (
                Perturbation(
                    self.held_out_columns,
                    chosen,
                    along_FC,
                    tasks.score_NC,
                    np.array([probe.balanced_score for probe in tasks.probes]),
                    tasks.held_out.member_NC,
                    tasks.held_out.known_NC,
                    tasks.block_N,
                    tasks.blocks,
                ),
                which,
            )

    def _hierarchy(self, fit: Firings) -> None:
        tasks, model = self.tasks, self.subject.subject.model
        phi_CF = LatentSums(fit.indicator, tasks.fit.member_NC, tasks.fit.known_NC).correlations()
        latent_C = detectors(phi_CF)
        yes_NC = self.held_out_columns[:, latent_C.clip(0)].toarray() > 0
        yes_NC[:, latent_C == NONE] = False
        trees = self.subject.trees.trees
        parent_C = tasks.concepts.parent_C
        edge_C = {name: in_tree(latent_C, parent_C, trees[name]) for name in (OWN, CHOW_LIU) if name in trees}
        if OWN in trees:
            shuffles = (shuffled_parents(trees[OWN], model.levels, number) for number in range(_SHUFFLES))
            edge_C[SHUFFLED] = np.mean([in_tree(latent_C, parent_C, tree_F) for tree_F in shuffles], axis=0)
        if len(model.widths) > 1:
            level_F = np.array(model.levels.level_F)
        else:
            level_F = depths(trees[OWN]) if OWN in trees else np.zeros(model.latents, np.int64)
        level_C = np.where(latent_C == NONE, NONE, level_F[latent_C])
        self.found.detected = Detected(latent_C, tasks.answers(yes_NC), edge_C, level_C)

    def _steering(self, steering: Steering) -> None:
        tasks, tree_F = self.tasks, self.subject.own_F
        if tree_F is None:
            return
        fired_F = np.diff(self.columns.indptr)
        usable = (tree_F != NONE) & (fired_F >= _LEAST_FIRINGS)
        usable &= fired_F[tree_F] >= _LEAST_FIRINGS
        random = np.random.default_rng(0)
        child = random.permutation(np.flatnonzero(usable))
        child = child[np.sort(np.unique(tree_F[child], return_index=True)[1])][:_STEERED]  # one of each parent
        if not len(child):
            return
        vocabulary = steering.vocabulary
        followed = tasks.following_N[tasks.following_N >= 0]
        everywhere_V = np.bincount(followed, minlength=vocabulary)

        def target(latent: int) -> Array:
            rows = self.columns.indices[self.columns.indptr[latent] : self.columns.indptr[latent + 1]]
            tokens = tasks.following_N[rows]
            return targets(np.bincount(tokens[tokens >= 0], minlength=vocabulary), everywhere_V)

        def response(latent: int) -> Array:
            """Change of log-probabilities a nat of damage; NaN where the direction cannot do the wanted damage."""
            direction_D = self.subject.subject.model.W_dec_FD[latent].detach()
            change_V, damage = steering.response(direction_D, _FIRST_STRENGTH * tasks.deviation)
            return change_V / damage if 0.5 < damage / DAMAGE < 2 else np.full(vocabulary, np.nan)

        effects_En = []
        for latent in child:
            by_child_V, by_parent_V = response(latent), response(tree_F[latent])
            of_child_V, of_parent_V = target(latent), target(tree_F[latent])
            effects_En.append((of_parent_V @ by_parent_V, of_child_V @ by_child_V, of_child_V @ by_parent_V))
        known = np.array([effect for effect in effects_En if np.isfinite(effect).all()])
        if len(known):
            names = ("steering_parent", "steering_child", "steering_child_by_parent")
            self.found.steered = dict(zip(names, known.T, strict=True))


def _values(firings: Firings) -> csr_array:
    """Activations where latents fire, (N, F) sparse."""
    indicator = firings.indicator
    return csr_array((firings.value_n.astype(float), indicator.indices, indicator.indptr), indicator.shape)
