"""Write selected frames as pictures, in the files from which lmms-eval and VLMEvalKit feed any model.

| format       | files                                           | how a harness reads them                            |
|--------------|-------------------------------------------------|-----------------------------------------------------|
| `lmms-eval`  | `NAME.yaml`, `utils.py`, `questions.jsonl`      | `--include_path FOLDER --tasks NAME`                |
| `vlmevalkit` | `NAME.tsv`, with paths of pictures in each row  | `LMUData=FOLDER`, `--data NAME`                     |

Both are questions about several pictures, since a video of these harnesses has the same frames for all of its
questions. The pictures lie in `frames/`, each frame of a video once. NAME is that of the folder, behind "lvqa_". The
paths in the files are absolute, as both harnesses want them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvqa.datasets import VideoTask
from lvqa.files import write_atomically
from lvqa.image import save_picture
from lvqa.records import LvqaError, Question
from lvqa.selection.files import Selections
from lvqa.video import inspect_video, read_frames

BATCH_FRAMES = 8
"""So many frames are decoded at once, in their full size."""
MISSING_WORDS = frozenset(("", "#n/a", "#n/a n/a", "#na", "<na>", "n/a", "na", "none", "null", "true", "false"))
"""What pandas, by which VLMEvalKit reads its tables, does not take for a text; numbers and "nan" are others."""


@dataclass(frozen=True, slots=True)
class FramedQuestion:
    """A question with options, and the files of its frames in the order of time."""

    video_id: str
    question: Question
    times_seconds: tuple[float, ...]
    frames: tuple[Path, ...]


def export_frames(folder: Path, tasks: Sequence[VideoTask], selections: Selections, *, format: str) -> int:
    """Write the frames of each question, and the files by which a harness reads them.

    Args:
        folder: The folder to write; it is made if it is missing.
        tasks: The videos and questions of the benchmark. Open questions are left out: how to score them is not known.
        selections: The seconds of the frames of each question.
        format: A name in HARNESSES.

    Returns:
        How many questions were written.

    Raises:
        LvqaError: There is nothing to write, a video can't be read, or a file can't be written.
    """
    folder = folder.absolute()
    try:
        questions = [
            framed
            for i, task in enumerate(tasks)
            for framed in _of_video(folder / "frames" / f"{i:04d}", task, selections)
        ]
        if not questions:
            raise LvqaError("there is no question with options that has frames")
        name = re.sub(r"\W+", "_", f"lvqa_{folder.name}")
        for file_name, content in HARNESSES[format](name, questions, folder).items():
            write_atomically(folder / file_name, content)
    except OSError as error:
        raise LvqaError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return len(questions)


def _of_video(folder: Path, task: VideoTask, selections: Selections) -> list[FramedQuestion]:
    """Write the frames of a video, each once, and return its questions with options."""
    times = {
        question: selections[task.video_id, question.id]
        for question in task.questions
        if question.options and (task.video_id, question.id) in selections
    }
    files = _write_frames(folder, task.path, {seconds for of_question in times.values() for seconds in of_question})
    return [
        FramedQuestion(task.video_id, question, of_question, tuple(files[seconds] for seconds in of_question))
        for question, of_question in times.items()
    ]


def _write_frames(folder: Path, path: Path, times_seconds: Iterable[float]) -> Mapping[float, Path]:
    """Write the frames at these times as JPEG files in their full size."""
    times = sorted(times_seconds)
    files = {seconds: folder / f"{seconds:010.3f}.jpg" for seconds in times}
    if times:
        folder.mkdir(parents=True, exist_ok=True)
        video = inspect_video(path)
        batches = read_frames(video, times, height=video.height, width=video.width, batch_frames=BATCH_FRAMES)
        pictures = (pixels for batch in batches for pixels in batch.pixels)
        for seconds, pixels in zip(times, pictures, strict=True):
            save_picture(files[seconds], pixels)
    return files


# --- lmms-eval ------------------------------------------------------------------------------------------------------

_LMMS_EVAL_TASK = """\
# Frames that lvqa selected, as a task of lmms-eval: lmms-eval --include_path {folder} --tasks {name} --model ...
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 16
process_results: !function utils.process_results
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    pre_prompt: ""
    post_prompt: "\\nAnswer with the option's letter from the given choices directly."
"""
_LMMS_EVAL_UTILS = '''\
"""Read the frames that lvqa selected, and score the letters of replies as lmms-eval does."""

from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
from PIL import Image

LETTERS = "ABCDEFGHIJKLMNOPQRST"


def doc_to_visual(doc):
    return [Image.open(frame).convert("RGB") for frame in doc["frames"]]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    kwargs = lmms_eval_specific_kwargs or {}
    options = "\\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, doc["options"]))
    return f"{kwargs.get('pre_prompt', '')}{doc['question']}\\n{options}{kwargs.get('post_prompt', '')}"


def process_results(doc, results):
    letter = extract_mcq_answer(results[0], choices=list(LETTERS[: len(doc["options"])]))
    return {"accuracy": float(letter == doc["answer"])}
'''


def _lmms_eval_files(name: str, questions: Sequence[FramedQuestion], folder: Path) -> dict[str, str]:
    rows = [
        {
            "video_id": framed.video_id,
            "question_id": framed.question.id,
            "question": framed.question.text,
            "options": framed.question.options,
            "answer": framed.question.answer or "",
            "times_seconds": framed.times_seconds,
            "frames": list(map(str, framed.frames)),
        }
        for framed in questions
    ]
    paths = {"folder": folder, "questions": json.dumps(str(folder / "questions.jsonl"))}
    return {
        "questions.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        "utils.py": _LMMS_EVAL_UTILS,
        f"{name}.yaml": _LMMS_EVAL_TASK.format(name=name, **paths),
    }


# --- VLMEvalKit -----------------------------------------------------------------------------------------------------


def _vlmevalkit_files(name: str, questions: Sequence[FramedQuestion], _: Path) -> dict[str, str]:
    letters = max((framed.question.letters for framed in questions), key=len)
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "question", *letters, "answer", "image_path", "video_id", "question_id"])
    for i, framed in enumerate(questions):
        options = [*map(_as_text, framed.question.options), *[""] * len(letters)][: len(letters)]
        pictures = json.dumps(list(map(str, framed.frames)))
        ids = (_as_text(framed.video_id), _as_text(framed.question.id))
        writer.writerow([i, _as_text(framed.question.text), *options, framed.question.answer or "", pictures, *ids])
    return {f"{name}.tsv": table.getvalue()}


def _as_text(text: str) -> str:
    """Return a text that pandas reads as one: a number, or a word for nothing, gets a no-break space behind it."""
    try:
        float(text)
    except ValueError:
        return f"{text}\u00a0" if text.strip().lower() in MISSING_WORDS else text
    return f"{text}\u00a0"


HARNESSES: dict[str, Callable[[str, Sequence[FramedQuestion], Path], dict[str, str]]] = {
    "lmms-eval": _lmms_eval_files,
    "vlmevalkit": _vlmevalkit_files,
}
"""The name of a format -> what returns the texts of its files by their names, the one that names the others last."""
