"""The activation cache as a file: what is written is what is read, by us and by h5py, and damage is recognised."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hiersae_cli.config.cache import JoinConfig
from hiersae_cli.errors import FileError, HierSAEError, UsageError, VersionError
from hiersae_cli.formats.activations import DROPPED, HELD_OUT, TRAIN, Activations, ActivationSet, ActivationsWriter
from hiersae_cli.formats.activations.stream import ShuffledRows
from hiersae_cli.workflows.cache.join import run as run_join
from tests.caches import WIDTHS, content, datasets, write
from tests.data.make_archive import ARCHIVE

DTYPES = ("float32", "float16", "bfloat16")


def rewritten(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


# ---------------------------------------------------------------- one file


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression", ["none", "lzf", "gzip"])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, dtype: str, compression: str) -> None:
    made = content(301, dtype)
    with Activations(write(tmp_path / "acts.h5", made, dtype, compression=compression)) as acts:
        assert acts.rows == 301 and acts.documents == 43 and sorted(acts.modules) == sorted(WIDTHS)
        for name in ("tokens", "document", "position", "split"):
            assert np.array_equal(acts.column(name), getattr(made.rows, name))
        assert acts.document_names() == made.rows.document_names
        for module, width in WIDTHS.items():
            assert acts.width(module) == width and acts.dtype(module) == dtype
            assert acts.read(module).dtype == getattr(torch, dtype)
            assert np.array_equal(acts.read(module).float().numpy(), made.values[module])
            assert np.array_equal(acts.read_stored(module, 17, 230), made.stored[module][17:230])
            assert len(acts.read(module, 5, 5)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["acts.h5"]


def test_shuffled_reading_takes_whole_chunks_of_a_compressed_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "acts.h5", content(3000, widths={"h.0": 64}), compression="lzf")
    with h5py.File(path) as file:
        assert file["activations/h.0"].chunks == (1024, 64)  # 256 KiB
    read_into, reads = ActivationSet.read_into, []

    def noted(acts: ActivationSet, start: int, out: np.ndarray) -> None:
        reads.append((start, len(out)))
        read_into(acts, start, out)

    monkeypatch.setattr(ActivationSet, "read_into", noted)
    next(ShuffledRows(ActivationSet([str(path)]), 1, 0).batches(2000))
    assert reads and set(reads) <= {(0, 1024), (1024, 1024), (2048, 952)}


def test_the_fingerprint_is_of_the_content_and_not_of_how_it_is_stored(tmp_path: Path) -> None:
    made = content(100)
    plain = write(tmp_path / "plain.h5", made)
    packed = write(tmp_path / "packed.h5", made, compression="gzip")
    changed = content(100)
    changed.stored["h.0"][50, 1] += 1e-3
    digest = hashlib.sha256()
    for column in (made.rows.tokens, made.rows.document, made.rows.position, made.rows.split):
        digest.update(column.tobytes())
    for module in sorted(made.stored):
        digest.update(module.encode() + made.stored[module].tobytes())
    with Activations(plain) as a, Activations(packed) as b, Activations(write(tmp_path / "c.h5", changed)) as c:
        assert a.fingerprint == b.fingerprint == digest.hexdigest() != c.fingerprint
    assert datasets(plain) == datasets(packed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("drop_outliers", [False, True])
def test_statistics(tmp_path: Path, dtype: str, drop_outliers: bool) -> None:
    made = content(501, dtype)
    split = made.rows.split
    with Activations(write(tmp_path / "acts.h5", made, dtype, drop_outliers=drop_outliers)) as acts:
        for module in WIDTHS:
            x = made.values[module].astype(np.float64)
            norms = np.linalg.norm(x, axis=1)
            median = np.median(norms[split != DROPPED])
            normal = norms <= 10 * median
            used = (split == TRAIN) & (normal | (not drop_outliers))
            found = acts.statistics(module)
            assert found["median_norm"] == pytest.approx(median, rel=1e-6)
            assert found["outliers"] == (~normal & (split != DROPPED)).sum() > 0
            np.testing.assert_allclose(found["mean"], x[used].mean(0), rtol=1e-12)
            assert found["mean_square"] == pytest.approx((norms[used] ** 2).mean(), rel=1e-6)
            np.testing.assert_allclose(acts.norms(module), norms, rtol=1e-6)
            assert np.array_equal(acts.usable(module, TRAIN), used)
            assert np.array_equal(acts.usable(module, HELD_OUT), (split == HELD_OUT) & (normal | (not drop_outliers)))


def test_plain_h5py_reads_it(tmp_path: Path) -> None:
    made = content(100)
    with h5py.File(write(tmp_path / "acts.h5", made)) as file:
        assert file.attrs["schema"] == "hiersae.activations" and file.attrs["schema_version"] == 1
        assert np.array_equal(file["activations/h.1"][:], made.stored["h.1"])
        assert file["activations/h.1"].attrs["dtype"] == "float32"
        assert json.loads(file["header"][()])["config"]["model"] == "host"
        assert file["documents/held_out"][:].tolist() == made.rows.document_held_out.tolist()
        assert file["documents/offset"][:].tolist() == made.rows.document_offsets.tolist()


def test_a_file_of_version_1_is_still_read() -> None:
    """The archived file is of the first release; ``tests/data/make_archive.py`` made it."""
    made = content(60, "bfloat16", seed=1)
    with Activations(ARCHIVE) as acts:
        assert acts.fingerprint == "8c8624a2bde7ee1b58cafa1addd64525888acfb602eea16f096a519de76ff04e"
        assert (acts.rows, acts.documents, acts.dtype("h.0")) == (60, 9, "bfloat16")
        assert np.array_equal(acts.read("h.1").float().numpy(), made.values["h.1"])
        assert acts.column("tokens")[:6].tolist() == [23, 25, 37, 47, 1, 7]
        assert acts.statistics("h.0")["median_norm"] == pytest.approx(1.4169316291809082)
        assert (acts.usable("h.0", TRAIN).sum(), acts.usable("h.0", HELD_OUT).sum()) == (45, 6)


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "acts.h5", content(301))


@pytest.mark.parametrize(
    ("data", "error", "problem"),
    [
        (None, UsageError, "no such file"),
        (b"", FileError, "the file is empty"),
        (b"to be or not to be\n" * 200, FileError, "not an HDF5 file"),
    ],
)
def test_what_is_no_hdf5_file_is_refused(
    tmp_path: Path, data: bytes | None, error: type[HierSAEError], problem: str
) -> None:
    path = tmp_path / "acts.h5"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=rf"acts\.h5: {problem}") as caught:
        Activations(path)
    assert "hiersae cache" in caught.value.hint
    with pytest.raises(FileError, match="this is a folder"):
        Activations(tmp_path)


def test_a_truncated_file_is_refused_at_any_length(whole: Path, tmp_path: Path) -> None:
    data, path = whole.read_bytes(), tmp_path / "cut.h5"
    for length in (4, 8, 100, 600, 2048, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(FileError, match=r"cut\.h5: (the file is truncated|not an HDF5 file|HDF5 cannot read it)"):
            Activations(path)


def test_foreign_and_newer_files_are_refused(whole: Path, tmp_path: Path) -> None:
    def changed(change: Callable[[h5py.File], None]) -> Path:
        return rewritten(Path(shutil.copy(whole, tmp_path / "acts.h5")), change)

    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(FileError, match=r"foreign\.h5: not a hiersae\.activations file"):
        Activations(tmp_path / "foreign.h5")
    with pytest.raises(FileError, match=r"it is other\.schema"):
        Activations(changed(lambda file: file.attrs.update(schema="other.schema")))
    with pytest.raises(FileError, match="it is another kind of file"):
        Activations(changed(lambda file: file.attrs.update(schema=np.arange(3))))
    with pytest.raises(VersionError, match=r"version 3 is not supported .*version 1 or 2") as caught:
        Activations(changed(lambda file: file.attrs.update(schema_version=3)))
    assert "Upgrade hiersae" in caught.value.hint
    for name in ("tokens", "activations", "norms/h.0", "documents/name", "header", "rows_committed"):
        with pytest.raises(FileError, match=r"acts\.h5: damaged"):
            Activations(changed(lambda file, name=name: file.__delitem__(name)))  # type: ignore[misc]

    def shorter(file: h5py.File) -> None:
        del file["split"]
        file["split"] = np.zeros(300, np.uint8)

    def no_json(file: h5py.File) -> None:
        file["header"][()] = "{"

    for change in (shorter, no_json):
        with pytest.raises(FileError, match=r"acts\.h5: damaged"):
            Activations(changed(change))


def test_an_unfinished_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "acts.h5", content(100), committed=40)
    with pytest.raises(FileError, match=r"unfinished: 40 of 100 rows written \(40%\)") as caught:
        Activations(tmp_path / "acts.h5.partial")
    assert "Run the same 'hiersae cache' command again" in caught.value.hint
    with Activations(tmp_path / "acts.h5.partial", allow_unfinished=True) as acts:
        assert acts.rows_committed == 40


def test_two_writers_do_not_share_a_file(tmp_path: Path) -> None:
    write(tmp_path / "acts.h5", content(100), committed=40)
    writer = ActivationsWriter(tmp_path / "acts.h5")
    code = f"from hiersae_cli.formats.activations import ActivationsWriter as W; W({str(tmp_path / 'acts.h5')!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    writer.close()
    assert other.returncode == 1 and "another process is writing it" in other.stderr


def test_what_a_killed_writer_left_behind_goes_with_the_next(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name in (f".acts.h5.partial.{process.pid}.tmp", f".acts.h5.{process.pid}.tmp"):
        (tmp_path / name).write_bytes(b"half a file")
    (tmp_path / ".other.h5.123.tmp").write_bytes(b"not ours")
    write(tmp_path / "acts.h5", content(10))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.h5.123.tmp", "acts.h5"]


# ---------------------------------------------------------------- shards

CUTS = (0, 84, 182, 301)


def make_shards(folder: Path, dtype: str = "float32", **options: object) -> list[Path]:
    made = content(301, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write(folder / f"part-{n}.h5", made, dtype, span=span, shard=f"{n}/3", **options)  # type: ignore[arg-type]
        for n, span in enumerate(pairwise(CUTS), start=1)
    ]


def join(out: Path, shards: list[Path], **options: bool) -> dict[str, object]:
    return run_join(JoinConfig(shards=[str(path) for path in shards], out=str(out), **options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_joined_shards_equal_the_whole(tmp_path: Path, dtype: str) -> None:
    made = content(301, dtype)
    plain = write(tmp_path / "plain.h5", made, dtype)
    shards = make_shards(tmp_path / "100% shards", dtype)
    join(tmp_path / "acts.h5", [shards[i] for i in (2, 0, 1)])
    assert datasets(tmp_path / "acts.h5") == datasets(plain)
    with Activations(tmp_path / "acts.h5") as joined, Activations(plain) as acts:
        assert joined.fingerprint == acts.fingerprint
        assert np.array_equal(joined.read_stored("h.1", 80, 190), made.stored["h.1"][80:190])


def test_a_joined_file_can_be_moved_with_its_shards_and_read_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    join(Path("here/acts.h5"), make_shards(Path("here/shards")))
    os.rename("here", "there")
    monkeypatch.chdir("/")
    made = content(301)
    with Activations(tmp_path / "there" / "acts.h5") as acts, h5py.File(tmp_path / "there" / "acts.h5") as file:
        for module in WIDTHS:
            assert np.array_equal(acts.read_stored(module, 0, 301), made.stored[module])
            assert np.array_equal(file[f"activations/{module}"][:], made.stored[module])


def test_shards_that_are_not_all_of_one_cache_are_refused(tmp_path: Path) -> None:
    first, second, third = make_shards(tmp_path)
    other_host = make_shards(tmp_path / "host", host="b")[1]
    other_flags = make_shards(tmp_path / "flags", seed=3)[1]
    for shards, problem in (
        ([first, second], r"part-2\.h5: the shards end at row 182 of 301"),
        ([second, third], r"part-2\.h5: begins at row 84, but the shards before it end at 0"),
        ([first, third], r"part-3\.h5: begins at row 182, but the shards before it end at 84"),
        ([first, second, second, third], r"part-2\.h5: begins at row 84, but the shards before it end at 182"),
        ([first, other_host, third], "not a shard of the same cache .* the host's fingerprint was 'a' and is now 'b'"),
        ([first, other_flags, third], "not a shard of the same cache .* seed was 0 and is now 3"),
        ([first, tmp_path / "missing.h5", third], r"missing\.h5: no such file"),
    ):
        with pytest.raises(HierSAEError, match=problem):
            join(tmp_path / "acts.h5", shards)
        assert not (tmp_path / "acts.h5").exists()


def test_joining_never_replaces_a_shard(tmp_path: Path) -> None:
    shards = make_shards(tmp_path)
    before = shards[1].read_bytes()
    with pytest.raises(UsageError, match=r"part-2\.h5: is one of the shards"):
        join(shards[1], shards, overwrite=True)
    assert shards[1].read_bytes() == before


def test_a_joined_file_knows_its_shards(tmp_path: Path) -> None:
    shards = make_shards(tmp_path)
    joined = tmp_path / "acts.h5"
    join(joined, shards)
    with pytest.raises(FileError, match="already exists"):
        join(joined, shards)
    join(joined, shards, overwrite=True)
    shards[1].rename(tmp_path / "kept")
    with pytest.raises(FileError, match=r"acts\.h5: joins shards, and one is not readable: .*part-2\.h5: no such file"):
        Activations(joined)
    write(shards[1], content(301, seed=9), span=(84, 182))
    with pytest.raises(FileError, match=r"acts\.h5: .*part-2\.h5 is not the shard that was joined"):
        Activations(joined)


# ---------------------------------------------------------------- several files


def test_a_set_of_caches_reads_as_one(tmp_path: Path) -> None:
    made = [content(count, seed=count) for count in (100, 36, 211)]
    paths = [str(write(tmp_path / f"{n}.h5", part)) for n, part in enumerate(made)]
    acts = ActivationSet(paths, "h.0")
    expected = np.concatenate([part.stored["h.0"] for part in made])
    out = acts.empty(300)
    acts.read_into(20, out)
    assert acts.rows == 347 and np.array_equal(out, expected[20:320])
    tokens = np.concatenate([part.rows.tokens for part in made])
    assert np.array_equal(acts.column("tokens"), tokens)
    document = acts.column("document")
    assert document.max() + 1 == len(acts.document_names()) == 15 + 6 + 31
    names = acts.document_names()
    assert names[document[100]] == made[1].rows.document_names[0]
    split = np.concatenate([part.rows.split for part in made])
    mean, mean_square = acts.moments()
    np.testing.assert_allclose(mean, expected[split == TRAIN].astype(float).mean(0), rtol=1e-9)
    assert mean_square == pytest.approx(np.square(expected[split == TRAIN].astype(float)).sum(1).mean(), rel=1e-6)
    acts.close()


def test_caches_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    first = str(write(tmp_path / "first.h5", content(50)))
    for name, other, problem in (
        ("width", write(tmp_path / "w.h5", content(50, widths={"h.0": 4})), r"its width \(4\) is not .* \(3\)"),
        ("dtype", write(tmp_path / "d.h5", content(50, "float16"), "float16"), r"its dtype \(float16\) is not"),
        ("host", write(tmp_path / "h.h5", content(50), host="b"), r"its host model \(b\) is not"),
        ("module", write(tmp_path / "m.h5", content(50, widths={"h.7": 3})), r"holds no h\.0"),
    ):
        with pytest.raises(FileError, match=problem) as caught:
            ActivationSet([first, str(other)], "h.0")
        assert str(other) in caught.value.message, name
    with pytest.raises(UsageError, match=r"holds several modules: h\.0, h\.1"):
        ActivationSet([first])
    with pytest.raises(UsageError, match=r"--module h\.5: .*first\.h5 holds h\.0, h\.1"):
        ActivationSet([first], "h.5")


# ---------------------------------------------------------------- shuffled rows


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def numbered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ActivationSet:
    """Two caches whose rows carry their own number in base 100, which every type holds exactly."""
    folder, paths, first = tmp_path_factory.mktemp("numbered"), [], 0
    for count, compression in ((6000, "none"), (3999, "lzf")):
        made = content(count, request.param, widths={"h.0": 64})
        number = np.arange(first, first + count)
        x = np.zeros((count, 64), np.float32)
        x[:, 0], x[:, 1] = number // 100, number % 100
        made.values["h.0"] = x
        made.stored["h.0"] = x if request.param == "float32" else (x.view(np.uint32) >> 16).astype(np.uint16)
        paths.append(str(write(folder / f"{first}.h5", made, request.param, compression=compression)))
        first += count
    return ActivationSet(paths)


def numbers(batches: list[torch.Tensor]) -> np.ndarray:
    x = torch.cat(batches).double()
    return (100 * x[:, 0] + x[:, 1]).long().numpy()


@pytest.mark.parametrize("buffer_bytes", [1, 600_000, 1 << 30])
def test_every_training_row_comes_once_an_epoch_and_no_other_ever(numbered: ActivationSet, buffer_bytes: int) -> None:
    stream = ShuffledRows(numbered, buffer_bytes, seed=0)
    training = np.flatnonzero(numbered.usable(TRAIN))
    assert stream.rows == len(training)
    size = 100
    order = numbers(list(islice(stream.batches(size), 3 * stream.rows // size)))
    epochs = [order[n * stream.rows : (n + 1) * stream.rows] for n in range(2)]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), training)
    assert not np.array_equal(*epochs)
    assert set(order[2 * stream.rows :]) <= set(training)


def test_a_stream_goes_on_from_any_batch(numbered: ActivationSet) -> None:
    for size, first in ((100, 0), (100, 7), (64, 131), (257, 90), (30_000, 1)):
        expected = list(islice(ShuffledRows(numbered, 600_000, 0).batches(size), first, first + 3))
        found = list(islice(ShuffledRows(numbered, 600_000, 0).batches(size, first), 3))
        assert all(torch.equal(a, b) and len(a) == size for a, b in zip(expected, found, strict=True))


def test_the_order_depends_on_the_seed_alone(numbered: ActivationSet) -> None:
    orders = [numbers(list(islice(ShuffledRows(numbered, 600_000, seed).batches(500), 4))) for seed in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])


def test_batches_mix_rows_of_the_whole_cache(numbered: ActivationSet) -> None:
    batch = numbers([next(ShuffledRows(numbered, 1 << 30, 0).batches(1000))])
    assert len(set(batch // 1000)) == 10
    assert abs(np.corrcoef(batch, np.arange(1000))[0, 1]) < 0.1


def test_a_stream_says_which_compressed_file_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "acts.h5", content(3000, widths={"h.0": 64}), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["activations/h.0"].id.get_chunk_info(1)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"x" * 100)
    # Rows are read in another thread: what goes wrong there is told here.
    with pytest.raises(FileError, match=r"acts\.h5: damaged: ") as caught:
        list(islice(ShuffledRows(ActivationSet([str(path)]), 1, 0).batches(500), 9))
    assert "\n" not in caught.value.message


def test_a_stream_of_no_training_rows_is_refused(tmp_path: Path) -> None:
    made = content(70)
    made.rows.split[:] = HELD_OUT
    with pytest.raises(FileError, match=r"acts\.h5: no training rows"):
        ShuffledRows(ActivationSet([str(write(tmp_path / "acts.h5", made))], "h.0"), 1000, 0)
