"""What the texts take from WordNet 3.0: its glosses, its example sentences and its commonest words.

WordNet's licence permits use with notice: "WordNet Release 3.0. Copyright 2006 by Princeton University."
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts the database

_PARTS = {"1": "noun", "2": "verb", "3": "adjective", "4": "adverb", "5": "adjective"}
_SINGLE_WORD = re.compile(r"[a-z]{2,14}")
_ASIDE = re.compile(r"\([^)]*\)")
_MIN_COUNT = 2  # how often a word was met in WordNet's tagged texts to be a common one


@dataclass(frozen=True)
class WordNet:
    """The texts in the order of the files, the common words by how common they are."""

    glosses: list[str]
    examples: list[str]
    nouns: list[str]
    verbs: list[str]
    adjectives: list[str]
    adverbs: list[str]
    irregular_verbs: frozenset[str]
    lemmas: frozenset[str]  # every single word that WordNet knows


def read_wordnet(directory: Path = DIRECTORY) -> WordNet:
    """Read the database; raises FileNotFoundError with what to install if it isn't there."""
    if not (directory / "data.noun").is_file():
        raise FileNotFoundError(f"no WordNet in {directory}: apt-get install wordnet-base")
    glosses, examples = [], []
    for line in _glosses(directory):
        gloss, *quoted = line.split('"')
        glosses.append(_ASIDE.sub("", gloss).split(";")[0].strip())
        examples += quoted[::2]
    common = _common_words(directory)
    return WordNet(
        glosses,
        examples,
        common["noun"],
        common["verb"],
        common["adjective"],
        common["adverb"],
        frozenset(line.split()[1] for line in _lines(directory / "verb.exc")),
        frozenset(_lemmas(directory)),
    )


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="ignore").splitlines()


def _glosses(directory: Path) -> Iterator[str]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in _lines(directory / f"data.{part}"):
            if not line.startswith("  "):  # the licence
                yield line.partition("| ")[2]


def _common_words(directory: Path) -> dict[str, list[str]]:
    """Return the common words of each part of speech, the commonest first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for line in _lines(directory / "cntlist.rev"):
        sense, _, count = line.split()
        lemma, _, place = sense.partition("%")
        if int(count) >= _MIN_COUNT and _SINGLE_WORD.fullmatch(lemma):
            counts[_PARTS[place[0]]][lemma] += int(count)
    return {part: [word for word, _ in found.most_common()] for part, found in counts.items()}


def _lemmas(directory: Path) -> Iterator[str]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in _lines(directory / f"index.{part}"):
            lemma = line.partition(" ")[0]
            if _SINGLE_WORD.fullmatch(lemma):
                yield lemma
