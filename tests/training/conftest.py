"""What the training's tests share."""

import pytest

from training.wordnet import WordNet


@pytest.fixture(scope="session")
def few_words() -> WordNet:
    """A WordNet of a few words, so that no test needs the real one."""
    return WordNet(
        glosses=["a tall plant with a trunk", "the act of counting to 10 (or more)"],
        examples=["he ran home", "what was that?"],
        nouns=["tree", "box", "city"],
        verbs=["paint", "carry", "watch"],
        adjectives=["green", "old"],
        adverbs=["slowly"],
        irregular_verbs=frozenset({"run"}),
        lemmas=frozenset({"tree", "box", "city", "paint", "carry", "watch", "green", "old", "slowly"}),
    )
