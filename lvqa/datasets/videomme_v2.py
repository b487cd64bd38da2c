"""Read Video-MME-v2, whose questions are scored in groups of four."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from lvqa.datasets.annotations import AnyText, Entry, Text, TextOrNumber, make_entry, parquet_rows, video_key
from lvqa.datasets.headline import AnswerRow, Figure, is_correct, mean_of, overall, tag
from lvqa.datasets.subtitles import SubtitleFile
from lvqa.records import LETTERS, LvqaError, shorten
from lvqa.validation import require

GROUP_SIZE = 4
CHAINS = {
    "[1, 2, 3, 4]": (0.0, 1 / 16, 4 / 16, 9 / 16, 1.0),
    "[1, [2, 3], 4]": (0.0, 1 / 12, 4 / 12, 7 / 12, 1.0),
    "[[1, 2], 3, 4]": (0.0, 1 / 10, 2 / 10, 5 / 10, 1.0),
}
"""How the questions of a group build on one another -> its score, by how many steps of the chain were right."""


class Row(TypedDict):
    """A question of Video-MME-v2."""

    video_id: Text
    question_id: Text
    question: AnyText
    options: AnyText
    answer: AnyText
    group_type: Literal["relevance", "logic"]
    group_structure: AnyText | None
    level: TextOrNumber | None
    second_head: AnyText | None


class VideoMMEv2:
    """Video-MME-v2 (arXiv 2604.05015): `test.parquet`, 3,200 questions, four about each of 800 videos.

    The file is that of huggingface.co/datasets/MME-Benchmarks/Video-MME-v2. Eight options stand in one text, a line
    each. The four questions about a video are scored together, as in evaluation/test_video_mme_v2.py of
    github.com/MME-Benchmarks/Video-MME-v2: of a group "relevance" the square of the share that is right, of a group
    "logic" how far its chain was right from its beginning. The level is that of the group's last question. Every video
    has subtitles word by word, `subtitle/VIDEO_ID.jsonl`.
    """

    title = "Video-MME-v2"
    counting = (
        "The first figures are means over the groups of four questions that were asked whole, each scored together as "
        "in the authors' script; Avg Acc is the accuracy over all questions. A question without an answer is wrong."
    )

    def __init__(self, folder: Path) -> None:
        self.path = folder / "test.parquet"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in parquet_rows(self.path, Row):
            key = video_key(row["video_id"], "video_id", origin)
            yield make_entry(
                row["question"],
                split_lettered(row["options"], origin),
                row["answer"],
                origin,
                id=row["question_id"],
                video_id=key,
                subtitles=SubtitleFile(self.path.parent / "subtitle" / f"{key}.jsonl", "words"),
                tags=(
                    tag("group", row["group_type"]),
                    tag("structure", _structure(row, origin)),
                    *((tag("level", row["level"]),) if row["level"] is not None else ()),
                    *((tag("ability", row["second_head"]),) if row["second_head"] else ()),
                ),
            )

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the score overall, by level and by kind of group; and the accuracy."""
        by_name: dict[str, list[float]] = {name: [] for name in ("overall", "level 1", "level 2", "level 3")}
        by_name |= {"relevance": [], "logic": []}
        groups: dict[str, list[AnswerRow]] = defaultdict(list)
        for row in rows:
            groups[row["video_id"]].append(row)
        for group in groups.values():
            if len(group) == GROUP_SIZE:
                for name in ("overall", *_names(group)):
                    by_name.setdefault(name, []).append(_score(group))
        scores = {name: mean_of(Figure(score, 1) for score in of_name) for name, of_name in by_name.items() if of_name}
        return {**scores, "Avg Acc": overall(rows)}


def _structure(row: Row, origin: str) -> str:
    """Return how the questions of a group build on one another, as a key of CHAINS; "none" if they do not."""
    if row["group_type"] == "relevance":
        return "none"
    structure = re.sub(r"\s*,\s*", ", ", (row["group_structure"] or "").strip())
    require(
        structure in CHAINS, "group_structure", row["group_structure"], f"one of {'; '.join(CHAINS)}", origin=origin
    )
    return structure


def _in_order(group: Sequence[AnswerRow]) -> list[AnswerRow]:
    """Return the questions of a group by the number at the end of their ids ("001-2")."""
    return sorted(group, key=lambda row: int(re.sub(r"\D", "", row["question_id"].rpartition("-")[2]) or 0))


def _names(group: Sequence[AnswerRow]) -> Iterator[str]:
    """Yield the figures that a group counts for, by the tags of its last question."""
    for name in _in_order(group)[-1]["tags"]:
        if name.startswith("level: "):
            yield name.replace(":", "")
        elif name.startswith("group: "):
            yield name.removeprefix("group: ")


def _score(group: Sequence[AnswerRow]) -> float:
    """Return the score of a group of four questions, in 0..1."""
    in_order = _in_order(group)
    hits, tags = [is_correct(row) for row in in_order], in_order[-1]["tags"]
    if "group: relevance" in tags:
        count = sum(hits)
        return (count / GROUP_SIZE) ** 2
    structure = next(name.removeprefix("structure: ") for name in tags if name.startswith("structure: "))
    steps = next((i for i, hit in enumerate(hits) if not hit), GROUP_SIZE)
    # Two questions of one step stand for each other where the first of them is wrong.
    if (structure, steps) == ("[1, [2, 3], 4]", 1) and hits[2]:
        steps = 2
    if (structure, steps) == ("[[1, 2], 3, 4]", 0) and hits[1]:
        steps = 1
    return CHAINS[structure][steps]


def split_lettered(text: str, origin: str) -> tuple[str, ...]:
    """Return the options of one text, a line each ("A. red\\nB. blue"), without their letters."""
    letters, options = zip(*_OPTION.findall(text), strict=True) if _OPTION.search(text) else ((), ())
    if not LETTERS.startswith("".join(letters)):
        raise LvqaError(f"options must stand on lines that begin A., B., ...; got {shorten(text)} ({origin})")
    return tuple(option.strip() for option in options)


_OPTION = re.compile(r"^[ \t]*([A-Z])[.):](.*(?:\n(?![ \t]*[A-Z][.):]).*)*)", re.MULTILINE)
