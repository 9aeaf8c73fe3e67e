"""``hiersae cache`` and ``hiersae join`` through the command line: results, interruptions, and everything refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hiersae_cli.cli import main
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import DROPPED, Activations, ActivationSet
from tests.caches import datasets
from tests.helpers import PATIENCE, Started, start
from tests.random_hosts import CONTEXT, byte_host, character_host, prose

BATCH = 8
ROWS_A_BATCH = BATCH * CONTEXT
TOKENS = 20 * ROWS_A_BATCH


@dataclass
class Done:
    code: int
    out: str
    err: str

    def refused(self, code: int, *parts: object) -> None:
        """That it ended with ``code`` and one error that says all of ``parts``."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err and self.out == ""
        error = self.err[self.err.index("error: ") :]
        for part in parts:
            assert str(part) in error


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process, which has torch loaded already."""

    def run(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["hiersae", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return character_host(tmp_path_factory.mktemp("cache") / "host")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(prose(2 * TOKENS))
    return path


@pytest.fixture
def flags(text: Path, host: Path) -> tuple[object, ...]:
    return (text, "--model", host, "--layer", "2", "--batch", BATCH, "--tokens", TOKENS, "--document-tokens", "256")


@pytest.fixture
def whole(cli: Callable[..., Done], flags: tuple[object, ...], tmp_path: Path) -> Path:
    """The cache that an uninterrupted ``hiersae cache *flags`` makes."""
    path = tmp_path / "whole" / "acts.h5"
    assert cli("cache", *flags, "-o", path).code == 0
    return path


def header(path: Path) -> object:
    with h5py.File(path) as file:
        return json.loads(file["header"][()])


def equal(a: Path, b: Path) -> bool:
    return datasets(a) == datasets(b) and header(a) == header(b)


def make_unfinished(whole: Path, out: Path, batches: int = 7) -> None:
    """What an interruption after so many batches leaves for ``out``: the rest is there, and is rubbish."""
    out.parent.mkdir(exist_ok=True)
    partial = shutil.copy(whole, f"{out}.partial")
    with h5py.File(partial, "r+") as file:
        rows = batches * ROWS_A_BATCH
        file["rows_committed"][()] = rows
        file["fingerprint"][()] = b""
        for data in (*file["activations"].values(), *file["norms"].values()):
            data[rows:] = 1e9


# ---------------------------------------------------------------- what it makes


def test_a_cache_says_what_it_will_write_and_what_it_has_written(
    cli: Callable[..., Done], flags: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "acts.h5"
    done = cli("cache", *flags, "-o", out, "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert summary["rows"] == TOKENS and summary["documents"] == 20
    assert summary["splits"] == {"train": 18 * 256, "held_out": 2 * 256, "dropped": 0}
    assert summary["modules"]["transformer.h.2"]["width"] == 16
    assert f"{out}: 5,120 tokens x transformer.h.2 (16) in float32: 4" in done.err.splitlines()[0]
    assert "20/20" not in done.err and "5,120/5,120 tokens" in done.err and "left" in done.err
    plain = cli("cache", *flags, "-o", tmp_path / "again.h5")
    assert plain.code == 0 and plain.out == "" and f"next: hiersae train {tmp_path / 'again.h5'}" in plain.err
    assert equal(out, tmp_path / "again.h5")
    assert sorted(path.name for path in (*tmp_path.iterdir(), *out.parent.iterdir())) == [
        "acts.h5", "again.h5", "new"
    ]  # fmt: skip


def test_standard_input_json_lines_and_folders(
    cli: Callable[..., Done], host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [prose(100, 1), prose(40, 2)]
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, part in enumerate(texts):
        (folder / f"{number}.txt").write_text(part)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"body": part}) + "\n" for part in texts))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(texts[0].encode())))
    rows = {}
    for name, source in (("folder", [folder]), ("rows", [tmp_path / "rows.jsonl", "--text-field", "body"])):
        rows[name] = tmp_path / f"{name}.h5"
        done = cli("cache", *source, "--model", host, "--layer", "1", "-o", rows[name])
        assert done.code == 0, done.err
    with Activations(rows["folder"]) as a, Activations(rows["rows"]) as b:
        assert a.fingerprint == b.fingerprint and a.rows == 140
        assert a.document_names() == [str(folder / "0.txt"), str(folder / "1.txt")]
        assert b.document_names() == [f"{tmp_path / 'rows.jsonl'}:{n}" for n in (1, 2)]
    done = cli("cache", "-", "--model", host, "--layer", "1", "-o", tmp_path / "stdin.h5")
    assert done.code == 0, done.err
    assert "no document is held out" in done.err
    with Activations(rows["folder"]) as a, Activations(tmp_path / "stdin.h5") as c:
        assert c.document_names() == ["-"]
        assert torch.equal(a.read("transformer.h.1", 0, 100), c.read("transformer.h.1"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_and_compression_keep_the_models_own_numbers(
    cli: Callable[..., Done], flags: tuple[object, ...], tmp_path: Path, dtype: str
) -> None:
    for name, more in (("plain", ()), ("packed", ("--compression", "gzip")), ("rounded", ("--dtype", dtype))):
        model = () if name == "rounded" else ("--model-dtype", dtype)
        assert cli("cache", *flags, *model, *more, "-o", tmp_path / f"{name}.h5").code == 0
    assert datasets(tmp_path / "plain.h5") == datasets(tmp_path / "packed.h5")
    with Activations(tmp_path / "plain.h5") as plain, Activations(tmp_path / "rounded.h5") as rounded:
        assert plain.dtype("transformer.h.2") == rounded.dtype("transformer.h.2") == dtype
        torch.testing.assert_close(plain.read("transformer.h.2"), rounded.read("transformer.h.2"), rtol=0.1, atol=0.05)


def test_dropped_positions_and_outliers_are_marked_and_told(
    cli: Callable[..., Done], host: Path, text: Path, tmp_path: Path
) -> None:
    loud = tmp_path / "loud"
    shutil.copytree(host, loud)
    weights = load_file(loud / "model.safetensors")
    weights["transformer.wpe.weight"][0] *= 3000
    save_file(weights, loud / "model.safetensors", {"format": "pt"})
    flags = (text, "--model", loud, "--module", "transformer.h.0", "--tokens", TOKENS)
    outliers = f"{TOKENS // CONTEXT} outliers (norm over 10 x the median)"
    done = cli("cache", *flags, "-o", tmp_path / "kept.h5", "--keep-outliers")
    assert f"held out, {outliers} among them" in done.err
    done = cli("cache", *flags, "-o", tmp_path / "dropped.h5")
    assert f"held out; left out: {outliers}" in done.err
    done = cli("cache", *flags, "-o", tmp_path / "first.h5", "--drop-positions", "1", "--json")
    assert "outlier" not in done.err
    assert json.loads(done.out)["splits"]["dropped"] == TOKENS // CONTEXT
    with Activations(tmp_path / "first.h5") as first, Activations(tmp_path / "dropped.h5") as dropped:
        assert ((first.column("position") == 0) == (first.column("split") == DROPPED)).all()
        statistics = [acts.statistics("transformer.h.0") for acts in (first, dropped)]
        np.testing.assert_allclose(statistics[0]["mean"], statistics[1]["mean"])


def test_shards_join_to_the_unsharded_cache(
    cli: Callable[..., Done], text: Path, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = (text, "--model", host, "--layer", "1,3", "--batch", "3", "--tokens", TOKENS - 5, "--drop-positions", "1")
    assert cli("cache", *flags, "-o", "whole.h5").code == 0
    for part in (1, 2, 3):
        done = cli("cache", *flags, "--shard", f"{part}/3", "-o", f"part-{part}.h5")
        assert done.code == 0 and "next:" not in done.err
    done = cli("join", "part-3.h5", "part-1.h5", "part-2.h5", "-o", "joined.h5", "--json")
    assert json.loads(done.out)["rows"] == TOKENS - 5
    assert datasets(Path("joined.h5")) == datasets(Path("whole.h5"))
    cli("join", "part-3.h5", "part-1.h5", "-o", "other.h5").refused(1, "part-3.h5: begins at row", "Give every shard")
    cli("join", "part-1.h5", "whole.h5", "-o", "other.h5").refused(1, "whole.h5: begins at row 0")
    cli("cache", *flags, "--batch", "4", "--shard", "3/3", "-o", "other.h5")
    cli("join", "part-1.h5", "part-2.h5", "other.h5", "-o", "x.h5").refused(1, "other.h5", "batch was 3 and is now 4")


def test_bos_is_put_first_in_every_window(cli: Callable[..., Done], text: Path, tmp_path: Path) -> None:
    host = byte_host(tmp_path / "host", "llama", add_bos=False)
    done = cli(
        "cache", text, "--model", host, "--layer", "0", "--bos", "yes", "--tokens", "500", "-o", tmp_path / "a.h5"
    )
    assert done.code == 0, done.err
    with Activations(tmp_path / "a.h5") as acts:
        assert ((acts.column("tokens") == 0) == (acts.column("position") == 0)).all()


# ---------------------------------------------------------------- interruptions


def wait_until(process: Started, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.002)


def writing(partial: Path) -> Callable[[], bool]:
    """Whether the file has changed since it was first seen with its name."""
    seen: list[int] = []

    def changed() -> bool:
        if partial.exists():
            seen.append(partial.stat().st_mtime_ns)
        return bool(seen) and seen[-1] != seen[0]

    return changed


def test_interrupted_anywhere_the_same_command_makes_the_same_file(
    cli: Callable[..., Done], host: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(prose(120_000, 5))
    flags = ("cache", tmp_path / "text.txt", "--model", host, "--layer", "0,2", "--batch", 4, "--compression", "gzip")
    out, partial = tmp_path / "cut" / "acts.h5", tmp_path / "cut" / "acts.h5.partial"

    def temporary(name: str) -> Callable[[], bool]:
        return lambda: any(out.parent.glob(f".{name}.*.tmp"))

    process = start(*flags, "-o", out)
    wait_until(process, temporary("acts.h5.partial"))
    process.kill()
    process.communicate()

    process = start(*flags, "-o", out)
    wait_until(process, writing(partial))
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert f"{partial}: stopped at row " in errors and "error:" not in errors
    assert errors.endswith("same command again to resume.\n")
    with Activations(partial, allow_unfinished=True) as acts:
        committed = acts.rows_committed
        assert 0 < committed < acts.rows and committed % (4 * CONTEXT) == 0

    process = start(*flags, "-o", out)
    wait_until(process, writing(partial))
    process.kill()
    assert f"resuming from row {committed:,}" in process.communicate()[1]

    process = start(*flags, "-o", out)
    wait_until(process, temporary("acts.h5"))
    process.kill()
    process.communicate()
    assert not out.exists()

    assert cli(*flags, "-o", out).code == 0
    assert [path.name for path in out.parent.iterdir()] == ["acts.h5"]
    assert cli(*flags, "-o", tmp_path / "whole.h5").code == 0
    assert equal(out, tmp_path / "whole.h5")


@pytest.mark.parametrize("batches", [0, 7, 20])
def test_an_unfinished_cache_is_gone_on_with(
    cli: Callable[..., Done], flags: tuple[object, ...], whole: Path, tmp_path: Path, batches: int
) -> None:
    for more in ((), ("--overwrite",)):
        out = tmp_path / f"acts{len(more)}.h5"
        make_unfinished(whole, out, batches)
        done = cli("cache", *flags, "-o", out, *more)
        assert done.code == 0 and f"resuming from row {batches * ROWS_A_BATCH:,} of 5,120" in done.err
        assert equal(out, whole)


def test_an_unfinished_cache_of_another_command_is_refused_with_what_differs(
    cli: Callable[..., Done], flags: tuple[object, ...], host: Path, text: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "acts.h5"
    make_unfinished(whole, out)
    before = Path(f"{out}.partial").read_bytes()
    for more, difference in (
        (("--seed", "5"), "seed was 0 and is now 5"),
        (("--layer", "1"), "layer was '2' and is now '1'"),
        (("--dtype", "float16"), "dtype was 'auto' and is now 'float16'"),
        (("--tokens", "4k"), "tokens was 5120 and is now 4000"),
        (("--batch", "4"), "batch was 8 and is now 4"),
    ):
        done = cli("cache", *flags, *more, "-o", out)
        done.refused(1, f"{out}.partial", difference, "--overwrite to begin again")
    assert Path(f"{out}.partial").read_bytes() == before
    assert cli("cache", *flags, "--seed", "5", "--overwrite", "-o", out).code == 0
    assert header(out)["config"]["seed"] == 5  # type: ignore[index]


def test_a_changed_text_or_host_is_recognised(
    cli: Callable[..., Done], host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(host, "host")
    Path("text.txt").write_text(prose(TOKENS))
    flags = ("cache", "text.txt", "--model", "host", "--layer", "2", "--batch", BATCH, "-o", "acts.h5")
    assert cli(*flags).code == 0
    make_unfinished(Path("acts.h5"), Path("acts.h5"))
    Path("acts.h5").unlink()
    Path("text.txt").write_text(prose(TOKENS, seed=8))
    cli(*flags).refused(1, "acts.h5.partial", "the text's sha256 was")
    Path("text.txt").write_text(prose(TOKENS))
    shutil.rmtree("host")
    character_host(Path("host"), seed=8)
    cli(*flags).refused(1, "acts.h5.partial", "the host's fingerprint was")


def test_a_foreign_file_in_the_place_of_the_unfinished_one(
    cli: Callable[..., Done], flags: tuple[object, ...], tmp_path: Path
) -> None:
    partial = tmp_path / "acts.h5.partial"
    partial.write_text("something else")
    cli("cache", *flags, "-o", tmp_path / "acts.h5").refused(1, partial, "not an HDF5 file", "--overwrite")
    assert partial.read_text() == "something else"
    assert cli("cache", *flags, "-o", tmp_path / "acts.h5", "--overwrite").code == 0


def test_an_output_that_exists(
    cli: Callable[..., Done], flags: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    before = whole.read_bytes()
    cli("cache", *flags, "-o", whole).refused(1, f"{whole}: already exists", "--overwrite")
    # A request that fails leaves what it was to replace.
    cli("cache", *flags, "-o", whole, "--overwrite", "--layer", "9").refused(2, "--layer 9")
    assert whole.read_bytes() == before
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    for more in ((), ("--overwrite",)):
        cli("cache", *flags, "-o", folder, *more).refused(1, f"{folder}: this is a folder")
        cli("join", whole, "-o", folder, *more).refused(1, f"{folder}: this is a folder")
    assert (folder / "thesis.tex").exists()
    assert cli("cache", *flags, "-o", whole, "--overwrite", "--layer", "1").code == 0
    with Activations(whole) as acts:
        assert acts.modules == ["transformer.h.1"]


# ---------------------------------------------------------------- disks


def test_a_disk_too_small_is_met_before_anything_is_written(
    cli: Callable[..., Done], text: Path, host: Path, small_disk: Path
) -> None:
    out = small_disk / "acts.h5"
    flags = ("cache", text, "--model", host, "-o", out)
    cli(*flags, "--layer", "0,1,2,3").refused(1, f"{out}: needs 2.9 MB, but only 2.1 MB are free", "fewer --tokens")
    assert not list(small_disk.iterdir())


def test_a_disk_that_fills_up_meanwhile(
    cli: Callable[..., Done], flags: tuple[object, ...], whole: Path, small_disk: Path
) -> None:
    out, filler = small_disk / "acts.h5", small_disk / "filler"
    packed = whole.parent / "packed.h5"
    more = ("--compression", "lzf", "--layer", "1,2")
    assert cli("cache", *flags, *more, "-o", packed).code == 0

    def fill_up() -> None:
        while not (small_disk / "acts.h5.partial").exists():
            time.sleep(0.001)
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(bytes(free - 50_000))

    other = threading.Thread(target=fill_up)
    other.start()
    done = cli("cache", *flags, *more, "-o", out)
    other.join()
    done.refused(1, out, "no space left on the disk", "run the same command again")
    assert sorted(path.name for path in small_disk.iterdir()) == ["acts.h5.partial", "filler"]
    filler.unlink()
    assert cli("cache", *flags, *more, "-o", out).code == 0
    assert equal(out, packed)


def test_a_read_only_disk(cli: Callable[..., Done], flags: tuple[object, ...], whole: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    cli("cache", *flags, "-o", small_disk / "acts.h5").refused(1, small_disk, "read-only")
    cli("join", whole, "-o", small_disk / "new" / "acts.h5").refused(1, small_disk, "read-only")


# ---------------------------------------------------------------- what is refused


def test_activations_that_are_not_finite(cli: Callable[..., Done], host: Path, text: Path, tmp_path: Path) -> None:
    """The unfinished file goes too: the same command could only meet the same rows again."""
    bad = tmp_path / "bad"
    shutil.copytree(host, bad)
    weights = load_file(bad / "model.safetensors")
    (tmp_path / "text.txt").write_text(prose(TOKENS).replace(",", "x") + "," + "x" * 40)
    weights["transformer.wte.weight"][sorted("abcdefghijklmnopqrstuvwxyz ,.\n\ufffd").index(",")] = float("inf")
    save_file(weights, bad / "model.safetensors", {"format": "pt"})
    done = cli(
        "cache", tmp_path / "text.txt", "--model", bad, "--layer", "2", "--batch", BATCH, "-o", tmp_path / "a.h5"
    )
    done.refused(1, f"{tmp_path / 'text.txt'}: the activations of transformer.h.2 at row 5,120 are not finite")
    done.refused(1, "weights are damaged")  # float32 does not overflow so soon
    weights = load_file(host / "model.safetensors")
    weights["transformer.wte.weight"] *= 1e7
    save_file(weights, bad / "model.safetensors", {"format": "pt"})
    flags = ("cache", text, "--model", bad, "--module", "transformer.wte", "-o", tmp_path / "a.h5")
    cli(*flags, "--dtype", "float16").refused(1, "too large for float16", "bfloat16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "text.txt"]
    assert cli(*flags, "--dtype", "bfloat16").code == 0


def test_texts_that_do_not_do(cli: Callable[..., Done], host: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    flags = ("cache", text, "--model", host, "--layer", "1", "-o", tmp_path / "acts.h5")
    cli(*flags).refused(2, f"{text}: no such file")
    text.write_text("")
    cli(*flags).refused(1, f"{text}: there is no text")
    text.write_text("too short")
    cli(*flags).refused(1, "shorter than the context: its longest document has 9 tokens, --context is 32")
    text.write_text(prose(100) + "Été")
    cli(*flags).refused(1, f"{text}: characters that the tokenizer lacks", "'É', 'é'")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_flags_that_do_not_do(
    cli: Callable[..., Done], flags: tuple[object, ...], text: Path, host: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "acts.h5")
    cli("cache", text, "--model", host, *out).refused(2, "Say what to cache: --layer N")
    for more, *parts in (
        (("--layer", "4"), "--layer 4", "has 4 blocks, 0 to 3"),
        (("--layer", "two"), "--layer two"),
        (("--module", "transformer.h.2.mpl"), "--module transformer.h.2.mpl", "Candidates", "transformer.h.2.mlp"),
        (("--context", "1000"), "--context 1000", "at most 32 tokens"),
        (("--context", "-1"), "--context -1", "must not be negative"),
        (("--drop-positions", "32"), "--drop-positions 32", "would drop every row"),
        (("--bos", "yes"), "--bos yes", "has no beginning-of-sequence token"),
        (("--held-out", "1"), "--held-out 1.0", "[0, 1)"),
        (("--shard", "5/4"), "--shard 5/4"),
        (("--shard", "1/21"), "--shard 1/21", "only 20 batches"),
        (("--dtype", "int8"), "--dtype 'int8'", "float16"),
        (("--model", tmp_path / "nothing"), f"--model {tmp_path / 'nothing'}: no such folder"),
        (("--device", "cuda:99"), "--device cuda:99"),
    ):  # fmt: skip
        cli("cache", *flags, *more, *out).refused(2, *parts)  # type: ignore[misc]
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_of_another_model(cli: Callable[..., Done], host: Path, tmp_path: Path) -> None:
    mixed = byte_host(tmp_path / "mixed", "gpt2")
    for file in ("config.json", "model.safetensors"):
        shutil.copy(host / file, mixed / file)
    (tmp_path / "text.txt").write_text("the cat and the hat " * 40)
    done = cli("cache", tmp_path / "text.txt", "--model", mixed, "--layer", "1", "-o", tmp_path / "acts.h5")
    done.refused(1, mixed, "its tokenizer gives token", "knows only 31 tokens")


def test_a_model_in_pickle(cli: Callable[..., Done], host: Path, text: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(host, pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    os.unlink(pickled / "model.safetensors")
    done = cli("cache", text, "--model", pickled, "--layer", "1", "-o", tmp_path / "acts.h5")
    done.refused(1, f"{pickled}: this model cannot be loaded", "safetensors")


@pytest.mark.parametrize(("dtype", "hint"), [("float32", "this file are damaged"), ("float16", "overflowed")])
def test_rows_that_are_not_finite_are_explained_by_the_type_that_the_host_ran_in(
    tiny_acts: Path, tmp_path: Path, dtype: str, hint: str
) -> None:
    path = shutil.copy(tiny_acts, tmp_path / "acts.h5")
    with h5py.File(path, "r+") as file:
        header = json.loads(file["header"][()])
        header["host"]["dtype"] = dtype
        file["header"][()] = json.dumps(header)
        file["norms/transformer.h.1"][5] = float("nan")
    acts = ActivationSet([str(path)])
    with pytest.raises(FileError, match="the first at row 5") as caught:
        acts.check_finite()
    assert hint in caught.value.hint
