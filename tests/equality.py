"""``python -m tests.equality``: how far the figures of training by 2 and 4 ranks are from those of one process.

For comparison, also how far one process is from itself if it reads the rows of each batch in another order.
"""

from __future__ import annotations

import torch

from hiersae_cli.distributed.ranks import Mesh
from tests.ranks import on_ranks
from tests.test_distributed import rows, trained, trained_by_rank

_VARIANTS = ["hier", "batchtopk"]  # with 200 steps
_ORDERS = 5


def main() -> None:
    """Print the largest relative difference of any step in each figure."""
    torch.set_num_threads(1)
    alone = {variant: torch.tensor(trained(variant, Mesh())[0]) for variant in _VARIANTS}
    print(f"{'':28}{'loss':>10}{'error':>10}{'gradient norm':>16}{'L0':>10}")
    for ranks, latent_ranks in ((2, 1), (2, 2), (4, 1), (4, 2), (4, 4)):
        answer = on_ranks(ranks, lambda latent_ranks=latent_ranks: trained_by_rank(latent_ranks, _VARIANTS))[0]
        for variant in _VARIANTS:
            figures = torch.tensor(answer[variant][0])
            _show(f"{variant}, {ranks // latent_ranks} x {latent_ranks} ranks", figures, alone[variant])
    for variant in _VARIANTS:
        for seed in range(_ORDERS):
            generator = torch.Generator().manual_seed(seed)
            shuffled = [x_BD[torch.randperm(len(x_BD), generator=generator)] for x_BD in rows(200)]
            figures = torch.tensor(trained(variant, Mesh(), batches=shuffled)[0])
            _show(f"{variant}, order {seed}", figures, alone[variant])


def _show(name: str, figures: torch.Tensor, alone: torch.Tensor) -> None:
    loss, error, norm = ((figures - alone).abs() / alone.abs()).max(0).values[:3].tolist()
    l0 = float((figures - alone).abs()[:, 3:].max())
    print(f"{name:28}{loss:10.1e}{error:10.1e}{norm:16.1e}{l0:10.0f}", flush=True)


if __name__ == "__main__":
    main()
