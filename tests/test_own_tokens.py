"""The tokens that name a latent: where its activation lies, and little else is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from hiersae_cli.formats.names import name_of, token_shown
from hiersae_cli.metrics import own_tokens as module
from hiersae_cli.metrics.own_tokens import LISTED, ActivationByToken, StrongestRows, own_tokens

SHARE_V = np.array([0.5, 0.3, 0.1, 0.1])


def test_a_token_counts_by_activation_and_by_how_special_it_is():
    # Token 0 has most of the firings, but half of all rows are token 0; token 2 has most of the activation.
    token_n = np.array([0, 0, 0, 0, 1, 2, 2])
    value_n = np.array([1.0, 1, 1, 1, 0.1, 8, 6])
    tokens, shares = own_tokens(token_n, value_n, SHARE_V)
    assert tokens.tolist() == [2] and shares.tolist() == pytest.approx([14 / 18.1])


def test_weights_are_the_terms_of_a_divergence():
    value_n = np.array([1.0, 2, 3, 4])
    tokens, shares = own_tokens(np.arange(4), value_n, SHARE_V)
    weights = shares * np.log(shares / SHARE_V[tokens])
    assert (np.diff(weights) <= 0).all() and (weights > 0).all()
    left_out = np.setdiff1d(np.arange(4), tokens)
    below = value_n[left_out] / 10
    assert weights.sum() + (below * np.log(below / SHARE_V[left_out])).sum() == pytest.approx(
        entropy(value_n / 10, SHARE_V)
    )


def test_what_fires_everywhere_alike_has_no_tokens():
    tokens, _ = own_tokens(np.repeat(np.arange(4), [5, 3, 1, 1]), np.ones(10), SHARE_V)
    assert not len(tokens)


def test_batches_add_up(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    latents, vocabulary, rows = 7, 30, 400
    token_R = draw.integers(0, vocabulary, rows)
    code_RF = draw.random((rows, latents)) * (draw.random((rows, latents)) < 0.1)
    code_RF[:, 3] = 0
    monkeypatch.setattr(module, "_WAITING", 50)  # adds up several times on the way
    sums = ActivationByToken(latents, vocabulary)
    for part in np.array_split(np.arange(rows), 13):
        row_n, latent_n = np.nonzero(code_RF[part])
        sums.add(token_R[part], token_R[part][row_n], latent_n, code_RF[part][row_n, latent_n])
    tokens_FT, shares_FT = sums.own_tokens()
    share_V = np.bincount(token_R, minlength=vocabulary) / rows
    for latent in range(latents):
        row_n = np.flatnonzero(code_RF[:, latent])
        tokens, shares = own_tokens(token_R[row_n], code_RF[row_n, latent], share_V)
        padding = LISTED - len(tokens)
        assert tokens_FT[latent].tolist() == [*tokens, *[-1] * padding]
        assert shares_FT[latent].tolist() == pytest.approx([*shares, *[0] * padding])
    assert tokens_FT[3].tolist() == [-1] * LISTED


def test_the_strongest_row_of_each_latent_at_a_token(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    latents, vocabulary, rows = 7, 6, 400
    token_R = draw.integers(0, vocabulary, rows)
    code_RF = draw.integers(0, 9, (rows, latents)) * (draw.random((rows, latents)) < 0.3)  # with ties
    chosen_V = np.array([True, False, True, True, False, False])
    monkeypatch.setattr(module, "_WAITING", 50)
    strongest = StrongestRows(chosen_V)
    for part in np.array_split(np.arange(rows), 13):
        row_n, latent_n = np.nonzero(code_RF[part])
        row_n = part[row_n]
        strongest.add(token_R[row_n], latent_n, code_RF[row_n, latent_n].astype(np.float32), row_n)
    for latent in range(latents):
        for token in np.flatnonzero(chosen_V).tolist():
            at = np.flatnonzero(token_R == token)
            assert strongest.row(latent, token) == at[code_RF[at, latent].argmax()]


def test_a_name_shows_its_white_space():
    assert name_of([" king", "king", "\n"]) == "␣king king ↵"
    assert name_of([" ", "\t", "a b", " c "]) == "␣ ⇥ a b"
    assert name_of(["x", "x", "y", "z", "w"]) == "x y z"  # two tokens may have one text
    assert name_of([17, 204]) == "[17] [204]" and name_of([]) == ""
    assert token_shown(" a b") == "␣a␣b" and token_shown("a b") == "a b"
