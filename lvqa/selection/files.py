"""Chosen frames in the file formats of others, in and out, so that their selections can be asked about here.

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
from typing import Any, NoReturn

from lvqa.records import VIDEO_SUFFIXES, LvqaError, shorten

Key = tuple[str, str]
"""A video and a question, by the names that the file has for them; the suffix of a video's file is taken off."""
Selections = dict[Key, tuple[float, ...]]
"""The seconds of the frames, sorted and distinct."""

MAX_FILE_BYTES = 256 << 20
"""The published ones have a few MB; VideoITG's rankings of 512 frames some more."""
VIDEO_KEYS, QUESTION_KEYS = ("videoID", "video_id", "video_name", "video"), ("question_id", "id", "uid")
"""What datasets call the two, the first that is there counts: Video-MME's `video_id` is a running number."""


def read_selections(
    path: Path,
    *,
    order: Sequence[Key] | None = None,
    frames_per_second: Mapping[str, float] | None = None,
    num_frames: int | None = None,
) -> Selections:
    """The frames of each question, from a file of any of the formats.

    `frames_per_second` is the rate of each video, where frames are numbers. Of VideoITG's rankings the first
    `num_frames` count, or all. LvqaError, of one line, for a file that is none of these or needs what is not given.
    """
    tree = _parsed(path)
    reader = _Reader(path, order, frames_per_second, num_frames)
    found: Selections = {}
    for key, seconds in reader.rows(tree):
        if key in found:
            reader.fail(f"question {key[1]!r} of video {key[0]!r} stands there twice")
        found[key] = tuple(sorted({*seconds}))
    return found


def read_scores(path: Path) -> dict[Key, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Scores of frames, (seconds, scores) of each question, both by time.

    The file is a JSON mapping like BOLT's, video to [{question_id, frames, scores}]: seconds, and a score for each.
    LvqaError, of one line, for a file that is none.
    """
    tree = _parsed(path)
    reader = _Reader(path, None, None, None)
    if not isinstance(tree, dict):
        reader.fail("it must be a mapping, video to [{question_id, frames, scores}]")
    found: dict[Key, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    for where, key, row in reader.named(tree):
        seconds = [reader.seconds(value, where) for value in reader.values(row.get("frames"), f"{where}.frames")]
        scores = [reader.score(value, where) for value in reader.values(row.get("scores"), f"{where}.scores")]
        if not seconds or len(seconds) != len(scores):
            reader.fail(
                f"{where} must have a score for each frame, and one at least, got {len(scores)}, {len(seconds)}"
            )
        if key in found:
            reader.fail(f"question {key[1]!r} of video {key[0]!r} stands there twice")
        in_time = sorted(zip(seconds, scores, strict=True))
        found[key] = (tuple(time for time, _ in in_time), tuple(score for _, score in in_time))
    return found


def write_selections(
    path: Path,
    selections: Mapping[Key, Iterable[float]],
    *,
    format: str,
    frames_per_second: Mapping[str, float] | None = None,
    texts: Mapping[Key, str] | None = None,
) -> None:
    """Write the frames of each question, in the order of the mapping, to a file in the format of this name.

    `frames_per_second` is the rate of each video, for the formats whose frames are numbers; `texts` the questions, for
    those that hold them. VideoITG's scores, which seconds do not have, are all 1.
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
    """The file's JSON; a list of objects for one with an object a line."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its writer for ever
            raise LvqaError(f"{path} is not a regular file")
        if found.st_size > MAX_FILE_BYTES:
            most = MAX_FILE_BYTES >> 20
            raise LvqaError(f"{path} has {found.st_size >> 20} MiB; allowed for a file of selections: {most}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LvqaError(f"{path} is not UTF-8 text") from error
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        if lines and all(line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines):
            tree = [json.loads(line) for line in lines]
            # A mapping on one line is BOLT's, unless it is one of VideoITG's rows.
            return tree if len(tree) > 1 or "doc_id" in tree[0] else tree[0]
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LvqaError(f"{path} is not JSON: {' '.join(str(error).split())[:200]}") from error


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is known beside the file."""

    path: Path
    order: Sequence[Key] | None
    frames_per_second: Mapping[str, float] | None
    num_frames: int | None

    def fail(self, reason: str) -> NoReturn:
        raise LvqaError(f"{self.path}: {reason}")

    def rows(self, tree: Any) -> Iterator[tuple[Key, list[float]]]:
        """Each question with its frames, in seconds."""
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

    def _aks(self, tree: list[list[Any]]) -> Iterator[tuple[Key, list[float]]]:
        if len(tree) != len(self._ordered()):
            self.fail(f"it has frames of {len(tree)} questions, and the dataset has {len(self._ordered())}")
        for place, (key, numbers) in enumerate(zip(self._ordered(), tree, strict=True)):
            yield key, self._numbered(key, numbers, f"[{place}]")

    def _bolt(self, tree: dict[str, Any]) -> Iterator[tuple[Key, list[float]]]:
        for where, key, row in self.named(tree):
            yield key, [self.seconds(value, where) for value in self.values(row.get("frames"), f"{where}.frames")]

    def named(self, tree: dict[str, Any]) -> Iterator[tuple[str, Key, dict[str, Any]]]:
        """Of a mapping, video to questions: where each stands, its name, and what is said of it."""
        for video, rows in tree.items():
            if not isinstance(rows, list):
                self.fail(f"{video!r} must be a list of questions, got {shorten(rows)}")
            for place, row in enumerate(rows):
                where = f"{video!r}[{place}]"
                if not isinstance(row, dict):
                    self.fail(f"{where} must be a question with its frames, got {shorten(row)}")
                yield where, (_stem(video), self._name(row, QUESTION_KEYS, where)), row

    def _videoitg(self, tree: list[dict[str, Any]]) -> Iterator[tuple[Key, list[float]]]:
        ordered = self._ordered()
        for place, row in enumerate(tree, 1):
            number = row["doc_id"]
            if type(number) is not int or not 0 <= number < len(ordered):
                self.fail(f"line {place}: doc_id must be from 0 to {len(ordered) - 1}, got {shorten(number)}")
            numbers = self.values(row["index"], f"line {place}: index")
            yield ordered[number], self._numbered(ordered[number], numbers[: self.num_frames], f"line {place}: index")

    def _wfs(self, tree: list[dict[str, Any]]) -> Iterator[tuple[Key, list[float]]]:
        for place, row in enumerate(tree):
            key = (_stem(self._name(row, VIDEO_KEYS, f"[{place}]")), self._name(row, QUESTION_KEYS, f"[{place}]"))
            yield key, self._numbered(key, row["keyframe_indices"], f"[{place}].keyframe_indices")

    def _ordered(self) -> Sequence[Key]:
        if self.order is None:
            self.fail("it does not name its questions; their order in the dataset must be given (order)")
        return self.order

    def _name(self, row: dict[str, Any], names: Sequence[str], where: str) -> str:
        name = next((row[name] for name in names if name in row), None)
        if type(name) not in (str, int) or name == "":
            self.fail(f"{where} must have a text under {' or '.join(names)}, got {shorten(name)}")
        return str(name)

    def values(self, value: Any, where: str) -> list[Any]:
        """The value, if it is a list."""
        if not isinstance(value, list):
            self.fail(f"{where} must be a list of frames, got {shorten(value)}")
        return value

    def seconds(self, value: Any, where: str) -> float:
        """The value, if it is a time."""
        # An int of JSON may be larger than any float.
        if type(value) not in (int, float) or not 0 <= value < 1e9:
            self.fail(f"{where}: a frame's time must be seconds, 0 or more, got {shorten(value)}")
        return float(value)

    def score(self, value: Any, where: str) -> float:
        """The value, if it is a number; null is no score."""
        if value is None:
            return -math.inf
        if type(value) not in (int, float) or not -1e300 < value < 1e300:
            self.fail(f"{where}: a score must be a finite number or null, got {shorten(value)}")
        return float(value)

    def _numbered(self, key: Key, numbers: Any, where: str) -> list[float]:
        """Seconds of frames that are numbers of the video."""
        rate = _rate(key, self.frames_per_second, where=str(self.path))
        for number in self.values(numbers, where):
            if type(number) is not int or not 0 <= number < 1e9:
                self.fail(f"{where}: a frame must be a whole number, 0 or more, got {shorten(number)}")
        return [number / rate for number in numbers]


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
