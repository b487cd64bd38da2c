"""`lvqa ask`: answer one question, with the evidence."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.answers import answer_text, choice_lines
from lvqa.cli.ask_list import ask_list
from lvqa.cli.library_filters import filter_of, library_filters
from lvqa.cli.main import CommonOptions, common_options, inspect_video
from lvqa.cli.remote import ask_server, check_alone, server_option
from lvqa.cli.terminal import echo_warnings, print_json
from lvqa.output import answer_json, choice_json, evidence_to_print, video_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.library import LibraryAnswer, LibraryFilter
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Answer, Question, Video


@click.command()
@click.argument("video_and_question", nargs=-1, metavar="[VIDEO] [QUESTION]")
@click.option(
    "--option",
    "options",
    metavar="TEXT",
    multiple=True,
    help="Give one possible answer; repeat it for 2 to 20, or none.",
)
@click.option(
    "--library",
    is_flag=True,
    help="Answer from the best of all videos that were indexed with this model and these settings.",
)
@library_filters
@click.option(
    "--questions",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Answer all questions about VIDEO in this file, .jsonl or .csv, as benchmark.name=own reads it.",
)
@click.option("--image", type=click.Path(path_type=Path), help="Add a picture to the question.")
@click.option(
    "--voice",
    type=click.Path(path_type=Path),
    help="Ask by a sound file, if the model understands speech; QUESTION can then be left out.",
)
@click.option(
    "--schema",
    metavar="F.json",
    type=click.Path(path_type=Path),
    help="Answer with a JSON object that fits the JSON schema in this file. Needs the extra lvqa[schema].",
)
@click.option("--frames", type=int, help="Number of frames that the model sees for the answer.  [default: 16]")
@click.option(
    "--method",
    help="Choose the frames by this method: freeret, uniform, aks, mmr, ... (a wrong name lists all), or FILE.py with "
    "a selector of your own, whose code is run.  [default: freeret]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --questions a line each.")
@click.option(
    "--report", metavar="F.html", type=click.Path(path_type=Path), help="Write the answer and its frames as a page."
)
@server_option
@common_options
def ask(
    common: CommonOptions,
    *,
    video_and_question: tuple[str, ...],
    options: tuple[str, ...],
    library: bool,
    questions: Path | None,
    image: Path | None,
    voice: Path | None,
    schema: Path | None,
    frames: int | None,
    method: str | None,
    as_json: bool,
    report: Path | None,
    server: str | None,
    **conditions: Any,
) -> None:
    """Answer QUESTION about VIDEO or the library, and show why.

    The evidence is when the answer is seen, with what confidence, and in which frames. With --questions, all questions
    of a file are answered.
    """
    from lvqa.records import Question
    from lvqa.schema import schema_text

    condition = filter_of(conditions, library=library)
    form = None if schema is None else schema_text(schema)
    if server is not None:
        check_alone(common, {"--questions": questions, "--report": report})
        path, text = _path_and_question(video_and_question, library=library, has_voice=voice is not None)
        request = Question(text, options, image=image, voice=voice, schema=form)
        call: dict[str, Any] = {"frames": frames, "method": method, "condition": condition}
        return ask_server(common, server, path, request, **call, as_json=as_json)
    from lvqa.config import with_call
    from lvqa.provenance import provenance

    config = with_call(common.config(), frames=frames, method=method)
    if questions is not None:
        one_question = {"--option": options, "--library": library, "--image": image, "--voice": voice}
        video_path = _path_of_list(video_and_question, {**one_question, "--report": report})
        return ask_list(common, config, video_path, questions, schema=form, as_json=as_json)
    path, question = _path_and_question(video_and_question, library=library, has_voice=voice is not None)
    request = Question(question, options, image=image, voice=voice, schema=form)
    video = _check(path, request, config)
    started = time.perf_counter()
    with common.load_pipeline(config) as qa:
        load_seconds = time.perf_counter() - started
        answer, video, choice = _answer(qa, path, video, request, condition)
        made_with = provenance(config, model_revision=qa.model.revision)
    answer = dataclasses.replace(answer, seconds={"load": load_seconds, **answer.seconds})
    evidence, chosen = evidence_to_print(answer, config), {} if choice is None else choice_json(choice)
    if as_json:
        print_json({**answer_json(answer, evidence), "video": video_json(video), **chosen, **made_with})
    else:
        click.echo("\n".join([answer_text(answer, evidence), *(choice_lines(chosen["library"]) if chosen else ())]))
    echo_warnings(video.path, answer.caveats.warnings)
    if report is not None:  # last, since it may fail
        from lvqa.web import write_page

        write_page(report, answer, video, evidence=evidence, made_with=made_with)


def _path_of_list(words: tuple[str, ...], others: dict[str, object]) -> Path:
    """Return the path of the video that a file of questions is about. `others` are for one question alone."""
    if len(words) != 1:
        raise click.UsageError("--questions takes VIDEO, and no QUESTION")
    if given := [name for name, value in others.items() if value]:
        raise click.UsageError(f"--questions goes without {', '.join(given)}")
    from lvqa.places import as_path

    return as_path(words[0])


def _path_and_question(words: tuple[str, ...], *, library: bool, has_voice: bool) -> tuple[Path | None, str]:
    """Return the path of the video, if one is given, and the question, which a voice may ask instead."""
    num_videos = 0 if library else 1
    if len(words) < num_videos:
        raise click.UsageError("Missing argument 'VIDEO'.")
    if len(words) == num_videos and not has_voice:
        raise click.UsageError("Missing argument 'QUESTION'.")
    if len(words) > num_videos + 1:
        hint = "quote a question of several words" + ("; with --library, no VIDEO is given" if library else "")
        raise click.UsageError(f"Got unexpected extra argument ({words[num_videos + 1]}); {hint}")
    from lvqa.places import as_path

    return (None if library else as_path(words[0])), "".join(words[num_videos:])


def _check(path: Path | None, request: Question, config: Config) -> Video | None:
    """Return what the file at the path contains. What can't be asked, or read, is refused before a model is loaded."""
    from lvqa.validation import check_question

    if path is not None:
        return inspect_for_question(path, request, config)
    check_question(request, distinct_options=True)
    return None


def _answer(
    qa: LongVideoQA, path: Path | None, video: Video | None, request: Question, condition: LibraryFilter
) -> tuple[Answer, Video, LibraryAnswer | None]:
    """Answer from a video, or from the best one of the library; return which, and how that was chosen."""
    if path is not None and video is not None:
        return qa.answer(path, request), video, None
    from lvqa.library import ask_library

    choice = ask_library(qa, request, condition=condition)
    return choice.answer, choice.video, choice


def inspect_for_question(path: Path, question: Question, config: Config, *, is_search: bool = False) -> Video:
    """Check the question and return what the video file contains, before a model is loaded.

    Raises:
        LvqaError: If the question cannot be asked or the file is not a readable video.
    """
    from lvqa.validation import check_question

    check_question(question, is_search=is_search, distinct_options=True)
    return inspect_video(path, config)
