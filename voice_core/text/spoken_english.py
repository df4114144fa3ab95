"""Writes English the way it is said: numbers, dates, money, units and abbreviations as words.

For checkpoints whose tokenizer knows letters only (config.json: ``"text_normaliser": "english_words"``). Checkpoints
that were trained on raw text must never see its output. The rules run in the order of ``_RULES``: what has a shape of
its own (addresses, times, dates, money) before bare numbers, abbreviations before spelled-out capitals.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from voice_core.text.english import said_as_word
from voice_core.text.english_numbers import UNITS, hundreds_words

_POWERS = ("", "thousand", "million", "billion", "trillion")
_LONGEST_QUANTITY_DIGITS = 3 * len(_POWERS)  # longer numbers are read digit by digit
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_MONTH = rf"(?:{'|'.join(_MONTHS)}|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
_SHORT_MONTHS = {month[:3].lower(): month for month in _MONTHS}
_CURRENCIES = {  # symbol: one, many, one hundredth, many of them
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
}
_SHORT_POWERS = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "mn": "million",
    "mil": "million",
    "b": "billion",
    "bn": "billion",
    "B": "billion",
    "tn": "trillion",
    "T": "trillion",
}
_POWER = "|".join((*filter(None, _POWERS), *_SHORT_POWERS))
_MEASURES = {  # as written behind a number: one, many
    "km": ("kilometre", "kilometres"),
    "cm": ("centimetre", "centimetres"),
    "mm": ("millimetre", "millimetres"),
    "m": ("metre", "metres"),
    "ft": ("foot", "feet"),
    "mi": ("mile", "miles"),
    "mph": ("mile per hour", "miles per hour"),
    "km/h": ("kilometre per hour", "kilometres per hour"),
    "kg": ("kilogram", "kilograms"),
    "g": ("gram", "grams"),
    "mg": ("milligram", "milligrams"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "l": ("litre", "litres"),
    "ml": ("millilitre", "millilitres"),
    "ms": ("millisecond", "milliseconds"),
    "s": ("second", "seconds"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "yr": ("year", "years"),
    "yrs": ("year", "years"),
    "m/s": ("metre per second", "metres per second"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "V": ("volt", "volts"),
    "KB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "%": ("percent", "percent"),
}
# What is counted in millions where it isn't money: "10m users" are no metres.
_COUNTED = """
    customers dollars downloads euros followers homes households jobs listeners people players pounds readers residents
    subscribers tonnes users views viewers visitors visits voters years
"""
_POWERS_OF_UNITS = {"squared": "square", "cubed": "cubic"}
_DOLLARS_OF = "US|AU|A|CA|C|NZ|HK"
_ABBREVIATIONS = {
    "Dr.": "doctor",
    "Mr.": "mister",
    "Mrs.": "missus",
    "Ms.": "miz",
    "Prof.": "professor",
    "Capt.": "captain",
    "Gen.": "general",
    "Lt.": "lieutenant",
    "Sgt.": "sergeant",
    "Rev.": "reverend",
    "Hon.": "honourable",
    "Gov.": "governor",
    "Sen.": "senator",
    "St.": "saint",
    "Mt.": "mount",
    "Ave.": "avenue",
    "Blvd.": "boulevard",
    "Rd.": "road",
    "Apt.": "apartment",
    "Jr.": "junior",
    "Sr.": "senior",
    "vs.": "versus",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "E.g.": "For example",
    "I.e.": "That is",
    "approx.": "approximately",
    "dept.": "department",
    "est.": "established",
    "Inc.": "incorporated",
    "Ltd.": "limited",
    "Corp.": "corporation",
    "Co.": "company",
    "Fig.": "figure",
    "Vol.": "volume",
    "Ch.": "chapter",
    "pp.": "pages",
    "w/o": "without",
    "w/": "with",
}
_WEEKDAYS = {
    "Mon.": "Monday",
    "Tue.": "Tuesday",
    "Wed.": "Wednesday",
    "Thu.": "Thursday",
    "Fri.": "Friday",
    "Sat.": "Saturday",
    "Sun.": "Sunday",
}
_UNSURE = frozenset(("Apt.", "Fig.", "Sat.", "St.", "Sun.", "Wed."))  # without the words around them: "The Sun."
_UNSHOUTED = {  # how the rules write what stands in a line of capitals, where it isn't merely small
    **{unit.upper(): unit for unit in _MEASURES if not unit.islower()},
    **{written.upper(): written for written in (*_ABBREVIATIONS, *_WEEKDAYS) if written not in _UNSURE},
    **{title.upper(): f"{title}." for title in ("Mr", "Mrs", "Dr", "Prof")},
}
_LAST_WORDS = {  # may end a sentence, which then keeps its full stop
    **{
        written: _ABBREVIATIONS[written]
        for written in ("Ave.", "Blvd.", "Rd.", "Jr.", "Sr.", "Inc.", "Ltd.", "Corp.", "Co.", "etc.")
    },
    **{written: day for written, day in _WEEKDAYS.items() if written not in _UNSURE},
}
# Behind an abbreviation a capital may begin a name as well ("Apple Inc. Chairman"); these words begin a sentence.
_FIRST_WORDS = """
    A After All Also Although An And Another Any Are As At Because Before Both But By Can Could Did Do Does Each Even
    Every Everyone For From Had Has Have He Her Here His How However I If In Instead Is It Its Last Later Let Many Maybe
    Most My Never Next No Nobody Not Nothing Now On Once Only Our People Perhaps Please She Should Since So Some
    Sometimes Soon Still Such That The Their Then There These They This Those Though To Today Tomorrow Tonight Until Was
    We Well Were What When Where Which While Who Why Will With Without Would Yes Yesterday Yet You Your
"""
_SENTENCE_END = rf"(?=\s*$|\s+(?:{'|'.join(_FIRST_WORDS.split())})\b(?![.-]))"
_SYMBOLS = {
    "&": "and",
    "@": "at",
    "+": "plus",
    "=": "equals",
    "#": "hash",
    "%": "percent",
    "°": "degrees",
    "×": "times",
    "÷": "divided by",
    "<": "less than",
    ">": "greater than",
    "/": "slash",
    "_": "underscore",
    "$": "dollars",
    "€": "euros",
    "£": "pounds",
    "¥": "yen",
    "¢": "cents",
}
_MARKS = str.maketrans(
    {
        **dict.fromkeys("‘’‛′`´ʻʼ", "'"),
        **dict.fromkeys('“”„«»()[]{}*|"', " "),
        "…": ", ",
        "−": "-",
        "⁄": "/",
        "™": "",
        "®": "",
        "²": " squared",
        "³": " cubed",
        "≠": " is not equal to ",
        "≤": " at most ",
        "≥": " at least ",
        "≈": " approximately ",
        "±": " plus or minus ",
        "√": " square root of ",
        "→": " to ",
        **{part: f" {unicodedata.normalize('NFKD', part).replace('⁄', '/')}" for part in "½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"},
        # Letters whose stroke or second half is no accent that could be taken off.
        **dict(zip("ßẞæÆœŒþÞ", ("ss", "SS", "ae", "AE", "oe", "OE", "th", "Th"), strict=True)),
        **dict(zip("øØłŁđĐðÐħĦŧŦı", "oOlLdDdDhHtTi", strict=True)),
    }
)
_ROMAN_NUMERALS = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12} | {
    "XIII": 13,
    "XIV": 14,
    "XV": 15,
    "XVI": 16,
    "XVII": 17,
    "XVIII": 18,
    "XIX": 19,
}
# Capitals that are said as words; others up to five letters are spelled.
_ACRONYMS = """
    AIDS ASAP COVID FIFA GIF JPEG LASER NASA NATO OPEC PIN RADAR RAM ROM SCUBA UNESCO UNICEF
"""
_EMPHASISED = """
    ABOUT AFTER AGAIN ALL ALONE ALONG ALSO AND ANY ARE ASK AWAY BACK BAD BE BEEN BEST BIG BOTH BUT BY CALL CAME CAN
    CLOSE COME COULD DAY DEAR DID DO DOES DONE DOWN EACH EARLY EASY ELSE END ENTER EVEN EVER EVERY EXIT FAR FAST FEW
    FINAL FIND FIRST FOR FREE FROM FULL GAVE GET GIVE GO GOD GOES GONE GOOD GOT GREAT HAD HALF HARD HAS HATE HAVE HE
    HELL HELLO HELP HER HERE HERS HIGH HIM HIS HOME HOW HUGE IF INTO JUST KEEP KNEW KNOW LAST LATE LEAST LEFT LESS LET
    LIKE LONG LOOK LOT LOVE MADE MAKE MANY MAY MAYBE MEAN MEN MIGHT MINE MORE MOST MUCH MUST MY NEAR NEED NEVER NEW
    NEWS NEXT NICE NO NONE NOT NOW OF OFF OK OLD ONCE ONE ONLY OPEN OTHER OUR OURS OUT OVER OWN QUICK QUITE READ READY
    REAL RIGHT SAFE SAID SALE SAME SAW SAY SEE SHALL SHE SHORT SHOW SINCE SLOW SMALL SOME SOON SORRY STILL STOP SUCH
    SUPER SURE TAKE TELL THAN THANK THAT THE THEIR THEM THEN THERE THESE THEY THING THINK THIS THOSE TIME TO TODAY TOO
    TOOK TOP TRUE TRY TWO UNDER UNTIL UPON USE USED VERY WAIT WANT WAS WATCH WAY WE WELL WENT WERE WHAT WHEN WHERE
    WHICH WHILE WHOLE WHOSE WHY WILL WITH WON WORLD WORSE WORST WOULD WRONG YEAR YES YET YOU YOUR YOURS ZERO
"""
_EMPHASISED_ALONE = "AN AS IS ON SO UP"
_SAID_AS_WORDS = frozenset((*_ACRONYMS.split(), *_EMPHASISED.split(), *_EMPHASISED_ALONE.split()))
_SURELY_EMPHASISED = frozenset(("I", *_EMPHASISED.split()))  # common words that no abbreviation is written like
_EMPHASISED_BESIDE_THEM = frozenset(  # and beside each other; alone, those from AM on are spelled
    (*_EMPHASISED_ALONE.split(), "AM", "AT", "IN", "IT", "ME", "OH", "OR", "WHO")
)
_SHORTEST_SURE_LETTERS = 4  # a word of the dictionary; shorter ones are abbreviations as often: US, ACT, SAT
_LONGEST_SPELLED_LETTERS = 5
_LONGEST_SPELLED_WORDS = 3  # more words without a small letter are shouted, not spelled

_NUMBER_START = r"(?<!\d,(?=\d{3}))"  # from its first digit on: a long one, tried again after each comma, takes minutes
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SPOKEN_DENOMINATORS = frozenset((*range(2, 11), 12, 16, 20, 32, 64, 100))
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_BEFORE_MARKS = (  # what the marks' own translations would tear apart
    (
        re.compile(r"(?<=\d)(?![²³](?![⁰¹²³⁴-⁹]))[⁻⁺]?[⁰¹²³⁴-⁹]+"),
        lambda match: f" to the power of {match[0].translate(_SUPERSCRIPTS).replace('+', '')} ",
    ),
    (re.compile(r"(?<=\d)\s?\^\s?(?=-?\d)"), lambda _: " to the power of "),
    (re.compile(r"(?<=\d)\s?\*\s?(?=\d)"), lambda _: " times "),
    (re.compile(r"~\s?(?=[$€£¥]?\d)"), lambda _: " about "),
    (re.compile(r"~"), lambda _: " "),
    (re.compile(r"[-=]>"), lambda _: " to "),
)
_TIDYING = (  # what the rules leave: doubled and misplaced spaces, doubled commas
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r" +(?=[,.;:!?]|-\w)"), ""),
    (re.compile(r",(?: ?,)+"), ","),
)
_FIRST_YEAR, _LAST_YEAR = 1100, 2099  # a bare number of four digits in this range is read as a year
_FIRST_SHORT_YEAR = 69  # a year of two digits is one of the last century from here on, as POSIX reads it


def spell_out(text: str) -> str:
    """Return English text in letters and punctuation alone, as somebody would read it aloud."""
    for pattern, say in _BEFORE_MARKS:
        text = pattern.sub(say, text)
    text = _without_accents(text.translate(_MARKS))
    if text.isupper() and len(text.split()) > _LONGEST_SPELLED_WORDS:
        text = _unshouted(text)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    for pattern, replacement in _TIDYING:
        text = pattern.sub(replacement, text)
    return text.strip(" ,")


def cardinal(number: str | int) -> str:
    """Return the words of a whole number given in digits; very long ones are read digit by digit."""
    digits = str(number)
    if len(digits) > _LONGEST_QUANTITY_DIGITS:
        return _digit_by_digit(digits)
    value = int(digits)
    if value == 0:
        return UNITS[0]
    words: list[str] = []
    for power in range(len(_POWERS) - 1, -1, -1):
        if group := value // 1000**power % 1000:
            words += [*hundreds_words(group), *_POWERS[power].split()]
    return " ".join(words)


def ordinal(number: str | int) -> str:
    """Return the words of a place in a row: 21 → twenty first."""
    *before, last = cardinal(number).split()
    said = last[:-1] + "ieth" if last.endswith("y") else _ORDINALS.get(last, last + "th")
    return " ".join((*before, said))


def year(number: int) -> str:
    """Return the words of a year: 1999 → nineteen ninety nine, 2007 → two thousand seven, 1905 → nineteen oh five."""
    century, rest = divmod(number, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def quantity(number: str) -> str:
    """Return the words of a number as written, such as ``1,234.5``."""
    whole, point, decimals = number.replace(",", "").partition(".")
    leading_zero = len(whole) > 1 and whole.startswith("0")
    words = _digit_by_digit(whole) if leading_zero else cardinal(whole)
    return f"{words} point {_digit_by_digit(decimals)}" if point else words


def _digit_by_digit(digits: str) -> str:
    return " ".join(UNITS[int(digit)] for digit in digits)


def _letter_by_letter(letters: str) -> str:
    """Spell letters; a lone ``a`` would be read as the article."""
    return " ".join("ay" if letter == "a" else letter for letter in letters.lower())


def _without_accents(text: str) -> str:
    return "".join(mark for mark in unicodedata.normalize("NFKD", text) if not unicodedata.combining(mark))


def _unshouted(text: str) -> str:
    """Write a line of capitals small, but for what the rules know by its capitals: II, FBI, Dr., March 3, U.S."""
    text = re.sub(r"(?:[A-Z]\.){2,}|[A-Z]+\.?", _write_small, text)
    return re.sub(rf"(?i)\b{_MONTH}\b(?=\.? \d)|(?<=\d ){_MONTH}\b", lambda match: match[0].capitalize(), text)


def _write_small(match: re.Match[str]) -> str:
    word = match[0].rstrip(".")
    stop = match[0][len(word) :]
    if written := _UNSHOUTED.get(match[0]):
        return written
    if word in _UNSHOUTED:
        return _UNSHOUTED[word] + stop
    if word.lower() in _MEASURES or f"{word}." in _UNSHOUTED:
        return match[0].lower()
    spelled = "." in word or (len(word) > 1 and said_as_word(word) is False)
    return match[0] if spelled or word in _ROMAN_NUMERALS else match[0].lower()


def _say_web_address(match: re.Match[str]) -> str:
    address = re.sub(r"^(https?://)?(www\.)?", "", match[0]).rstrip("/")
    for mark, word in ((".", "dot"), ("@", "at"), ("/", "slash"), ("-", "dash"), ("_", "underscore")):
        address = address.replace(mark, f" {word} ")
    return address


def _say_time(match: re.Match[str]) -> str:
    hours, minutes = int(match["hours"]), int(match["minutes"] or 0)
    words = [cardinal(hours)]
    if minutes:
        words += ["oh"] if minutes < 10 else []
        words.append(cardinal(minutes))
    elif not match["half"]:
        words.append("o'clock" if hours <= 12 else "hundred")
    if match["half"]:
        words.append(_letter_by_letter(match["half"].replace(".", "")))
    return " ".join(words) + " "


def _say_date(match: re.Match[str]) -> str:
    number, month, day = (int(match[part]) for part in ("year", "month", "day"))
    if len(match["year"]) == 2:
        number += 1900 if number >= _FIRST_SHORT_YEAR else 2000
    if month > 12:  # 25/12/2023, not in America
        month, day = day, month
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(number)}" if 1 <= month <= 12 else match[0]


def _say_european_date(match: re.Match[str]) -> str:
    day, month, number = (int(part) for part in match.groups())
    return f"the {ordinal(day)} of {_MONTHS[month - 1]} {year(number)}" if 1 <= month <= 12 else match[0]


def _say_month_first(match: re.Match[str]) -> str:
    said_year = f", {year(int(match['year']))}" if match["year"] else ""
    last_day = f" to {ordinal(match['last'])}" if match["last"] else ""
    return f"{_month(match['month'])} {ordinal(match['day'])}{last_day}{said_year}"


def _say_month_and_year(match: re.Match[str]) -> str:
    return f"{_month(match['month'])} {year(int(match['year']))}"


def _say_day_first(match: re.Match[str]) -> str:
    said_year = f" {year(int(match['year']))}" if match["year"] else ""
    return f"the {ordinal(match['day'])} of {_month(match['month'])}{said_year}"


def _month(written: str) -> str:
    return _SHORT_MONTHS[written[:3].lower()]


def _say_money(match: re.Match[str]) -> str:
    one, many, hundredth, hundredths = _CURRENCIES[match["currency"]]
    if match["country"]:
        of_country = _letter_by_letter(match["country"])
        one, many = f"{of_country} {one}", f"{of_country} {many}"
    words = _amount_of_money(match, one, many, hundredth, hundredths)
    return f"{'minus ' if match['sign'] else ''}{words}{'' if match['letter'] is None else ' '}"


def _amount_of_money(match: re.Match[str], one: str, many: str, hundredth: str, hundredths: str) -> str:
    whole, _, decimals = match["amount"].replace(",", "").partition(".")
    if match["power"]:
        power = _SHORT_POWERS.get(match["power"], match["power"])
        return f"{quantity(match['amount'])} {power} {many}"
    words = f"{cardinal(whole)} {one if whole.lstrip('0') == '1' else many}"
    if len(decimals) != 2 or not decimals.strip("0"):
        return words if not decimals.strip("0") else f"{quantity(match['amount'])} {many}"
    small = f"{cardinal(int(decimals))} {hundredth if int(decimals) == 1 else hundredths}"
    return small if not whole.strip("0") else f"{words} and {small}"


def _say_money_range(match: re.Match[str]) -> str:
    """Write it as two amounts, or as a number and an amount where the number alone is understood."""
    currency, low, high = match["currency"], match["low"], match["high"]
    if match["power"] or "." in low:
        return f"{currency}{low}{match['power'] or ''} to {currency}{high}"
    rising = float(low.replace(",", "")) < float(high.replace(",", ""))
    return f"{low} to {currency}{high}" if rising else match[0]


def _say_measure(match: re.Match[str]) -> str:
    one, many = _MEASURES[match["unit"]]
    unit = one if match["amount"] == "1" else many
    if power := match["power"]:
        unit = f"{unit} {power}" if "/" in match["unit"] else f"{_POWERS_OF_UNITS[power]} {unit}"
    return f"{'minus ' if match['sign'] else ''}{quantity(match['amount'])} {unit}"


def _say_part_of_measure(match: re.Match[str]) -> str:
    if int(match["numerator"]) >= int(match["denominator"]) or int(match["denominator"]) not in _SPOKEN_DENOMINATORS:
        return match[0]
    one, many = _MEASURES[match["unit"]]
    return f"{_say_fraction(match)} {many if match['whole'] else 'of a ' + one}"


def _say_decade(match: re.Match[str]) -> str:
    words = year(int(match[1])) if len(match[1]) == 4 else cardinal(match[1])
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _say_many(match: re.Match[str]) -> str:
    """Write 100s as hundreds."""
    return cardinal(match[1].replace(",", "")).removeprefix("one ") + "s"


def _say_fraction(match: re.Match[str]) -> str:
    whole, numerator, denominator = match["whole"], int(match["numerator"]), int(match["denominator"])
    before = f"{quantity(whole)} " if whole else ""
    if numerator >= denominator or denominator not in _SPOKEN_DENOMINATORS:
        return f"{before}{cardinal(numerator)} {cardinal(denominator)}"  # 24/7, 9/11
    part = {2: "half", 4: "quarter"}.get(denominator, ordinal(denominator))
    if before:
        article = "an" if part.startswith("e") else "a"
        return f"{before}and {f'{article} {part}' if numerator == 1 else f'{cardinal(numerator)} {part}s'}"
    return f"{cardinal(numerator)} {part if numerator == 1 else part + 's'}"


def _say_version(match: re.Match[str]) -> str:
    """Return the words of numbers between full stops: four are an address, others a version."""
    parts = match[0].split(".")
    return f" {(' dot ' if len(parts) == 4 else ' point ').join(map(quantity, parts))}"


def _say_seconds(match: re.Match[str]) -> str:
    """Write a time with seconds as one without, and the seconds, if there are any."""
    seconds = int(match["seconds"])
    return match["time"] + (f" and {cardinal(seconds)} second{'s' if seconds > 1 else ''}" if seconds else "")


def _say_telephone(match: re.Match[str]) -> str:
    parts = re.findall(r"\d+", match[0])
    if len(parts) == 2 and int(parts[0]) < int(parts[1]) and all(part.endswith("0") for part in parts):
        return match[0]  # 500-1000 words
    digits = ", ".join(map(_digit_by_digit, parts))
    return f" {'plus ' if match[0].startswith('+') else ''}{digits} "


def _say_bare_number(match: re.Match[str]) -> str:
    written = match["number"]
    sign = "minus " if match["sign"] else ""
    if len(written) == 4 and written.isdigit() and _FIRST_YEAR <= int(written) <= _LAST_YEAR and not sign:
        return f" {year(int(written))} "
    return f" {sign}{quantity(written)} "


def _say_capitals(match: re.Match[str]) -> str:
    letters = match[1]
    if letters in _SAID_AS_WORDS or len(letters) > _LONGEST_SPELLED_LETTERS:
        return match[0]
    if len(letters) >= _SHORTEST_SURE_LETTERS and said_as_word(letters):
        return match[0]
    return _letter_by_letter(letters) + (" s" if match[2] else "")


def _say_emphasised(match: re.Match[str]) -> str:
    """Write small what beside another such word is emphasised: "IT IS", but "the IT staff"."""
    words = match[0].split()
    common = [False, *(word in _SURELY_EMPHASISED or word in _EMPHASISED_BESIDE_THEM for word in words), False]
    return " ".join(
        word.lower() if word in _EMPHASISED_BESIDE_THEM and (common[place] or common[place + 2]) else word
        for place, word in enumerate(words)
    )


def _any_of(words: dict[str, str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _look_up(words: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda match: words[match[0]]


# Not a number with more to it, such as 12,000, 2.5 or 10%.
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?!\d|,\d{3}(?!\d)|\.\d|\s?%)"
_UNIT = "|".join(re.escape(unit) for unit in sorted(_MEASURES, key=len, reverse=True))
_UNIT_OF_DAY = rf" ?(?:(?:{_UNIT})(?![\w/])|[AaPp]\.?[Mm]\b|:)"  # behind a number that so is no day
_FRACTION = r"(?<![\d/.,])(?:(?P<whole>\d{1,3})(?: +|-))?(?P<numerator>\d{1,2})/(?P<denominator>\d{1,3})"

_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?m)^[^\S\n]*#+(?:[^\S\n]+|$)"), lambda _: ""),  # a heading
    (re.compile(r"\b([A-G])#(?!\w)"), lambda match: f"{match[1]} sharp"),
    (re.compile(r"#\s?(?=\d)"), lambda _: " number "),
    (re.compile(r"(?<![\w/])#(?=\w)"), lambda _: " hashtag "),
    (
        re.compile(
            r"(?<![\w.+$€£¥-])(?:(?:\+?\d{1,3}[ .-]{1,2})?\d{3}[ .-]{1,2}\d{3}[.-]\d{4}|\+\d{1,3}(?:[ -]\d{2,5}){2,5}"
            r"|(?:\d{3}-)+\d{4}|\d{3}-\d{2}-\d{4}|97[89](?:-\d+){4})\b(?!-\d)"
            rf"(?! ?(?:[$€£¥]|(?:{_UNIT})(?![\w/])))"
        ),
        _say_telephone,
    ),
    (re.compile(r"(?<=\d)T(?=\d{1,2}:[0-5]\d)"), lambda _: " "),
    (re.compile(r"(?<=:[0-5]\d)Z\b"), lambda _: " UTC"),
    (re.compile(r"\b(?P<time>\d{1,2}:[0-5]\d):(?P<seconds>[0-5]\d)\b"), _say_seconds),
    (re.compile(r"(?<=\$)(\d[\d,.]*) ?USD\b"), lambda match: match[1]),
    (re.compile(r"(?<![\d,.])\d{1,3}(?: 000)+(?!\d)"), lambda match: match[0].replace(" ", ",")),
    (re.compile(r"(\d ?[AaPp]\.?[Mm]\b\.?) ?[-–] ?(?=\d)"), lambda match: f"{match[1]} to "),
    (re.compile(rf"\b({_MONTH}\.? \d{{1,2}})–(?=\d{{1,2}}\b)"), lambda match: f"{match[1]}-"),
    (
        re.compile(rf"\b(?:the )?(?<![\d.,/-])(\d{{1,2}})[-–](?=\d{{1,2}} (?:of )?{_MONTH}\b)"),
        lambda match: f"the {ordinal(match[1])} to ",
    ),
    (
        re.compile(
            rf"(?P<currency>(?:\b(?:{_DOLLARS_OF})(?=\$))?[$€£¥])(?P<low>{_NUMBER})(?P<power>{_POWER})?[-–]"
            rf"(?P<high>{_NUMBER})(?![\d-])"
        ),
        _say_money_range,
    ),
    (re.compile(r"(?<=\d)\s?[-–—]\s?(?=[$€£¥]\d)|(?<=\d)[–—](?=\d)"), lambda _: " to "),
    (re.compile(r"[–—―]|(?<!-)--(?!-)"), lambda _: ", "),
    (re.compile(r"(?<![\w.])\.(?=\d)"), lambda _: "0."),
    (re.compile(r"\.{2,}"), lambda _: ", "),
    (re.compile(r"(?:https?://|www\.)[^\s,;!?]*[^\s,;.!?:]"), _say_web_address),
    # With the lengths that addresses may have: without them, long words of hyphens would take minutes.
    (re.compile(r"\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+\b"), _say_web_address),
    (re.compile(r"\b[a-z][\w-]{0,62}\.(?:com|org|net|io|dev|edu|gov)\b(?:/[\w./-]*\w)?"), _say_web_address),
    (re.compile(r"\b(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})\b"), _say_date),
    (re.compile(r"\b(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})\b"), _say_date),
    (
        re.compile(
            r"(?<![\w/.,-])(?P<month>0?[1-9]|[12]\d|3[01])/(?P<day>0?[1-9]|[12]\d|3[01])/(?P<year>\d{2})(?![\w/]|[.,-]\d)"
        ),
        _say_date,
    ),
    (
        re.compile(
            rf"(?<!\d )(?<!\d of )\b(?P<month>{_MONTH})\b\.? {_DAY}\b(?!-\d{{1,2}}{_UNIT_OF_DAY})"
            rf"(?:-(?P<last>\d{{1,2}})\b)?(?:,? (?P<year>\d{{4}})\b)?"
        ),
        _say_month_first,
    ),
    (re.compile(rf"\b(?P<month>{_MONTH})\b\.? (?P<year>\d{{4}})\b"), _say_month_and_year),
    (
        re.compile(rf"\b(?:the )?{_DAY} (?:of )?(?P<month>{_MONTH})\b\.?(?:,? (?P<year>\d{{4}})\b)?"),
        _say_day_first,
    ),
    (re.compile(r"\b(\d{1,2})\.(\d{1,2})\.(\d{4})\b"), _say_european_date),
    (re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}\b"), _say_version),
    (re.compile(r"(?<=\d) ?- ?(?=\d+(?:\.\d+)? ?=)"), lambda _: " minus "),
    (re.compile(r"(?<=\d:[0-5]\d)-(?=\d)"), lambda _: " to "),
    (
        re.compile(rf"(?<=[\d%])\s?-\s?(?=(?:{_NUMBER})\s?(?:(?:{_UNIT})(?![\w/])|[AaPp]\.?[Mm]\b)|\d{{1,2}}:[0-5]\d)"),
        lambda _: " to ",
    ),
    (
        re.compile(r"\b(?P<hours>\d{1,2}):(?P<minutes>[0-5]\d)(?: ?(?P<half>[AaPp]\.?[Mm]\b(?:\.(?=\s+[a-z]))?))?"),
        _say_time,
    ),
    (
        re.compile(
            r"(?<![\w.])(?P<hours>\d{1,2})(?:\.(?P<minutes>[0-5]\d))? ?(?P<half>[AaPp]\.?[Mm]\b(?:\.(?=\s+[a-z]))?)"
        ),
        _say_time,
    ),
    (
        re.compile(
            rf"(?<!\d){_NUMBER_START}(?:(?P<low>{_NUMBER})-)?(?P<amount>{_NUMBER})\s?(?P<currency>[$€£¥])(?!\s?\d)"
        ),
        lambda match: f"{match['low'] + ' to ' if match['low'] else ''}{match['currency']}{match['amount']}",
    ),
    (
        re.compile(
            rf"(?P<sign>(?<![\w.])-)?(?:\b(?P<country>{_DOLLARS_OF})(?=\$))?"
            rf"(?P<currency>[$€£¥])\s?(?P<amount>{_NUMBER})(?:\s?(?P<power>{_POWER})\b)?(?P<letter>(?=[A-Za-z]))?"
        ),
        _say_money,
    ),
    (re.compile(r"\b(1(?:0{1,2})?(?:,?000)*)s(?= of\b)"), _say_many),
    (re.compile(r"\b(\d{4}|\d0)'?s\b"), _say_decade),
    (re.compile(rf"(?<=\d)m(?= (?:{'|'.join(_COUNTED.split())})\b)"), lambda _: " million"),
    (re.compile(rf"{_FRACTION}\s?(?P<unit>{_UNIT})(?![\w/])"), _say_part_of_measure),
    (
        re.compile(
            rf"(?P<sign>(?<![\w.])-)?(?<![\w.]){_NUMBER_START}(?P<amount>{_NUMBER})\s?(?P<unit>{_UNIT})(?![\w/])"
            r"(?: (?P<power>squared|cubed)\b)?"
        ),
        _say_measure,
    ),
    (
        re.compile(rf"\b{_NUMBER_START}(\d{{1,3}}(?:,\d{{3}})+|\d+)(?:st|nd|rd|th)\b"),
        lambda match: ordinal(match[1].replace(",", "")),
    ),
    (re.compile(r"(?<![\w:.])(\d{1,3}):(\d{1,3})(?![\w:])"), lambda match: f"{match[1]} to {match[2]}"),
    (re.compile(rf"{_FRACTION}(?![\d/])"), _say_fraction),
    (re.compile(r"(?<=\d)\s?-\s?(?=\d)"), lambda _: " to "),
    (re.compile(r"\bNo\. ?(?=\d)"), lambda _: "number "),
    (re.compile(rf"(?P<sign>(?<![\w.])-)?(?P<number>{_NUMBER})"), _say_bare_number),
    (
        re.compile(rf"(?<=\w )St\.(?:(?P<end>{_SENTENCE_END})|(?! [A-Z]))"),
        lambda match: "street" if match["end"] is None else "street.",
    ),
    (re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof)(?= (?:[A-Z]|and\b|or\b))"), lambda match: _ABBREVIATIONS[match[0] + "."]),
    (
        re.compile(rf"(?<!\w)(?:(?:{_any_of(_LAST_WORDS)}){_SENTENCE_END}|etc\.(?=\s+[A-Z]))"),
        lambda match: f"{_LAST_WORDS[match[0]]}.",
    ),
    (
        re.compile(rf"\b(?:(?:Sat|Sun)\.(?=\s+(?:[a-z]|{_MONTH}\b))|(?:Mon|Tue|Wed|Thu|Fri)\.(?=\s+\w))"),
        _look_up(_WEEKDAYS),
    ),
    (re.compile(rf"(?<!\w)(?:{_any_of(_ABBREVIATIONS)})(?!\w)"), _look_up(_ABBREVIATIONS)),
    (
        re.compile(rf"\b(?P<letters>(?:[A-Z]\.){{2,}})(?P<end>{_SENTENCE_END})?"),
        lambda match: _letter_by_letter(match["letters"].replace(".", "")) + ("" if match["end"] is None else "."),
    ),
    (re.compile(rf"\b(?:{'|'.join(_ROMAN_NUMERALS)})\b"), lambda match: cardinal(_ROMAN_NUMERALS[match[0]])),
    (re.compile(r"\b[A-Z]+(?: [A-Z]+)+\b"), _say_emphasised),
    (re.compile(r"(?<!')\b([A-Z]{2,})(s)?\b(?!'[A-Z])"), _say_capitals),
    (re.compile(f"[{re.escape(''.join(_SYMBOLS))}]"), lambda match: f" {_SYMBOLS[match[0]]} "),
)
