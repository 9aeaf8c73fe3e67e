"""How many dimensions activations fill: against numpy, at both ends, and invariant to rotation, scale and shift."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.activations import TRAIN, ActivationSet
from hiersae_cli.formats.activations.sampled import spectrum_of, training_rows
from hiersae_cli.metrics.reconstruction import Moments
from hiersae_cli.metrics.spectrum import Spectrum, in_words
from hiersae_cli.workflows.common import sizing
from tests import caches
from tests.helpers import hiersae

Array = np.ndarray


def spectrum(x_ND: Array) -> Spectrum:
    """Of rows, added in two batches."""
    moments = Moments(torch.from_numpy(x_ND.mean(0)))
    for batch in np.array_split(x_ND, 2):
        moments.add(torch.from_numpy(batch))
    computed = Spectrum.of(moments)
    assert computed is not None
    return computed


def with_variances(variance_D: list[float], rows: int = 64, seed: int = 0) -> Array:
    """Rows (N, D) whose covariance is exactly diagonal, with these variances."""
    random = np.random.default_rng(seed).standard_normal((rows, len(variance_D)))
    basis_ND = np.linalg.qr(random - random.mean(0))[0]
    scaled: Array = basis_ND * np.sqrt(np.array(variance_D) * rows)
    return scaled


@pytest.mark.parametrize("width", [1, 2, 17])
def test_isotropic_rows_have_full_rank_and_rows_on_a_line_have_rank_1(width: int) -> None:
    isotropic = spectrum(with_variances([3.0] * width))
    assert isotropic.effective_rank == pytest.approx(width)
    assert isotropic.dimensions_of(0.95) == np.ceil(0.95 * width)
    assert isotropic.pca_fvu(width) == pytest.approx(0) and isotropic.pca_fvu(0) == 1
    along_D = np.random.default_rng(1).standard_normal(width)
    line = spectrum(np.outer(np.arange(20.0), along_D) + 5)
    assert line.effective_rank == pytest.approx(1, abs=1e-6) and line.dimensions_of(0.95) == 1
    assert line.largest_coordinate == pytest.approx(np.square(along_D).max() / np.square(along_D).sum())


variances = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12)


@settings(max_examples=50)
@given(variances, st.floats(1e-2, 1e2), st.integers(0, 2**31))
def test_rotation_scale_and_shift_change_nothing(variance_D: list[float], scale: float, seed: int) -> None:
    x_ND = with_variances(variance_D)
    draws = np.random.default_rng(seed)
    rotation_DD = np.linalg.qr(draws.standard_normal((len(variance_D), len(variance_D))))[0]
    moved = spectrum(scale * x_ND @ rotation_DD + draws.standard_normal(len(variance_D)))
    assert moved.share_D == pytest.approx(spectrum(x_ND).share_D, abs=1e-9)
    assert moved.effective_rank == pytest.approx(spectrum(x_ND).effective_rank)
    share_D = np.sort(variance_D)[::-1] / np.sum(variance_D)
    assert moved.share_D == pytest.approx(share_D, abs=1e-9)
    assert moved.effective_rank == pytest.approx(np.exp(-(share_D * np.log(share_D)).sum()))
    assert 1 <= moved.effective_rank <= len(variance_D) + 1e-9


def test_the_fvu_of_pca_is_that_of_a_truncated_svd() -> None:
    draws = np.random.default_rng(2)
    x_ND = draws.standard_normal((300, 12)) @ draws.standard_normal((12, 12)) + draws.standard_normal(12)
    centred_ND = x_ND - x_ND.mean(0)
    u, s, vt = np.linalg.svd(centred_ND, full_matrices=False)
    computed = spectrum(x_ND)
    for k in range(13):
        error_ND = centred_ND - u[:, :k] * s[:k] @ vt[:k]
        assert computed.pca_fvu(k) == pytest.approx(np.square(error_ND).sum() / np.square(centred_ND).sum(), abs=1e-9)
    assert computed.pca_fvu(3.5) == pytest.approx((computed.pca_fvu(3) + computed.pca_fvu(4)) / 2)
    assert computed.pca_fvu(99) == 0
    dimensions = computed.dimensions_of(0.95)
    assert computed.pca_fvu(dimensions) <= 0.05 < computed.pca_fvu(dimensions - 1)


def test_a_giant_coordinate_is_named() -> None:
    giant, even = (spectrum(with_variances([size, 1, 1, 1, 1, 1])).as_json() for size in (20.0, 1.0))
    assert ", one coordinate holds 80% of the variance; " in in_words(giant)
    assert in_words(even) == "effective rank 6 of 6; 6 dimensions hold 95% of the variance"


@given(variances)
def test_relative_scales_give_coordinates_the_same_variance_and_keep_the_sum(variance_D: list[float]) -> None:
    computed = Spectrum(10, np.ones(len(variance_D)), np.array(variance_D))
    scaled_D = computed.variance_D * computed.relative_scale("coordinates") ** 2
    assert scaled_D.sum() == pytest.approx(sum(variance_D))
    usual = computed.variance_D > 0.01 * np.median(variance_D) + 1e-12
    assert scaled_D[usual] == pytest.approx(scaled_D.max())
    assert (scaled_D <= scaled_D.max() * (1 + 1e-9)).all()


@given(variances)
def test_a_cap_scales_giant_coordinates_down_to_it_and_leaves_the_others(variance_D: list[float]) -> None:
    computed = Spectrum(10, np.ones(len(variance_D)), np.array(variance_D))
    scaled_D = computed.variance_D * computed.relative_scale("capped") ** 2
    assert scaled_D.sum() == pytest.approx(sum(variance_D))
    capped_D = np.minimum(computed.variance_D, 9 * np.median(np.sqrt(variance_D)) ** 2 or np.inf)
    assert scaled_D / scaled_D.sum() == pytest.approx(capped_D / capped_D.sum())
    assert computed.relative_scale("overall") == pytest.approx(1)


@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf")])
def test_rows_that_do_not_vary_or_are_not_finite_have_no_spectrum(value: float) -> None:
    moments = Moments(torch.zeros(3))
    assert Spectrum.of(moments) is None
    moments.add(torch.full((5, 3), value))
    assert Spectrum.of(moments) is None


def test_the_sample_of_a_cache_is_of_training_rows_without_outliers(tiny_acts: Path) -> None:
    acts = ActivationSet([str(tiny_acts)])
    usable = np.flatnonzero(acts.rows_of(TRAIN) & ~acts.outliers())
    computed = spectrum_of(acts)
    assert computed is not None and computed.rows == len(usable)
    x_ND = acts.rows_at(usable).double().numpy()
    eigenvalue_D = np.linalg.eigvalsh(np.cov(x_ND.T))[::-1]
    assert computed.share_D == pytest.approx(eigenvalue_D / eigenvalue_D.sum(), abs=1e-5)
    few = training_rows(acts, 1000, seed=3)
    assert 900 < len(few) <= 1000 and set(few) <= set(np.flatnonzero(acts.rows_of(TRAIN)))
    assert np.array_equal(few, training_rows(acts, 1000, seed=3)) and (np.diff(few) > 0).all()
    assert len(np.unique(few // 2000)) > 5  # from all over the cache
    acts.close()


def test_outliers_do_not_hide_the_other_rows(tmp_path: Path) -> None:
    content = caches.content(2000)
    kept, dropped = (caches.write(tmp_path / f"{drop}.h5", content, drop_outliers=drop) for drop in (False, True))
    spectra = []
    for path in (kept, dropped):
        acts = ActivationSet([str(path)], "h.1")
        assert acts.outliers().sum() > 20
        spectra.append(spectrum_of(acts))
        acts.close()
    assert spectra[0] is not None and spectra[1] is not None
    assert spectra[0].rows == spectra[1].rows and spectra[0].share_D == pytest.approx(spectra[1].share_D, abs=1e-5)
    assert 4.9 < spectra[0].effective_rank <= 5  # the other rows are isotropic
    assert "without outliers: effective rank" in hiersae("info", kept).stdout
    assert "without outliers" not in hiersae("info", dropped).stdout


def settings_of(**sizes: object) -> TrainConfig:
    config = TrainConfig(acts=["acts.h5"], **sizes)  # type: ignore[arg-type]
    config.check()
    return config


EVEN = Spectrum(50_000, np.full(20, 0.05), np.ones(20))  # rank 20; 19 dimensions hold 95 %


def test_sizes_that_fit_bring_no_warning() -> None:
    fits = settings_of(arch="topk", widths=(100,), k=(4,), tokens=2_000 * 256, batch=256)
    assert sizing.warnings(fits, EVEN) == []
    long = replace(fits, widths=(400,), tokens=10_000 * 256)
    assert sizing.warnings(long, EVEN) == [] and sizing.warnings(long, None) == []


def test_each_warning_says_what_to_do_and_the_flags_cure_it() -> None:
    crowded = settings_of(arch="topk", widths=(400,), k=(4,), tokens=6_000_000, batch=2048)
    (warning,) = sizing.warnings(crowded, EVEN)
    assert "400 are many for rows of effective rank 20 and 2,929 steps" in warning
    assert warning.endswith("Pass --widths with at most 100 in all, or --batch 1024 for 5,000 steps")
    assert sizing.warnings(replace(crowded, batch=1024), EVEN) == []
    short = replace(crowded, widths=(50,), tokens=100_000, batch=256)
    (warning,) = sizing.warnings(short, EVEN)
    assert warning.startswith("390 steps are too few") and warning.endswith("pass --tokens 512k for 2,000 steps")
    assert sizing.warnings(replace(short, tokens=512_000), EVEN) == []
    dense = replace(crowded, widths=(50,), k=(19,))
    (warning,) = sizing.warnings(dense, EVEN)
    assert warning.startswith("L0 19 is not sparse: 19 principal components") and "--k, such as 4 in all" in warning
    assert sizing.warnings(replace(dense, k=(4,)), EVEN) == []


def test_a_giant_coordinate_brings_the_flag_that_tames_it() -> None:
    giant = replace(EVEN, variance_D=np.array([5.0, *[1] * 15]))
    fits = settings_of(arch="topk", widths=(100,), k=(4,), tokens=2_000 * 256, batch=256, normalise="overall")
    (warning,) = sizing.warnings(fits, giant)
    assert warning.startswith("one coordinate holds 25% of the variance") and warning.endswith("--normalise capped")
    assert sizing.warnings(replace(fits, normalise="capped"), giant) == []


@settings(max_examples=50)
@given(st.integers(1, 10**9), st.integers(1, 4096), st.sampled_from([sizing.FEW_STEPS, sizing.STABLE_STEPS]))
def test_the_proposed_flags_give_the_steps(tokens: int, batch: int, steps: int) -> None:
    config = TrainConfig(acts=[], tokens=max(tokens, batch), batch=batch)
    words = sizing.longer(config, steps).split()
    flags = dict(zip(words[::2], words[1::2], strict=True))
    new_batch = int(flags.get("--batch", batch))
    factor = {"k": 1000, "M": 10**6}
    text = flags.get("--tokens", str(config.tokens))
    new_tokens = int(text.rstrip("kM")) * factor.get(text[-1], 1)
    assert new_tokens // new_batch >= steps and new_batch <= batch and new_tokens >= config.tokens


def test_train_info_and_eval_say_the_same_of_a_cache(tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    described = json.loads(hiersae("info", tiny_acts, "--json").stdout)
    of_info = described["modules"]["transformer.h.1"]["spectrum"]
    line = in_words(of_info)
    assert line in hiersae("info", tiny_acts).stdout
    run, report = tmp_path / "run", tmp_path / "report.json"
    sizes = ("--widths", "8,24", "--k", "2,2", "--tokens", "10k", "--batch", "512", "--device", "cpu")
    trained = hiersae("train", tiny_acts, *sizes, "-o", run)
    assert f"{line}; FVU of PCA {of_info['pca_fvu']['8']:.3g} at k 8" not in trained.stderr  # its L0 is 4
    assert line in trained.stderr and "312 tokens per latent" in trained.stderr
    assert "warning: 19 steps are too few" in trained.stderr
    done = hiersae("eval", run, "--acts", tiny_acts, "-o", report, "--no-controls", "--device", "cpu", "--full")
    assert done.returncode == 0, done.stderr
    assert line.partition(";")[0] + "; FVU of PCA at this L0 " in " ".join(done.stdout.split())
    written = json.loads(report.read_text())
    assert written["spectrum"] == {name: value for name, value in of_info.items() if name != "pca_fvu"}
    subject = written["subjects"]["run"]
    assert (subject["steps"], subject["tokens_per_latent"]) == (19, 10_000 / 32)
    assert 0 < subject["pca_fvu"] < 1
    assert f"Training rows: {line}. run: 19 steps, 312 tokens per latent, FVU of PCA at its L0" in done.stdout
