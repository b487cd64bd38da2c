"""`lvqa ask --questions`: answer a file of questions about one video, without a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import partial
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


def ask_list(
    common: CommonOptions, config: Config, path: Path, file: Path, *, schema: str | None, as_json: bool
) -> None:
    """Answer the questions of a file in batches; one that fails is a line, and the others are answered.

    With a schema, the answers to all questions without options are objects that fit it.
    Ends with exit code 3 if some have failed, and 1 if all have.
    """
    from lvqa.datasets import questions_about
    from lvqa.provenance import provenance
    from lvqa.records import LvqaError, counted
    from lvqa.schema import check_schema

    if schema is not None:
        check_schema(schema)
    video = inspect_video(path, config)
    listed = questions_about(file, path)
    _warn_of_rest(listed, file)
    items = [_with_schema(item, schema) for item in listed.questions]
    is_any_good = any(not isinstance(item, LvqaError) for item in items)
    with common.load_pipeline(config) if is_any_good else contextlib.nullcontext() as qa:
        made_with = {} if qa is None else provenance(config, model_revision=qa.model.revision)
        about = {"video": video_json(video), **made_with}
        num_failed = 0
        for item, result in _results(qa, video, items):
            if isinstance(result, LvqaError):
                _print_error(item, result, as_json=as_json)
                num_failed += 1
            else:
                _print_answer(result, config, about, as_json=as_json)
                echo_warnings(video.path, result.caveats.warnings)
    if num_failed:
        echo_message(f"{num_failed} of {counted(len(listed.questions), 'question')} failed")
        click.get_current_context().exit(1 if num_failed == len(listed.questions) else 3)


def _with_schema(item: Question | LvqaError, schema: str | None) -> Question | LvqaError:
    """Return a question without options with the schema of its answer; anything else as it is."""
    from lvqa.records import Question

    return dataclasses.replace(item, schema=schema) if isinstance(item, Question) and not item.options else item


def _results(
    qa: LongVideoQA | None, video: Video, items: Sequence[Question | LvqaError]
) -> Iterator[tuple[Question | LvqaError, Answer | LvqaError]]:
    """Yield each item of a list with its answer, or why there is none, as soon as its batch is answered.

    A pipeline is needed where an item is a question.
    """
    from lvqa.batches import QUESTIONS_AT_ONCE, answer_batch, even_batches
    from lvqa.records import Question

    questions = [item for item in items if isinstance(item, Question)]
    results = (
        result
        for batch in even_batches(questions, QUESTIONS_AT_ONCE)
        if qa is not None
        for result in answer_batch(partial(qa.answers, video), batch)
    )
    for item in items:
        yield item, (next(results) if isinstance(item, Question) else item)


def _print_error(item: Question | LvqaError, error: LvqaError, *, as_json: bool) -> None:
    """Print why there is no answer."""
    from lvqa.records import Question

    question = item if isinstance(item, Question) else None
    if as_json:
        known = {"id": question and question.id, "question": question and question.text}
        print_json({**known, "answer": None, "option": None, "error": str(error)})
    echo_message(f"question {question.id}: {error}" if question else error)


def _warn_of_rest(listed: QuestionList, file: Path) -> None:
    """Say what of the file is not asked, and what is not read."""
    from lvqa.datasets import named

    if listed.other_videos:
        _log.warning("%s: not asked are the questions about other videos: %s", file, named(listed.other_videos))
    if listed.unread:
        _log.warning("%s: not read, since nothing is known by these names: %s", file, named(listed.unread))


def _print_answer(answer: Answer, config: Config, about: dict[str, object], *, as_json: bool) -> None:
    """Print an answer; `about` is what JSON says of the video and of the program."""
    from lvqa.report import is_correct

    question, evidence = answer.question, evidence_to_print(answer, config)
    is_scored = bool(question.options) and question.answer is not None
    if as_json:
        scored = {"target": question.answer, "correct": is_correct(answer) if is_scored else None}
        print_json({"id": question.id, **answer_json(answer, evidence), **scored, **about, "error": None})
    else:
        expected = "" if question.answer is None else f"expected  {one_line(question.answer)}\n"
        echo_result(f"{one_line(question.id)}  {one_line(question.text)}\n{expected}{answer_text(answer, evidence)}\n")
