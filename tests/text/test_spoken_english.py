"""English figures, dates, money and abbreviations become the words that somebody would read aloud."""

from random import Random

import pytest

from voice_core.text.spoken_english import cardinal, ordinal, spell_out, year


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (101, "one hundred one"),
        (1_000, "one thousand"),
        (2_345_006, "two million three hundred forty five thousand six"),
    ],
)
def test_cardinals(number: int, words: str) -> None:
    assert cardinal(number) == words


def test_a_number_beyond_trillions_is_read_digit_by_digit() -> None:
    assert cardinal("1" * 16) == " ".join(["one"] * 16)


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "first"), (8, "eighth"), (12, "twelfth"), (20, "twentieth"), (21, "twenty first"), (100, "one hundredth")],
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1066, "ten sixty six"),
        (1800, "eighteen hundred"),
        (1905, "nineteen oh five"),
        (2000, "two thousand"),
        (2007, "two thousand seven"),
        (2024, "twenty twenty four"),
    ],
)
def test_years(number: int, words: str) -> None:
    assert year(number) == words


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("I paid $5.", "I paid five dollars."),
        ("In May 12,000 people came.", "In May twelve thousand people came."),
        (
            "In March 25.5% fell, in April 50 rose.",
            "In March twenty five point five percent fell, in April fifty rose.",
        ),
        ("on May 12, 2023", "on May twelfth, twenty twenty three"),
        ("6 Jan 21", "the sixth of January twenty one"),
        ("25/12/2023", "December twenty fifth, twenty twenty three"),
        ("the 1,000th time", "the one thousandth time"),
        ("10⁶ people, 10⁻³", "ten to the power of six people, ten to the power of minus three"),
        ("⅕ of 3⅕", "one fifth of three and a fifth"),
        ("5 ≠ 6, ±5 kg, 2*3=6", "five is not equal to six, plus or minus five kilograms, two times three equals six"),
        ("Brand™ at ~5 km", "Brand at about five kilometres"),
        ("2:03:45, 1:30:00", "two oh three and forty five seconds, one thirty"),
        ("2020-01-02T10:20:00Z", "January second, twenty twenty ten twenty u t c"),
        ("3:2 and 16:9", "three to two and sixteen to nine"),
        ("(555) 123-4567", "five five five, one two three, four five six seven"),
        ("1-800-555-0199", "one, eight zero zero, five five five, zero one nine nine"),
        ("+44 20 7946 0958", "plus four four, two zero, seven nine four six, zero nine five eight"),
        ("$20USD or $1T", "twenty dollars or one trillion dollars"),
        ("Louis XIV", "Louis fourteen"),
        ("It costs $1,200.50!", "It costs one thousand two hundred dollars and fifty cents!"),
        ("only £0.01", "only one penny"),
        ("€3.5 million", "three point five million euros"),
        ("$2bn and $1M", "two billion dollars and one million dollars"),
        ("$1", "one dollar"),
        ("-$5 and 5 €", "minus five dollars and five euros"),
        ("$5-10, or $5–10 million", "five to ten dollars, or five to ten million dollars"),
        ("US$5 or US$5-10", "five u s dollars or five to ten u s dollars"),
        ("$1.50-2.50", "one dollar and fifty cents to two dollars and fifty cents"),
        ("$5m-10m", "five million dollars to ten million dollars"),
        ("5-10 €", "five to ten euros"),
        (
            "It costs $500-1000 or €800-1200.",
            "It costs five hundred to one thousand dollars or eight hundred to one thousand two hundred euros.",
        ),
        (
            "$5mn, $5mil, $3tn, $5b",
            "five million dollars, five million dollars, three trillion dollars, five billion dollars",
        ),
        ("$5each or 5€each", "five dollars each or five euros each"),
        ("$20 — 3 times more", "twenty dollars, three times more"),
        ("in 2020 $5 was much", "in twenty twenty five dollars was much"),
    ],
)
def test_money(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("On March 3, 2021, we met.", "On March third, twenty twenty one, we met."),
        ("the 4th of July 1776", "the fourth of July seventeen seventy six"),
        ("due 2025-12-24.", "due December twenty fourth, twenty twenty five."),
        ("5/1/1999", "May first, nineteen ninety nine"),
        ("in the 1990s and the '80s", "in the nineteen nineties and the 'eighties"),
        ("Sat. morning", "Saturday morning"),
        ("May 3-5, 2021, May 3–5", "May third to fifth, twenty twenty one, May third to fifth"),
        ("the 3-5 May, 24.12.2020", "the third to the fifth of May, the twenty fourth of December twenty twenty"),
        ("Sun. May 5, Mon. John came", "Sunday May fifth, Monday John came"),
        ("The Earth orbits the Sun. The Moon doesn't.", "The Earth orbits the Sun. The Moon doesn't."),
        ("I came on Fri. She left on Mon.", "I came on Friday. She left on Monday."),
        ("April 5-6 km away, May 3-5 pm", "April five to six kilometres away, May three to five p m"),
        (
            "12/25/23 and 25/12/99",
            "December twenty fifth, twenty twenty three and December twenty fifth, nineteen ninety nine",
        ),
        ("13/14/15", "thirteen slash fourteen slash fifteen"),
        ("in Sept. 2020 and May 2021", "in September twenty twenty and May twenty twenty one"),
    ],
)
def test_dates(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("at 3:45 pm", "at three forty five p m"),
        ("at 10:00, sharp", "at ten o'clock, sharp"),
        ("at 9:05.", "at nine oh five."),
        ("7 a.m. on Monday", "seven ay m on Monday"),
        ("9am-5pm, 9:30-11", "nine ay m to five p m, nine thirty to eleven"),
        ("at 9.30am, 3-4 p.m. or 3:30-4:30", "at nine thirty ay m, three to four p m or three thirty to four thirty"),
    ],
)
def test_times(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("-5°C", "minus five degrees Celsius"),
        ("1 km, then 5 km", "one kilometre, then five kilometres"),
        ("60 mph", "sixty miles per hour"),
        ("3.14% of it", "three point one four percent of it"),
        ("1/2 and 3/4", "one half and three quarters"),
        ("open 24/7", "open twenty four seven"),
        ("12-15 people", "twelve to fifteen people"),
        ("1914–1918", "nineteen fourteen to nineteen eighteen"),
        ("$20-$30", "twenty dollars to thirty dollars"),
        ("a 10-year-old dog", "a ten-year-old dog"),
        (".5 of it", "zero point five of it"),
        ("call 555-0123", "call five five five, zero one two three"),
        ("about 500-1000 words", "about five hundred to one thousand words"),
        (
            "100-1000 km, 255-1024 MB",
            "one hundred to one thousand kilometres, two hundred fifty five to one thousand twenty four megabytes",
        ),
        ("100s of people, 1,000s of cars, 10s of them", "hundreds of people, thousands of cars, tens of them"),
        ("10m users, 10m away", "ten million users, ten metres away"),
        ("agent 007", "agent zero zero seven"),
        ("the 21st floor", "the twenty first floor"),
        ("10%-15%, 5-10 km", "ten percent to fifteen percent, five to ten kilometres"),
        ("5², 10 m², 2 km³", "five squared, ten square metres, two cubic kilometres"),
        ("4.5/5", "four point five slash five"),
        ("1½ cups, 2 3/4 cups", "one and a half cups, two and three quarters cups"),
        ("2½ min, 1 1/8 inch, ¾ lb", "two and a half minutes, one and an eighth inch, three quarters of a pound"),
        ("12,500 1/4-inch screws", "twelve thousand five hundred one quarter-inch screws"),
        ("9.8 m/s²", "nine point eight metres per second squared"),
        ("1 000 000 people, 3 hr 20 mins", "one million people, three hours twenty minutes"),
        ("version 2.0.1, v2.0.1", "version two point zero point one, v two point zero point one"),
        ("10.0.0.1", "ten dot zero dot zero dot one"),
        ("5 - 3 = 2", "five minus three equals two"),
        ("5-3=2", "five minus three equals two"),
    ],
)
def test_figures(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Dr. Lee and Mrs. O'Neil", "doctor Lee and missus O'Neil"),
        ("Mr Lee, MR is two letters", "mister Lee, m r is two letters"),
        ("IT IS TOO LATE TO SHOUT", "it is too late to shout"),
        ("St. Paul lives on Main St. now", "saint Paul lives on Main street now"),
        ("Mr and Mrs Smith", "mister and missus Smith"),
        ("E.g. this", "For example this"),
        ("I LOVE it, it is VERY good", "I LOVE it, it is VERY good"),
        ("IT IS, but the IT staff", "it is, but the i t staff"),
        ("DON'T, IT'S HOT", "DON'T, IT'S h o t"),
        ("AT&T in Columbus, OH", "ay t and T in Columbus, o h"),
        ("WHO are they? The WHO.", "w h o are they? The w h o."),
        ("the FBI, the U.S. and NASA", "the f b i, the u s and NASA"),
        ("two PCs", "two p c s"),
        ("MP3", "m p three"),
        ("World War II", "World War two"),
        ("salt & pepper", "salt and pepper"),
        ("NOTE: ERROR in HTML, HTTP", "NOTE: ERROR in h t m l, h t t p"),
        ("HAPPY BIRTHDAY!", "HAPPY BIRTHDAY!"),
        ("This IS important. I am SO happy.", "This IS important. I am SO happy."),
        ("pears, etc. Then we went, etc.", "pears, et cetera. Then we went, et cetera."),
        ("Apple Inc. She left Apple Inc. Chairman Lee", "Apple incorporated. She left Apple incorporated Chairman Lee"),
        ("On Main St. He lives on Main St.", "On Main street. He lives on Main street."),
        ("in the U.S. The U.S. Senate", "in the u s. The u s Senate"),
        ("#1 and # 2, C# and F#, #VoiceServe", "number one and number two, C sharp and F sharp, hashtag VoiceServe"),
        ("https://example.org/a#b-c", "example dot org slash a hash b dash c"),
        ("## A heading", "A heading"),
        ("see www.example.org/help.", "see example dot org slash help."),
        ("write to me@example.com!", "write to me at example dot com!"),
    ],
)
def test_abbreviations_and_addresses(written: str, spoken: str) -> None:
    assert spell_out(written) == spoken


@pytest.mark.parametrize(
    ("shouted", "spoken"),
    [
        ("WORLD WAR II BEGAN IN 1939", "world war two began in nineteen thirty nine"),
        ("DR. LEE LIVES IN THE USA", "doctor lee lives in the u s ay"),
        (
            "MR LEE PAID $5M ON MARCH 3 FOR 16 GB",
            "mister lee paid five million dollars on March third for sixteen gigabytes",
        ),
        ("THE U.K. AND THE U.S. ARE 5,000 KM APART", "the u k and the u s are five thousand kilometres apart"),
        ("WE'LL SEE THE FBI'S FIG. IT IS RED", "we'll see the f b i's fig. it is red"),
    ],
)
def test_a_shouted_line_keeps_what_is_known_by_its_capitals(shouted: str, spoken: str) -> None:
    assert spell_out(shouted) == spoken


def test_a_long_text_of_one_kind_takes_no_longer_than_any_other() -> None:
    """One rule that looked at the rest again from each place would take minutes."""
    for piece in ("1", "000,", "a-", "a1.-,$# "):
        assert not any(character.isdigit() for character in spell_out(piece * (100_000 // len(piece))))


def test_accents_and_typographic_marks_become_plain() -> None:
    assert spell_out("“Café” – it’s naïve…") == "Cafe, it's naive"
    assert spell_out("Hawaiʻi") == "Hawai'i"


def test_letters_that_have_no_accent_to_lose_become_plain_too() -> None:
    assert spell_out("Søren Weiß, Æsop and Łódź: 5¢") == "Soren Weiss, AEsop and Lodz: five cents"


def test_sums_of_any_length_are_read() -> None:
    assert spell_out("$" + "1" * 5000).endswith("one one dollars")


def test_whatever_is_written_no_digit_is_left() -> None:
    random = Random(1)
    for _ in range(500):
        written = "".join(random.choices("0123456789  .,:-/$%°kmaApPsStT'½²", k=random.randrange(1, 25)))
        assert not any(character.isdigit() for character in spell_out(written)), written


def test_what_is_words_already_stays_as_it_is() -> None:
    text = "Nothing to do here: all of it, even this, is words!"
    assert spell_out(text) == text


def test_spelling_out_twice_changes_nothing_more() -> None:
    once = spell_out("Dr. No paid $7.50 at 8:15 am on May 2nd, 1962 (12% more).")
    assert spell_out(once) == once


def test_line_breaks_stay_because_they_end_segments() -> None:
    assert spell_out("1\n2") == "one\ntwo"
