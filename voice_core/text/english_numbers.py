"""The words of English numbers below a thousand, for whoever counts their phonemes and whoever has them spoken."""

from __future__ import annotations

# fmt: off
UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on


def hundreds_words(number: int) -> list[str]:
    """Return the words of a number from 0 to 999; none for 0."""
    words = [UNITS[number // 100], "hundred"] if number >= 100 else []
    rest = number % 100
    if rest >= 20:
        words.append(TENS[rest // 10])
        rest %= 10
    if rest:
        words.append(UNITS[rest])
    return words
