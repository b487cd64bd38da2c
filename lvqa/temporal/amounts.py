"""Minutes and seconds in words: "in the 12th minute", "after 1 h 20 min", "the first 30 seconds".

An amount alone is a duration ("bake it for 10 minutes"). It is a time where a preposition, an ordinal, "first" or
"last" makes it one, and where nothing else than the video is counted: "the 12th minute of the match" is none.
"""
# ruff: noqa: RUF001 (Chinese has a comma of its own)

from __future__ import annotations

import re
from collections.abc import Callable

from lvqa.temporal.clocks import HOUR_AFTER
from lvqa.temporal.mentions import OF_OTHER, VIDEO, Interval, Mention, after, any_of, before, joined
from lvqa.temporal.numbers import (
    AMOUNT,
    NUMBER,
    ORDINAL,
    UNHYPHENATED_AMOUNT,
    UNIT,
    amount_seconds,
    number_value,
    unit_seconds,
)

Match = re.Match[str]


def amounts(text: str, duration_seconds: float) -> list[Mention]:
    """Return the times that a plain text (see `plain_text`) names in words; it must have no clock times any more."""
    mentions: list[Mention] = []
    rest = text
    for pattern, interval in _FORMS:
        parts, end = [], 0
        for match in pattern.finditer(rest):
            seconds = interval(match, duration_seconds)
            if seconds is None:
                continue
            begin, stop = match.span("core")
            mentions.append(Mention(begin, stop, seconds, pattern is _END_OF_SPAN))
            parts += [rest[end:begin], " " * (stop - begin)]
            end = stop
        rest = "".join([*parts, rest[end:]])
    return [mention for mention in joined(mentions, text) if not _is_duration(text, mention)]


def _is_duration(text: str, mention: Mention) -> bool:
    left, right = before(text, mention.begin), after(text, mention.end)
    return bool(_DURATION_BEFORE.search(left) or _DURATION_AFTER.match(right) or HOUR_AFTER.match(right))


def _moment(match: Match, duration_seconds: float) -> Interval | None:
    """ "at 90 seconds", "10 seconds after the start of the video"."""
    seconds = amount_seconds(match.groupdict().get("amount") or match["core"])
    return None if seconds is None else (seconds, seconds)


def _moment_into(match: Match, duration_seconds: float) -> Interval | None:
    """ "an hour into the video"."""
    seconds = amount_seconds(match["core"], article_is_one=True)
    return None if seconds is None else (seconds, seconds)


def _from_end(match: Match, duration_seconds: float) -> Interval | None:
    """ "10 seconds before the end of the video"."""
    seconds = amount_seconds(match["amount"])
    return None if seconds is None else (duration_seconds - seconds, duration_seconds - seconds)


def _side(match: Match, duration_seconds: float) -> Interval | None:
    """ "the first 30 seconds", "the last two minutes", "the last minute", "les 30 premières secondes"."""
    number = number_value(match.groupdict().get("number") or "1")
    seconds = amount_seconds(match["amount"]) or number * unit_seconds(match["amount"])
    return _outer(match["side"], seconds, duration_seconds)


def _percent(match: Match, duration_seconds: float) -> Interval | None:
    """ "the first 10% of the video"."""
    return _outer(match["side"], float(match["percent"]) / 100 * duration_seconds, duration_seconds)


def _outer(side: str, seconds: float, duration_seconds: float) -> Interval | None:
    """Return the beginning or the end of the video; what is longer than the video is meant of something else."""
    if not seconds <= duration_seconds:
        return None
    return (duration_seconds - seconds, duration_seconds) if _LAST.match(side) else (0, seconds)


def _fraction(match: Match, duration_seconds: float) -> Interval | None:
    """ "the second half of the video", "the last third of the video"."""
    parts = 2 if _HALF.match(match["part"]) else 3 if match["part"].casefold().startswith(("third", "drit")) else 4
    index = parts if _LAST.match(match["which"]) else int(number_value(match["which"]))
    if not 1 <= index <= parts:
        return None
    return (duration_seconds * (index - 1) / parts, duration_seconds * index / parts)


def _ordinal(match: Match, duration_seconds: float) -> Interval | None:
    """ "in the 12th minute": from 11:00 to 12:00."""
    unit, last = unit_seconds(match["unit"]), number_value(match["last"])
    first = number_value(match.groupdict().get("first") or match["last"])
    return (unit * (min(first, last) - 1), unit * max(first, last)) if min(first, last) >= 1 else None


def _labelled(match: Match, duration_seconds: float) -> Interval | None:
    """ "at minute 12", "from minute 12 to 14"."""
    unit, first = unit_seconds(match["unit"]), number_value(match["first"])
    ends = (unit * first, unit * number_value(match.groupdict().get("last") or match["first"]))
    return (min(ends), max(ends))


def _chinese_moment(match: Match, duration_seconds: float) -> Interval | None:
    seconds = sum(
        unit * number_value(match[name] or "0") for name, unit in (("hours", 3600), ("minutes", 60), ("seconds", 1))
    )
    return (seconds, seconds)


_ABOUT = r"(?:(?:about|around|approximately|roughly|exactly|just|only|precisely|ungefähr|etwa|environ|unos)\s+)?"
_THE = r"(?:(?:the|la|el|der)\s+)?"
_PREPOSITION = (
    r"(?:^|[.,;:!?(]|\b(?:at|in|by|around|about|near|from|to|after|before|until|during|since|between|for|on|describe|explain|summari[sz]e|"
    r"bei|ab|nach|vor|bis|um|von|zwischen|à|a|dans|vers|en|el|del|al|entre|desde|hasta|la|le))\s*"
)
_WITHIN = r"\b(?:in|during|within|over|throughout|in\s+der|dans|pendant|en|durante)\s+"
_TO = r"\s*(?:-|\b(?:to|and|until|through|bis|und|et|y|a|à)\b(?:\s+(?:the|el|la))?)\s*"
_SIDE = (
    r"(?P<side>first|opening|initial|last|final|closing|ersten|erste|letzten|letzte|primer[oa]?s?|últim[oa]s?|"
    r"premi(?:er|ère)s?|derni(?:er|ère)s?)\s+"
)
_LAST = any_of(r"last|final|closing|letzte|dernière|dernier|últim|最后")
_WHICH_PART = (
    r"(?P<which>first|second|third|fourth|last|final|latter|erste[nr]?|zweite[nr]?|letzte[nr]?|première|seconde|"
    r"deuxième|dernière|primera|segunda|última)\s+"
)
_PART = r"(?P<part>half|third|quarter|hälfte|drittel|viertel|moitié|mitad)"
_HALF = any_of(r"half|hälfte|moitié|mitad")
_OF_VIDEO = (
    rf"\s+(?:(?:of|in)\s+{VIDEO}|(?:des|im)\s+(?:videos?|films?|clips?)\b|(?:de\s+la\s+vidéo|du\s+(?:film|clip))\b|"
    r"(?:del\s+(?:v[ií]deo|clip)|de\s+la\s+película)\b)"
)
_OF_VIDEO_OR_STOP = rf"(?:\s+of\s+{VIDEO}|(?=\s*[?.,!]|\s*\Z))"
_NOT_OWN = r"(?<!\bhis )(?<!\bher )(?<!\btheir )(?<!\bits )"
_NOT_RELATIVE = (
    rf"{OF_OTHER}(?!-\w)(?!\s*(?:after|before|later|ago|earlier|long|past|per|apart|each|intervals?|from\s+now|hands?|flat|old|"
    r"sharp|when|since|nach|vor|später|más\s+tarde|plus\s+tard|to\s+(?:go|midnight|noon|spare)|too|a\s+(?:day|week)|"
    r"in\s+(?!(?:the|this)\s+video)\w+)\b)"
)
_LABEL = r"(?P<unit>minutes?|minuten?|minutos?|seconds?|sekunden?|segundos?|secondes?)\s+"
_CLOCK = r"[0-9]{1,3}:[0-5][0-9](?![0-9:])"
_WHOLE = rf"{NUMBER}(?![0-9:%]|\.[0-9])"
_CHINESE = r"(?:[0-9]{1,4}|[一二两三四五六七八九十]{1,3})"
_CHINESE_VIDEO = r"(?<!比赛)(?<!比赛的)(?<!半场)(?<!半场的)"  # not of a match

_END_OF_SPAN = any_of(
    rf"\b(?:from|between|to|and|until|von|zwischen|bis|und|entre|de|desde|hasta|a|y|à|et)\s+(?P<core>{AMOUNT}){_NOT_RELATIVE}"
)
_FORMS: tuple[tuple[re.Pattern[str], Callable[[Match, float], Interval | None]], ...] = (
    # 10 seconds before the end of the video
    (
        any_of(
            rf"(?P<core>(?P<amount>{AMOUNT})\s+(?:before|from)\s+(?:the\s+end{_OF_VIDEO_OR_STOP}|{VIDEO}\s+(?:ends?|ended)\b))"
        ),
        _from_end,
    ),
    # 10 seconds after the start of the video
    (
        any_of(
            rf"(?P<core>(?P<amount>{AMOUNT})\s+(?:after|from)\s+(?:the\s+(?:start|beginning){_OF_VIDEO_OR_STOP}|{VIDEO}\s+(?:starts?|started|begins|began)\b))"
        ),
        _moment,
    ),
    # the second half of the video; the first 10% of the video
    (any_of(rf"\b(?P<core>{_WHICH_PART}{_PART}{_OF_VIDEO})"), _fraction),
    (any_of(rf"\b(?P<core>{_SIDE}(?P<percent>[0-9]{{1,2}})\s?(?:%|percent|per\s+cent){_OF_VIDEO})"), _percent),
    # the first 30 seconds; les 30 premières secondes; in the last minute; the last minute of the video
    (any_of(rf"{_NOT_OWN}\b(?P<core>{_SIDE}(?P<amount>{AMOUNT})){_NOT_RELATIVE}"), _side),
    (any_of(rf"\bthe\s+(?P<core>{_SIDE}(?P<amount>{_CLOCK})){_NOT_RELATIVE}"), _side),
    (any_of(rf"\b(?P<core>(?P<number>{NUMBER})\s+{_SIDE}(?P<amount>{UNIT})){_NOT_RELATIVE}"), _side),
    (any_of(rf"{_WITHIN}{_THE}(?:very\s+)?(?P<core>{_SIDE}(?P<amount>{UNIT})){_NOT_RELATIVE}"), _side),
    (any_of(rf"\b(?P<core>{_SIDE}(?P<amount>{UNIT})){_OF_VIDEO}"), _side),
    (any_of(rf"{VIDEO}'s\s+(?P<core>{_SIDE}(?P<amount>{UNIT}))"), _side),
    # the 12th to the 14th minute; the 12th minute
    (any_of(rf"(?P<core>(?P<first>{ORDINAL}){_TO}(?P<last>{ORDINAL})\s+(?P<unit>{UNIT})){OF_OTHER}"), _ordinal),
    (any_of(rf"(?P<core>(?P<last>{ORDINAL})[\s-]+(?P<unit>{UNIT})){_NOT_RELATIVE}"), _ordinal),
    # minutes 12-14; at minute 12; from 30 to 45 seconds
    (
        any_of(
            rf"(?<![0-9]\s)\b(?P<core>{_LABEL}(?P<first>{_WHOLE}){_TO}(?:{UNIT}\s+)?(?P<last>{_WHOLE}))(?!\s*{UNIT}){OF_OTHER}"
        ),
        _labelled,
    ),
    (any_of(rf"{_PREPOSITION}{_THE}(?P<core>{_LABEL}(?P<first>{_WHOLE}))(?!\s*{UNIT}){OF_OTHER}"), _labelled),
    (
        any_of(
            rf"\b(?:from|between|von|zwischen|entre|de)\s+{_THE}"
            rf"(?P<core>(?P<first>{NUMBER}){_TO}(?P<last>{NUMBER})\s+(?P<unit>{UNIT})){_NOT_RELATIVE}"
        ),
        _labelled,
    ),
    # the 30-second mark; 5 minutes into the video; from 5 minutes on; at 90 seconds
    (any_of(rf"(?P<core>{AMOUNT})[\s-]+(?:mark|point|timestamp)\b{OF_OTHER}"), _moment),
    (any_of(rf"(?P<core>{AMOUNT})\s+in(?:to)?(?:\s+{VIDEO}|\s+it\b|(?=\s*[,.?!;:]|\s*\Z))"), _moment_into),
    (any_of(rf"\bfrom\s+(?P<core>{AMOUNT})\s+on(?:wards?)?\b"), _moment),
    (
        any_of(
            r"\b(?:at(?:\s+the)?|after|bei|nach|à|après|a\s+los|tras|después\s+de|au\s+bout\s+de)\s+"
            rf"{_ABOUT}(?P<core>{UNHYPHENATED_AMOUNT}){_NOT_RELATIVE}"
        ),
        _moment,
    ),
    (_END_OF_SPAN, _moment),
    # 第12分30秒; 1小时20分; 第12分钟; 前30秒; 12分钟处
    (
        any_of(
            rf"{_CHINESE_VIDEO}(?P<core>第?(?:(?P<hours>{_CHINESE})个?小时)?零?(?P<minutes>{_CHINESE})分钟?零?"
            rf"(?P<seconds>{_CHINESE})秒钟?)"
        ),
        _chinese_moment,
    ),
    (
        any_of(
            rf"{_CHINESE_VIDEO}(?P<core>第?(?P<hours>{_CHINESE})个?小时零?(?P<minutes>{_CHINESE})分钟?(?P<seconds>))"
        ),
        _chinese_moment,
    ),
    (any_of(rf"{_CHINESE_VIDEO}(?P<core>第(?P<last>{_CHINESE})个?(?P<unit>小时|分钟|秒))"), _ordinal),
    (
        any_of(
            r"(?:^|[，。,、\s]|在|(?:视频|影片)的?)(?P<core>(?P<side>前|开头|最初|最后)"
            rf"(?P<amount>{_CHINESE}个?(?:小时|分钟|秒)))"
        ),
        _side,
    ),
    (any_of(rf"(?P<core>{_CHINESE}(?:小时|分钟|秒))(?=处|时(?!间)|的时候|的位置)"), _moment),
)
"""The forms in the order in which they are tried, and what each means; its time stands in the group "core"."""

_DURATION_BEFORE = any_of(
    r"\b(?:takes?|took|taking|lasts?|lasted|lasting|for|wait(?:s|ed|ing)?|every|within|needs?|cook(?:s|ed|ing)?|"
    r"boil(?:s|ed|ing)?|bak(?:e|es|ed|ing)|rest(?:s|ed|ing)?|spen[dt]s?|runs?|ran|dauert|dure|dura)\s+(?:(?!the\b)\w+\s+)?"
    r"(?:about|around|from|between|at|after|only)?\s*\Z",
    r"(?:用了|花了|花费|花|了|持续|耗时|用时|时长|长达|历时|经过)\s*(?:约|大约)?\s*\Z",
)
_DURATION_AFTER = any_of(r"(?:长(?!镜)|内|的视频|的时间|之久)")
