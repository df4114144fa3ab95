"""Sentences that nobody wrote: a small grammar over WordNet's words, and everyday texts full of figures and names.

The grammar is a table of rules. ``{name}`` in a rule is replaced by a rule of that name drawn at random, or, where the
grammar has no such rule, by what the `Filler` method of that name returns.
"""

from __future__ import annotations

import re
from random import Random

from training.wordnet import WordNet

_SLOT = re.compile(r"\{(\w+)\}")

GRAMMAR: dict[str, tuple[str, ...]] = {
    "sentence": (
        "{subject} {predicate}.",
        "{subject} {predicate}, {joint} {subject} {predicate}.",
        "{opening}, {subject} {predicate}.",
        "{place}, {subject} {predicate}.",
        "{asking} {subject} {infinitive}?",
        "{wh_asking} {subject} {infinitive}?",
        "{infinitive}, please.",
        "please {infinitive}, {joint} {infinitive}.",
        "{subject} said that {subject} {predicate}.",
        "if {subject} {predicate}, {subject} {predicate}.",
        "{infinitive} {place}!",
        "there {is_or_was} {indefinite} {place}.",
        "it {is_or_was} {adverb} {adjective} to {infinitive}.",
        "{subject} {is_or_was} {adjective}, {adjective} and {adjective}.",
        "{subject} {is_or_was} {adjective}, isn't it?",
        "what a {adjective} {noun}!",
        "i {feeling} that {subject} {predicate}.",
        "neither {definite} nor {definite} {predicate}.",
        "{definite}, {definite} and {definite} {is_or_was} {adjective}.",
    ),
    "short": (
        "{adverb}!",
        "{adjective} {noun}.",
        "{definite}?",
        "not {adverb}.",
        "yes, {subject} {auxiliary}.",
        "no, {subject} {auxiliary} not.",
        "good {part_of_day}, {name}.",
        "thank you, {name}.",
        "hello {name}!",
        "{infinitive}!",
        "why not?",
        "{name} {predicate}.",
        "{pronoun} {auxiliary} {infinitive}.",
    ),
    "subject": (
        "{definite}", "{definite}", "{pronoun}", "{name}", "{indefinite}", "{owner} {noun}",
        "{definite} {place}",
    ),
    "predicate": (
        "{present} {definite}",
        "{past} {definite}",
        "{past} {indefinite} {place}",
        "{auxiliary} {infinitive}",
        "{auxiliary} {adverb} {infinitive}",
        "{is_or_was} {adjective}",
        "{is_or_was} {indefinite}",
        "{is_or_was} {place}",
        "{past} {adverb}",
        "{has} {past} {definite}",
        "{past} {person} {indefinite}",
        "{present} to {infinitive}",
    ),
    "infinitive": ("{verb} {definite}", "{verb} {indefinite}", "{verb} {person}", "{verb} {place}", "{verb} {adverb}"),
    "definite": (
        "the {noun}", "the {adjective} {noun}", "this {noun}", "that {noun}", "the {noun} of the {noun}",
        "{owner} {noun}",
    ),
    "indefinite": (
        "some {noun}", "no {noun}", "every {noun}", "another {noun}", "one {adjective} {noun}",
        "{owner} {adjective} {noun}",
    ),
    "place": ("{preposition} {definite}",),
    "preposition": (
        "in", "on", "under", "near", "behind", "with", "without", "after", "before", "from", "across", "between",
        "about", "against", "for",
    ),
    "opening": (
        "however", "of course", "in the end", "last night", "after all", "for example", "as usual", "to my surprise",
        "once again", "in fact", "next week", "these days", "sooner or later", "{adverb}", "on {weekday}",
    ),
    "asking": ("can", "could", "will", "would", "did", "should", "may", "must", "shall", "does"),
    "wh_asking": (
        "why does", "when will", "how can", "where did", "what makes", "how often would", "who lets",
        "which way should",
    ),
    "auxiliary": (
        "can", "could", "will", "would", "should", "must", "may", "might", "did", "can't", "won't", "couldn't",
        "didn't", "doesn't", "shouldn't", "wouldn't",
    ),
    "is_or_was": ("is", "was", "is", "was", "isn't", "wasn't", "will be", "has been", "seems", "became"),
    "has": ("has", "had", "hasn't", "hadn't"),
    "joint": ("and", "but", "or", "so", "because", "while", "although", "when", "until", "since"),
    "pronoun": ("i", "you", "he", "she", "it", "we", "they", "everybody", "nobody", "somebody", "who"),
    "person": ("me", "you", "him", "her", "it", "us", "them", "{name}"),
    "owner": ("my", "your", "his", "her", "its", "our", "their", "{name}'s", "the {noun}'s"),
    "feeling": ("think", "know", "hope", "believe", "guess", "heard", "don't think", "wish", "suppose", "am sure"),
    "part_of_day": ("morning", "afternoon", "evening", "night", "day"),
    "weekday": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "figures": (
        "the {noun} costs {money}.",
        "{name} paid {money} for {count} {noun}s.",
        "{count} and {count} make {count}.",
        "it was {month} {day}, {year}.",
        "the {noun} opened on the {day_with_ending} of {month} {year}.",
        "the {noun} leaves at {time} from gate {small}.",
        "it is {time} in the {part_of_day}.",
        "only {percent}% of the {noun}s were {adjective}.",
        "call me at {telephone}, or at {telephone}.",
        "my number is {telephone}.",
        "the code is {digits}.",
        "{name} lives at {count} {name} street.",
        "there are {count} {noun}s in {count} {noun}s.",
        "chapter {small}, page {count}: the {adjective} {noun}.",
        "it weighs {decimal} kg and is {count} cm long.",
        "about {count} km north of {name}.",
        "the {ordinal} {noun} took {decimal} seconds.",
        "in {year}, the {noun} had {large} people.",
        "from {year} to {year}, {subject} {predicate}.",
        "{count}, {count}, {count}, {count}.",
        "the score was {small} to {small}.",
        "he is {small} years old, and she is {small}.",
        "the {letters} has {count} {noun}s.",
        "the {letters} and the {letters} {past} the {noun}.",
        "{title} {name} {name} will see you at {time}.",
        "version {decimal} of {name} is {adjective}.",
        "{small}/{few} of the {noun}, or {percent}%.",
        "on {weekday} it was {count} degrees in {name}.",
        "room {count} is on the {ordinal} floor.",
        "{money} million for {count} {noun}s!",
    ),
    "names": (
        "{name} and {name} met {name} in {name}.",
        "my name is {name} {name}.",
        "this is {name} from {name}.",
        "{name}, {name} and {name} {predicate}.",
        "have you met {name} {name}?",
        "{name} is the {noun} of {name}.",
        "welcome to {name}, {title} {name}.",
    ),
    "title": ("Dr.", "Mr.", "Mrs.", "Ms.", "Prof.", "Captain", "Sir", "Aunt", "Uncle", "President"),
}  # fmt: skip


class Filler:
    """Draws what the grammar's leaves stand for."""

    def __init__(self, wordnet: WordNet, names: list[str], random: Random) -> None:
        self._wordnet = wordnet
        self._names = names
        self._random = random

    def expand(self, rule: str) -> str:
        """Return a text of the grammar's rule of that name."""
        return _SLOT.sub(lambda slot: self._fill(slot[1]), self._random.choice(GRAMMAR[rule]))

    def _fill(self, name: str) -> str:
        if name in GRAMMAR:
            return self.expand(name)
        leaf: str = getattr(self, name)()
        return leaf

    def _common(self, words: list[str]) -> str:
        """Draw a word from a list that begins with the commonest; squaring makes those the likelier ones."""
        return words[int(len(words) * self._random.random() ** 2)]

    def name(self) -> str:
        return self._random.choice(self._names).capitalize()

    def noun(self) -> str:
        return self._common(self._wordnet.nouns)

    def verb(self) -> str:
        return self._common(self._wordnet.verbs)

    def adjective(self) -> str:
        return self._common(self._wordnet.adjectives)

    def adverb(self) -> str:
        return self._common(self._wordnet.adverbs)

    def present(self) -> str:
        verb = self.verb()
        if verb.endswith(("s", "x", "z", "ch", "sh")):
            return verb + "es"
        return verb[:-1] + "ies" if re.search("[^aeiou]y$", verb) else verb + "s"

    def past(self) -> str:
        verb = self.verb()
        while verb in self._wordnet.irregular_verbs:
            verb = self.verb()
        if verb.endswith("e"):
            return verb + "d"
        return verb[:-1] + "ied" if re.search("[^aeiou]y$", verb) else verb + "ed"

    def small(self) -> str:
        return str(self._random.randrange(1, 60))

    def few(self) -> str:
        return str(self._random.randrange(2, 11))

    def count(self) -> str:
        return f"{self._random.randrange(self._random.choice((10, 20, 100, 1000, 10_000))):,}"

    def large(self) -> str:
        return f"{self._random.randrange(self._random.choice((10**5, 10**6, 10**8))):,}"

    def decimal(self) -> str:
        places = self._random.choice((1, 1, 2))
        return f"{self._random.uniform(0, self._random.choice((1, 10, 100))):.{places}f}"

    def percent(self) -> str:
        return self._random.choice((self.small(), self.decimal()))

    def money(self) -> str:
        symbol = self._random.choice("$$$£€")
        return symbol + self._random.choice((self.count(), self.small(), f"{self._random.uniform(0, 200):.2f}"))

    def year(self) -> str:
        return str(self._random.randrange(1400, 2090))

    def day(self) -> str:
        return str(self._random.randrange(1, 32))

    def day_with_ending(self) -> str:
        return self._with_ending(self._random.randrange(1, 32))

    def ordinal(self) -> str:
        return self._with_ending(self._random.randrange(1, 130))

    def time(self) -> str:
        hour, minute = (
            self._random.randrange(1, 13),
            self._random.choice((0, 15, 30, 45, self._random.randrange(60))),
        )
        return f"{hour}:{minute:02}{self._random.choice(('', ' am', ' pm'))}"

    def telephone(self) -> str:
        return f"{self._random.randrange(200, 999)}-{self._random.randrange(10_000):04}"

    def digits(self) -> str:
        return " ".join(str(self._random.randrange(10)) for _ in range(self._random.randrange(3, 9)))

    def letters(self) -> str:
        return "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=self._random.randrange(2, 5)))

    @staticmethod
    def _with_ending(number: int) -> str:
        ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
        return f"{number}{ending}"
