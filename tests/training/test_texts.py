"""The training texts: seeded, varied, in the tokenizer's alphabet; and the test sentences apart from them."""

import re
from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from training.evaluate import TEST_SET, UNWATCHED_SET, SentenceSet, lines_of
from training.sentences import GRAMMAR, Filler
from training.texts import LETTERS, LONGEST_CHARACTERS, PUNCTUATION, forbidden_runs, runs, texts, visible
from training.wordnet import WordNet

BOTH_SETS = pytest.mark.parametrize("sentences", [TEST_SET, UNWATCHED_SET], ids=["test", "unwatched"])


def test_the_same_seed_gives_the_same_texts_another_seed_others(few_words: WordNet) -> None:
    first, again, other = (list(islice(texts(few_words, seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


def test_texts_are_distinct_and_in_the_alphabet(few_words: WordNet) -> None:
    made = list(islice(texts(few_words, 0), 300))
    assert len(set(made)) == 300
    assert set("".join(made)) <= set(LETTERS + PUNCTUATION + " ")
    assert max(map(len, made)) <= LONGEST_CHARACTERS


def test_visible_text_is_what_the_tokenizer_keeps() -> None:
    assert visible("Ünder 5 (five) *stars*") == "under five five stars"


def test_every_rule_of_the_grammar_can_be_expanded(few_words: WordNet) -> None:
    filler = Filler(few_words, ["smith"], Random(0))
    for rule in GRAMMAR:
        for _ in range(20):
            assert "{" not in filler.expand(rule)


def test_verbs_are_inflected(few_words: WordNet) -> None:
    filler = Filler(few_words, [], Random(0))
    assert {filler.present() for _ in range(50)} == {"paints", "carries", "watches"}
    assert {filler.past() for _ in range(50)} == {"painted", "carried", "watched"}


@BOTH_SETS
def test_there_are_a_hundred_test_sentences_and_each_is_written_in_words_by_hand(sentences: SentenceSet) -> None:
    written, spoken, phonemes = map(lines_of, (sentences.written, sentences.spoken, sentences.phonemes))
    assert len(written) == len(set(written)) == len(spoken) == len(phonemes) == 100
    assert not re.search(r"[\d$%£]", "".join(spoken))
    for sentence, words in zip(written, spoken, strict=True):
        assert re.search(r"\d|[A-Z]{2}|(Dr|Mr)\.", sentence) or sentence == words


def test_a_text_that_shares_five_words_in_a_row_with_a_test_sentence_is_never_learned_from(few_words: WordNet) -> None:
    leak = "then he whistled an old tune while"
    leaking = replace(few_words, examples=[leak, "he whistled an old song while"], glosses=[leak])
    assert not runs("he whistled an old") & forbidden_runs()
    assert runs(leak) & forbidden_runs()
    made = list(islice(texts(leaking, 0), 200))
    assert any("old song" in text for text in made)
    assert not any("old tune" in text for text in made)


def test_figures_are_forbidden_as_they_are_said() -> None:
    assert ("costs", "forty", "seven", "dollars", "and") not in forbidden_runs()
    assert ("came", "to", "forty", "seven", "dollars") in forbidden_runs()


@BOTH_SETS
def test_no_test_sentence_is_an_instance_of_a_training_template(sentences: SentenceSet) -> None:
    for rule in ("figures", "names", "short"):
        for template in GRAMMAR[rule]:
            words_of_its_own = re.sub(r"\{\w+\}", "", template)
            if len(re.findall(r"[a-z]+", words_of_its_own)) < 2:
                continue  # "{name} {predicate}." is no template but a sentence
            pattern = ".+".join(re.escape(part) for part in re.split(r"\{\w+\}", template))
            matching = [
                sentence for sentence in lines_of(sentences.written) if re.fullmatch(pattern, sentence, re.IGNORECASE)
            ]
            assert not matching, template
