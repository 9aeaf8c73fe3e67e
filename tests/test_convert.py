"""``hiersae convert``: dictionaries of other tools as runs, and runs for other tools."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hiersae_cli import Activations, load_run, load_tree
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import HierSAEError, UsageError
from hiersae_cli.formats.dictionaries import read_dictionary, saelens
from hiersae_cli.formats.dictionaries.base import activation_below, energy_above
from hiersae_cli.formats.places import hook_name, same_place
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.sae import HierarchicalSAE, build
from hiersae_cli.workflows import convert
from tests.foreign import (
    DICTIONARY_CLASSES,
    GROUPS,
    K,
    Weights,
    dictionary_folder,
    saelens_folder,
    sparsify_folder,
    weights,
)
from tests.helpers import hiersae

MODULE = "transformer.h.1"


@pytest.fixture(scope="module")
def x_ND(tiny_acts: Path) -> torch.Tensor:
    with Activations(str(tiny_acts)) as acts:
        return acts.read(MODULE, 0, 4000).float()


@pytest.fixture(scope="module")
def made(x_ND: torch.Tensor) -> Weights:
    return weights(x_ND)


def to_run(source: Path, tiny_acts: Path, out: Path) -> dict[str, Any]:
    return convert.run(ConvertConfig(source=str(source), acts=[str(tiny_acts)], out=str(out)))


def random_run(path: Path, like: Path, **options: Any) -> Path:
    """A run folder of random weights, with the header of the run ``like``."""
    folder = RunFolder(path)
    header = RunFolder(like).read_header()
    config = TrainConfig(acts=[], **options)
    folder.write_header({**header, "config": config.recorded()})
    model = build(config, header["width"])
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.1 if name == "b_enc_F" else 1))
    for name in ("threshold_L", "threshold_F", "threshold_first_L", "price_on_F", "price_off_F"):
        if hasattr(model, name):
            getattr(model, name).abs_().add_(0.5)
    folder.write_model(model.weights(), config.steps, config.steps)
    return path


@pytest.mark.parametrize("name", DICTIONARY_CLASSES)
def test_dictionary_learning_computes_the_same(
    name: str, made: Weights, x_ND: torch.Tensor, tiny_acts: Path, tmp_path: Path
) -> None:
    foreign = dictionary_folder(tmp_path / "ae", name, made, submodule_name="resid_post_layer_1")
    summary = to_run(foreign.path, tiny_acts, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.config.arch == foreign.arch
    assert run.config.widths == (tuple(GROUPS) if foreign.arch == "matryoshka" else (48,))
    code = run.model.encode(x_ND)
    expected = foreign.encode(x_ND)
    # Where the bias moves into the encoder's, sums are taken in another order.
    tolerance = 1e-4 if name == "JumpReluAutoEncoder" else 1e-5
    assert torch.allclose(code, expected, atol=tolerance)
    assert torch.allclose(run.model.decode(code), foreign.decode(expected), atol=10 * tolerance)
    known = name not in ("AutoEncoder", "JumpReluAutoEncoder")
    assert run.config.k[0] == pytest.approx(K if known else summary["l0"], rel=1e-3)


def test_sparsify_computes_the_same(made: Weights, x_ND: torch.Tensor, tiny_acts: Path, tmp_path: Path) -> None:
    foreign = sparsify_folder(tmp_path / "h.1", made)
    to_run(foreign.path, tiny_acts, tmp_path / "run")
    run = load_run(tmp_path / "run")
    code, expected = run.model.encode(x_ND), foreign.encode(x_ND)
    assert torch.allclose(code, expected, atol=1e-5)
    assert torch.allclose(run.model.decode(code), foreign.decode(expected), atol=1e-5)
    assert (run.config.arch, run.config.k) == ("topk", (K,))


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_saelens_computes_the_same(
    architecture: str,
    centred: bool,
    scale: float,
    made: Weights,
    x_ND: torch.Tensor,
    tiny_acts: Path,
    tmp_path: Path,
) -> None:
    tensors = made.saelens() | ({"threshold": made.threshold_F} if architecture == "jumprelu" else {})
    path = saelens_folder(
        tmp_path / "sae",
        tensors,
        architecture=architecture,
        k=K,
        rescale_acts_by_decoder_norm=architecture == "topk",
        apply_b_dec_to_input=centred,
        normalize_activations="none" if scale == 1 else "expected_average_only_in",
        metadata={"hook_name": "blocks.1.hook_resid_post"},
    )
    (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
    to_run(path, tiny_acts, tmp_path / "run")
    run = load_run(tmp_path / "run")

    y_ND = x_ND * scale
    norm_F = made.decoder_FD.norm(dim=1)
    pre_NF = (y_ND - made.decoder_bias_D * centred) @ made.encoder_DF + made.encoder_bias_F
    expected = pre_NF.relu()
    decoder_FD = made.decoder_FD
    if architecture == "jumprelu":
        expected = expected * (pre_NF > made.threshold_F)
    if architecture == "topk":
        values, places = (pre_NF * norm_F).topk(K, dim=1)
        expected = torch.zeros_like(pre_NF).scatter(1, places, values.relu())
        decoder_FD = decoder_FD / norm_F[:, None]
    code = run.model.encode(x_ND)
    assert torch.allclose(code, expected, atol=1e-4)
    reconstruction = (expected @ decoder_FD + made.decoder_bias_D) / scale
    assert torch.allclose(run.model.decode(code), reconstruction, atol=1e-3)
    assert ((code > 0) != (expected > 0)).float().mean() < 1e-5


def test_saelens_is_judged_by_its_layout_not_by_a_number(
    made: Weights, x_ND: torch.Tensor, tiny_acts: Path, tmp_path: Path
) -> None:
    """Version 6 loads what version 3 wrote, and saves it in its own layout with the old number."""
    metadata = {"sae_lens_version": "3.23.4", "hook_name": "blocks.1.hook_resid_post"}
    path = saelens_folder(tmp_path / "sae", made.saelens(), metadata=metadata)
    to_run(path, tiny_acts, tmp_path / "run")
    assert load_run(tmp_path / "run").converted["version"] == "3.23.4"


def test_a_converted_run_is_read_like_any(made: Weights, tiny_acts: Path, tiny_flat: Path, tmp_path: Path) -> None:
    """Through the command line: convert, info, eval beside a run of ours, export-tree, and write it again."""
    source = dictionary_folder(tmp_path / "ae", "BatchTopKSAE", made, layer=1, lm_name="host").path
    run = tmp_path / "run"
    done = hiersae("convert", source, "--acts", tiny_acts, "-o", run, "--json", fresh=True)
    assert done.returncode == 0, done.stderr
    assert "'dictionary_learning'" not in done.stderr and "layer 1" in done.stderr  # what the name does not tell
    said = json.loads(done.stdout)
    assert said["tool"] == "dictionary_learning" and said["architecture"] == "BatchTopKSAE"
    info = json.loads(hiersae("info", run, "--verify", "--json").stdout)
    assert info["complete"] and info["verified"] and info["converted"]["tool"] == "dictionary_learning"
    assert "from dictionary_learning: BatchTopKSAE" in hiersae("info", run).stdout
    done = hiersae("eval", tiny_flat, "--baseline", run, "--acts", tiny_acts, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "training not ended" not in done.stderr
    assert "run was trained by dictionary_learning" in report["mismatches"]["run"]
    assert not any("seed" in text or "batch" in text for text in report["mismatches"]["run"])
    assert report["subjects"]["run"]["tokens"] is None and report["subjects"]["run"]["seed"] is None
    assert report["runs"]["run"]["l0"]["value"] == pytest.approx(said["l0"], rel=0.05)
    assert hiersae("export-tree", run, "--acts", tiny_acts, "-o", tmp_path / "tree.json").returncode == 0
    assert hiersae("convert", run, "--to", "sae-lens", "-o", tmp_path / "again").returncode == 0


def test_two_seeds_of_another_tool_are_one_group(made: Weights, tiny_acts: Path, tmp_path: Path) -> None:
    runs, measured = [], []
    for number in (0, 1):
        noise = 0.05 * torch.randn(made.decoder_FD.shape, generator=torch.Generator().manual_seed(number))
        tensors = made.saelens() | {"threshold": made.threshold_F, "W_dec": made.decoder_FD + noise}
        tensors["W_enc"] = tensors["W_enc"] * (1 + 0.01 * number)
        path = saelens_folder(tmp_path / f"sae-{number}", tensors, architecture="jumprelu")
        measured.append(to_run(path, tiny_acts, tmp_path / f"run-{number}")["k"])
        runs.append(str(tmp_path / f"run-{number}"))
    assert measured[0] != measured[1], "without a known L0, each run has the measured one as its k"
    done = hiersae("eval", *runs, "--acts", tiny_acts, "--full", "--json")
    assert done.returncode == 0, done.stderr
    group = json.loads(done.stdout)["groups"]["run"]
    assert group["subjects"] == ["run-0", "run-1"] and group["seeds"] == group["init_seeds"] == [None, None]
    assert 0 < group["figures"]["stability_cosine"]["value"] < 1
    assert "differ only in the seed" not in done.stderr
    twice = hiersae("eval", runs[0], runs[0], "--acts", tiny_acts)
    assert twice.returncode == 2 and "have the same weights" in twice.stderr
    # Another architecture, or another L0, is no other seed.
    standard = to_run(saelens_folder(tmp_path / "standard", made.saelens()), tiny_acts, tmp_path / "other")
    assert standard["arch"] == "jumprelu"
    other = hiersae("eval", runs[0], tmp_path / "other", "--acts", tiny_acts)
    assert other.returncode == 2 and "is no other seed of" in other.stderr


def test_training_does_not_go_on_with_a_converted_run(made: Weights, tiny_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    to_run(sparsify_folder(tmp_path / "sae", made).path, tiny_acts, run)
    before = (run / "model.safetensors").read_bytes()
    done = hiersae("train", tiny_acts, "--arch", "topk", "--widths", "48", "--k", K, "-o", run)
    assert done.returncode == 1
    assert "dictionary of sparsify, which cannot be trained further" in done.stderr
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arch", "sizes"),
    [
        ("topk", {"widths": (64,), "k": (4,)}),
        ("batchtopk", {"widths": (64,), "k": (4,)}),
        ("jumprelu", {"widths": (64,), "k": (4,)}),
        ("matryoshka", {"widths": (8, 56), "k": (4,)}),
    ],
)
def test_what_is_written_for_saelens_is_read_as_it_was(
    arch: str, sizes: dict[str, Any], tiny_flat: Path, tiny_acts: Path, x_ND: torch.Tensor, tmp_path: Path
) -> None:
    source = random_run(tmp_path / "run", tiny_flat, arch=arch, **sizes)
    convert.run(ConvertConfig(source=str(source), to="sae-lens", out=str(tmp_path / "sae")))
    to_run(tmp_path / "sae", tiny_acts, tmp_path / "back")
    first, second = load_run(source).model, load_run(tmp_path / "back").model
    assert torch.equal(first.encode(x_ND), second.encode(x_ND))
    assert torch.equal(first(x_ND), second(x_ND))


def test_an_architecture_that_saelens_has_not_is_refused(
    tiny_flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is added to ours later must not be written as a JumpReLU in silence."""
    trained = load_run(tiny_flat)
    monkeypatch.setattr(trained.config, "arch", "gated")
    with pytest.raises(UsageError, match="no architecture for gated"):
        saelens.write(tmp_path, trained)
    assert not list(tmp_path.iterdir())


def test_a_tree_comes_back_from_saelens(tiny_hard: Path, tiny_acts: Path, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    done = hiersae("convert", tiny_hard, "--to", "sae-lens", "-o", out)
    assert done.returncode == 0 and "import hiersae_cli.saelens" in done.stderr
    to_run(out, tiny_acts, tmp_path / "back")
    first, second = load_file(tiny_hard / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    run = load_run(tmp_path / "back")
    assert isinstance(run.model, HierarchicalSAE) and run.hardened and run.config.widths == (8, 24, 96)
    tree = load_tree(out / "tree.json")
    parents = [tree.nodes.index(tree[node.parent]) if node.parent else -1 for node in tree.nodes]
    assert parents == run.model.parent_F.tolist() and max(parents) > 8
    assert json.loads(hiersae("info", out / "tree.json", "--json").stdout)["edges"] == len(tree) - len(tree.roots())


@pytest.mark.parametrize("name", ["price_on", "threshold"])
def test_a_tree_that_lost_a_part_is_refused(name: str, tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    convert.run(ConvertConfig(source=str(tiny_hier), to="sae-lens", out=str(tmp_path / "sae")))
    edit_weights(tmp_path / "sae" / "sae_weights.safetensors", **{name: torch.zeros(3)})
    with pytest.raises(HierSAEError, match="damaged"):
        to_run(tmp_path / "sae", tiny_acts, tmp_path / "run")
    edit_weights(tmp_path / "sae" / "sae_weights.safetensors", **{name: None})
    with pytest.raises(HierSAEError, match="damaged"):
        to_run(tmp_path / "sae", tiny_acts, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sparsify_is_read_as_it_was_written(tiny_flat: Path, tiny_acts: Path, tmp_path: Path) -> None:
    source = random_run(tmp_path / "run", tiny_flat, arch="topk", widths=(64,), k=(4,))
    convert.run(ConvertConfig(source=str(source), to="sparsify", out=str(tmp_path / "h.1")))
    to_run(tmp_path / "h.1", tiny_acts, tmp_path / "back")
    first, second = load_file(source / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first if name != "threshold_L")
    assert load_run(tmp_path / "back").config.k == (4,)


@given(st.floats(2.0**-40, 2.0**40, width=32))
@settings(max_examples=300)
def test_thresholds_of_activations_and_of_energies_select_the_same(threshold: float) -> None:
    one = np.float32(threshold)
    near = [one]
    for _ in range(4):
        near = [np.nextafter(near[0], np.float32(0)), *near, np.nextafter(near[-1], np.float32(np.inf))]
    energy = np.float32(energy_above(threshold))
    assert [z > one for z in near] == [np.square(z) >= energy for z in near]
    below = np.float32(activation_below(threshold))
    assert all(
        (z > below) == (np.square(z) >= one) for z in [np.sqrt(one) * np.float32(1 + d * 1e-7) for d in (-2, 0, 2)]
    )
    assert np.float32(activation_below(float(energy))) == one


@settings(max_examples=25)
@given(width=st.integers(1, 9), latents=st.integers(1, 12), seed=st.integers(0, 10**6), data=st.data())
def test_any_weights_survive_the_way_to_saelens_and_back(
    width: int, latents: int, seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("property")
    arch = data.draw(st.sampled_from(["topk", "jumprelu"]))
    k = data.draw(st.integers(1, latents))
    run = RunFolder(folder / "run")
    host = {"name": "host", "fingerprint": "0", "dtype": "float32", "device": "cpu", "context": 8}
    config = TrainConfig(acts=[], arch=arch, widths=(latents,), k=(k,))
    header = {"schema": "hiersae.run", "schema_version": 2, "config": config.recorded(), "inputs": {}}
    run.write_header({**header, "module": "h.1", "width": width, "host": host})
    model = build(config, width)
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator).abs() * 10 ** data.draw(st.integers(-3, 3)))
    run.write_model(model.weights(), config.steps, config.steps)
    convert.run(ConvertConfig(source=str(run.path), to="sae-lens", out=str(folder / "sae")))
    found = read_dictionary(folder / "sae")
    assert (found.arch, found.widths) == (arch, (latents,))
    for name, tensor in load_run(run.path).model.state_dict().items():
        if name not in ("threshold_L", "log_threshold_F"):  # which these do not use
            assert torch.equal(found.tensors[name], tensor), name


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("blocks.3.hook_resid_post", "transformer.h.3", True),
        ("blocks.3.hook_resid_post", "gpt_neox.layers.4", False),
        ("blocks.4.hook_resid_pre", "gpt_neox.layers.3", True),
        ("blocks.3.hook_mlp_out", "transformer.h.3", None),
        ("layers.3", "model.layers.3", True),
        ("layers.3.mlp", "model.layers.3.mlp", True),
        ("layers.13", "model.layers.3", False),
        ("resid_post_layer_5", "gpt_neox.layers.5", True),
        ("layer 5", "gpt_neox.layers.5", None),
        ("transformer.h.3", "transformer.h.3", True),
    ],
)  # fmt: skip
def test_names_of_one_place(one: str, other: str, same: bool | None) -> None:
    assert same_place(one, other) is same and same_place(other, one) is same


def test_models_of_the_hub_have_the_names_of_transformerlens() -> None:
    hub, folder = {"fingerprint": "a" * 40}, {"fingerprint": "a" * 64}
    assert hook_name("transformer.h.2", hub) == ("HookedTransformer", "blocks.2.hook_resid_post")
    assert hook_name("transformer.h.2.mlp", hub) == ("AutoModelForCausalLM", "transformer.h.2.mlp")
    assert hook_name("transformer.h.2", folder) == ("AutoModelForCausalLM", "transformer.h.2")


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON object; None takes one out."""
    config = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(config))


def edit_weights(path: Path, **changes: torch.Tensor | None) -> None:
    save_file({name: t for name, t in {**load_file(path), **changes}.items() if t is not None}, path)


def sae(**changes: Any) -> Callable[[Path, Weights], Path]:
    return lambda path, made: saelens_folder(path, made.saelens(), **changes)


def damaged_sae(**changes: Any) -> Callable[[Path, Weights], Path]:
    def make(path: Path, made: Weights) -> Path:
        edit_weights(saelens_folder(path, made.saelens()) / "sae_weights.safetensors", **changes)
        return path

    return make


def coder(**changes: Any) -> Callable[[Path, Weights], Path]:
    return lambda path, made: sparsify_folder(path, made, **changes).path


def dictionary(name: str, labelled: str = "", **state: Any) -> Callable[[Path, Weights], Path]:
    def make(path: Path, made: Weights) -> Path:
        dictionary_folder(path, name, made)
        edit(path / "config.json", trainer={"dict_class": labelled or name})
        torch.save(torch.load(path / "ae.pt", weights_only=True) | state, path / "ae.pt")
        return path

    return make


def written(files: dict[str, bytes]) -> Callable[[Path, Weights], Path]:
    def make(path: Path, made: Weights) -> Path:
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return path

    return make


class Harm:
    """What a pickle may hold: loading it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


AUTOENCODER = b'{"trainer": {"dict_class": "AutoEncoder"}}'
LEGACY = {"metadata": {"sae_lens_version": "5.1.0"}}
FLAT = {"hook_name": "blocks.1.hook_resid_post", "activation_fn_str": "relu"}  # where versions before 6 had it
ODD: dict[str, tuple[Callable[[Path, Weights], Path], str]] = {
    "no version": (sae(metadata={"sae_lens_version": None}), "does not say its version"),
    "version 5": (sae(**LEGACY), "SAELens 5.1.0; versions from 6"),
    "flat layout": (sae(**LEGACY, **FLAT), "SAELens 5.1.0; versions from 6"),
    "gated": (sae(architecture="gated"), "its architecture is gated"),
    "transcoder": (sae(architecture="transcoder"), "its architecture is transcoder"),
    "checkpoint": (sae(architecture="batchtopk"), "checkpoint of training batchtopk"),
    "hook_z": (sae(reshape_activations="hook_z"), "reshapes activations"),
    "layer norm": (sae(normalize_activations="layer_norm"), "normalises activations (layer_norm)"),
    "unknown scale": (sae(normalize_activations="expected_average_only_in"), "factor that the folder does not hold"),
    "too large k": (sae(architecture="topk", k=100), "k is 100"),
    "no threshold": (sae(architecture="jumprelu"), "has no threshold"),
    "no tree": (sae(architecture="hiersae"), "holds no tree"),
    "missing tensor": (damaged_sae(b_enc=None), "has no b_enc"),
    "odd shape": (damaged_sae(b_dec=torch.zeros(3)), "do not fit together"),
    "three dimensions": (damaged_sae(W_enc=torch.zeros(2, 2, 2)), "damaged"),
    "not finite": (damaged_sae(b_enc=torch.full((48,), float("nan"))), "b_enc_F is not finite"),
    "damaged weights": (written({"cfg.json": b"{}", "sae.safetensors": b"no"}), "sae.safetensors: damaged"),
    "damaged config": (written({"cfg.json": b"[", "sae.safetensors": b"no"}), "cfg.json: not a JSON file"),
    "list for config": (written({"cfg.json": b"[]", "sae.safetensors": b"no"}), "not a JSON object"),
    "half a character": (written({"cfg.json": b'{"a": "\\ud800"}', "sae.safetensors": b"no"}), "surrogate pair"),
    "no config": (written({"sae.safetensors": b"no"}), "cfg.json: no such file"),
    "transcode": (coder(transcode=True), "it has transcode"),
    "skip": (coder(skip_connection=True), "it has skip_connection"),
    "groupmax": (coder(activation="groupmax"), "activation is groupmax"),
    "no k": (coder(k=0), "k is 0"),
    "gated dictionary": (dictionary("AutoEncoder", labelled="GatedAutoEncoder"), "class is GatedAutoEncoder"),
    "threshold not set": (dictionary("BatchTopKSAE", threshold=torch.tensor(-1.0)), "never set"),
    "wrong class": (dictionary("MatryoshkaBatchTopKSAE", labelled="AutoEncoderTopK"), "which AutoEncoderTopK has"),
    "groups": (dictionary("MatryoshkaBatchTopKSAE", group_sizes=torch.tensor([1, 2])), "groups (1, 2)"),
    "harmful pickle": (written({"ae.pt": pickle.dumps(Harm(), 2), "config.json": AUTOENCODER}), "only tensors"),
    "not a pickle": (written({"ae.pt": b"hello", "config.json": AUTOENCODER}), "only tensors"),
    "no trainer": (written({"ae.pt": b"hello", "config.json": b"{}"}), "trainer.dict_class"),
    "empty folder": (written({}), "no dictionary of another tool"),
    "two tools": (written({"ae.pt": b"", "sae.safetensors": b""}), "holds weights of"),
    "other module": (sae(metadata={"hook_name": "blocks.7.hook_resid_post"}), "trained on blocks.7.hook_resid_post"),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_what_cannot_be_converted_is_told_in_a_sentence(
    odd: str, made: Weights, tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = ODD[odd]
    source = make(tmp_path / "source", made)
    with pytest.raises(HierSAEError) as caught:
        to_run(source, tiny_acts, tmp_path / "run")
    assert words in caught.value.message and caught.value.hint
    assert str(source) in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]  # nothing half-written, nothing run


def test_a_dictionary_of_another_width_is_refused(made: Weights, tiny_acts: Path, tmp_path: Path) -> None:
    narrow = Weights(
        made.encoder_DF[:7], made.encoder_bias_F, made.decoder_FD[:, :7], made.decoder_bias_D[:7], made.threshold_F
    )
    source = sparsify_folder(tmp_path / "sae", narrow).path
    done = hiersae("convert", source, "--acts", tiny_acts, "-o", tmp_path / "run")
    assert done.returncode == 1 and "width 7" in done.stderr and "width 32" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_a_dictionary_that_does_not_fit_is_told(
    made: Weights, tiny_acts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = sparsify_folder(tmp_path / "silent", made).path
    edit_weights(silent / "sae.safetensors", **{"encoder.bias": torch.full((48,), -1e6)})
    with pytest.raises(HierSAEError, match="none of its latents fires"):
        to_run(silent, tiny_acts, tmp_path / "run")
    wrong = sparsify_folder(tmp_path / "wrong", made).path
    edit_weights(wrong / "sae.safetensors", b_dec=made.decoder_bias_D + 100)
    summary = to_run(wrong, tiny_acts, tmp_path / "run")
    assert summary["fvu"] > 1 and "worse than the mean" in capsys.readouterr().err


def test_names_that_differ_are_warned_of(made: Weights, tiny_acts: Path, tmp_path: Path) -> None:
    metadata = {"hook_name": "blocks.1.hook_mlp_out", "model_name": "gpt2-xl"}
    source = saelens_folder(tmp_path / "sae", made.saelens(), metadata=metadata)
    done = hiersae("convert", source, "--acts", tiny_acts, "-o", tmp_path / "run")
    assert done.returncode == 0
    assert "does not say whether that is transformer.h.1" in done.stderr
    assert "was trained on the model gpt2-xl" in done.stderr


def test_a_folder_of_folders_says_what_is_within(made: Weights, tiny_acts: Path, tmp_path: Path) -> None:
    for layer in (1, 2):
        sparsify_folder(tmp_path / "all" / f"layers.{layer}", made)
    done = hiersae("convert", tmp_path / "all", "--acts", tiny_acts, "-o", tmp_path / "run")
    assert done.returncode == 2 and "layers.1, layers.2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("SAE", "--to", "sae-lens"), "is already a dictionary of sparsify"),
        (("RUN", "--acts", "ACTS"), "is already a run"),
        (("RUN",), "name a cache"),
        (("RUN", "--to", "sae-lens", "--acts", "ACTS"), "a run records its activations"),
        (("RUN", "--to", "torch"), "sae-lens, sparsify"),
        (("RUN", "--to", "sparsify"), "top-k latents of one pass"),
        (("REFINED", "--to", "sae-lens"), "no architecture of two passes"),
        (("NOWHERE", "--to", "sae-lens"), "no such run folder"),
        (("NOWHERE", "--acts", "ACTS"), "no such folder"),
    ],
)
def test_wrong_requests_are_answered_in_one_sentence(
    arguments: tuple[str, ...], words: str, made: Weights, tiny_flat: Path, tiny_acts: Path, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {"arch": "topk", "widths": (64,), "k": (4,)}
    places = {"ACTS": tiny_acts, "RUN": tiny_flat, "NOWHERE": tmp_path / "nowhere"}
    places["REFINED"] = random_run(tmp_path / "refined", tiny_flat, refine=True, **sizes)
    places["SAE"] = sparsify_folder(tmp_path / "sae", made).path
    done = hiersae("convert", *(places.get(word, word) for word in arguments), "-o", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*out*"))


def test_only_what_was_converted_or_trained_is_replaced(tiny_flat: Path, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    assert hiersae("convert", tiny_flat, "--to", "sae-lens", "-o", out).returncode == 0
    before = (out / "sae_weights.safetensors").read_bytes()
    again = hiersae("convert", tiny_flat, "--to", "sae-lens", "-o", out)
    assert again.returncode == 1 and "--overwrite" in again.stderr
    assert hiersae("convert", tiny_flat, "--to", "sae-lens", "-o", out, "--overwrite").returncode == 0
    assert (out / "sae_weights.safetensors").read_bytes() == before
    (out / "notes.txt").write_text("mine")
    kept = hiersae("convert", tiny_flat, "--to", "sae-lens", "-o", out, "--overwrite")
    assert kept.returncode == 1 and "notes.txt" in kept.stderr
    assert (out / "notes.txt").exists() and [path.name for path in tmp_path.iterdir()] == ["sae"]
    assert hiersae("convert", tiny_flat, "--to", "sae-lens", "-o", tiny_flat, "--overwrite").returncode == 2
    model = tmp_path / "gpt2"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    (model / "model.safetensors").write_text("weights")
    assert hiersae("convert", tiny_flat, "--to", "sae-lens", "-o", model, "--overwrite").returncode == 1
    assert (model / "model.safetensors").read_text() == "weights"
    assert load_run(tiny_flat).config.arch == "batchtopk"


def test_what_was_left_away_is_not_named(tmp_path: Path) -> None:
    missing = hiersae("convert", tmp_path, "-o", tmp_path / "run")
    assert missing.returncode == 2 and "--acts: name a cache" in missing.stderr
    unknown = hiersae("convert", tmp_path, "--to", "other", "-o", tmp_path / "run")
    assert unknown.returncode == 2 and "not one of: sae-lens, sparsify" in unknown.stderr
