"""The kernels in C: the same results on any number of threads, and training works without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.sae.kernels import native
from hiersae_cli.sae.kernels.grouped import above
from hiersae_cli.sae.kernels.pairs import Blocks, Pairs
from hiersae_cli.sae.kernels.row_adam import RowAdam
from hiersae_cli.sae.kernels.sparse import Pattern, RowGradients
from tests.helpers import hiersae

needs_compiler = pytest.mark.skipif(not native.available(), reason="no C compiler")


@needs_compiler
@settings(max_examples=60)
@given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 70), st.integers(0, 10**6))
def test_dots_are_those_of_the_dense_product(rows: int, latents: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pattern = Pattern.of(torch.rand(rows, latents, generator=generator) < torch.rand((), generator=generator))
    a, w = (torch.randn(size, width, generator=generator) for size in (rows, latents))
    expected = (a @ w.T)[pattern.row_n, pattern.latent_n]
    assert torch.allclose(native.dots(pattern.first_B, pattern.latent_n, a, w), expected, rtol=1e-4, atol=1e-4)


@needs_compiler
@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(1, 200), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.bfloat16]))
def test_find_returns_the_places_above_a_bound_in_order(rows: int, columns: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, columns, generator=generator).to(dtype)
    bound = 2 * torch.randn(columns, generator=generator)
    bound[0] = 0.5
    dense[:, 0] = bound[0].to(dtype)  # does not exceed it
    for bounds in (bound, bound[0]):
        row, latent = native.find(dense, bounds, 7)
        expected = Pattern.of(dense.float() > bounds, 7, columns + 7)
        assert torch.equal(row, expected.row_n) and torch.equal(latent, expected.latent_n)


def everything(seed: int) -> list[torch.Tensor]:
    """The results of each kernel for random numbers, sorted."""
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(size, 75, generator=generator) for size in (300, 120))
    active = torch.rand(300, 9, generator=generator) < 0.4
    pattern = Pattern.of(active)
    blocks = Blocks.of(torch.arange(9).repeat_interleave(torch.tensor([0, 1, 2, 3, 50, 4, 40, 13, 7])), 9)
    assert blocks is not None
    row, child, value = above(x, w, torch.zeros(120), torch.zeros(120), Pairs(pattern, 0, blocks), None, "native")
    order = (row * 120 + child).argsort()
    results = [row[order], child[order], value[order], *native.find(x, torch.zeros(75), 0)]
    results.append(native.dots(pattern.first_B, pattern.latent_n, x, w))
    for dtype in (torch.float32, torch.bfloat16):
        # Enough rows that PyTorch would sum them in several threads.
        parameter = torch.nn.Parameter(torch.randn(40_000, 5, generator=generator))
        collection = RowGradients()
        adam = RowAdam([parameter], [collection], [True], dtype, implementation="native")
        for _ in range(2):
            collection.add(torch.arange(40_000), torch.randn(40_000, 5, generator=generator))
            square = adam.gather()
            adam.step(0.1)
        results += [square, parameter.data, *adam.state().values()]
    return results


@needs_compiler
def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(everything(0))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in results[1:] for pair in zip(results[0], other, strict=True))


@needs_compiler
def test_more_results_than_the_first_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(1)
    monkeypatch.setattr(native, "_LEAST_CAPACITY", 1)
    assert all(torch.equal(*pair) for pair in zip(everything(1), expected, strict=True))


@needs_compiler
def test_nan_exceeds_no_bound() -> None:
    x, w = torch.full((2, 20), torch.nan), torch.ones(3, 20)
    blocks = Blocks.of(torch.zeros(3, dtype=torch.long), 1)
    assert blocks is not None
    pairs = Pairs(Pattern.of(torch.ones(2, 1, dtype=torch.bool)), 0, blocks)
    for implementation in ("reference", "native"):
        row, *_ = above(x, w, torch.zeros(3), torch.zeros(3), pairs, None, implementation)
        assert not len(row)
    assert not len(native.find(x, torch.zeros(20), 0)[0])


@needs_compiler
def test_gradients_that_are_not_row_major_are_refused() -> None:
    value = torch.randn(5, 4).T
    with pytest.raises(ValueError, match="in order of rows"):
        native.gather(torch.randn(4, 5), torch.arange(4), value, True)


@needs_compiler
def test_kernels_that_cannot_be_loaded_are_compiled_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native._library.__wrapped__() is not None
    (cached,) = (tmp_path / "hiersae").iterdir()
    cached.unlink()
    cached.write_text("damaged")
    assert native._library.__wrapped__() is not None
    assert cached.stat().st_size > 1000


@needs_compiler
def test_cut_kernels_are_not_loaded_but_compiled_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native._library.__wrapped__() is not None
    (cached,) = (tmp_path / "hiersae").iterdir()
    whole = cached.read_bytes()
    cached.unlink()  # not cut in place: this process has it mapped
    cached.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    assert native._library.__wrapped__() is not None
    (again,) = (tmp_path / "hiersae").iterdir()
    assert again.read_bytes()[4096:].strip(b"\0")


@needs_compiler
def test_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native._library.__wrapped__() is not None
    assert [path.suffix for path in (tmp_path / "hiersae").iterdir()] == [".so"]
    monkeypatch.setattr(native, "_compiled", lambda folder: pytest.fail("compiled again"))
    monkeypatch.setenv("CC", str(tmp_path / "missing"))  # the compiler is not needed either
    assert native._library.__wrapped__() is not None


@needs_compiler
@pytest.mark.parametrize("place", ["others may write", "is a file"])
def test_without_a_private_folder_kernels_are_not_cached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "hiersae"
    if place == "is a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert native._library.__wrapped__() is not None
    assert folder.is_file() or not list(folder.iterdir())


def test_a_compiler_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cc").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    monkeypatch.setattr(native, "_COMPILER_SECONDS", 0.2)
    assert native._library.__wrapped__() is None


@pytest.mark.parametrize("compiler", ["missing", "failing", "switched off", "no command line"])
def test_training_works_without_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str, tiny_acts: Path
) -> None:
    cc = tmp_path / "cc"
    if compiler == "failing":
        cc.write_text("#!/bin/sh\nexit 1\n")
        cc.chmod(0o755)
    without = (
        {"HIERSAE_NATIVE": "0"}
        if compiler == "switched off"
        else {"CC": 'cc "' if compiler == "no command line" else str(cc)}
    )
    without["XDG_CACHE_HOME"] = str(tmp_path)
    for name, value in without.items():
        monkeypatch.setenv(name, value)
    assert native._library.__wrapped__() is None
    flags = ("--widths", "16,112", "--k", "4,4", "--tokens", "10k", "--batch", 512, "--device", "cpu")
    more = ("--optimizer", "row-adam", "--curriculum", "closed=0.5", "--harden")
    done = hiersae("train", tiny_acts, *flags, *more, "-o", tmp_path / "run", env=without)
    assert done.returncode == 0, done.stderr
