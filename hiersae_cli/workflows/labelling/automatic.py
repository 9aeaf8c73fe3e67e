"""Labels by a language model: parents before children, each tested on held-out contexts and saved at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.label_contexts import FIRING, LabelContexts
from hiersae_cli.config.label import LabelConfig
from hiersae_cli.console import Console
from hiersae_cli.formats.labels import Labels, within
from hiersae_cli.formats.text import visible
from hiersae_cli.levels import current_id
from hiersae_cli.workflows.common.chat import Chat, first_line
from hiersae_cli.workflows.labelling.detection import LEAST, detect
from hiersae_cli.workflows.labelling.prompts import JUDGE, WRITE, judging_prompt, writing_prompt

PROMPTS_FILE = "label-prompts.jsonl"
_CHARACTERS_PER_TOKEN = 4  # of English, roughly


@dataclass
class Work:
    """What has been done.

    Attributes:
        prompts: of labels: node, system and user.
        written, scored: numbers of labels.
        too_few: nodes with too few held-out contexts for a score.
    """

    prompts: list[dict[str, str]] = field(default_factory=list)
    written: int = 0
    scored: int = 0
    too_few: int = 0


class Labeller:
    """Labels the features of a run with a model, and scores labels that have no score.

    Args:
        config: which features, and how many contexts.
        index: where contexts come from.
        labels: of the run.
        chat: the model.
        console: shows progress and, if asked to, the prompts.
    """

    def __init__(self, config: LabelConfig, index: Index, labels: Labels, chat: Chat, console: Console):
        self._config, self._index, self._labels, self._chat = config, index, labels, chat
        self._console = console
        self._contexts = LabelContexts(index)
        self._path = Path(config.run) / PROMPTS_FILE

    def run(self) -> Work:
        """Label and score every chosen feature that needs it. What is done is saved if the model fails."""
        work = Work()
        ids = chosen_features(self._config, self._index)
        with self._console.progress("label", len(ids), "features") as progress:
            for id in ids:
                current = self._index.labels().get(id)
                if current is None or self._config.relabel:
                    self._write(id, work)
                    current = self._index.labels().get(id)
                if self._config.score and current and current.score is None:
                    self._score(id, current.text, work)
                progress.advance(1)
        return work

    def _write(self, id: str, work: Work) -> None:
        prompt = prompt_of(self._index, self._contexts, id, self._config.contexts)
        work.prompts.append({"node": id, "system": WRITE, "user": prompt})
        if self._config.show_prompts:
            self._console.say(f"--- {id}\n{WRITE}\n\n{prompt}")
        answer = self._chat.ask(WRITE, prompt)
        self._chat.record(self._path, {"node": id, "asked": "label"}, WRITE, prompt, answer)
        if self._config.show_prompts:
            self._console.say(f"→ {visible(answer)}")
        if text := first_line(answer):
            self._labels.set({id: text}, f"{self._chat.name} (automatic)")
            work.written += 1
        else:
            self._console.warn(f"{id}: the model answered nothing")

    def _score(self, id: str, text: str, work: Work) -> None:
        tested = self._contexts.tested(self._index.nodes.levels.latent(id), self._config.score)
        if sum(context.kind == FIRING for context in tested) < LEAST:
            work.too_few += 1
            return

        def keep(prompt: str, answer: str) -> None:
            self._chat.record(self._path, {"node": id, "asked": "applies"}, JUDGE, prompt, answer)

        score = detect(self._chat, description_of(self._index, id, text), tested, keep)
        self._labels.score(id, text, score)
        work.scored += 1
        if self._config.show_prompts:
            self._console.say(f"{id}: {visible(text)}: {score.in_words}")


def rehearse(config: LabelConfig, index: Index, console: Console) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Print the prompts of labels and send nothing; returns them, and about what the labels and scores would cost."""
    contexts = LabelContexts(index)
    prompts, cost = [], Counter[str](calls=0, tokens_read=0)
    labels = index.labels()
    for id in chosen_features(config, index):
        label = labels.get(id)
        if label is None or config.relabel:
            prompt = prompt_of(index, contexts, id, config.contexts)
            prompts.append({"node": id, "system": WRITE, "user": prompt})
            console.say(f"--- {id}\n{WRITE}\n\n{prompt}")
            cost += Counter(calls=1, tokens_read=len(WRITE + prompt) // _CHARACTERS_PER_TOKEN)
        if config.score and (label is None or config.relabel or label.score is None):
            tested = contexts.tested(index.nodes.levels.latent(id), config.score)
            texts = [JUDGE + judging_prompt(label.text if label else "", context.tokens) for context in tested]
            cost += Counter(calls=len(texts), tokens_read=sum(map(len, texts)) // _CHARACTERS_PER_TOKEN)
    console.say(
        f"nothing was sent; this would be {cost['calls']:,} calls that read about {cost['tokens_read']:,} tokens"
    )
    return prompts, dict(cost)


def prompt_of(index: Index, contexts: LabelContexts, id: str, count: int) -> str:
    """What a model reads about a feature: ``count`` texts in which it fires, and half as many in which it is silent."""
    latent = index.nodes.levels.latent(id)
    page = index.feature(id)
    parent = _parent_label(index, id) or (page.parent.hint if page.parent else "")
    return writing_prompt(page, parent, contexts.shown(latent, count), contexts.contrasts(latent, count // 2))


def description_of(index: Index, id: str, text: str) -> str:
    """A label as it is tested: with the label of its parent, if that has one."""
    return within(_parent_label(index, id), text)


def _parent_label(index: Index, id: str) -> str:
    """The label of the parent; "" if there is none, or if its test has not shown that it is better than guessing."""
    ancestors = index.nodes.ancestors(index.nodes.levels.latent(id))
    label = index.labels().get(index.nodes.ids[ancestors[-1]]) if ancestors else None
    return label.text if label and not label.doubtful else ""


def chosen_features(config: LabelConfig, index: Index) -> list[str]:
    """Ids of living features that need a label or a score: level by level, the most frequent first.

    So a parent has its label before its children are labelled. With ``node``, only these, and with ``descendants``
    everything below them.
    """
    overview, labels, nodes = index.overview(), index.labels(), index.nodes
    order = sorted(range(len(nodes.ids)), key=lambda place: (overview.level[place], -overview.rate[place], place))
    chosen = [place for place in order if not overview.dead[place]]
    if config.node:
        named = {nodes.levels.latent(current_id(id)) for id in config.node}
        above = (lambda place: {place, *nodes.ancestors(place)}) if config.descendants else (lambda place: {place})
        chosen = [place for place in chosen if above(place) & named]
    ids = [nodes.ids[place] for place in chosen]
    if not config.relabel:
        ids = [id for id in ids if id not in labels or (config.score and labels[id].score is None)]
    return ids[: config.most]
