"""Uniform frames for questions about the whole video, another selector for all others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lvqa.records import FrameSelection
from lvqa.selection.controls import CONTROLS
from lvqa.selection.protocol import Selector, SelectorInput
from lvqa.selection.simple import UniformSelector
from lvqa.validation import require

_VIDEO = "video|film|movie|documentary|programme|program|vlog"
_WHOLE = re.compile(
    rf"""
    \b(whole|entire|full|overall)\b .* \b({_VIDEO}|story|show|episode)\b
    | \b({_VIDEO}|episode)\b .* \b(mainly|overall|as\ a\ whole|all\ about)\b
    | \b(throughout|over\ the\ course\ of)\ (the|this)\ (\w+\ )?({_VIDEO})\b
    | \b(main|central|overall|general|primary|key)\ (\w+\ )?
      (topic|theme|subject|idea|message|content|purpose|storyline|plot|point)s?\b
    | \b(what|which)\ (type|kind|genre|sort|category)\ of\ (video|film|movie|documentary|programme|program|show)\b
    | \bmost\ (common|frequent|often)(ly)?\b .* \b({_VIDEO}|episode)\b
    | \b(seen|shown|heard|used|mentioned)\ (the\ )?most\b .* \b({_VIDEO})\b
    | \b({_VIDEO})\ (shows?|features?|mentions?)\b .* \bmost\W*$
    | \bfor\ (the\ longest|most\ of\ the)\ (time|{_VIDEO})\b
    | \b(summari[sz]e|summary|sum\ up|synopsis)\b
    | ^what\ is\ (the|this)\ (video|film|movie|documentary)\ (mainly\ )?about\b
    | ^what\ (happens|is\ shown|is\ the\ content)\ (in|of)\ (the|this)\ (video|film|movie|documentary)\W*$
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MOMENT = re.compile(
    r"""
    \d+:\d\d | \b(at|in|during)\ the\ (very\ )?(beginning|start|middle|end|opening|finale)\b
    | \b(first|second|third|fourth|fifth|sixth|last|final|next)\b | \b(before|after|when|while|between|until|once)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_about_whole(question_text: str) -> bool:
    """Return whether an English question is about the whole video, by its words alone (no model)."""
    return bool(_WHOLE.search(question_text)) and not _MOMENT.search(question_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSelector:
    """Evenly spaced frames for a question about the whole video, the frames of `otherwise` for all others.

    It follows DIG (arXiv 2512.04000), where a language model classifies the question; here its words decide
    (`is_about_whole`). They match 25 of LVBench's questions, and 21 of these are annotated with the whole video. A
    question without text goes to `otherwise`.
    """

    otherwise: str = "freeret"
    """The name of another selector."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The options of the other selector."""
    uniform: Literal["midpoint", "linspace", "interior"] = "midpoint"
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = self.otherwise not in ("router", *CONTROLS)
        require(allowed, "otherwise", self.otherwise, "another selector than router, oracle and blind")
        require(isinstance(self.options, Mapping), "options", self.options, "a mapping of keys to values")
        self._other()

    @property
    def needs_scores(self) -> bool:
        return self._other().needs_scores

    @property
    def needs_features(self) -> bool:
        return self._other().needs_features

    @property
    def uses_reading(self) -> bool:
        return self._other().uses_reading

    @property
    def uses_kind(self) -> bool:
        return self._other().uses_kind

    def select(self, inputs: SelectorInput) -> FrameSelection:
        whole = UniformSelector(uniform=self.uniform)
        return (whole if is_about_whole(inputs.question_text) else self._other()).select(inputs)

    def _other(self) -> Selector:
        from lvqa.selection import make_selector  # imported here because it lists this class

        return make_selector(self.otherwise, self.options, uniform=self.uniform, seed=self.seed)
