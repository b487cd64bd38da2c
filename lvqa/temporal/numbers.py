"""Numbers, ordinals and amounts of time, in words and in digits, and their values."""

from __future__ import annotations

import re

_SMALL_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL_ORDINAL_WORDS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth"
)
_TEN_ORDINAL_WORDS = "twentieth thirtieth fortieth fiftieth sixtieth"
_SMALL = {word: value for value, word in enumerate(_SMALL_WORDS.split(), 1)}
_TENS = {word: 10 * value for value, word in enumerate(_TEN_WORDS.split(), 2)}
_ORDINALS = {
    **{word: value for value, word in enumerate(_SMALL_ORDINAL_WORDS.split(), 1)},
    **{word: 10 * value for value, word in enumerate(_TEN_ORDINAL_WORDS.split(), 2)},
}
_VALUES: dict[str, float] = {
    **{**_SMALL, **_TENS, **_ORDINALS, "a": 1, "an": 1, "latter": 2},
    **dict.fromkeys(("half", "half a", "half an"), 0.5),
    **dict.fromkeys(("erste", "ersten", "erster", "première", "primera"), 1),
    **dict.fromkeys(("zweite", "zweiten", "zweiter", "seconde", "deuxième", "segunda"), 2),
}
_OTHER_LANGUAGES = ("zwei drei vier fünf", "dos tres cuatro cinco", "deux trois quatre cinq")
_VALUES |= {word: value for words in _OTHER_LANGUAGES for value, word in enumerate(words.split(), 2)}
_CHINESE = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2}

_LETTER = "A-Za-zÀ-ÖØ-öø-ɏ"
_START = rf"(?<![{_LETTER}0-9_:$€£#])(?<![0-9][.,])"
_END = rf"(?![{_LETTER}0-9])"
_TENS_AND_ONES = rf"(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(list(_SMALL)[:9])}))?"
NUMBER = (
    rf"{_START}(?:[0-9]{{1,4}}(?:\.[0-9]{{1,2}})?|half(?:\s+an?)?|{_TENS_AND_ONES}|"
    rf"(?:{'|'.join([*reversed(_SMALL), *' '.join(_OTHER_LANGUAGES).split()])}))"
)
ORDINAL = (
    rf"{_START}(?:[0-9]{{1,3}}(?:st|nd|rd|th|e|è?me|ème|\.)|"
    rf"(?<=\bthe\s)(?:(?:{'|'.join(_TENS)})[\s-])?(?:{'|'.join(_ORDINALS)}))"
)
_HOUR = rf"(?:hours?|hrs?|h|stunden?|std|horas?|heures?){_END}"
_MINUTE = rf"(?:minutes?|mins?|minuten?|minutos?){_END}"
_SECOND = rf"(?:seconds?|secs?|segundos?|sekunden?|secondes?|s){_END}"
UNIT = rf"(?:{_HOUR}|{_MINUTE}|{_SECOND})"


def _amount(gap: str) -> str:
    """Return the pattern of an amount whose numbers and units have this between them."""
    half = r"(?:\s+and\s+a\s+half)?"
    number = rf"(?:{NUMBER}|{_START}an?(?=\s)){half}{gap}"
    then = r"(?:\s*,?\s*(?:(?:and|und|y|et)\s+)?)"
    hours, seconds = rf"{number}{_HOUR}{half}", rf"{number}{_SECOND}"
    rest = rf"\s?(?:h|min)\s?[0-5][0-9](?![0-9:%]|\s*{UNIT})"  # "3 min 30", "1 h 20"
    compact = rf"{_START}[0-9]{{1,3}}(?:{rest}|h[0-9]{{1,2}}m(?:in)?(?:[0-9]{{1,2}}s)?|m(?:in)?[0-9]{{1,2}}s){_END}"
    return (
        rf"(?:{compact}|{_START}[0-9]{{1,3}}'\s?[0-5]?[0-9](?:\"|'')|"
        rf"{hours}(?:{then}{number}(?:{_MINUTE}|m{_END}))?(?:{then}{seconds})?|"
        rf"{number}{_MINUTE}{half}(?:{then}{seconds})?|{seconds}{half})"
    )


AMOUNT = _amount(r"[\s-]*")
"""An amount of time: "90 seconds", "an hour and 20 minutes", "1h20m", "12-minute"."""
UNHYPHENATED_AMOUNT = _amount(r"\s*")
"""An amount that is no attribute of something else, as in "a 5-minute break"."""

_PART = re.compile(
    rf"(?P<number>{NUMBER}|(?<![{_LETTER}])an?(?=\s)|[0-9]{{1,4}}|[一二两三四五六七八九十]{{1,3}})"
    r"(?P<half>\s+and\s+a\s+half)?[\s-]*个?"
    rf"(?P<unit>{UNIT}|h(?=[0-9])|m(?:in)?(?=[0-9])|m{_END}|小时|分钟?|秒|'(?!')|\"|'')(?P<half_after>\s+and\s+a\s+half)?",
    re.IGNORECASE,
)
_REST = re.compile(r"[0-9]\s?(?P<unit>h|min)\s?(?P<rest>[0-5][0-9])\Z", re.IGNORECASE)


def amount_seconds(text: str, *, article_is_one: bool = False) -> float | None:
    """Return the seconds of an amount, or None if it has no number: "a minute" mostly means a while.

    Args:
        text: What AMOUNT matches, or a clock time: "1:30" for a minute and a half.
        article_is_one: Whether "a minute" is one, as in "a minute into the video".
    """
    if clock := re.fullmatch(r"([0-9]{1,3}):([0-5][0-9])", text):
        return 60.0 * int(clock[1]) + int(clock[2])
    parts = list(_PART.finditer(text))
    total = 0.0
    for part in parts:
        half = 0.5 if part["half"] or part["half_after"] else 0
        total += (number_value(part["number"]) + half) * unit_seconds(part["unit"])
    if rest := _REST.search(text):
        total += int(rest["rest"]) * unit_seconds(rest["unit"]) / 60
    is_vague = (
        not article_is_one
        and len(parts) == 1
        and parts[0]["number"].casefold() in ("a", "an")
        and not parts[0]["half_after"]
    )
    return None if is_vague or not parts else total


def number_value(text: str) -> float:
    """Return the value of a number or an ordinal in digits or in words: "12", "twenty-five", "12th", "十二"."""
    words = text.casefold().replace("-", " ").split()
    if digits := re.match(r"[0-9]+(?:\.[0-9]+)?", text.strip()):
        return float(digits[0])
    if set(text) <= {*_CHINESE, "十"}:
        tens, ten, ones = text.rpartition("十")
        return (10 * _CHINESE.get(tens, 1) if ten else 0) + _CHINESE.get(ones, 0)
    return _VALUES.get(" ".join(words), sum(_VALUES.get(word, 0) for word in words))


def unit_seconds(text: str) -> float:
    """Return the seconds of a unit of time in any of the languages, or of a mark of minutes or seconds."""
    unit = text.casefold()
    if unit.startswith(("h", "st", "小时")):
        return 3600
    return 60 if unit.startswith(("m", "分")) or unit == "'" else 1
