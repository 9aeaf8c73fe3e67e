"""``hiersae convert`` against the tools themselves: they load what we write, and we read what they save."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hiersae_cli import Activations, load_run, load_tree
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError
from hiersae_cli.host.model import Host
from hiersae_cli.workflows import convert
from hiersae_cli.workflows.train import run as train
from tests.foreign import GROUPS, K, dictionary_state, weights

MODULE = "transformer.h.1"
ATOL = 1e-5  # of codes, which are of the order of 1; products may be summed in another order
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def x_ND(tiny_acts: Path) -> torch.Tensor:
    with Activations(str(tiny_acts)) as acts:
        return acts.read(MODULE, 0, 4000).float()


@pytest.fixture(scope="module")
def runs(
    tiny_acts: Path,
    tiny_hier: Path,
    tiny_deep: Path,
    tiny_hard: Path,
    tiny_flat: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A run of every architecture."""
    folder = tmp_path_factory.mktemp("runs")
    found = {"batchtopk": tiny_flat, "hier": tiny_hier, "three levels": tiny_deep, "hardened": tiny_hard}
    wanted: dict[str, dict[str, Any]] = {
        "topk": {"arch": "topk", "widths": (128,), "k": (8,)},
        "jumprelu": {"arch": "jumprelu", "widths": (128,), "k": (8,)},
        "matryoshka": {"arch": "matryoshka", "widths": (16, 112), "k": (8,)},
        "two passes": {"widths": (8, 24, 96), "k": (2, 3, 3), "refine": True, "harden": True},
    }
    for name, options in wanted.items():
        found[name] = folder / name
        training = {"tokens": 20_000, "batch": 512, "buffer": 16, "device": "cpu"}
        train.run(TrainConfig(acts=[str(tiny_acts)], out=str(found[name]), **options, **training))
    return found


def to_run(source: Path, tiny_acts: Path, out: Path) -> Any:
    convert.run(ConvertConfig(source=str(source), acts=[str(tiny_acts)], out=str(out)))
    return load_run(out).model


NAMES = ["topk", "batchtopk", "jumprelu", "matryoshka", "hier", "three levels", "hardened", "two passes"]


class TestSAELens:
    @pytest.fixture(scope="class")
    def sae_lens(self) -> Any:
        found = pytest.importorskip("sae_lens", reason="SAELens is not installed")
        import hiersae_cli.saelens  # noqa: F401 (registers the hierarchical architecture)

        return found

    @pytest.mark.parametrize("name", NAMES)
    def test_it_loads_what_we_write(
        self, sae_lens: Any, name: str, runs: dict[str, Path], x_ND: torch.Tensor, tmp_path: Path
    ) -> None:
        out = tmp_path / "sae"
        convert.run(ConvertConfig(source=str(runs[name]), to="sae-lens", out=str(out)))
        model, sae = load_run(runs[name]).model, sae_lens.SAE.load_from_disk(out)
        with torch.no_grad():
            code, expected = sae.encode(x_ND), model.encode(x_ND)
            assert torch.equal(code > 0, expected > 0)
            assert torch.allclose(code, expected, atol=ATOL)
            assert torch.allclose(sae(x_ND), model(x_ND), atol=10 * ATOL)
            # Windows of tokens, as SAELens hands them in.
            assert torch.allclose(sae(x_ND.view(50, 80, -1)).flatten(0, 1), model(x_ND), atol=10 * ATOL)
        assert sae.cfg.metadata.hook_name == MODULE and sae.cfg.metadata.hiersae["widths"] == list(
            load_run(runs[name]).config.widths
        )

    @pytest.mark.parametrize("name", ["hier", "hardened"])
    def test_it_has_the_tree_and_the_fvu_of_the_run(
        self, sae_lens: Any, name: str, runs: dict[str, Path], x_ND: torch.Tensor, tmp_path: Path
    ) -> None:
        out = tmp_path / "sae"
        convert.run(ConvertConfig(source=str(runs[name]), to="sae-lens", out=str(out)))
        sae, run = sae_lens.SAE.load_from_disk(out), load_run(runs[name])
        written = load_tree(out / "tree.json")
        assert [(node.id, node.parent) for node in sae.tree.nodes] == [(node.id, node.parent) for node in written.nodes]
        assert sae.tree.header["run"] == written.header["run"]
        variance = (x_ND - x_ND.mean(0)).square().sum()
        with torch.no_grad():
            theirs, ours = (float((x_ND - model(x_ND)).square().sum() / variance) for model in (sae, run.model))
        assert theirs == pytest.approx(ours, abs=1e-4) and ours < 1

    @pytest.mark.parametrize("name", ["hier", "two passes"])
    def test_its_own_saving_keeps_the_hierarchical_model(
        self, sae_lens: Any, name: str, runs: dict[str, Path], x_ND: torch.Tensor, tmp_path: Path
    ) -> None:
        convert.run(ConvertConfig(source=str(runs[name]), to="sae-lens", out=str(tmp_path / "sae")))
        sae = sae_lens.SAE.load_from_disk(tmp_path / "sae")
        sae.fold_W_dec_norm()
        sae.save_model(tmp_path / "saved")
        again = sae_lens.SAE.load_from_disk(tmp_path / "saved")
        with torch.no_grad():
            assert torch.equal(again.encode(x_ND), sae.encode(x_ND))
        with pytest.raises(NotImplementedError):
            sae.fold_activation_norm_scaling_factor(2.0)

    def test_numbers_of_parents_survive_half_precision(
        self, sae_lens: Any, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        convert.run(ConvertConfig(source=str(runs["hier"]), to="sae-lens", out=str(tmp_path / "sae")))
        sae = sae_lens.SAE.load_from_disk(tmp_path / "sae", dtype="bfloat16")
        assert sae.parent.tolist() == load_run(runs["hier"]).model.parent_F.tolist()
        assert sae(torch.zeros(3, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16

    def test_hooks_see_the_code(self, sae_lens: Any, runs: dict[str, Path], x_ND: torch.Tensor, tmp_path: Path) -> None:
        convert.run(ConvertConfig(source=str(runs["hier"]), to="sae-lens", out=str(tmp_path / "sae")))
        sae = sae_lens.SAE.load_from_disk(tmp_path / "sae")
        with torch.no_grad():
            _, cache = sae.run_with_cache(x_ND[:8])
            assert torch.equal(cache["hook_sae_acts_post"], sae.encode(x_ND[:8]))

    def test_its_own_evaluation_runs_on_a_tree(
        self, sae_lens: Any, runs: dict[str, Path], tiny_host: Path, tiny_text: Path, tmp_path: Path
    ) -> None:
        """All of ``sae_lens.evals``, on the host that the metadata names, against our own encoding of the rows."""
        import datasets
        from sae_lens.evals import get_eval_everything_config, run_evals
        from sae_lens.load_model import load_model
        from sae_lens.training.activation_scaler import ActivationScaler

        convert.run(ConvertConfig(source=str(runs["hier"]), to="sae-lens", out=str(tmp_path / "sae")))
        sae = sae_lens.SAE.load_from_disk(tmp_path / "sae")
        said = sae.cfg.metadata
        host = load_model(said.model_class_name, said.model_name, "cpu", hook_names=[said.hook_name])
        tokens = host.tokenizer(tiny_text.read_text())["input_ids"]
        windows = [tokens[start : start + 64] for start in range(0, 16 * 64, 64)]
        store = sae_lens.ActivationsStore.from_sae(
            host, sae, dataset=datasets.Dataset.from_dict({"tokens": windows}), store_batch_size_prompts=8
        )
        config = get_eval_everything_config(8, n_eval_reconstruction_batches=2, n_eval_sparsity_variance_batches=2)
        figures, latents = run_evals(sae, store, host, ActivationScaler(), config, exclude_special_tokens=False)

        found = Host.load(str(tiny_host), torch.device("cpu")).capture(torch.tensor(windows), [MODULE])[MODULE]
        x_BD = found.flatten(0, 1).float()
        model = load_run(runs["hier"]).model
        code_BF = model.encode(x_BD)
        fvu = (x_BD - model.decode(code_BF)).square().sum() / (x_BD - x_BD.mean(0)).square().sum()
        assert figures["sparsity"]["l0"] == pytest.approx((code_BF > 0).sum(1).float().mean().item(), rel=1e-4)
        assert figures["reconstruction_quality"]["explained_variance"] == pytest.approx(1 - fvu.item(), abs=1e-4)
        assert latents["feature_density"] == pytest.approx((code_BF > 0).float().mean(0).tolist(), abs=1e-4)
        # An untrained host tells little of what it loses, but it is measured.
        assert figures["model_performance_preservation"].keys() >= {"ce_loss_score", "ce_loss_with_sae"}
        assert figures["model_behavior_preservation"]["kl_div_with_sae"] >= 0

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "batchtopk", "matryoshka_batchtopk"])
    def test_we_read_what_it_saves(
        self, sae_lens: Any, architecture: str, dtype: str, x_ND: torch.Tensor, tiny_acts: Path, tmp_path: Path
    ) -> None:
        from sae_lens.registry import get_sae_training_class

        kind, config = get_sae_training_class(architecture)
        options: dict[str, Any] = {"d_in": 32, "d_sae": 48, "dtype": dtype}
        options |= {"k": K} if "topk" in architecture else {}
        options |= {"matryoshka_widths": [8, 24, 48]} if architecture.startswith("matryoshka") else {}
        sae = kind(config(**options))
        made = weights(x_ND)
        state = sae.state_dict()
        for name, tensor in made.saelens().items():
            state[name].copy_(tensor)
        for name in ("threshold", "topk_threshold"):
            if name in state:
                state[name].copy_(made.threshold_F if state[name].dim() else made.threshold_F.median())
        sae.save_inference_model(tmp_path / "sae")
        model = to_run(tmp_path / "sae", tiny_acts, tmp_path / "run")
        theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae", dtype="float32")
        with torch.no_grad():
            code, expected = model.encode(x_ND), theirs.encode(x_ND)
            assert (expected > 0).any()
            assert torch.allclose(code, expected, atol=10 * ATOL)
            assert torch.allclose(model.decode(code), theirs.decode(expected), atol=10 * ATOL)
        assert load_run(tmp_path / "run").converted["version"] == sae_lens.__version__


class TestSparsify:
    @pytest.fixture(scope="class")
    def sparsify(self) -> Any:
        return pytest.importorskip("sparsify", reason="eai-sparsify is not installed")

    @pytest.fixture(scope="class")
    def x_BD(self, x_ND: torch.Tensor) -> torch.Tensor:
        """A few rows: without a GPU, Triton's interpreter decodes them one by one."""
        return x_ND[::20]

    @staticmethod
    def dense(coder: Any, x_BD: torch.Tensor) -> torch.Tensor:
        found = coder.encode(x_BD)
        return torch.zeros(len(x_BD), coder.num_latents).scatter(1, found.top_indices, found.top_acts)

    def test_it_loads_what_we_write(
        self, sparsify: Any, runs: dict[str, Path], x_BD: torch.Tensor, tmp_path: Path
    ) -> None:
        convert.run(ConvertConfig(source=str(runs["topk"]), to="sparsify", out=str(tmp_path / "h.1")))
        coder, model = sparsify.SparseCoder.load_from_disk(tmp_path / "h.1"), load_run(runs["topk"]).model
        with torch.no_grad():
            assert torch.allclose(self.dense(coder, x_BD), model.encode(x_BD), atol=ATOL)
            assert torch.allclose(coder(x_BD).sae_out, model(x_BD), atol=10 * ATOL)
        assert coder.cfg.k == 8 and coder.cfg.normalize_decoder

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_we_read_what_it_saves(
        self, sparsify: Any, dtype: torch.dtype, x_BD: torch.Tensor, tiny_acts: Path, tmp_path: Path
    ) -> None:
        config = sparsify.SparseCoderConfig(num_latents=48, k=K, normalize_decoder=False)
        coder, made = sparsify.SparseCoder(32, config, dtype=dtype), weights(x_BD)
        with torch.no_grad():
            coder.encoder.weight.copy_(made.encoder_DF.T)
            coder.encoder.bias.copy_(made.encoder_bias_F)
            coder.W_dec.copy_(made.decoder_FD)
            coder.b_dec.copy_(made.decoder_bias_D)
        coder.save_to_disk(tmp_path / "layers.1")
        model = to_run(tmp_path / "layers.1", tiny_acts, tmp_path / "run")
        coder = coder.float()
        with torch.no_grad():
            code = model.encode(x_BD)
            assert torch.allclose(code, self.dense(coder, x_BD), atol=ATOL)
            assert torch.allclose(model.decode(code), coder(x_BD).sae_out, atol=10 * ATOL)


@pytest.mark.parametrize(
    "name", ["AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"]
)
def test_we_read_what_dictionary_learning_saves(name: str, x_ND: torch.Tensor, tiny_acts: Path, tmp_path: Path) -> None:
    utils = pytest.importorskip("dictionary_learning.utils", reason="dictionary-learning is not installed")
    options: dict[str, Any] = {} if name in ("AutoEncoder", "JumpReluAutoEncoder") else {"k": K}
    options |= {"group_sizes": GROUPS} if name.startswith("Matryoshka") else {}
    theirs = getattr(utils, name)(32, 48, **options)
    theirs.load_state_dict(dictionary_state(name, weights(x_ND)))
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": K}}))
    model = to_run(tmp_path, tiny_acts, tmp_path / "run")
    with torch.no_grad(), warnings.catch_warnings():
        code, expected = model.encode(x_ND), theirs.encode(x_ND)
        assert torch.allclose(code, expected, atol=10 * ATOL)
        assert torch.allclose(model.decode(code), theirs.decode(expected), atol=100 * ATOL)


def test_a_dictionary_of_saelens_3_saved_again_by_version_6_is_read(
    x_ND: torch.Tensor, tiny_acts: Path, tmp_path: Path
) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed")
    made = weights(x_ND)
    latents, width = made.saelens()["W_dec"].shape
    old = {
        "architecture": "standard",
        "d_in": width,
        "d_sae": latents,
        "dtype": "float32",
        "device": "cpu",
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "model_name": "gpt2",
        "hook_name": "blocks.1.hook_resid_post",
        "hook_layer": 1,
        "sae_lens_training_version": "3.23.4",
        "sae_lens_version": "3.23.4",
    }
    save_old = tmp_path / "old"
    save_old.mkdir()
    (save_old / "cfg.json").write_text(json.dumps(old))
    save_file({k: v.contiguous() for k, v in made.saelens().items()}, save_old / "sae_weights.safetensors")
    with pytest.raises(FileError, match="versions from 6"):
        to_run(save_old, tiny_acts, tmp_path / "refused")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sae_lens.SAE.load_from_disk(save_old)
        theirs.save_model(tmp_path / "new")
    model = to_run(tmp_path / "new", tiny_acts, tmp_path / "run")
    with torch.no_grad():
        assert torch.allclose(model.encode(x_ND), theirs.encode(x_ND), atol=10 * ATOL)
