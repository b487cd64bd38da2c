"""Clock times in a question: "at 21:40", "from 12:10 to 12:50", and what only looks like one.

A number such as 21:40 may be a time of the video, an hour of the day, a score, a verse, a ratio or a duration. What
stands next to it decides.
"""

from __future__ import annotations

import re

from lvqa.temporal.mentions import Mention, after, any_of, before, joined

_LATIN = "A-Za-z0-9_À-ÖØ-öø-ɏ"
_CLOCK = re.compile(
    rf"(?<![{_LATIN}:$€£#])(?<![0-9][.,/+])"
    r"(?:(?P<hours>[0-9]{1,2}):(?=[0-5][0-9]:))?(?P<minutes>[0-9]{1,3}):(?P<seconds>[0-5][0-9])"
    r"(?:[.,](?P<fraction>[0-9]{1,3})(?![0-9:]))?"
    r"(?:(?<=:[0-9]{2}:[0-9]{2}):[0-9]{2})?"  # the frames of a timecode
    rf"(?:\s?(?:mins?|minutes?)\b)?(?P<unit>\s?(?:h|hrs?|hours?|horas?|heures?|stunden?)\b)?(?![{_LATIN}]|:?[0-9])",
    re.IGNORECASE,
)


def clock_times(text: str) -> list[Mention]:
    """Return the clock times of a plain text (see `plain_text`) that are times of the video, spans as one."""
    numbers = joined(
        [Mention(match.start(), match.end(), (_seconds(match),) * 2) for match in _CLOCK.finditer(text)], text
    )
    times, other = [], None  # the last number that is no time
    for number in numbers:
        if _is_other(text, number) or (other and _is_alike(text[other.end : number.begin])):
            other = number
        else:
            times.append(number)
    return times


def _is_alike(between: str) -> bool:
    """Return whether a number is no time since the one before it is none: "the sets ended 21:15, 21:10".

    After an hour of the day, those of the same sentence are hours too: "from 9:00 in the morning, and again at 17:00".
    """
    hour = HOUR_AFTER.match(between)
    is_same_sentence = hour is not None and not re.search(r"[?!]|\.\s+[A-Z]", between[hour.end() :])
    return is_same_sentence or _LIST.fullmatch(between) is not None


def _seconds(match: re.Match[str]) -> float:
    """Return the time in seconds; two numbers are minutes and seconds unless "h" or "hours" follows.

    1:20 could mean an hour and 20 minutes in a video of three hours. Players show 1:20:00 for it, so it does not.
    """
    hours, minutes, seconds = (int(match[name] or 0) for name in ("hours", "minutes", "seconds"))
    if match["unit"] and match["hours"] is None:
        return 3600 * minutes + 60 * seconds
    return 3600 * hours + 60 * minutes + seconds + float(f"0.{match['fraction'] or 0}")


def _is_other(text: str, mention: Mention) -> bool:
    """Return whether the number is no time of the video: what stands next to it says so."""
    left, right = before(text, mention.begin), after(text, mention.end)
    if (
        _HOUR_BEFORE.search(left)
        or HOUR_AFTER.match(right)
        or _DISPLAY_BEFORE.search(left)
        or _OTHER_AFTER.match(right)
    ):
        return True
    is_span = mention.seconds[0] < mention.seconds[1]
    if _NUMBER_BEFORE.search(left) or (_DURATION_BEFORE.search(left) and not is_span):
        return True
    return _is_name(left) and not text.isupper()


def _is_name(left: str) -> bool:
    """Return whether a capitalised word stands directly before the number: "John 3:16", "Room 12:30"."""
    word = _LAST_WORD.search(left)
    return word is not None and word[0].strip(" .(").casefold() not in _NO_NAMES


_DAYS = r"(?:mon|tues|wednes|thurs|fri|satur|sun|week)days?"
_MONTHS = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t|tember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_DATE = (
    rf"(?:[0-9]{{4}}[-/.][0-9]{{1,2}}[-/.][0-9]{{1,2}}|[0-9]{{1,2}}[-/.][0-9]{{1,2}}[-/.][0-9]{{2,4}}|"
    rf"\b{_MONTHS}\.?\s+[0-9]{{1,2}}(?:st|nd|rd|th)?(?:,?\s+[0-9]{{4}})?|"
    rf"\b[0-9]{{1,2}}\.?\s+{_MONTHS}(?:\s+[0-9]{{4}})?)"
)
_PARTS_OF_DAY = (
    r"(?:morning|afternoon|evening|night|noon|midday|mañana|tarde|noche|madrugada|matin|soir|après-midi|"
    r"morgens|abends|nachts|nachmittags?|vormittags?|mittags?)"
)

_HOUR_BEFORE = any_of(
    rf"(?:{_DATE}|\b{_DAYS}|\btomorrow|\byesterday|\btoday|\btonight|\bdaily|\bevery\s+(?:day|\w*{_PARTS_OF_DAY}))"
    rf"(?:,|\s+{_PARTS_OF_DAY})?[T\s,]*(?:(?:at|from|between|by|um|à|a\s+las)\s+)?\Z",
    r"(?:上午|下午|早上|早晨|晚上|凌晨|中午|傍晚|夜里)\s*\Z",
    r"\balarm(?:\s+clock)?(?:\s+(?:is|was|rings?|goes\s+off|rang|went\s+off))?(?:\s+set)?\s+(?:for|to|at)\s+\Z",
    r"\b(?:sunset|sunrise|noon|midnight)(?:,|\s+(?:is|was)(?:\s+at)?)?\s+\Z",
    r"\b(?:local\s+time|o'clock|gmt|utc)\W+\Z",
    r"\b(?:opening\s+(?:hours|times?)|business\s+hours|check-?\s?(?:in|out)\s+time|departure(?:\s+time)?|boarding(?:\s+time)?|"
    r"curfew|appointment|deadline|scheduled)"
    r"(?:\s+(?:is|are|was|at|for|from|until|till|by|between|of))*\W+\Z",
    r"\b(?:shop|store|school|museum|office|restaurant|bank|gym|market|library|bar|pub)\s+(?:opens|closes|starts|begins|ends)\s+at\s+\Z",
    r"\b(?:airs|aired|departs|departed|departing|boards)\s+(?:at\s+)?\Z",
    r"\b(?:open|closed)\s+(?:from|until|till|between)\s+\Z",
)
HOUR_AFTER = any_of(
    r"\s{0,2}[ap]\.?\s?m\b(?!\s+(?:ende|anfang|schluss)\b)",
    r"\s+(?:o'clock|uhr)\b",
    r"\s+(?-i:UTC|GMT|E[SD]?T|P[SD]T|C[SDE]T|MST|CEST|BST)\b",
    r"\s+(?:local|standard|daylight)\s+time\b",
    rf"\s*,?\s+(?:in\s+the|at|that|this|every|each|de\s+la|del?|du|of\s+the|on\s+the|am)\s+"
    rf"(?:(?:early|late|next|same)\s+)?{_PARTS_OF_DAY}\b",
    rf"\s+(?:{_PARTS_OF_DAY}|de\s+l'après-midi|tomorrow|yesterday|today|tonight|daily|every\s+day|each\s+day)\b",
    rf"\s*,?\s+(?:on\s+)?(?:{_DAYS}|{_DATE})",
    r"\s+(?:train|flight|bus|ferry|news|bulletin|appointment|kick-?off|departure)\b",
)
_DISPLAY_BEFORE = any_of(
    r"\b(?:shows?|showing|shown\s+as|showed|reads?|reading|says?|saying|said|displays?|displaying|displayed|"
    r"indicat(?:es?|ed|ing)|marks|marked|hits?|reach(?:es|ed)|labell?ed|written|strikes?|struck|zeigt|anzeigt|marca|indique|affiche)"
    r"(?:\s+that)?(?:\s+(?:it|the\s+time)(?:'s|\s+is|\s+was))?(?:\s+(?:about|exactly|around|almost|nearly|only|the\s+time))?\s*:?\s*\Z",
    r"(?<!\bwhat )(?<!\bwho )\b(?:is|was|it's|are|were|equals?)"
    r"(?:\s+(?:about|exactly|around|almost|nearly|now|only|at\s+least))?\s+\Z",
    r"\bset\s+(?:for|to|at)\s+\Z|\bcount(?:s|ed|ing)?\s+(?:down|up)\s+(?:from|to)\s+\Z",
    r"\b(?:an?|captions?|signs?|labels?|text|numbers?|words?|digits|titles?|prices?|tables?|platforms?|channels?|served|opens|"
    r"closes)\s+\Z",
    r"\bwith\s+\Z",
    r"\b(?:clock|timer|stopwatch|countdown|scoreboard)\s+(?:is|was|begins?|starts?|stands?)\s+at\s+\Z",
    r"\b(?:clock|watch|timer|stopwatch|hands)(?:\s+is|\s+are|\s+was)?\s+(?:stops?|stopped|frozen|stuck|set|paused|points?|pointing)"
    r"\s+(?:at|to|on)\s+\Z",
    r"\b(?:clock|timer|stopwatch|scoreboard)(?:\s+(?:with|of))?\s*:?\s*\Z",
    r"(?:显示|写着|指向|指着|为|是)(?:的?时间)?(?:为|是)?\s*\Z",
)
_OTHER_AFTER = any_of(
    r"\s*(?:点|时)",
    r"\s+(?:on|by)\s+(?:the|a|an|her|his|their|its)\s+(?:\w+\s+){0,2}(?:clock|watch|timer|stopwatch|scoreboard)\b",
    r"\s+(?:left(?!\s+(?:of|side|hand|corner))|remaining|to\s+go|to\s+play|long\b|in\s+length|splits?|per\s+(?:mile|km|kilomet))",
    r"\s+(?:(?:aspect\s+)?ratio|scale|format|odds|win|victory|lead|defeat|loss|draw|tie|score|verses?|monitor|widescreen)\b",
    r"\s+(?:in\s+(?:his|her|their|its|the)\s+)?favou?r\b",
)
_LIST = any_of(r"\s*(?:,|;|/|,?\s*(?:and|or|then|vs\.?|versus))\s*")
_NUMBER_BEFORE = any_of(
    r"\b(?:scor(?:es?|ed|ing)|scoreline|result|tally|leads?|leading|led|trails?|trailing|trailed|wins?|won|winning|beats?|beaten|"
    r"los(?:es?|t|ing)|tied?|ratios?|scale|odds|aspect|proportions?|mix(?:ed|ture)?|dilut\w+|votes?d?|"
    r"verses?|chapters?|psalms?|surah?|quran|koran|bible|kapitel|vers|spielstand|ergebnis|stand|marcador|比分|比例)"
    r"(?:\s+(?:of|by|is|was|were|are|stands|a|an|the|ratio|score|from|with|in|to|goes|becomes?|became|reach(?:es|ed)?)){0,3}\s*:?\s*\Z",
    r"\b(?:genesis|exodus|leviticus|deuteronomy|proverbs|ecclesiastes|isaiah|jeremiah|ezekiel|matthew|luke|john|romans|"
    r"corinthians|galatians|ephesians|philippians|colossians|thessalonians|timothy|hebrews|revelation)\s+\Z",
    r"(?:福音|诗篇|创世记|圣经)\s*\Z",
    r"\b(?:ends?|ended|finish(?:es|ed)?|first|opening|initial|last|final|closing)\s+\Z",
    r"\b(?:beats?|defeat(?:s|ed)|wins?|won|los(?:es?|t)|mix(?:es|ed)?)(?:\s+(?!(?:at|from|in|around|between|by|before|after)\b)\w+)"
    r"{1,4}\s+\Z",
    r"\bratio\b[^.?!]{0,20}\bfrom\s+\Z",
    r"(?<![0-9])[0-9]:[0-9]\s*[(,]\s*\Z",
    r"[0-9]\s*[-:x\u00d7/]\s*\Z",
)
_DURATION_BEFORE = any_of(
    r"\b(?:for|takes?|took|taking|lasts?|lasted|lasting|durations?(?:\s+(?:of|is))?|lengths?(?:\s+(?:of|is))?|"
    r"(?<!\bat )(?:a|the|his|her|their)\s+(?:\w+\s+)?(?:time|record|pace|best|split|mark)\s+of|"
    r"personal\s+best|within|every|per)"
    r"(?:\s+(?:about|around|only|just|nearly|almost|exactly|over|under|a))?\s+\Z",
    r"\b(?:finish|complet|ran\b|run\b|runs\b|win|won\b|swam|swim|rac(?:e|ed|ing)\b)\w*(?:\s+\w+){0,4}\s+in\s+\Z",
)
_LAST_WORD = re.compile(r"(?<![^\s(])(?:[0-9]\s)?[A-ZÀ-Þ][\w.']*\s+\Z")
_WORDS_BEFORE_TIMES = (
    "at in from between to until till during around about near by before after since past on the and time timestamp "
    "timestamps timecode minute minutes video clip moment scene part segment section position what watch describe "
    "summarize summarise explain see show tell when then but or with question q um bei ab von zwischen nach vor seit "
    "szene zeit stelle zeitpunkt im a à de du des entre desde en hacia vers avant après depuis dès antes después tras "
    "hasta jusqu'à bis sobre minuto"
)
_NO_NAMES = frozenset(_WORDS_BEFORE_TIMES.split())
