"""The texts that the teacher reads: an endless, seeded mixture, as the speaker's tokenizer sees it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from random import Random

from training.sentences import Filler
from training.wordnet import WordNet
from voice_core.text.spoken_english import spell_out

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PUNCTUATION = "',.?!:;-"

SHORTEST_CHARACTERS = 3
LONGEST_CHARACTERS = 130  # about 8 s of speech, the longest segment of the voice

_MIXTURE = {  # how many of a hundred texts
    "gloss": 22,
    "example": 20,
    "pair": 10,
    "sentence": 18,
    "short": 4,
    "figures": 12,
    "names": 5,
    "word_list": 9,
}
_UNSEEN = re.compile(f"[^ {LETTERS}{PUNCTUATION}]")
_INFLECTED = re.compile(r"(?:s|ed|ing|ly|er|est)$")
_WORD = re.compile(r"[a-z']+")
_SENTENCE_END = re.compile(r"[.!?]$")


TEST_FILES = tuple(
    Path(__file__).parent / f"{name}_{what}.txt" for name in ("test", "unwatched") for what in ("sentences", "spoken")
)
FORBIDDEN_WORDS = 5  # in a row; a text that shares so many with a test sentence is never learned from


def visible(text: str) -> str:
    """Return what the tokenizer keeps of a text once its figures are spelled out."""
    return " ".join(_UNSEEN.sub("", spell_out(text).lower()).split())


def texts(wordnet: WordNet, seed: int) -> Iterator[str]:
    """Yield texts of the mixture for ever; no two alike, and none that shares five words with a test sentence."""
    random = Random(seed)
    forbidden = forbidden_runs()
    words = pronounced_words()
    names = [word for word in words if word not in wordnet.lemmas and not _INFLECTED.search(word)]
    filler = Filler(wordnet, names, random)
    seen: set[str] = set()
    kinds, weights = list(_MIXTURE), list(_MIXTURE.values())
    while True:
        (kind,) = random.choices(kinds, weights)
        text = visible(_draw(kind, wordnet, words, filler, random))
        if (
            SHORTEST_CHARACTERS <= len(text) <= LONGEST_CHARACTERS
            and text not in seen
            and forbidden.isdisjoint(runs(text))
        ):
            seen.add(text)
            yield text


def forbidden_runs() -> frozenset[tuple[str, ...]]:
    """Return the runs of words that stand in a test sentence."""
    lines = [line for file in TEST_FILES for line in file.read_text(encoding="utf-8").splitlines()]
    return frozenset(run for line in lines for run in runs(visible(line)))


def runs(text: str) -> set[tuple[str, ...]]:
    """Return every `FORBIDDEN_WORDS` words that follow each other in a visible text."""
    words = _WORD.findall(text)
    return {tuple(words[start : start + FORBIDDEN_WORDS]) for start in range(len(words) - FORBIDDEN_WORDS + 1)}


def pronounced_words() -> list[str]:
    """Return the words of the product's pronouncing dictionary: common ones, names, inflected forms."""
    dictionary = files("voice_core.text") / "cmudict" / "words_by_phonemes.txt.gz"
    words = gzip.decompress(dictionary.read_bytes()).decode().split()
    return [word for word in words if len(word) > 1 and word.isalpha()]


def _draw(kind: str, wordnet: WordNet, words: list[str], filler: Filler, random: Random) -> str:
    match kind:
        case "gloss":
            return _ended(random.choice(wordnet.glosses), random)
        case "example":
            return _ended(random.choice(wordnet.examples), random)
        case "pair":  # short sentences are spoken together, as the product's segments are
            kinds = random.choices(("example", "short", "sentence"), k=2)
            return " ".join(_draw(each, wordnet, words, filler, random) for each in kinds)
        case "word_list":
            joint = random.choice((" ", " ", ", "))
            return _ended(joint.join(random.choices(words, k=random.randrange(1, 9))), random)
        case _:
            return filler.expand(kind)


def _ended(text: str, random: Random) -> str:
    """Return the text with a closing mark, mostly: the voice must read a line without one too."""
    text = text.strip(" ,;:-")
    if _SENTENCE_END.search(text):
        return text
    return text + random.choices(("", ".", "!", "?"), (12, 80, 4, 4))[0]
