"""What the readers of times share: the plain text, and the places where it names a time."""
# ruff: noqa: RUF001 (full-width characters)

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mention:
    """A time that the text names, in seconds of the video; a moment starts where it ends."""

    begin: int
    """The offset of its first character in the text."""
    end: int
    seconds: Interval
    needs_partner: bool = False
    """Whether it is a time only as one end of a span: "from 2 minutes to 3 minutes"."""


def plain_text(text: str) -> str:
    """Return the text with plain digits, colons, dashes and quotation marks, and with blanks for what is quoted.

    It has the same length. What is quoted stands on a picture or in a title, and names no time of the video.
    """
    text = _DIRECTED_QUOTE.sub(_blank_unless_all, text).translate(_PLAIN_CHARACTERS)
    return _QUOTE.sub(_blank_unless_all, text)


def _blank_unless_all(match: re.Match[str]) -> str:
    """Return blanks, but leave a question that stands in quotation marks as a whole, and a number: at "21:40"."""
    if _CLOCKS.fullmatch(match[0][1:-1]):
        return f" {match[0][1:-1]} "
    is_whole = not (match.string[: match.start()].strip() or match.string[match.end() :].strip())
    return match[0] if is_whole else blanks(match)


def blanks(match: re.Match[str]) -> str:
    """Return as many blanks as the match has characters, so that offsets stay."""
    return " " * len(match[0])


def joined(mentions: Sequence[Mention], text: str) -> list[Mention]:
    """Return the mentions in the order of the text, two that are the ends of a span as one: "from 1:10 to 1:20".

    A mention that needs a partner and has none is left out.
    """
    ordered, spans = sorted(mentions, key=lambda mention: -mention.begin), []
    while ordered:
        first = ordered.pop()
        if ordered and _is_span(text, first, ordered[-1]):
            second = ordered.pop()
            start, end = first.seconds[0], second.seconds[1]
            ordered_seconds = (start, end) if start <= end else (second.seconds[0], first.seconds[1])
            spans.append(Mention(first.begin, second.end, ordered_seconds))
        elif not first.needs_partner:
            spans.append(first)
    return spans


def _is_span(text: str, first: Mention, second: Mention) -> bool:
    between = text[first.end : second.begin]
    if len(between) > _LONGEST_JOINT:
        return False
    return bool(_TO.fullmatch(between) or (_AND.fullmatch(between) and _BETWEEN.search(before(text, first.begin))))


def before(text: str, offset: int) -> str:
    """Return the end of what stands before an offset: as much as decides what a number means."""
    return text[max(0, offset - _CONTEXT) : offset]


def after(text: str, offset: int) -> str:
    """Return the beginning of what stands after an offset."""
    return text[offset : offset + _CONTEXT]


def any_of(*patterns: str) -> re.Pattern[str]:
    """Return one pattern for all, whatever the case."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


_CONTEXT = 48
_LONGEST_JOINT = 32

VIDEO = (
    r"(?:(?:the|this|that|our|my|your)\s+)?(?:(?:whole|entire|full)\s+)?"
    r"(?:videos?|vedio|movie|film|clip|footage|recording|documentary|vlog|episode|cartoon)\b"
    r"(?!\s+(?:that|which|where|about)\b)"
)
"""The video as a whole. A match, a concert or a talk may begin long after the video does."""
OF_OTHER = (
    r"(?!\s+(?:of|into|du|des|del|der|de\s+la)\s+"
    rf"(?!{VIDEO}|(?:v[ií]d[eé]os?|videos?|films?|pel[ií]cula|clips?)\b))"
)
"""What must not follow: the beginning of something else than the video."""

_PLAIN_CHARACTERS = str.maketrans(
    "０１２３４５６７８９：∶–—−‒‑－～〜~’‘′″“”\u00a0\u202f\u3000",
    "0123456789::---------'''\"\"\"   ",
)
_CLOCKS = re.compile(r"[0-9:.\- ]+")
_DIRECTED_QUOTE = re.compile(
    "|".join(
        f"{left}[^{left}{right}\\n]{{1,200}}+{right}" for left, right in ("“”", "„“", "«»", "「」", "『』", "《》")
    )
)
_QUOTE = re.compile(r"""(?<![\w"'])"[^"\n]{1,200}+"(?!\w)|(?<![\w"'])'(?:[^'\n]|'(?=\w)){1,200}+'(?!\w)""")

_IN_THE_VIDEO = r"(?:\s+mark)?(?:\s+(?:in|of)\s+the\s+video)?\s*"
_BEFORE_END = r"\s*(?:(?:about|around)\s+)?(?:(?:the|la|el|der|zur|zum)\s+)?(?:(?:minutes?|minuto)\s+)?"
_TO = any_of(
    rf"{_IN_THE_VIDEO}(?:-{{1,2}}>?|\u2192|\band\s+(?:ends|ending)\s+at\b|,?\s*\b(?:up\s+)?(?:to|until|till|through|thru|bis|hasta|a|à|au|al|jusqu'à)\b|到|至)"
    rf"{_BEFORE_END}"
)
_AND = any_of(rf"{_IN_THE_VIDEO}(?:\b(?:and|und|y|e|et)\b|&|和|与){_BEFORE_END}")
_BETWEEN = any_of(rf"(?:\b(?:between|from|zwischen|entre)|在|从){_BEFORE_END}\Z")
