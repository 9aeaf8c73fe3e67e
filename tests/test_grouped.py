"""Products in ragged groups: every implementation gives the numbers of the dense product."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.kernels import native
from hiersae_cli.sae.kernels.grouped import above
from hiersae_cli.sae.kernels.pairs import Blocks, Pairs
from hiersae_cli.sae.kernels.sparse import Pattern, dense
from tests.test_hier import a_tree

HAS_TRITON = importlib.util.find_spec("triton") is not None
IMPLEMENTATIONS = [
    "reference",
    "cpu",
    pytest.param("native", marks=pytest.mark.skipif(not native.available(), reason="no C compiler")),
    pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")),
]

# Rows, width, parents, children without root children, root children, share of active parents.
SHAPES = {
    "ragged": (70, 24, 9, 60, 7, 0.3),
    "a giant group": (90, 33, 1, 150, 0, 0.9),
    "few rows": (3, 16, 20, 90, 0, 0.2),
    "a parent per row": (40, 8, 6, 30, 5, 0.0),
    "a single row": (1, 40, 5, 11, 2, 0.5),
    "no children": (10, 8, 4, 0, 5, 0.5),
    "nothing active": (10, 8, 4, 12, 5, -1.0),
}


def draw(shape: str, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    rows, width, parents, children, roots, share = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (rows, children + roots))
    b, bound = (torch.rand(children + roots, generator=generator, dtype=torch.float64) for _ in range(2))
    # Squared, so that some parents have many children and some have none.
    parent = (parents * torch.rand(children, generator=generator).square()).long().sort().values
    parent = torch.cat([parent, torch.full((roots,), NO_PARENT)])
    active = torch.rand(rows, parents, generator=generator) < share
    if share == 0:
        active[torch.arange(rows), torch.randint(parents, (rows,), generator=generator)] = True
    return (*(tensor.to(dtype) for tensor in (x, w, b, bound)), parent, active)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_grouped_products_are_those_of_the_dense_product(
    implementation: str, dtype: torch.dtype, scaled: bool, shape: str, seed: int
) -> None:
    if implementation in ("native", "triton") and dtype == torch.float64:
        pytest.skip("the kernel takes only float32")
    x, w, b, bound, parent, active = draw(shape, seed, dtype)
    if implementation == "triton" and torch.cuda.is_available():
        x, w, b, bound, parent, active = (tensor.cuda() for tensor in (x, w, b, bound, parent, active))
    scale = torch.linspace(0.5, 2, len(w), dtype=dtype, device=w.device) if scaled else None
    blocks = Blocks.of(parent, active.shape[1])
    assert blocks is not None
    pairs = Pairs(Pattern.of(active), 0, blocks)
    row, child, value = above(x, w, b, bound, pairs, scale, implementation)
    expected = (x.double() @ w.double().T) * (1.0 if scale is None else scale.double()) + b.double()
    reachable = active[:, parent.clamp_min(0)] & (parent != NO_PARENT)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    surely = reachable & (expected > bound.double() + tolerance)
    maybe = reachable & (expected > bound.double() - tolerance)
    returned = torch.zeros_like(reachable)
    returned[row, child] = True
    assert len(row) == returned.sum()
    assert (returned >= surely).all() and (returned <= maybe).all()
    assert torch.allclose(value.double(), expected[row, child], rtol=tolerance, atol=tolerance)


def test_children_that_are_not_sorted_by_parent_have_no_blocks() -> None:
    assert Blocks.of(torch.tensor([0, 2, 1]), 3) is None
    assert Blocks.of(torch.tensor([0, NO_PARENT, 1]), 3) is None
    blocks = Blocks.of(torch.tensor([0, 0, 2, NO_PARENT]), 3)
    assert blocks is not None and blocks.first_P.tolist() == [0, 2, 2, 3] and blocks.roots == slice(3, 4)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_hardened_model_gives_the_codes_of_dense_products(
    refine: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = a_tree(seed, refine=refine)
    if refine:
        model.threshold_first_L.fill_(0.03)
        with torch.no_grad():
            model.refine_F.uniform_(0.5, 1.0, generator=torch.Generator().manual_seed(seed))
    model.harden()
    reads = []
    monkeypatch.setattr(model, "_read", lambda *inputs: reads.append(inputs) or type(model)._read(model, *inputs))
    grouped = model.codes(x)
    assert len(reads) == 1, "only the first level has a dense product"
    monkeypatch.setattr(model, "child_blocks", lambda level: None)
    assert torch.allclose(dense(grouped), dense(model.codes(x)), atol=1e-5)
    assert len(reads) == 1 + 1 + 2
