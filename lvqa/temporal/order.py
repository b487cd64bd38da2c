"""Words of order in a question: a part of the video, the first or the last of several, before and after."""
# ruff: noqa: RUF001 (Chinese has a comma of its own)

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from lvqa.temporal.mentions import OF_OTHER, VIDEO, any_of, blanks

Position = Literal["beginning", "middle", "end"]
Occurrence = Literal["first", "last"]
Relation = Literal["before", "after"]
Name = TypeVar("Name", bound=str)


def read_position(text: str) -> Position | None:
    """Return the part of the video that the text names, or None if it names none or several."""
    return _only(_POSITIONS, text)


def read_occurrence(text: str) -> Occurrence | None:
    """Return which of several occurrences the text asks for, or None if it names none or both."""
    # "the first scene" is a part of the video, "the first floor" is no occurrence.
    return _only(_OCCURRENCES, _without([*_POSITIONS.values(), _NO_OCCURRENCE], text))


def read_relation(text: str) -> Relation | None:
    """Return where the evidence lies, seen from what the text describes, or None if it says nothing or both."""
    return _only(_RELATIONS, _without([_NO_RELATION], text))


def _only(patterns: Mapping[Name, re.Pattern[str]], text: str) -> Name | None:
    names = [name for name, pattern in patterns.items() if pattern.search(text)]
    return names[0] if len(names) == 1 else None


def _without(patterns: Iterable[re.Pattern[str]], text: str) -> str:
    for pattern in patterns:
        text = pattern.sub(blanks, text)
    return text


_STOP = r"(?=\s*(?:[?.,;:!)]|\Z))"
_NEXT_CLAUSE = rf"(?:{_STOP}|(?=\s+(?:of\s+{VIDEO}|do|does|did|is|are|was|were|who|what|which|where|how)\b))"
_SCENES = (
    r"(?:scenes?|sequences?|frames?|images?|pictures?|credits?|titles?|captions?|moments|minutes|seconds|segment|"
    r"montage|clip)\b"
)
_SCENE = r"(?:scene|frame|image)\b(?!\s+(?:where|in\s+which|that|which|with|before|after|when|showing|featuring)\b)"
_OF_OTHER_GERMAN = r"(?!\s+(?:des|der|von)\s+(?!videos?\b|films?\b|clips?\b))"
_OF_OTHER_FRENCH = r"(?!\s+(?:du|de)\s+(?!film\b|clip\b|la\s+vidéo\b))"
_OF_OTHER_SPANISH = r"(?!\s+de(?:l|\s+la)?\s+(?!v[ií]deo\b|clip\b|película\b))"
_CHINESE_VIDEO = r"(?:视频|影片|片子|电影|短片)的?"

_POSITIONS: dict[Position, re.Pattern[str]] = {
    "beginning": any_of(
        rf"\b(?:at|in|from|near|since|by|towards?)\s+the\s+(?:very\s+)?(?:beginning|start|outset)\b{OF_OTHER}",
        rf"\b(?:beginning|start|opening|intro|introduction|first\s+shots?)\s+of\s+{VIDEO}",
        rf"\b(?:at|in|during)\s+the\s+(?:very\s+)?(?:opening|intro){_NEXT_CLAUSE}",
        rf"\b(?:the|its)\s+(?:very\s+)?opening\s+(?:shot\b|{_SCENES}){OF_OTHER}",
        rf"\bfirst\s+(?:few|couple\s+of)\s+{_SCENES}{OF_OTHER}",
        rf"\b(?:the|very)\s+first\s+{_SCENE}{OF_OTHER}",
        rf"(?<!after )(?<!before ){VIDEO}\s+(?:begins?|starts?|started|began|opens?)\b",
        rf"\b(?:does|do|did|will)\s+{VIDEO}\s+(?:begin|start|open)\b",
        rf"\bearly\s+(?:on\s+)?in\s+{VIDEO}",
        rf"\b(?:am\s+anfang|zu\s+beginn|anfangs)\b{_OF_OTHER_GERMAN}",
        rf"\bau\s+(?:tout\s+)?(?:début|commencement)\b{_OF_OTHER_FRENCH}",
        rf"\bal\s+(?:principio|inicio|comienzo)\b{_OF_OTHER_SPANISH}",
        rf"{_CHINESE_VIDEO}(?:最?开头|最?开始|一开始)|(?:^|[，。\s]|在)最?开头|片头|(?:^|[，。\s])一开始",
    ),
    "middle": any_of(
        rf"\bin\s+the\s+(?:very\s+)?middle\s+of\s+{VIDEO}",
        rf"\b(?:halfway|half\s+way|midway|mid-way)\s+(?:through|into)(?:\s+{VIDEO}|{_STOP})",
        rf"\bmiddle\s+(?:part|section|third|segment)(?:\s+of\s+{VIDEO}|{_STOP})",
        rf"\bmidpoint\s+of\s+{VIDEO}",
        r"\bin\s+der\s+mitte\s+des\s+(?:videos|films|clips)\b",
        r"\bau\s+milieu\s+(?:de\s+la\s+vidéo|du\s+(?:film|clip))\b",
        r"\b(?:a\s+(?:la\s+)?mitad|en\s+(?:el\s+)?medio)\s+(?:del\s+(?:v[ií]deo|clip)|de\s+la\s+película)\b",
        rf"{_CHINESE_VIDEO}(?:正?中间|中段|中部|中途)",
    ),
    "end": any_of(
        rf"\b(?:at|by|towards?|near|until|to|in)\s+the\s+(?:very\s+)?end(?:ing)?\b{OF_OTHER}",
        rf"\b(?:end|ending|conclusion|close|last\s+part|final\s+part|(?:final|last)\s+shots?)\s+of\s+{VIDEO}",
        r"\bat\s+last\b|\bend\s+credits\b",
        rf"\b(?:closing\s+shot\b|(?:closing|final)\s+{_SCENES}){OF_OTHER}",
        rf"\blast\s+(?:few|couple\s+of)\s+{_SCENES}{OF_OTHER}",
        rf"(?<!second )(?<!second-)(?<!to )(?<!to-)\blast\s+{_SCENE}{OF_OTHER}",
        rf"(?<!after )(?<!before ){VIDEO}\s+(?:ends?|ended|concludes?|closes?|finishes)\b",
        rf"\b(?:does|do|did|will)\s+{VIDEO}\s+(?:end|conclude|close|finish)\b",
        rf"\b(?:am\s+(?:ende|schluss)|zum\s+schluss)\b{_OF_OTHER_GERMAN}",
        rf"\bà\s+la\s+(?:toute\s+)?fin\b{_OF_OTHER_FRENCH}",
        rf"\bal\s+final\b{_OF_OTHER_SPANISH}",
        rf"{_CHINESE_VIDEO}(?:结尾|末尾|最后(?!一)|结束)|片尾|(?:^|[，。\s]|在)(?:结尾|末尾)",
    ),
}

_RANKS_AND_PLACES = (
    r"(?:names?|place(?!\s+(?:the|that|where|which|they|he|she|it|we|visited)\b)|prize|floor|stor(?:e?y|ies)|rows?|"
    r"lines?|column|page|level|letters?|lady|aid|class|hand|gear|base|degree|century|edition|avenue|street|nations?|"
    r"amendment|president|minister|cousins?|impressions?|responders?|language|world\s+war|of\s+all|and\s+foremost|"
    r"sight|glance|half|team|division|league|rank|grade|generation|resort|straw|supper|night|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|summer|winter|spring|autumn|weekend|decade|but\s+not\s+least|chance|"
    r"few|couple)"
)
_LENGTHS = (
    r"(?:(?:[0-9.]+|\w+)\s+(?:hours?|minutes?|mins?|seconds?|secs?|days|weeks|months|years)|"
    r"(?:hour|minute|second|week|month|year)s?)"
)
_NO_OCCURRENCE = any_of(
    rf"\b(?:first|last)(?:-\w+|\s+(?:{_RANKS_AND_PLACES}|{_LENGTHS})\b)",
    r"\bat\s+(?:first|last)\b",
    r"^\s*first\s*,",
    r"(?-i:(?<=\w )First\b)",
    r"\b(?:second|third|fourth|next)[\s-]+(?:to[\s-]+)?last\b|\blast\s+but\s+one\b",
    r"\bhow\s+long\b[^.?!]{0,100}\blast\b|\blast\s+(?:for|until|about|longer?|[0-9])",
)
_OCCURRENCES: dict[Occurrence, re.Pattern[str]] = {
    "first": any_of(
        r"\bfirst\b",
        r"\bprimera\s+vez\b|\b(?:das|zum)\s+(?:aller)?ersten?\s+mal\b|\bzuerst\b|\bpremière\s+fois\b",
        r"第一次|首次|第一个|第一位|最先|最早",
    ),
    "last": any_of(
        r"\blast\b",
        r"\bfinal\s+(?:time|appearance|attempt|goal|song|contestant|speaker|performance|question|interview|step|dish)\b",
        r"\búltima\s+vez\b|\b(?:das|zum)\s+letzten?\s+mal\b|\bzuletzt\b|\bdernière\s+fois\b",
        r"最后一次|最后一个|最后一位",
    ),
}

_NO_RELATION = any_of(
    r"\b(?:look(?:s|ed|ing)?|takes|named|called|runs?|ran|running|chas(?:es?|ed|ing)|asks?|sought|modell?ed|one|ever)"
    r"\s+after\b|\b(\w+)\s+after\s+\1\b",
    r"\bafter(?:-\w+|\s+(?:all\b(?=\s*(?:[,.?!]|\Z))|hours\b|effects\b|you\b|the\s+other\b))|-after\b",
    r"\bnever\s+before\b|\bbefore(?:-\w+|\s+(?:yesterday|long)\b)",
    r"\bbefore\s+(?:(?:the|a)\s+(?:judges?|court|cameras?|audience|mirror|altar|jury|crowd|throne|king|queen)|"
    r"(?:his|her|their)\s+eyes)\b",
    r"(?<!right )(?<!just )(?<!shortly )(?<!soon )(?<!immediately )(?<!happen )(?<!happens )(?<!happened )"
    r"\b(?:before|after)(?=\s*(?:[?.!]|\Z))",
    r"\b(?:since|by|until)\s+then\b",
    r"\bd'après\b|\baprès-midi\b|\bavant-\w+",
)
_RELATIONS: dict[Relation, re.Pattern[str]] = {
    "after": any_of(
        r"\b(?:after|afterwards?|thereafter|subsequently|as\s+soon\s+as|(?:immediately|directly)\s+following)\b",
        r"(?:^|[.?!]\s)\s*following\s+(?:the|this|that|his|her|their)\b|\bonce\s+(?:the|he|she|it|they|his|her|all)\b",
        r"\b(?:happen(?:s|ed)?|do(?:es)?|did|comes?|came|goes|go|went|appears?|says?|said|shown|seen)"
        r"\s+next\b(?!\s+(?:to|door|time|day|week|month|year)\b)",
        r"\bnext\s+(?:scene|shot|frame|moment|clip)\b",
        r"\b(?:what|who|which(?:\s+\w+){0,3})\s+(?:(?:immediately|directly|then)\s+)?(?:follows|comes\s+next|is\s+next)\b",
        rf"(?:^|[.;?]\s*|\band\s+)then,?\s+(?:what|who|where|which|how|why)\b|\bthen{_STOP}",
        r"\b(?:nachdem|danach|anschließend|daraufhin|après|ensuite|después|luego|tras)\b",
        r"之后|以后|随后|然后|接下来|紧接着|后[，,]",
    ),
    "before": any_of(
        r"\b(?:before|beforehand|prior\s+to|leading\s+up\s+to|previous\s+(?:scene|shot|frame))\b",
        r"\b(?:what|who|which(?:\s+\w+){0,3})\s+(?:(?:immediately|directly)\s+)?precedes\b",
        r"\b(?:bevor|zuvor|vorher|avant|antes)\b",
        r"之前|以前",
    ),
}
