"""Selected frames in the file formats of others, in and out, so that their selections can be evaluated here.

| format     | a file is                                                | a frame is            | names the question |
|------------|----------------------------------------------------------|-----------------------|--------------------|
| `aks`      | a JSON list of lists, one a question                     | a number of the video | no, by order       |
| `bolt`     | a JSON mapping, video to [{question_id, frames}]         | seconds               | yes                |
| `videoitg` | JSON lines {doc_id, index, logits}, `index` best first   | a number of the video | no, by order       |
| `wfs`      | a JSON list of a dataset's rows with `keyframe_indices`  | a number of the video | yes                |

A number of the video counts its own frames, so the frame rate of the video makes seconds of it, and the format of a
file is seen from its contents. `order` is the order of the questions in the dataset, as (video, question).
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from msgspec import Meta

from lvqa.records import VIDEO_SUFFIXES, LvqaError
from lvqa.validation import convert, parse_json, require

T = TypeVar("T")

Key = tuple[str, str]
"""A video and a question, by the names that the file has for them; the suffix of a video's file is taken off."""
Selections = dict[Key, tuple[float, ...]]
"""The seconds of the frames, sorted and distinct."""
Scores = tuple[tuple[float, ...], tuple[float, ...]]
"""The seconds of the frames, sorted, and the score of each."""

MAX_FILE_BYTES = 256 << 20
"""Bound on a file; the published ones have a few MB, VideoITG's rankings of 512 frames some more."""
VIDEO_KEYS, QUESTION_KEYS = ("videoID", "video_id", "video_name", "video"), ("question_id", "id", "uid")
"""What datasets call the two, the first that is there counts: Video-MME's `video_id` is a running number."""

FrameIndex = Annotated[int, Meta(ge=0, lt=10**9, description="a whole number, 0 or more")]
Seconds = Annotated[float, Meta(ge=0, lt=1e9, description="seconds, 0 or more")]
Score = Annotated[float, Meta(gt=-1e300, lt=1e300, description="a finite number")]
Name = Annotated[str, Meta(min_length=1)] | int


def read_selections(
    path: Path,
    *,
    order: Sequence[Key] | None = None,
    frames_per_second: Mapping[str, float] | None = None,
    num_frames: int | None = None,
) -> Selections:
    """Read the frames of each question, from a file of any of the formats.

    Args:
        path: The file.
        order: The questions in the dataset's order, for the formats that do not name them.
        frames_per_second: The rate of each video, where frames are numbers.
        num_frames: Of VideoITG's rankings the first so many count; None: all.

    Raises:
        LvqaError: The file is of none of the formats, or needs what is not given.
    """
    tree = _parsed(path)
    reader = _Reader(path, order, frames_per_second, num_frames)
    return {key: tuple(sorted({*seconds})) for key, seconds in reader.distinct(reader.rows(tree))}


def read_scores(path: Path) -> dict[Key, Scores]:
    """Read scores of frames: of each question the seconds and the scores, both by time.

    The file is a JSON mapping like BOLT's, video to [{question_id, frames, scores}]: seconds, and a score for each.

    Raises:
        LvqaError: The file is not one of scores.
    """
    tree = _parsed(path)
    reader = _Reader(path, None, None, None)
    if not isinstance(tree, dict):
        reader.fail("it must be a mapping, video to [{question_id, frames, scores}]")
    scores: dict[Key, Scores] = {}
    for key, by_time in reader.distinct(reader.scored(tree)):
        scores[key] = (tuple(time for time, _ in by_time), tuple(score for _, score in by_time))
    return scores


def read_question_texts(path: Path) -> dict[Key, str]:
    """Return the texts of the questions in a mapping, video to [{question_id, question, ...}], that have one."""
    tree = _parsed(path)
    if not isinstance(tree, dict):
        return {}
    rows = _Reader(path, None, None, None).named(tree)
    return {key: row["question"] for _, key, row in rows if isinstance(row.get("question"), str) and row["question"]}


def write_selections(
    path: Path,
    selections: Mapping[Key, Iterable[float]],
    *,
    format: str,
    frames_per_second: Mapping[str, float] | None = None,
    texts: Mapping[Key, str] | None = None,
) -> None:
    """Write the frames of each question, in the order of the mapping, to a file in the format of this name.

    Args:
        path: The file.
        selections: The seconds of the frames of each question.
        format: A name in WRITERS. VideoITG's scores, which seconds do not have, are all 1.
        frames_per_second: The rate of each video, for the formats whose frames are numbers.
        texts: The texts of the questions, for the formats that have them.

    Raises:
        LvqaError: There is no such format, a rate is missing, or the file can't be written.
    """
    if format not in WRITERS:
        raise LvqaError(f"the format must be one of {', '.join(WRITERS)}, got {format!r}")
    texts = texts or {}
    rows = [_Row(key, sorted({*seconds}), frames_per_second, texts.get(key, "")) for key, seconds in selections.items()]
    try:
        path.write_text(WRITERS[format](rows), encoding="utf-8")
    except OSError as error:
        raise LvqaError(f"cannot write {path}: {error.strerror or error}") from error


# --- reading -------------------------------------------------------------------------------------------------------


def _parsed(path: Path) -> Any:
    """Return the file's JSON; a list of objects for one with an object a line."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer for ever
            raise LvqaError(f"{path} is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            most = MAX_FILE_BYTES >> 20
            raise LvqaError(f"{path} has {status.st_size >> 20} MiB; allowed for a file of selections: {most}")
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if lines and all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        tree = [parse_json(line, origin=f"{path}, line {i}") for i, line in enumerate(lines, start=1)]
        # A mapping on one line is BOLT's, unless it is one of VideoITG's rows.
        return tree if len(tree) > 1 or "doc_id" in tree[0] else tree[0]
    return parse_json(content, origin=str(path))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the rows of a file with what the caller knows besides."""

    path: Path
    order: Sequence[Key] | None
    frames_per_second: Mapping[str, float] | None
    num_frames: int | None

    def fail(self, reason: str) -> NoReturn:
        raise LvqaError(f"{self.path}: {reason}")

    def distinct(self, rows: Iterator[tuple[Key, T]]) -> Iterator[tuple[Key, T]]:
        """Yield the rows, as long as there is one of each question."""
        keys = set()
        for key, row in rows:
            if key in keys:
                self.fail(f"question {key[1]!r} of video {key[0]!r} stands there twice")
            keys.add(key)
            yield key, row

    def rows(self, tree: Any) -> Iterator[tuple[Key, list[float]]]:
        """Return each question with its frames, in seconds."""
        if isinstance(tree, dict):
            return self._bolt(tree)
        if isinstance(tree, list) and tree:
            if all(isinstance(row, list) for row in tree):
                return self._aks(tree)
            if all(isinstance(row, dict) and "keyframe_indices" in row for row in tree):
                return self._wfs(tree)
            if all(isinstance(row, dict) and {"doc_id", "index"} <= row.keys() for row in tree):
                return self._videoitg(tree)
        self.fail("it is no file of selections of AKS, BOLT, VideoITG or WFS")

    def scored(self, tree: dict[str, Any]) -> Iterator[tuple[Key, list[tuple[float, float]]]]:
        """Yield each question of a file of scores with its (seconds, score), by time."""
        for name, key, row in self.named(tree):
            seconds = self._convert(row.get("frames"), list[Seconds], f"{name}.frames")
            scores = self._convert(row.get("scores"), list[Score | None], f"{name}.scores")
            if not seconds or len(seconds) != len(scores):
                self.fail(
                    f"{name} must have a score for each frame, and one at least, got {len(scores)}, {len(seconds)}"
                )
            yield key, sorted(zip(seconds, (-math.inf if score is None else score for score in scores), strict=True))

    def _aks(self, tree: list[Any]) -> Iterator[tuple[Key, list[float]]]:
        if len(tree) != len(self._ordered()):
            self.fail(f"it has frames of {len(tree)} questions, and the dataset has {len(self._ordered())}")
        for i, (key, indices) in enumerate(zip(self._ordered(), tree, strict=True)):
            yield key, self._seconds(key, indices, f"[{i}]")

    def _bolt(self, tree: dict[str, Any]) -> Iterator[tuple[Key, list[float]]]:
        for name, key, row in self.named(tree):
            yield key, self._convert(row.get("frames"), list[Seconds], f"{name}.frames")

    def _videoitg(self, tree: list[dict[str, Any]]) -> Iterator[tuple[Key, list[float]]]:
        ordered = self._ordered()
        for line_number, row in enumerate(tree, start=1):
            name = f"line {line_number}: doc_id"
            doc_id = self._convert(row["doc_id"], int, name)
            require(0 <= doc_id < len(ordered), name, doc_id, f"0 to {len(ordered) - 1}", origin=str(self.path))
            indices = row["index"]
            yield (
                ordered[doc_id],
                self._seconds(ordered[doc_id], indices, f"line {line_number}: index", self.num_frames),
            )

    def _wfs(self, tree: list[dict[str, Any]]) -> Iterator[tuple[Key, list[float]]]:
        for i, row in enumerate(tree):
            key = (_stem(self._name(row, VIDEO_KEYS, f"[{i}]")), self._name(row, QUESTION_KEYS, f"[{i}]"))
            yield key, self._seconds(key, row["keyframe_indices"], f"[{i}].keyframe_indices")

    def named(self, tree: dict[str, Any]) -> Iterator[tuple[str, Key, dict[str, Any]]]:
        """Yield the questions of a mapping, video to questions: what a message calls each, its key and its row."""
        for video, value in tree.items():
            rows = self._convert(value, list[dict[str, Any]], repr(video))
            for i, row in enumerate(rows):
                name = f"{video!r}[{i}]"
                yield name, (_stem(video), self._name(row, QUESTION_KEYS, name)), row

    def _ordered(self) -> Sequence[Key]:
        if self.order is None:
            self.fail("it does not name its questions; their order in the dataset must be given (order)")
        return self.order

    def _name(self, row: dict[str, Any], keys: Sequence[str], name: str) -> str:
        key = next((key for key in keys if key in row), " or ".join(keys))
        value: str | int = self._convert(row.get(key), Name, f"{name}.{key}")
        return str(value)

    def _seconds(self, key: Key, indices: Any, name: str, most: int | None = None) -> list[float]:
        """Return the seconds of frames that are numbers of the video."""
        rate = _rate(key, self.frames_per_second, where=str(self.path))
        return [index / rate for index in self._convert(indices, list[FrameIndex], name)[:most]]

    def _convert(self, value: Any, kind: Any, name: str) -> Any:
        return convert(value, kind, origin=str(self.path), name=name)


# --- writing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A question with its frames."""

    key: Key
    seconds: list[float]
    frames_per_second: Mapping[str, float] | None
    text: str

    def numbers(self) -> list[int]:
        """The frames as numbers of the video."""
        rate = _rate(self.key, self.frames_per_second, where="numbers of frames")
        return sorted({round(seconds * rate) for seconds in self.seconds})


def _aks_text(rows: Sequence[_Row]) -> str:
    return json.dumps([row.numbers() for row in rows]) + "\n"


def _bolt_text(rows: Sequence[_Row]) -> str:
    tree: dict[str, list[object]] = {}
    for row in rows:
        video, question = row.key
        tree.setdefault(video, []).append({"question_id": question, "question": row.text, "frames": row.seconds})
    return json.dumps(tree, indent=1) + "\n"


def _videoitg_text(rows: Sequence[_Row]) -> str:
    numbers = [row.numbers() for row in rows]
    lines = [{"doc_id": place, "index": index, "logits": [1.0] * len(index)} for place, index in enumerate(numbers)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _wfs_text(rows: Sequence[_Row]) -> str:
    tree = [
        {"video_id": row.key[0], "question_id": row.key[1], "question": row.text, "keyframe_indices": row.numbers()}
        for row in rows
    ]
    return json.dumps(tree, indent=1) + "\n"


WRITERS: dict[str, Callable[[Sequence[_Row]], str]] = {
    "aks": _aks_text,
    "bolt": _bolt_text,
    "videoitg": _videoitg_text,
    "wfs": _wfs_text,
}


# --- both ----------------------------------------------------------------------------------------------------------


def _rate(key: Key, frames_per_second: Mapping[str, float] | None, *, where: str) -> float:
    rate = (frames_per_second or {}).get(key[0])
    if rate is None:
        raise LvqaError(f"{where}: the frame rate of video {key[0]!r} must be given (frames_per_second)")
    if not (math.isfinite(rate) and rate > 0):
        raise LvqaError(f"{where}: the frame rate of video {key[0]!r} must be more than 0, got {rate!r}")
    return rate


def _stem(video: str) -> str:
    return video[: -len(Path(video).suffix)] if Path(video).suffix.lower() in VIDEO_SUFFIXES else video
