"""The rows of `answers.jsonl`: what stands in one, and how they are read back.

A row is one answer, or why there is none; statistics need nothing else. `counts` and `seconds` are what the answer
would have cost alone on an indexed video: where arms or budgets share a ranking, or the output for the same frames,
each row counts it. Frames and pairs that were in memory already cost nothing, so they depend on earlier questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from lvqa.datasets import headline
from lvqa.evaluation.row_file import RowFile
from lvqa.records import Counts, LvqaError, Question
from lvqa.validation import FiniteFloat, NonNegativeInt, convert, decode_json, parse_json

ROWS_FORMAT = 8
"""The format of the rows that are written here. Those of lvqa 0.1 are format 1."""

OLD_KEYS = {"video": "video_id", "question": "question_id", "right": "target", "letter": "prediction"}
"""The keys of format 1, and what they are called now. It had neither the question's text nor its options."""

ADDED_KEYS: Mapping[int, Mapping[str, Any]] = {
    3: {
        "video_path": None,
        "content_id": None,
        "duration_seconds": None,
        "warnings": [],
        "frames_substituted": None,
        "node": None,
        "session": 0,
        "by_place": False,
    },
    4: {"judge": None, "judged_correct": None, "judge_text": None},
    5: {"answer_tokens": None, "answer_visual_tokens": None},
    6: {"time_read": None},
    7: {"question_kind": None, "looked_again": None},
    8: {"subtitle_lines": []},
}
"""Format -> the keys that older ones lack, and what stands in their place."""
NEW_KEYS: Mapping[str, Any] = {key: value for added in ADDED_KEYS.values() for key, value in added.items()}

Key = tuple[str, str, str, int]
"""What tells a row from all others: video, question, arm and budget."""

Span = tuple[FiniteFloat, FiniteFloat]
"""Where something lies: start_seconds and end_seconds."""
ScoredClip = tuple[FiniteFloat, FiniteFloat, FiniteFloat | None]
"""A clip with a score: start_seconds, end_seconds, score."""
SpokenLine = tuple[FiniteFloat, FiniteFloat, FiniteFloat | None, str]
"""A line of subtitles: start_seconds, end_seconds, the cosine with the question, the text."""


class RowCounts(TypedDict):
    """What the work cost, as numbers of things."""

    frames_decoded: NonNegativeInt
    pairs_encoded: NonNegativeInt
    tokens_prefilled: NonNegativeInt


class RowIndex(TypedDict):
    """What building the video's index cost, or that it was there.

    The indexes of all arms are built together, and each row has what that cost in all.
    """

    reused: bool
    counts: RowCounts
    seconds: FiniteFloat


class Row(TypedDict):
    """One answer to a question, in one arm at one budget."""

    video_id: str
    """The dataset's key of the video."""
    video_path: str | None
    """The video's file; null if it could not be opened, and in rows of before format 3."""
    content_id: str | None
    """What tells the content of the video's file from all others, as `Video.id`; null as in `video_path`."""
    duration_seconds: FiniteFloat | None
    """How long the video is; null as in `video_path`."""
    question_id: str
    """The dataset's id of the question."""
    question: str
    """The text of the question, without its options."""
    options: list[str]
    """The texts of the options, without letters; empty for a free question."""
    arm: str
    """The name of the arm."""
    budget: NonNegativeInt
    """How many frames the model could get; 0 in an arm without frames."""
    tags: list[str]
    """The abilities that the question tests, as the dataset names them."""
    target: str | None
    """The letter of the correct option; of an open question the text that is expected; null where it is not known."""
    evidence_seconds: Span | None
    """Where the evidence lies; null where it is not annotated."""
    prediction: str | None
    """The letter that the model answered, read strictly (see letters.named_letter); null if there is none."""
    text: str
    """The text of the predicted option, or what was generated."""
    option_scores: list[FiniteFloat | None]
    """A score for each option; empty if text was generated."""
    times_seconds: list[FiniteFloat]
    """The times of the frames that the model answered from."""
    embedded: list[ScoredClip]
    """The pool of clips with their embed_score, in the embedding's order."""
    reranked: list[ScoredClip]
    """The same clips with their rerank_score, in the reranker's order; empty without reranking."""
    subtitle_lines: list[SpokenLine]
    """The best lines of subtitles of the pool's clips, in the order of `reranked`.

    Empty where none were searched, and in rows of before format 8.
    """
    num_clips: NonNegativeInt
    """How many clips the whole video has."""
    counts: RowCounts
    """What the answer cost, as numbers of things."""
    answer_tokens: NonNegativeInt | None
    """How many tokens the prompt of the answer had; null without an answer, and in rows of before format 5."""
    answer_visual_tokens: NonNegativeInt | None
    """How many of them showed the frames; null as in `answer_tokens`."""
    time_read: str | None
    """What the method was told of the question's time, "21:40"; "" if the question names none.

    Null if nothing was read, and in rows of before format 6.
    """
    question_kind: list[FiniteFloat | None] | None
    """The probabilities that the question is about one moment, an order of events, the whole video, as the model says.

    Null if it was not asked, and in rows of before format 7.
    """
    looked_again: bool | None
    """Whether the model, unsure after some of the frames, saw more.

    Null where it saw all at once, and in rows of before format 7.
    """
    index: RowIndex | None
    """What the index cost; null in an arm that needs none."""
    seconds: dict[str, FiniteFloat]
    """What each stage of the answer took."""
    warnings: list[str]
    """What a reader must know of the answer: what is wrong with the video, the model or the evidence, one line each."""
    frames_substituted: NonNegativeInt | None
    """How many frames are damaged: of the whole frame grid in an arm that searches, else of those that the model saw.

    Null without an answer, and in rows of before format 3.
    """
    node: str | None
    """The machine that gave the answer, or failed to; null in rows of before format 3."""
    session: NonNegativeInt
    """Which session of run.json gave the answer, with its versions: 0 the first one, 1 the first of `resumed`."""
    by_place: bool
    """Whether the error is about the machines, and not about the question or its video: then it is asked again."""
    judge: str | None
    """Who says whether the answer to an open question is correct: exact, normalised, or the name of a model; null for
    a question with options."""
    judged_correct: bool | None
    """What the judge says; null as long as it has said nothing."""
    judge_text: str | None
    """The reply of a model that judges, or why there is none."""
    error: str | None
    """Why there is no answer; null if there is one."""


COUNTED: tuple[Literal["frames_decoded", "pairs_encoded", "tokens_prefilled"], ...] = (
    "frames_decoded",
    "pairs_encoded",
    "tokens_prefilled",
)
FIELDS = tuple(Row.__annotations__)


def is_correct(row: Row) -> bool:
    """Return whether the letter is the target, or the judge of an open answer says so; a failed answer is wrong."""
    return row["judged_correct"] is True if row["judge"] else headline.is_correct(row)


def is_unjudged(row: Row) -> bool:
    """Return whether an open question was answered, and its judge has not said yet whether correctly."""
    return row["judge"] is not None and row["judged_correct"] is None and row["error"] is None


def key_of(row: Row) -> Key:
    """Return what tells a row from all others."""
    return row["video_id"], row["question_id"], row["arm"], row["budget"]


def row_counts(counts: Counts) -> RowCounts:
    """Return counts as they stand in a row."""
    return RowCounts(
        frames_decoded=counts.frames_decoded,
        pairs_encoded=counts.pairs_encoded,
        tokens_prefilled=counts.tokens_prefilled,
    )


def blank_row(video_id: str, question: Question, arm: str, budget: int) -> Row:
    """Return what a row holds of its question, without an answer."""
    return {
        "video_id": video_id,
        "video_path": None,
        "content_id": None,
        "duration_seconds": None,
        "question_id": question.id,
        "question": question.text,
        "options": list(question.options),
        "arm": arm,
        "budget": budget,
        "tags": list(question.tags),
        "target": question.answer,
        "evidence_seconds": question.evidence_seconds,
        "prediction": None,
        "text": "",
        "option_scores": [],
        "times_seconds": [],
        "embedded": [],
        "reranked": [],
        "subtitle_lines": [],
        "num_clips": 0,
        "counts": row_counts(Counts()),
        "answer_tokens": None,
        "answer_visual_tokens": None,
        "time_read": None,
        "question_kind": None,
        "looked_again": None,
        "index": None,
        "seconds": {},
        "warnings": [],
        "frames_substituted": None,
        "node": None,
        "session": 0,
        "by_place": False,
        "judge": None,
        "judged_correct": None,
        "judge_text": None,
        "error": None,
    }


def to_line(row: Mapping[str, Any]) -> str:
    """Return the row as a line of its file."""
    return json.dumps({name: row[name] for name in FIELDS}, allow_nan=False) + "\n"


def _row(line: bytes, origin: str) -> Row:
    try:
        return decode_json(line, Row, origin=origin)
    except LvqaError:
        tree = parse_json(line, origin=origin)
        added = _lacking(tree)
        if not added:
            raise
    if "video_id" not in tree and OLD_KEYS.keys() <= tree.keys():
        tree = {OLD_KEYS.get(key, key): value for key, value in tree.items()} | {"question": "", "options": []}
    return convert({**tree, **added}, Row, origin=origin)


def _lacking(tree: object) -> Mapping[str, Any]:
    """Return the keys, with what stands in their place, that a row has not because it is of an older format."""
    if isinstance(tree, dict):
        for old_format in range(2, ROWS_FORMAT):
            added = {key: value for n in range(old_format + 1, ROWS_FORMAT + 1) for key, value in ADDED_KEYS[n].items()}
            if not added.keys() & tree.keys():
                return added
    return {}


ROWS: RowFile[Row] = RowFile("answers.jsonl", key_of, to_line, _row, "the same question, arm and budget")
"""The file of the rows in a run folder."""
read_rows = ROWS.read
