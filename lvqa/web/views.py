"""What pages show of answers and of runs, as JSON. The pages' modules read nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from lvqa.evaluation import Run, is_correct, is_unjudged
from lvqa.evaluation.filters import confidence_of, evidence_of
from lvqa.evaluation.rows import Row
from lvqa.output import answer_json, candidate_json, finite, video_json
from lvqa.records import QUESTION_KINDS, Answer, Candidate, Video
from lvqa.temporal import read_temporal

Json = dict[str, Any]


def answer_view(answer: Answer, video: Video, evidence: Sequence[Candidate]) -> Json:
    """Return an answer, complete: as `lvqa ask --json` prints it, with the scores of all clips and the times read.

    Args:
        answer: The answer.
        video: The video that it is about.
        evidence: The candidates that are listed, best first.
    """
    spans = read_temporal(answer.question.text, video.duration_seconds).spans if answer.time_read else ()
    return {
        **answer_json(answer, evidence),
        "history": [{"question": question, "answer": reply} for question, reply in answer.question.history],
        "video": video_json(video),
        "clips": [candidate_json(clip) for clip in sorted(answer.evidence, key=lambda clip: clip.clip)],
        "time_spans": spans,
    }


class RunView:
    """A run as its page shows it: all questions in short, and each with its answers."""

    def __init__(self, run: Run) -> None:
        """Sort the rows of a run by question, in the order in which they were asked first."""
        self.run = run
        self._rows: dict[tuple[str, str], list[Row]] = {}
        for row in run.rows:
            self._rows.setdefault((row["video_id"], row["question_id"]), []).append(row)
        self.conditions = list(dict.fromkeys((row["arm"], row["budget"]) for row in run.rows))

    def __len__(self) -> int:
        """Return how many questions have an answer."""
        return len(self._rows)

    @cached_property
    def _questions(self) -> list[list[Row]]:
        return list(self._rows.values())

    @cached_property
    def paths(self) -> dict[str, str]:
        """Content id of each video -> its file, as the rows name them."""
        rows = self.run.rows
        return {row["content_id"]: row["video_path"] for row in rows if row["content_id"] and row["video_path"]}

    def key_of(self, index: int) -> str:
        """Return what notes call a question."""
        row = self._questions[index][0]
        return f"{row['video_id']}/{row['question_id']}"

    @cached_property
    def keys(self) -> set[str]:
        """What notes call the questions."""
        return set(map(self.key_of, range(len(self))))

    @cached_property
    def summary(self) -> Json:
        """All questions in short: what the list shows, filters and sorts."""
        tags = sorted({tag for row in self.run.rows for tag in row["tags"]})
        content = {
            "num_rows": len(self.run.rows),
            "num_failed": self.run.num_failed,
            "is_growing": len(self.run.rows) < self.run.num_questions * len(self.conditions),
            "conditions": list(map(self._condition, self.conditions)),
            "tags": tags,
            "questions": [self._in_short(index, rows) for index, rows in enumerate(self._questions)],
        }
        return finite(content)  # type: ignore[no-any-return]

    def _condition(self, condition: tuple[str, int]) -> Json:
        rows = [row for row in self.run.rows if (row["arm"], row["budget"]) == condition]
        tags = {tag for row in rows for tag in row["tags"]}
        by_tag = {tag: _counts([row for row in rows if tag in row["tags"]]) for tag in sorted(tags)}
        return {"arm": condition[0], "budget": condition[1], "all": _counts(rows), "tags": by_tag}

    def _in_short(self, index: int, rows: Sequence[Row]) -> Json:
        by_condition = {(row["arm"], row["budget"]): row for row in rows}
        first = rows[0]
        return {
            "index": index,
            "key": self.key_of(index),
            "video": first["video_id"],
            "question": first["question"],
            "options": first["options"],
            "tags": first["tags"],
            "answers": [
                None if (row := by_condition.get(condition)) is None else _outcome(row) for condition in self.conditions
            ],
        }

    def question(self, index: int, video: Json) -> Json:
        """Return a question with all its answers.

        Answers that share the scores of clips have them once, under "rankings": a list of
        [start, end, embedding score, rerank score], best first.

        Args:
            index: Its place in the summary.
            video: What is known of its video, as JSON.
        """
        rows, rankings = self._questions[index], _Numbered()
        answers = [
            {
                "arm": row["arm"],
                "budget": row["budget"],
                "condition": self.conditions.index((row["arm"], row["budget"])),
                "evidence": evidence_of(row),
                "ranking": rankings.number_of(_clips(row)),
                "answer": _row_view(row),
            }
            for row in rows
        ]
        shared = {key: rows[0][key] for key in ("question", "options", "tags", "target", "evidence_seconds")}
        content = {**shared, "index": index, "key": self.key_of(index), "video": video, "answers": answers}
        return finite({**content, "rankings": rankings.values})  # type: ignore[no-any-return]

    def video_of(self, index: int) -> Json:
        """Return what the rows themselves know of a question's video."""
        rows = self._questions[index]
        row = next((row for row in rows if row["content_id"]), rows[0])
        path = row["video_path"] or row["video_id"]
        return {
            "id": row["content_id"] or row["video_id"],
            "path": path,
            "name": path.rpartition("/")[2],
            "duration_seconds": row["duration_seconds"] or max((*row["times_seconds"], 1.0)),
        }


class _Numbered:
    """Values that are kept once, and named by their number."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def number_of(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Any]:
        return list(self._numbers)


def _counts(rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many are right, and of how many; one that no judge has spoken about does not count."""
    judged = [row for row in rows if not is_unjudged(row)]
    return sum(map(is_correct, judged)), len(judged)


def _outcome(row: Row) -> Json:
    return {
        "correct": is_correct(row),
        "failed": row["error"] is not None,
        "evidence": evidence_of(row),
        "confidence": confidence_of(row),
        "num_warnings": len(row["warnings"]),
    }


def _clips(row: Row) -> tuple[tuple[float, float, float | None, float | None], ...]:
    """Return the pool of a row's clips with both scores, the best first."""
    embed, rerank = _scores(row["embedded"]), _scores(row["reranked"])
    return tuple((*span, embed.get(span), rerank.get(span)) for span in (rerank or embed))


def _scores(clips: Iterable[Sequence[Any]]) -> Mapping[tuple[float, float], float | None]:
    return {(start, end): score for start, end, score in clips}


_COPIED = (
    *("question", "options", "option_scores", "target", "evidence_seconds", "time_read", "looked_again"),
    *("warnings", "frames_substituted", "counts", "answer_tokens", "answer_visual_tokens", "seconds", "error"),
)


def _row_view(row: Row) -> Json:
    """Return a row as an answer, under the keys of `answer_view`; its clips stand apart, as a ranking."""
    kinds, duration = row["question_kind"], row["duration_seconds"]
    spans = read_temporal(row["question"], duration).spans if row["time_read"] and duration else ()
    return {
        **{key: row[key] for key in _COPIED},  # type: ignore[literal-required]
        "answer": row["text"],
        "option": row["prediction"],
        "method": row["arm"],
        "frames_budget": row["budget"],
        "frames": [{"time_seconds": seconds} for seconds in row["times_seconds"]],
        "question_kind": None if kinds is None else dict(zip(QUESTION_KINDS, kinds, strict=True)),
        "index": None,
        "correct": is_correct(row),
        "time_spans": spans,
    }
