"""A small made-up WordNet, in the format of the real one."""

from __future__ import annotations

from pathlib import Path

# Each noun sense: its name, its words, the sense above it ("" for none), and "@i" for an instance.
SENSES = [
    ("thing", ["thing"], "", "@"),
    ("being", ["creature"], "thing", "@"),
    ("dog", ["dog", "hound"], "being", "@"),
    ("cat", ["cat"], "being", "@"),
    ("tool", ["tool"], "thing", "@"),
    ("hammer", ["hammer"], "tool", "@"),
    ("catch", ["dog"], "tool", "@"),
    ("shrub", ["bush"], "being", "@"),
    ("leader", ["Bush"], "being", "@i"),
    ("town", ["Oslo"], "thing", "@i"),
    ("man", ["man"], "being", "@"),
    ("gnu", ["gnu"], "being", "@"),
    ("walk", ["walk"], "thing", "@"),
]
OTHERS = {"verb": ["hammer", "walk", "run"], "adj": ["small"], "adv": ["softly"]}
# How often each sense of a word occurs: (word, number of the part of speech, sense) -> count.
COUNTS = {
    ("dog", 1, 1): 9, ("dog", 1, 2): 1, ("hammer", 1, 1): 9, ("hammer", 2, 1): 1, ("walk", 1, 1): 5, ("walk", 2, 1): 5,
    ("bush", 1, 1): 4, ("bush", 1, 2): 4,
}  # fmt: skip
LICENCE = "  1 This is not the licence of anything, only lines that begin with blanks.  \n"
LETTERS = {"verb": "v", "adj": "a", "adv": "r"}


def offset(name: str) -> str:
    return f"{1000 + 10 * [sense[0] for sense in SENSES].index(name):08}"


def write_wordnet(folder: Path, counts: str = "cntlist.rev") -> Path:
    """The files. ``counts`` is the name of the file with the frequencies of senses, or "" for none."""
    folder.mkdir(parents=True, exist_ok=True)
    data, senses_of = [LICENCE], {}
    for name, words, above, symbol in SENSES:
        spelled = " ".join(f"{word} 0" for word in words)
        pointers = f"002 {symbol} {offset(above)} n 0000 + 00000001 v 0101" if above else "000"
        data.append(f"{offset(name)} 03 n {len(words):02x} {spelled} {pointers} | a made-up {name}  \n")
        for word in words:
            senses_of.setdefault(word.lower(), []).append(offset(name))
    (folder / "data.noun").write_text("".join(data))
    index = [
        f"{word} n {len(senses)} 1 @ {len(senses)} 0 {' '.join(senses)}  \n"
        for word, senses in sorted(senses_of.items())
    ]
    (folder / "index.noun").write_text(LICENCE + "".join(index))
    for part, words in OTHERS.items():
        (folder / f"index.{part}").write_text(
            LICENCE + "".join(f"{word} {LETTERS[part]} 1 0 1 0 00000001  \n" for word in words)
        )
    (folder / "noun.exc").write_text("geese goose\nmice mouse\n")
    (folder / "verb.exc").write_text("ran run\n")
    if counts:
        between = " 00000001" if counts == "index.sense" else ""
        lines = [f"{word}%{part}:03:00::{between} {sense} {count}\n" for (word, part, sense), count in COUNTS.items()]
        (folder / counts).write_text("".join(lines))
    return folder
