"""Evidence for what a latent means: its strongest contexts, and the tokens that it promotes and suppresses.

Legend of shapes: F latents, K contexts of a latent, E contexts in all, S tokens of a context, U rows to encode, T
tokens in a list, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hiersae_cli.concepts.tokens import is_part
from hiersae_cli.formats.activations import HELD_OUT, ActivationSet
from hiersae_cli.formats.activations.contexts import TextAround, rows_around
from hiersae_cli.formats.numbers import rounded
from hiersae_cli.host.model import Host
from hiersae_cli.host.tokenizer import texts_of
from hiersae_cli.metrics.firings import NONE, TopFirings
from hiersae_cli.metrics.own_tokens import StrongestRows

_DIRECTIONS = 256  # unembedded at once

Texts = Callable[[np.ndarray], list[Any]]


def gather_contexts(
    acts: ActivationSet,
    encode: Callable[[torch.Tensor], torch.Tensor],
    top: TopFirings,
    chosen_F: np.ndarray,
    around: int,
    texts: Texts,
    batch: int,
    device: torch.device,
) -> list[list[dict[str, Any]]]:
    """The contexts of each latent that ``chosen_F`` marks, strongest first; none for the others.

    A context holds the rows of the same window up to ``around`` before and after the firing, with the latent's
    activation at each. These rows are read and encoded a second time, so that the first pass need not keep them.
    """
    latent_E, place_E = np.nonzero((top.row_FK != NONE) & chosen_F[:, None])
    row_E = top.row_FK[latent_E, place_E]
    position, document = acts.column("position"), acts.column("document")
    row_ES, inside_ES = rows_around(row_E, around, document, position)
    activation_ES = _activations(acts, encode, row_ES, inside_ES, latent_E, batch, device)
    # The number of the first pass: with other batches, products may round differently.
    activation_ES[:, around] = top.value_FK[latent_E, place_E]
    names, split = acts.document_names(), acts.column("split")
    tokens = acts.column("tokens")
    text = TextAround(row_E, around, texts, tokens, document)
    contexts: list[list[dict[str, Any]]] = [[] for _ in chosen_F]
    for number, (latent, row) in enumerate(zip(latent_E.tolist(), row_E.tolist(), strict=True)):
        inside = inside_ES[number]
        at = int(inside[:around].sum())
        activations = [rounded(value) for value in activation_ES[number][inside]]
        words = text.excerpt(number, activations, at)
        contexts[latent].append(
            {
                "document_name": names[document[row]],
                "document": int(document[row]),
                "row": row,
                "position": int(position[row]),
                "held_out": bool(split[row] == HELD_OUT),
                "activation": rounded(activation_ES[number, around]),
                "before": words[:at],
                "token": words[at],
                "after": words[at + 1 :],
                "activations": activations,
            }
        )
    return contexts


def listed_tokens(ids: np.ndarray, shares: np.ndarray, texts: Texts) -> list[dict[str, Any]]:
    """A latent's own tokens, the most telling first, with the share of its activation at each token."""
    return [
        {"token": text, "id": int(token), "share": rounded(share)}
        for text, token, share in zip(texts(ids), ids, shares, strict=False)
    ]


def parts_of_characters(token_R: np.ndarray, texts: Texts) -> np.ndarray:
    """Which tokens (V,) bool, up to the largest in ``token_R``, occur there and are only part of a character."""
    tokens = np.unique(token_R)
    chosen_V = np.zeros(int(tokens.max()) + 1, bool)
    chosen_V[tokens] = [is_part(str(text)) for text in texts(tokens)]
    return chosen_V


def complete_characters(
    acts: ActivationSet, lists_F: list[list[dict[str, Any]]], parts: StrongestRows, texts: Texts
) -> None:
    """Give listed tokens that are only part of a character the character in the row of the strongest firing there.

    ``lists_F`` are the tokens of each latent, as ``listed_tokens`` gives them.
    """
    listed = [(latent, item) for latent, items in enumerate(lists_F) for item in items if is_part(str(item["token"]))]
    row_E = np.array([parts.row(latent, item["id"]) for latent, item in listed], np.int64)
    text = TextAround(row_E, 0, texts, acts.column("tokens"), acts.column("document"))
    for number, (_, item) in enumerate(listed):
        item["token"] = text.excerpt(number, [0.0], 0)[0]


def gather_tokens(host: Host, directions_FD: torch.Tensor, count: int, texts: Texts) -> list[dict[str, Any]]:
    """The ``count`` tokens that each direction promotes and suppresses most, with their logits.

    Raises ``FileError`` if the directions are not in the space that the unembedding reads.
    """
    promoted, suppressed = extreme_logits(host, directions_FD, count)
    return [
        {
            name: [
                {"token": text, "id": int(token), "logit": rounded(value)}
                for text, token, value in zip(texts(id_T), id_T, logit_T, strict=True)
            ]
            for name, (id_T, logit_T) in zip(("promoted", "suppressed"), of_latent, strict=True)
        }
        for of_latent in zip(zip(*promoted, strict=True), zip(*suppressed, strict=True), strict=True)
    ]


def extreme_logits(
    host: Host, directions_FD: torch.Tensor, count: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Ids and logits, (F, T) each, of the T tokens that each direction promotes most, and that it suppresses most.

    T is ``count``, or the size of a smaller vocabulary. Raises as ``Host.direct_logits`` does.
    """
    parts = []
    for part_FD in directions_FD.split(_DIRECTIONS):
        # An unembedding may be padded beyond the tokens of the tokenizer.
        logits_FV = host.direct_logits(part_FD)[:, : len(host.tokenizer)]
        most = min(count, logits_FV.shape[1])
        sides = (logits_FV.topk(most), logits_FV.topk(most, largest=False))
        parts.append([(ids.cpu().numpy(), values.cpu().numpy()) for values, ids in sides])
    promoted, suppressed = (
        (np.concatenate([part[side][0] for part in parts]), np.concatenate([part[side][1] for part in parts]))
        for side in (0, 1)
    )
    return promoted, suppressed


def token_ids(tokens: np.ndarray) -> list[int]:
    """The tokens themselves, if there is no tokenizer to give their texts."""
    return tokens.tolist()


def token_texts(host: Host) -> Texts:
    """A function from token ids to the text of each single token: see ``host.tokenizer.token_text``."""
    return texts_of(host.tokenizer)


def _activations(
    acts: ActivationSet,
    encode: Callable[[torch.Tensor], torch.Tensor],
    row_ES: np.ndarray,
    inside_ES: np.ndarray,
    latent_E: np.ndarray,
    batch: int,
    device: torch.device,
) -> np.ndarray:
    """The activation (E, S) of each context's latent at each of its rows; 0 outside its window."""
    activation_ES = np.zeros(row_ES.shape, np.float32)
    row_U, place = np.unique(row_ES[inside_ES], return_inverse=True)
    order = np.argsort(place, kind="stable")
    flat, latent = np.flatnonzero(inside_ES)[order], np.repeat(latent_E, inside_ES.sum(1))[order]
    first = np.searchsorted(place[order], np.arange(0, len(row_U) + batch, batch))
    for number, part in enumerate(range(0, len(row_U), batch)):
        code_BF = encode(acts.rows_at(row_U[part : part + batch]).to(device, torch.float32))
        firings = slice(first[number], first[number + 1])
        row = torch.from_numpy(place[order][firings] - part).to(device)
        values = code_BF[row, torch.from_numpy(latent[firings]).to(device)]
        activation_ES.flat[flat[firings]] = values.float().cpu().numpy()
    return activation_ES
