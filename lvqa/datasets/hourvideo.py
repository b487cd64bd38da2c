"""Read HourVideo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from lvqa.datasets.annotations import AnyText, Entry, Text, json_value, make_entry, video_key, without_letters
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall, tag
from lvqa.validation import convert

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Row(TypedDict):
    """A question of HourVideo."""

    qid: Text
    task: Text
    question: AnyText
    answer_1: AnyText
    answer_2: AnyText
    answer_3: AnyText
    answer_4: AnyText
    answer_5: AnyText
    correct_answer_label: AnyText


class Video(TypedDict):
    """A video of HourVideo with its questions."""

    benchmark_dataset: list[Row]


class HourVideo:
    """HourVideo (arXiv 2411.04998), its development set: `dev_v1.0_annotations.json`, 1,182 questions, 50 videos.

    The file is that of huggingface.co/datasets/HourVideo/HourVideo, `v1.0_release/json`: video -> its questions, as
    github.com/keshik6/HourVideo reads it (hv_utils.py, gpt4_utils.py). The answers of the test set are not public.
    Questions whose options are pictures can't be asked here; they are left out, and counted in a warning.
    """

    title = "HourVideo"
    counting = (
        "Accuracy over all questions whose options are texts, and by task. A question without an answer is wrong. "
        "Questions whose options are pictures are left out, so the overall figure is not that of the paper."
    )

    def __init__(self, folder: Path) -> None:
        self.path = folder / "dev_v1.0_annotations.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions, video by video."""
        for key, value in json_value(self.path, dict[str, Any]).items():
            video = convert(value, Video, origin=f"{self.path}, {key}")
            for i, row in enumerate(video["benchmark_dataset"]):
                yield _entry(row, key, f"{self.path}, {key}, benchmark_dataset[{i}]")

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy overall and by task."""
        return {"overall": overall(rows), **by_tag(rows, "task")}


def _entry(row: Row, key: str, origin: str) -> Entry:
    options = (row["answer_1"], row["answer_2"], row["answer_3"], row["answer_4"], row["answer_5"])
    are_pictures = any(option.lower().endswith(PICTURE_SUFFIXES) for option in options)
    return make_entry(
        row["question"],
        without_letters(options),
        row["correct_answer_label"],
        origin,
        id=row["qid"],
        video_id=video_key(key, "the video", origin),
        tags=(tag("task", row["task"]),),
        left_out="its options are pictures" if are_pictures else "",
    )
