"""MMEB-V2's video half: classification, retrieval, moment retrieval and question answering, as VLM2Vec reads them.

`annotations/REPOSITORY/` are the annotation files by the names of their repositories (Parquet, JSON or JSON Lines), and
the frames lie in `video-tasks/frames/`, as MMEB-V2's archives unpack. The sentences that go with the queries
(`instruction`) are ours: VLM2Vec's are in its program, and no paper prints FreeRet's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from lvqa.datasets.annotations import json_lines, json_list, parquet_rows
from lvqa.datasets.retrieval.sets import Collector, Content, Nouns, RetrievalSet, frames_in, inside
from lvqa.records import LETTERS, LvqaError
from lvqa.validation import convert, decode_json, in_yaml, require, require_one_of

FRAMES = Path("video-tasks") / "frames"
MVBENCH_PARTS = (
    *("episodic_reasoning", "action_sequence", "action_prediction", "action_antonym", "fine_grained_action"),
    *("unexpected_action", "object_existence", "object_interaction", "object_shuffle", "moving_direction"),
    *("action_localization", "scene_transition", "action_count", "moving_count", "moving_attribute"),
    *("state_change", "fine_grained_pose", "character_order", "egocentric_navigation", "counterfactual_inference"),
)
"""MVBench's tasks, in the order in which VLM2Vec joins them."""


class Entry(NamedTuple):
    """A query of a set as its rows give it."""

    content: Content
    candidates: Sequence[tuple[str, Content]]
    targets: Sequence[str]


Parse = Callable[[dict[str, Any], Path, str], Entry]
"""Makes an entry of a row, given the folder of the set's frames and where the row stands."""


@dataclass(frozen=True, slots=True)
class VideoSet:
    """A set: where it lies, and how a row becomes a query."""

    category: str
    nouns: Nouns
    repository: str
    frames: str
    """The folder of its frames in `video-tasks/frames/`."""
    parse: Parse
    split: str = "test"
    is_global: bool = False
    """Whether a query is searched among the candidates of all queries."""
    instruction: str = ""


def text_field(row: dict[str, Any], key: str, origin: str) -> str:
    """Return a field of a row as text; a number too."""
    value = convert(row, dict[str, Any], origin=origin).get(key)
    require(isinstance(value, str | int) and not isinstance(value, bool), key, value, "text", origin=origin)
    return str(value)


def texts_field(row: dict[str, Any], key: str, origin: str) -> list[str]:
    """Return a field of a row as a list of texts, at least one."""
    return (
        convert({key: row.get(key)}, dict[str, list[str]], origin=origin)[key] if row.get(key) else _none(key, origin)
    )


def _none(key: str, origin: str) -> list[str]:
    raise LvqaError(f"{key} must be a list of texts, of one or more ({origin})")


def _at(options: Sequence[str], index: object, key: str, origin: str) -> str:
    is_index = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(options)
    require(is_index, key, index, f"the index of an option, 0 to {len(options) - 1}", origin=origin)
    return options[index]  # type: ignore[call-overload,no-any-return]


def _named_texts(texts: Sequence[str]) -> list[tuple[str, Content]]:
    return [(text, Content(text=text.strip())) for text in texts]


def _video(frames: Path, name: str, key: str, origin: str, text: str = "") -> Content:
    return Content(text=text, frames=frames_in(inside(frames, name, key, origin)))


# --- classification --------------------------------------------------------------------------------------------------


def _parse_label(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    video, label = text_field(row, "video_id", origin), text_field(row, "pos_text", origin)
    return Entry(_video(frames, video, "video_id", origin), _named_texts([label]), [label])


def _parse_ssv2(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    video, label = text_field(row, "video_id", origin), text_field(row, "pos_text", origin)
    return Entry(_video(frames, video, "video_id", origin), _named_texts(texts_field(row, "neg_text", origin)), [label])


# --- retrieval -------------------------------------------------------------------------------------------------------


def _caption(key: str, video_key: str) -> Parse:
    """Return the parser of rows with a caption, or a list whose first one counts, and a video."""

    def parse(row: dict[str, Any], frames: Path, origin: str) -> Entry:
        captions = row.get(key)
        text = captions if isinstance(captions, str) else texts_field(row, key, origin)[0]
        video = Path(text_field(row, video_key, origin)).name
        name = video.removesuffix(".mp4")
        return Entry(Content(text=text.strip()), [(name, _video(frames, name, video_key, origin))], [name])

    return parse


# --- moments ---------------------------------------------------------------------------------------------------------


def _parse_moment(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    """Read a sentence about a video whose clips lie in folders: `query`, `positive...`, and others."""
    name = Path(text_field(row, "video_path", origin)).stem
    folder = inside(frames, name, "video_path", origin)
    clips = sorted(path for path in folder.glob("*") if path.is_dir() and path.name != "query")
    targets = [f"{name}/{clip.name}" for clip in clips if clip.name.startswith("positive")]
    if not targets:
        raise LvqaError(f"{folder} has no folder positive..., the clip that is right ({origin})")
    text = text_field(row, "query", origin).strip()
    candidates = [(f"{name}/{clip.name}", Content(frames=frames_in(clip))) for clip in clips]
    return Entry(Content(text=text, frames=frames_in(folder / "query")), candidates, targets[-1:])


def _parse_momentseeker(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    """Read a sentence, with a picture or a clip beside it, whose clips have folders in `video_frames/`."""
    text, shown_with = text_field(row, "query", origin).strip(), row.get("input_frames") or ""
    clips = frames / "video_frames"
    content = Content(text=text)
    if str(shown_with).endswith(".mp4"):
        content = _video(clips, _clip_name(shown_with), "input_frames", origin, text)
    elif str(shown_with).endswith(".jpg"):
        content = Content(text=text, image=inside(frames, f"query_{shown_with}", "input_frames", origin))
    kind = dict[str, list[dict[str, Any]]]
    rows = convert({key: row.get(key) for key in ("positive_frames", "negative_frames")}, kind, origin=origin)
    right, wrong = ([_clip_name(text_field(clip, "output_path", origin)) for clip in rows[key]] for key in rows)
    names = [*right, *wrong]
    return Entry(content, [(name, _video(clips, name, "output_path", origin)) for name in names], right)


def _clip_name(path: str) -> str:
    return path.replace("/", "_").split(".mp4")[0]


# --- question answering ----------------------------------------------------------------------------------------------


def _parse_mvbench(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    options, answer = texts_field(row, "candidates", origin), text_field(row, "answer", origin)
    listed = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    if answer not in options:
        raise LvqaError(f"answer must be one of the candidates, got {in_yaml(answer)} ({origin})")
    last = max(i for i, option in enumerate(options) if option == answer)
    question = "\n".join([text_field(row, "question", origin), "Options:", *listed])
    content = _video(frames, f"{row['subset']}/{text_field(row, 'video', origin)}", "video", origin, question)
    return Entry(content, _named_texts(listed), [listed[last]])


def _parse_nextqa(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    options = [text_field(row, f"a{i}", origin) for i in range(5)]
    listed = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    question = "\n".join([text_field(row, "question", origin), "Options:", *listed])
    content = _video(frames, text_field(row, "video", origin), "video", origin, question)
    return Entry(content, _named_texts(options), [_at(options, row.get("answer"), "answer", origin)])


def _with_letters(video_key: str, options_key: str, separator: str, answer_index: Callable[[Any], object]) -> Parse:
    """Return the parser of rows whose options have their letters ("A. ...") already."""

    def parse(row: dict[str, Any], frames: Path, origin: str) -> Entry:
        options = texts_field(row, options_key, origin)
        bare = [option[option.find(". ") :].strip(". ") for option in options]
        question = separator.join([text_field(row, "question", origin), *options])
        content = _video(frames, text_field(row, video_key, origin), video_key, origin, question)
        candidates = [(option, Content(text=text)) for option, text in zip(options, bare, strict=True)]
        return Entry(content, candidates, [_at(options, answer_index(row.get("answer")), "answer", origin)])

    return parse


def _letter_index(answer: object) -> object:
    return LETTERS.index(answer) if isinstance(answer, str) and len(answer) == 1 and answer in LETTERS else answer


def _number(answer: object) -> object:
    return int(answer) if isinstance(answer, str) and answer.isdigit() else answer


def _parse_activitynet(row: dict[str, Any], frames: Path, origin: str) -> Entry:
    answer = text_field(row, "answer", origin)
    require_one_of(answer, "answer", ("yes", "no"))
    question = f"{text_field(row, 'question', origin)}? (A) yes; (B) no."
    name = f"v_{text_field(row, 'video_name', origin)}"
    return Entry(_video(frames, name, "video_name", origin, question), _named_texts(["yes", "no"]), [answer])


# --- the sets --------------------------------------------------------------------------------------------------------


_CAPTION = Nouns(query="caption", candidate="video")
_MOMENT = Nouns(query="video and description", candidate="video clip")
_QUESTION = Nouns(query="video and question", candidate="answer")
_ACTION = Nouns(query="video", candidate="action")
_MEAL = Nouns(query="video", candidate="breakfast")
_WHAT = "What is done in the video?"
_SEEK = "Which clip does this describe?"


def _label_set(nouns: Nouns, name: str, folder: str, instruction: str) -> VideoSet:
    return VideoSet(
        "classification", nouns, name, f"video_cls/{folder}", _parse_label, is_global=True, instruction=instruction
    )


def _caption_set(name: str, key: str, video_key: str, split: str = "test") -> VideoSet:
    parse = _caption(key, video_key)
    return VideoSet("retrieval", _CAPTION, name, f"video_ret/{name}", parse, split, is_global=True, instruction=_SEEK)


def _question_set(name: str, parse: Parse, split: str = "test") -> VideoSet:
    return VideoSet("question answering", _QUESTION, name, f"video_qa/{name}", parse, split)


SETS: dict[str, VideoSet] = {
    "K700": _label_set(_ACTION, "Kinetics-700", "K700", _WHAT),
    "SmthSmthV2": VideoSet(
        *("classification", _ACTION, "SmthSmthV2", "video_cls/SSv2", _parse_ssv2), instruction=_WHAT
    ),
    "HMDB51": _label_set(_ACTION, "HMDB51", "HMDB51", _WHAT),
    "UCF101": _label_set(_ACTION, "UCF101", "UCF101", _WHAT),
    "Breakfast": _label_set(_MEAL, "Breakfast", "Breakfast", "Which breakfast is made in the video?"),
    "MVBench": _question_set("MVBench", _parse_mvbench, "train"),
    "Video-MME": _question_set("Video-MME", _with_letters("videoID", "options", "\n", _letter_index)),
    "NExTQA": _question_set("NExTQA", _parse_nextqa),
    "EgoSchema": _question_set("EgoSchema", _with_letters("video_idx", "option", " ", _number)),
    "ActivityNetQA": _question_set("ActivityNetQA", _parse_activitynet),
    "DiDeMo": _caption_set("DiDeMo", "caption", "video"),
    "MSR-VTT": _caption_set("MSR-VTT", "caption", "video_id"),
    "MSVD": _caption_set("MSVD", "caption", "video_id"),
    "VATEX": _caption_set("VATEX", "enCap", "videoID"),
    "YouCook2": _caption_set("YouCook2", "sentence", "id", "val"),
    "QVHighlight": VideoSet("grounding", _MOMENT, "QVHighlight", "video_mret/QVHighlight", _parse_moment),
    "Charades-STA": VideoSet("grounding", _MOMENT, "Charades-STA", "video_mret/Charades_STA", _parse_moment),
    "MomentSeeker": VideoSet("grounding", _MOMENT, "MomentSeeker", "video_mret/MomentSeeker", _parse_momentseeker),
}
"""Set -> how it is read, in the order of VLM2Vec's report. The nouns and the instructions are ours."""


class MMEBVideo:
    """MMEB-V2's 18 sets of video tasks."""

    title = "MMEB-V2 (video)"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """Return the names of the sets, in the order of VLM2Vec's report."""
        return tuple(SETS)

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a set; see SetReader. The labels of a classification are candidates even if no video has them."""
        require_one_of(name, "a set of MMEB-V2", SETS)
        kind, collector = SETS[name], Collector()
        for i, (origin, row) in enumerate(self._rows(kind, name)):
            entry = kind.parse(row, self.folder / FRAMES / kind.frames, origin)
            if limit is None or i < limit:
                collector.add(*entry, instruction=kind.instruction)
            elif kind.is_global:  # the candidates of other queries stay
                for candidate, content in entry.candidates:
                    collector.candidates.setdefault(candidate, content)
            else:
                break
        for label in _labels().get(name, ()):
            collector.candidates.setdefault(label, Content(text=label))
        return RetrievalSet(
            name=name,
            category=kind.category,
            modality="video",
            nouns=kind.nouns,
            queries=tuple(collector.over_all() if kind.is_global else collector.queries),
            candidates=collector.candidates,
        )

    def _rows(self, kind: VideoSet, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield where it stands and the content of each row of a set's annotation files."""
        folder = self.folder / "annotations" / kind.repository
        if name != "MVBench":
            yield from _rows_in(folder, kind.split)
            return
        for part in MVBENCH_PARTS:
            for origin, row in _rows_in(folder, part):
                yield origin, {**row, "subset": part}


@functools.cache
def _labels() -> dict[str, list[str]]:
    """Return set -> the labels of its classification: the classes of the datasets, as their annotations spell them."""
    content = resources.files("lvqa.datasets.retrieval").joinpath("video_labels.json").read_bytes()
    return decode_json(content, dict[str, list[str]], origin="video_labels.json")


def _rows_in(folder: Path, word: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of the files in a folder, at any depth, that have a word in their path below it."""
    readers = {".parquet": parquet_rows, ".jsonl": json_lines, ".json": json_list}
    files = sorted(
        file for file in folder.rglob("*") if file.suffix in readers and word in str(file.relative_to(folder))
    )
    if not files:
        raise LvqaError(f"{folder} has no Parquet, JSON or JSON Lines file with {word} in its name; it holds the set")
    for file in files:
        yield from readers[file.suffix](file, dict[str, Any])
