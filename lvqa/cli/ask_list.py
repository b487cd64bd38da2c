"""`lvqa ask --questions`: answer a file of questions about one video, without a run folder."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.answers import answer_text
from lvqa.cli.main import CommonOptions, inspect_video
from lvqa.cli.terminal import echo_message, echo_result, echo_warnings, one_line, print_json
from lvqa.output import answer_json, evidence_to_print, video_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.datasets import QuestionList
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Answer, LvqaError, Question, Video

_log = logging.getLogger(__name__)


def ask_list(common: CommonOptions, config: Config, path: Path, file: Path, *, as_json: bool) -> None:
    """Answer the questions of a file one after the other; one that fails is a line, and the others are answered.

    Ends with exit code 3 if some have failed, and 1 if all have.
    """
    from lvqa.datasets import questions_about
    from lvqa.records import LvqaError, counted

    video = inspect_video(path, config)
    listed = questions_about(file, path)
    _warn_of_rest(listed, file)
    is_any_good = any(not isinstance(item, LvqaError) for item in listed.questions)
    with common.load_pipeline(config) if is_any_good else contextlib.nullcontext() as qa:
        failed = [item for item in listed.questions if not _ask(qa, config, video, item, as_json=as_json)]
    if failed:
        echo_message(f"{len(failed)} of {counted(len(listed.questions), 'question')} failed")
        click.get_current_context().exit(1 if len(failed) == len(listed.questions) else 3)


def _ask(qa: LongVideoQA | None, config: Config, video: Video, item: Question | LvqaError, *, as_json: bool) -> bool:
    """Print the answer to a question, or why there is none. Returns whether there is one."""
    from lvqa.records import LvqaError

    question = None if isinstance(item, LvqaError) else item
    try:
        if isinstance(item, LvqaError):
            raise item
        assert qa is not None
        answer = qa.answer(video, item)
    except LvqaError as error:
        if as_json:
            known = {"id": question and question.id, "question": question and question.text}
            print_json({**known, "answer": None, "option": None, "error": str(error)})
        echo_message(f"question {question.id}: {error}" if question else error)
        return False
    _print_answer(qa, config, video, answer, as_json=as_json)
    return True


def _warn_of_rest(listed: QuestionList, file: Path) -> None:
    """Say what of the file is not asked, and what is not read."""
    from lvqa.datasets import named

    if listed.other_videos:
        _log.warning("%s: not asked are the questions about other videos: %s", file, named(listed.other_videos))
    if listed.unread:
        _log.warning("%s: not read, since nothing is known by these names: %s", file, named(listed.unread))


def _print_answer(qa: LongVideoQA, config: Config, video: Video, answer: Answer, *, as_json: bool) -> None:
    from lvqa.provenance import provenance
    from lvqa.report import is_correct

    question, evidence = answer.question, evidence_to_print(answer, config)
    is_scored = bool(question.options) and question.answer is not None
    if as_json:
        scored = {"target": question.answer, "correct": is_correct(answer) if is_scored else None}
        about = {"video": video_json(video), **provenance(config, model_revision=qa.model.revision), "error": None}
        print_json({"id": question.id, **answer_json(answer, evidence), **scored, **about})
    else:
        expected = "" if question.answer is None else f"expected  {one_line(question.answer)}\n"
        echo_result(f"{one_line(question.id)}  {one_line(question.text)}\n{expected}{answer_text(answer, evidence)}\n")
    echo_warnings(video.path, answer.caveats.warnings)
