"""The character-level host: its tokenizer, its training, and what survives an interruption."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from hiersae_cli.config.lm import LMConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.tensors import save_tensors
from hiersae_cli.host import charlm
from hiersae_cli.host.charlm import UNKNOWN, character_gpt, character_tokenizer, encode, mean_loss
from hiersae_cli.interrupt import Interrupted
from hiersae_cli.workflows.lm import run
from tests.helpers import PATIENCE, command, environment, hiersae

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1)
TINY = {"layers": 1, "width": 16, "context": 8, "batch": 4, "steps": 12, "eval_every": 4, "warmup": 2, "device": "cpu"}
FLAGS = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="session")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 4,000 characters in which some characters follow from others."""
    words = ["the ", "cat ", "sat\n", "on ", "a ", "mat. ", "naïve\r\n"]
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    path.write_text("".join(random.Random(0).choices(words, k=1500))[:4000], newline="")
    return path


def config(prose: Path, out: Path, **changes: Any) -> LMConfig:
    return LMConfig(**{"texts": [str(prose)], "out": str(out), **TINY, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# The tokenizer


@settings(max_examples=50)
@given(TEXT)
def test_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = character_tokenizer(text, context=8)
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text) and tokenizer.decode(ids) == text
    assert encode(tokenizer, text).tolist() == ids
    assert UNKNOWN in text or tokenizer.unk_token_id not in ids


@settings(max_examples=50)
@given(TEXT, TEXT)
def test_unknown_characters_keep_their_place(known: str, text: str) -> None:
    tokenizer = character_tokenizer(known, context=8)
    ids = encode(tokenizer, text).tolist()
    assert [token == tokenizer.unk_token_id for token in ids] == [c not in known or c == UNKNOWN for c in text]
    assert tokenizer.decode(ids) == "".join(c if c in known else UNKNOWN for c in text)


def test_tokens_are_numbered_by_code_point() -> None:
    tokenizer = character_tokenizer("cab\n\U0001f600", context=8)
    assert tokenizer.convert_ids_to_tokens(range(6)) == ["\n", "a", "b", "c", UNKNOWN, "\U0001f600"]


def test_long_texts_are_encoded_across_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "abcdefg" * 100
    whole = encode(character_tokenizer(text, 8), text)
    monkeypatch.setattr(charlm, "_SLICE", 9)
    assert torch.equal(encode(character_tokenizer(text, 8), text), whole)


# The model and its training


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    rates = [charlm.learning_rate(step, peak=1.0, warmup=10, steps=100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == max(rates) == 1.0 and rates[100] == pytest.approx(0.1)
    assert charlm.learning_rate(0, peak=1.0, warmup=0, steps=1) == 1.0


def test_windows_depend_on_seed_and_step_alone() -> None:
    tokens = torch.arange(50)
    inputs, targets = charlm.random_windows(tokens, batch=200, context=5, seed=1, step=3)
    again, _ = charlm.random_windows(tokens, batch=200, context=5, seed=1, step=3)
    assert inputs.shape == targets.shape == (200, 5)
    assert torch.equal(inputs, again) and torch.equal(inputs + 1, targets)
    assert inputs.min() == 0 and targets.max() == 49  # no character is out of reach
    for seed, step in ((1, 4), (2, 3)):
        assert not torch.equal(inputs, charlm.random_windows(tokens, 200, 5, seed, step)[0])


def test_decay_acts_on_matrices_only() -> None:
    model = character_gpt(5, layers=1, width=16, heads=1, context=8, dropout=0.0, seed=0)
    decayed, free = charlm.adamw(model, lr=1e-3, weight_decay=0.1).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in free["params"]} == {1}


@pytest.mark.parametrize("length", [3, 9, 24, 31])
def test_the_loss_counts_every_character_once(length: int) -> None:
    model = character_gpt(5, layers=1, width=16, heads=1, context=8, dropout=0.0, seed=0).eval()
    tokens = torch.randint(5, (length,), generator=torch.Generator().manual_seed(0))
    total = 0.0
    for start in range(0, length - 1, 8):
        window = tokens[start : start + 9]
        with torch.no_grad():
            chances = model(window[None, :-1]).logits[0].log_softmax(-1)
        total -= chances.gather(1, window[1:, None]).sum().item()
    found = mean_loss(model, tokens, context=8, batch=2, dtype=torch.float32)
    assert found == pytest.approx(total / (length - 1), rel=1e-5)


def test_a_limited_loss_takes_windows_from_end_to_end() -> None:
    model = character_gpt(5, layers=1, width=16, heads=1, context=8, dropout=0.0, seed=0)
    tokens = torch.randint(5, (8 * 40 + 1,), generator=torch.Generator().manual_seed(0))
    found = mean_loss(model, tokens, context=8, batch=2, dtype=torch.float32, limit=16)
    ends = [mean_loss(model, part, context=8, batch=2, dtype=torch.float32) for part in (tokens[:9], tokens[-9:])]
    assert found == pytest.approx(sum(ends) / 2, rel=1e-5)


# The workflow


@pytest.fixture(scope="session")
def host(prose: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished host, made by the command."""
    out = tmp_path_factory.mktemp("made") / "deeper" / "host"
    done = hiersae("lm", prose, "--out", out, *FLAGS, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["out"] == str(out) and result["steps"] == 12 and result["best_step"] in (4, 8, 12)
    assert str(out) in done.stderr and "nats per character" in done.stderr
    assert "Writing" not in done.stderr and "it/s]" not in done.stderr
    return out


def test_the_host_loads_as_any_hugging_face_model(host: Path, prose: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(host), AutoTokenizer.from_pretrained(host)
    text = prose.read_bytes().decode()
    description = json.loads((host / "hiersae.json").read_text())
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer("\u2603").input_ids == [tokenizer.unk_token_id]
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.config.n_positions == tokenizer.model_max_length == 8
    assert len(tokenizer) == model.config.vocab_size == description["vocabulary"] == len({*text, UNKNOWN})
    tokens = torch.tensor(tokenizer(text[-401:]).input_ids)
    loss = mean_loss(model, tokens, context=8, batch=64, dtype=torch.float32)
    assert loss == pytest.approx(description["validation_loss"], rel=1e-5)


def test_the_host_says_where_it_came_from(host: Path, prose: Path) -> None:
    description = json.loads((host / "hiersae.json").read_text())
    assert (description["schema"], description["schema_version"]) == ("hiersae.host", 1)
    assert description["config"]["width"] == 16 and "out" not in description["config"]
    assert list(description["inputs"]) == [str(prose)]
    assert (description["characters"], description["validation_characters"]) == (3600, 400)
    assert description["parameters"] == sum(tensor.numel() for tensor in weights(host).values())
    assert [entry["step"] for entry in description["history"]] == [4, 8, 12]
    assert description["best_step"] == min(description["history"], key=lambda e: e["validation_loss"])["step"]
    assert not host.with_name("host.partial").exists() and os.listdir(host.parent) == ["host"]
    assert (host / "model.safetensors").stat().st_mode == (host / "hiersae.json").stat().st_mode


def test_the_model_learns(prose: Path, tmp_path: Path) -> None:
    result = run(config(prose, tmp_path / "host", steps=150, eval_every=50, lr=1e-2, eval_tokens=100))
    assert result["validation_loss"] < 1.6  # the frequencies of single characters alone give 2.6


def test_the_best_weights_are_kept(prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0, 9.0])
    kept: dict[str, torch.Tensor] = {}

    def fake_loss(model: torch.nn.Module, *_: object, **__: object) -> float:
        loss = next(losses)
        if loss == 1.0:
            kept.update({name: parameter.clone() for name, parameter in model.named_parameters()})
        return loss

    monkeypatch.setattr(charlm, "mean_loss", fake_loss)
    result = run(config(prose, tmp_path / "host"))
    assert (result["best_step"], result["validation_loss"]) == (8, 9.0)
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights(tmp_path / "host").items())


def test_a_killed_training_goes_on_to_the_same_weights(host: Path, prose: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "host", tmp_path / "host.partial" / "checkpoint.safetensors"
    kill = (
        "import os, signal, sys\n"
        "from hiersae_cli.host import charlm\n"
        "step = charlm.training_step\n"
        "count = iter(range(100))\n"
        "def training_step(*args, **options):\n"
        "    if next(count) == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(*args, **options)\n"
        "charlm.training_step = training_step\n"
        "from hiersae_cli.cli import main\n"
        "main()\n"
    )
    arguments = command("lm", prose, "--out", out, *FLAGS)
    killed = subprocess.run(
        [arguments[0], "-c", kill, *arguments[3:]], env=environment(), capture_output=True, timeout=PATIENCE
    )
    assert killed.returncode == -signal.SIGKILL and checkpoint.exists() and not out.exists()
    done = hiersae(*arguments[3:])
    assert done.returncode == 0 and "resuming from step 4" in done.stderr
    assert_same_weights(out, host)
    assert os.listdir(tmp_path) == ["host"]


def test_ctrl_c_keeps_every_step(prose: Path, tmp_path: Path) -> None:
    out = tmp_path / "host"
    flags = [*FLAGS, "--steps", "1M", "--eval-every", "1000000"]
    process = subprocess.Popen(
        command("lm", prose, "--out", out, *flags), env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None and "parameters on cpu" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "stopped after step" in errors and "Traceback" not in errors
    assert (tmp_path / "host.partial" / "checkpoint.safetensors").exists() and not out.exists()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    whole, out = config(prose, tmp_path / "whole", dropout=dropout), config(prose, tmp_path / "out", dropout=dropout)
    global_state, before = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    run(whole)
    assert torch.equal(torch.get_rng_state(), global_state)
    with monkeypatch.context() as patched:
        step, count = charlm.training_step, iter(range(100))

        def interrupted(*args: Any, **options: Any) -> torch.Tensor:
            if next(count) == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return step(*args, **options)

        patched.setattr(charlm, "training_step", interrupted)
        with pytest.raises(Interrupted, match="after step 7 of 12"):
            run(out)
    assert signal.getsignal(signal.SIGINT) is before
    result = run(out)
    assert result["steps"] == 12
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    one, other = (json.loads((tmp_path / name / "hiersae.json").read_text()) for name in ("whole", "out"))
    assert one["history"] == other["history"]


@pytest.fixture
def unfinished(prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output whose training stopped at its last validation."""
    with monkeypatch.context() as patched:
        patched.setattr("hiersae_cli.workflows.lm._publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config(prose, tmp_path / "host"))
    return tmp_path / "host"


def test_another_configuration_does_not_go_on(unfinished: Path, prose: Path) -> None:
    with pytest.raises(FileError, match=r"lr was 0\.\d+ and is now 0\.5") as caught:
        run(config(prose, unfinished, lr=0.5))
    assert "--overwrite" in caught.value.hint
    assert run(config(prose, unfinished, lr=0.5, overwrite=True))["steps"] == 12


def test_another_text_does_not_go_on(unfinished: Path, prose: Path) -> None:
    before = prose.read_bytes()
    try:
        prose.write_bytes(before[::-1].replace("ï".encode()[::-1], b"ii"))
        with pytest.raises(FileError, match="the text has changed"):
            run(config(prose, unfinished))
    finally:
        prose.write_bytes(before)


def test_a_damaged_checkpoint_is_named(unfinished: Path, prose: Path) -> None:
    checkpoint = unfinished.with_name("host.partial") / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(FileError, match=r"checkpoint\.safetensors: damaged") as caught:
        run(config(prose, unfinished))
    assert "--overwrite" in caught.value.hint


def test_a_checkpoint_with_not_a_number_is_refused(unfinished: Path, prose: Path) -> None:
    checkpoint = unfinished.with_name("host.partial") / "checkpoint.safetensors"
    with safe_open(checkpoint, "pt") as file:
        described = {"hiersae": file.metadata()["hiersae"]}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    name = next(name for name in tensors if name.startswith("exp_avg/"))
    tensors[name].view(-1)[0] = float("nan")
    save_tensors(checkpoint, tensors, described, checked=True)
    with pytest.raises(FileError, match="holds not-a-number"):
        run(config(prose, unfinished))


def test_nothing_trained_yet_may_change(prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(charlm, "training_step", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            run(config(prose, tmp_path / "host", batch=10))
    assert run(config(prose, tmp_path / "host", batch=2))["steps"] == 12


def test_overwrite_replaces_our_own_folders_only(prose: Path, tmp_path: Path) -> None:
    mine, foreign = tmp_path / "host", tmp_path / "home"
    run(config(prose, mine))
    first = weights(mine)
    with pytest.raises(FileError, match="already exists"):
        run(config(prose, mine, seed=1))
    run(config(prose, mine, seed=1, overwrite=True))
    assert any(not torch.equal(first[name], tensor) for name, tensor in weights(mine).items())
    foreign.mkdir()
    (foreign / "precious").write_text("x")
    with pytest.raises(FileError, match="not a model that hiersae made"):
        run(config(prose, foreign, overwrite=True))
    assert (foreign / "precious").exists()


def test_overwrite_leaves_a_host_alone_that_holds_other_files(prose: Path, tmp_path: Path) -> None:
    out = tmp_path / "host"
    run(config(prose, out))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"host: holds other files too, such as notes\.txt"):
        run(config(prose, out, seed=1, overwrite=True))
    assert (out / "notes.txt").read_text() == "mine"


def test_what_came_there_in_the_meantime_stays(prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, out = charlm.mean_loss, tmp_path / "host"

    def slow_loss(*args: Any, **options: Any) -> float:
        out.mkdir(exist_ok=True)
        (out / "precious").write_text("x")
        return loss(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(charlm, "mean_loss", slow_loss)
        with pytest.raises(FileError, match="already exists"):
            run(config(prose, out))
    assert (out / "precious").exists()
    out.rename(tmp_path / "elsewhere")
    assert run(config(prose, out))["steps"] == 12


def test_an_empty_folder_is_a_fine_output(prose: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    run(config(prose, tmp_path / "host"))
    assert (tmp_path / "host" / "hiersae.json").exists()


def test_a_training_that_diverges_says_so(prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charlm, "mean_loss", lambda *_, **__: float("nan"))
    with pytest.raises(HierSAEError, match="not a finite number") as caught:
        run(config(prose, tmp_path / "host"))
    assert "--lr" in caught.value.hint


def test_half_precision_can_be_asked_for(prose: Path, tmp_path: Path) -> None:
    result = run(config(prose, tmp_path / "host", dtype="bfloat16"))
    assert result["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in weights(tmp_path / "host").values()} == {torch.float32}


def test_a_text_of_the_least_length(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("0123456789" * 8)
    run(config(path, tmp_path / "host"))  # 72 characters to train on, 8 to validate on
    path.write_text("0123456789" * 7)
    with pytest.raises(FileError, match=r"63 of its 70 characters .* and 7 to validate on, .*--context 8"):
        run(config(path, tmp_path / "other"))


@pytest.mark.parametrize(
    "changes",
    [{"width": 100, "heads": 3}, {"validation": 1.0}, {"steps": 0}, {"seed": -1}, {"dropout": 1.0}, {"dtype": "int8"}],
)
def test_flags_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--" + next(iter(changes))):
        LMConfig(**changes)


# What the command says where it cannot go on


@pytest.mark.parametrize(
    ("texts", "flags", "code", "message"),
    [
        (["absent.txt"], [], 2, "absent.txt: no such file or folder"),
        (["no*match"], [], 2, "no*match: no file matches"),
        (["folder"], [], 2, "folder: no .txt, .jsonl"),
        (["latin1.txt"], [], 1, "latin1.txt: byte 3 (0xe9) is not UTF-8"),
        (["rows.jsonl"], [], 1, "rows.jsonl:2: the field 'text' is missing (fields: body)"),
        (["short.txt"], [], 1, "the text is too short"),
        (["short.txt"], ["--device", "cuda:99"], 2, "--device cuda:99"),
        (["short.txt"], ["--out", "short.txt"], 1, "short.txt: already exists"),
        (["short.txt"], ["--out", "."], 2, "--out .: give the name"),
        (["-"], [], 1, "-: there is no text"),
    ],
)
def test_bad_requests_end_in_a_sentence(
    tmp_path: Path, texts: list[str], flags: list[str], code: int, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    (tmp_path / "short.txt").write_text("short" if "cuda:99" not in flags else "long enough" * 200)
    done = hiersae("lm", *texts, *flags, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
    assert not list(tmp_path.glob("host*"))


def test_an_output_that_cannot_be_written_is_found_before_training(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(charlm, "training_step", lambda *_, **__: pytest.fail("it began to train"))
    with pytest.raises(OSError, match="file"):
        run(config(prose, tmp_path / "file" / "host"))
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(PermissionError):
            run(config(prose, tmp_path / "closed" / "host"))


def test_progress_shows_both_losses(prose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config(prose, tmp_path / "host"), Console())
    assert "12/12 steps" in (shown := capsys.readouterr().err) and "train " in shown and "val " in shown


@pytest.mark.slow
def test_the_defaults_reach_a_good_loss_on_tinyshakespeare(tmp_path: Path) -> None:
    data = os.environ.get("HIERSAE_TEST_DATA")
    if not data:
        pytest.skip("HIERSAE_TEST_DATA does not name the folder that holds shakespeare_char/input.txt")
    result = run(LMConfig(texts=[str(Path(data) / "shakespeare_char" / "input.txt")], out=str(tmp_path / "host")))
    assert result["parameters"] >= 3_000_000 and result["validation_loss"] <= 1.65
