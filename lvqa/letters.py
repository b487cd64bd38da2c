"""Read which option a generated answer names, as VLMEvalKit and lmms-eval read it, but never by a guess.

Reasoning between think tags is skipped; letters and brackets of full width count, and "answer" in some other languages;
several letters are no answer. The A of "A red car" and the I of "I think" name nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from lvqa.records import LETTERS


def named_letter(text: str, options: Sequence[str]) -> str | None:
    """Return the one letter that a generated answer names, or None if it names none or several: nothing is guessed.

    These forms are tried in turn, and the first that names a letter decides: what the text calls its answer ("The
    answer is B", "Answer: (B)", "答案是B"); a letter that stands alone, opens a line as a label or is in brackets ("B",
    "B, because", "Option B", "I see (B)"); a letter that something is ("I think it is B", "B is correct"). An option
    that is given word for word, alone or as what the text calls its answer, counts as its letter; where it contradicts
    the letter, none is named.

    Args:
        text: What the model generated.
        options: The texts of the options, without letters.
    """
    plain = _plain(text)
    named = _by_text(plain, options) | _by_letter(plain, LETTERS[: len(options)])
    return named.pop() if len(named) == 1 else None


def listed_options(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Split a question whose options are listed in it, a line each: "Which?\\nA. red\\nB) blue\\n(C) green".

    What stands before the options is the question, and what follows them says how to answer; without anything before
    them, what follows is the question. None unless two lines or more begin with A, B, ... in this order.
    """
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*\(?A[.):]\s*\S", line)]
    for start in starts[-1:]:
        options = list[str]()
        for letter, line in zip(LETTERS, lines[start:], strict=False):
            match = re.fullmatch(rf"\s*\(?{letter}[.):]\s*(\S.*?)\s*", line)
            if match is None:
                break
            options.append(match[1])
        before, after = ("\n".join(part).strip() for part in (lines[:start], lines[start + len(options) :]))
        if len(options) >= 2 and (before or after):
            return before or after, tuple(options)
    return None


def _plain(text: str) -> str:
    """Return the text without reasoning, tags, LaTeX and emphasis, with letters and brackets of the usual width."""
    text = re.split(_END_OF_THINKING, unicodedata.normalize("NFKC", text))[-1]  # the template may have begun it
    text = re.sub(_START_OF_THINKING + ".*", "", text, flags=re.DOTALL)  # cut off before it came to an answer
    answers: list[str] = re.findall(r"<answer>(.*?)(?:</answer>|\Z)", text, re.DOTALL | re.IGNORECASE)
    text = answers[-1] if answers else text
    return re.sub(_DECORATION, "", text.translate(_USUAL_CHARACTERS)).strip()


def _by_text(plain: str, options: Sequence[str]) -> set[str]:
    """Return the letters of the options that are the whole text, or what the text calls its answer.

    An option that is a letter itself is left to `_by_letter`.
    """
    phrases = {_folded(plain)}
    for lead_in in re.finditer(_CALLED_BY_VERB, plain):
        phrases.add(_folded(re.split(_END_OF_PHRASE, plain[lead_in.end() :])[0]))
    texts = zip(LETTERS, map(_folded, options), strict=False)
    return {letter for letter, option in texts if option in phrases and not re.fullmatch("[a-z]?", option)}


def _folded(text: str) -> str:
    return " ".join(re.sub(_DECORATION, "", unicodedata.normalize("NFKC", text)).split()).strip(".。! ").casefold()


def _by_letter(plain: str, letters: str) -> set[str]:
    """Return the letters that the text names in the first of _FORMS in which it names any.

    In a weak form they are all the letters of the text: "Option A is wrong, option B is right" names two.
    """
    if not letters:
        return set()
    named: dict[int, set[str]] = {}
    every, form, end = set(), None, 0
    for match in re.finditer(_LETTER.replace("LETTERS", letters), plain):
        before, after = plain[max(0, match.start() - 200) : match.start()], plain[match.end() : match.end() + 200]
        if _is_word(match[0], before, after):
            continue
        if form is None or not re.fullmatch(_AND, plain[end : match.start()]):  # else it shares the form: "A or B"
            form = next((i for i, (a, b) in enumerate(_FORMS) if re.search(a, before) and re.match(b, after)), None)
        end = match.end()
        every.add(match[0])
        if form is not None:
            named.setdefault(form, set()).add(match[0])
    return set() if not named else named[min(named)] if min(named) < _FIRST_WEAK_FORM else every


def _is_word(letter: str, before: str, after: str) -> bool:
    """Return whether the letter is an English word: an article, or "I"."""
    if before.endswith("("):
        return False
    rest = {"A": _REST_OF_A_PHRASE, "I": r"\s+\w"}.get(letter)
    return rest is not None and re.match(rest, after) is not None


_THINK = r"(?i:think|thinking|thought|reasoning)"
_START_OF_THINKING, _END_OF_THINKING = rf"(?:<{_THINK}>|◁think▷)", rf"</{_THINK}>|◁/think▷"
_USUAL_CHARACTERS = str.maketrans(
    "[{\u3010\u300c\u300e\u3014\u3016]}\u3011\u300d\u300f\u3015\u3017\u2019\u2013\u2014", "(((((((" + ")))))))" + "'--"
)
"""Brackets of all kinds become round, and quotation marks and dashes plain."""
_DECORATION = r"[*_`\"“”«»$#]|</?\w+>|<\|\w+\|>|\\(?:boxed|textbf|text|mathbf|mathrm)|\\[()]"
_END_OF_PHRASE = r"\n|[.;,!?。](?=\s|$)|\s(?:because|since)\s"

_LATIN = "A-Za-z0-9_À-ɏ"
_LETTER = rf"(?<![{_LATIN}])[LETTERS](?![{_LATIN}+]|'\w)"
_REST_OF_A_PHRASE = rf"\s+(?!(?:and|or|because|since|as|is|was|y|o|et|ou|und|oder)\b)[{_LATIN}]"
_AND = r"\)*\s*(?:[,/&、]|,?\s*(?:and|or|nor|y|o|e|et|ou|und|oder|和|或|与|と|または|또는))\s*(?:(?i:option)\s+)?\(*"

_NOUN = (
    r"(?:(?i:\b(?:answer|réponse|antwort|respuesta|resposta|risposta|ответ)(?: (?:option|choice))?\b|"
    r"\b(?:correct|right|best|final) (?:option|choice|letter)\b|\b(?:option|choice)(?=\s*:|\s+is\b))|"
    r"答案|答え|正解|正确选项|정답)"
)
_SCOPE = r"(?i:\s+(?:to|for|of)\b[^.:\n]{1,60}?)?"
_COPULA = (
    r"(?i:\s*\b(?:is|was|(?:would|should|must|could|has to|seems to|appears to) be|est|ist|es|è|é)\b"
    r"(?:\s+(?:likely|probably|most likely|clearly|definitely|therefore|thus))?)"
    r"|\s*(?:应该|應該)?[是为為]|は|은|는"
)
_CALLED_BY_VERB = rf"{_NOUN}{_SCOPE}(?:(?:{_COPULA})\s*:?|\s*[:=])\s*"
_OPTION = r"(?i:(?:the )?(?:option|choice|letter)\s+)?\(*\Z"
_NOT_DENIED = r"(?<!not )(?<!n't )(?<!不)"
_VERB = (
    rf"{_NOT_DENIED}(?:(?i:\b(?:is|it's|be|choose|select|pick|go with|say|est|ist|es|è|é)\b)|选择?|選択?|[是为為])"
    r"|(?i:\b(?:so|therefore|thus|hence)\b),?"
)
_TRUE = r"\)*\s*(?:(?i:is|seems|looks|would be)\s+(?i:the\s+)?(?i:correct|right|best|answer|true)\b|[是]?正[确確])"
_IN_LETTERS = rf"(?={_AND}[{LETTERS}](?![{_LATIN}]))"

_FORMS = (
    (rf"{_NOUN}{_SCOPE}(?:{_COPULA})?\s*[:=]?\s*{_OPTION}", ""),
    (
        r"(?:^|\n)\s*(?:[-•>]\s*)?" + _OPTION,
        r"\)|\s*(?:\n|\Z)|\s*[.,:;!](?!\w)|\s+-\s|\s+(?:because|since|as)\b|\s*[\u3000-\u9fff]|" + _IN_LETTERS,
    ),
    (r"\(\Z", r"\)"),
    (rf"(?:{_VERB})\s*:?\s*{_OPTION}", rf"\)*\s*(?:\Z|[.,;:!?。\n]|because\b|since\b|[\u3000-\u9fff])|{_IN_LETTERS}"),
    ("", _TRUE),
    (r":\s*\Z", r"\s*\.?\Z"),
)
"""The forms in which a text names a letter: what stands before it, and what follows it."""
_FIRST_WEAK_FORM = 3
"""This form and those behind it also occur where a text weighs the options."""
