"""`lvqa ask`: answer one question, with the evidence."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import CommonOptions, common_options, inspect_video
from lvqa.cli.terminal import echo_warnings, one_line, print_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.library import LibraryAnswer, LibraryHit
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Answer, Candidate, Caveats, Question, Video

EVIDENCE_LINES = 5
NUM_RUNNERS_UP = 4
"""So many other videos of the library are named, each with its best moment."""


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
@click.option("--image", type=click.Path(path_type=Path), help="Add a picture to the question.")
@click.option(
    "--voice",
    type=click.Path(path_type=Path),
    help="Ask by a sound file, if the model understands speech; QUESTION can then be left out.",
)
@click.option("--frames", type=int, help="Number of frames that the model sees for the answer.  [default: 16]")
@click.option(
    "--method",
    help="Choose the frames by this method: freeret, uniform, aks, mmr, ... (a wrong name lists all), or FILE.py with "
    "a selector of your own, whose code is run.  [default: freeret]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--report", metavar="F.html", type=click.Path(path_type=Path), help="Write the answer and its frames as a page."
)
@common_options
def ask(
    common: CommonOptions,
    *,
    video_and_question: tuple[str, ...],
    options: tuple[str, ...],
    library: bool,
    image: Path | None,
    voice: Path | None,
    frames: int | None,
    method: str | None,
    as_json: bool,
    report: Path | None,
) -> None:
    """Answer QUESTION about VIDEO or the library, with the evidence.

    The evidence is when the answer is seen, with what confidence, and in which frames.
    """
    from lvqa.provenance import provenance
    from lvqa.records import Question

    path, question = _path_and_question(video_and_question, library=library, has_voice=voice is not None)
    config = _selection_config(common.config(), frames, method)
    request = Question(question, options, image=image, voice=voice)
    video = _check(path, request, config)
    started = time.perf_counter()
    with common.load_pipeline(config) as qa:
        load_seconds = time.perf_counter() - started
        answer, video, choice = _answer(qa, path, video, request)
        made_with = provenance(config, model_revision=qa.model.revision)
    answer = dataclasses.replace(answer, seconds={"load": load_seconds, **answer.seconds})
    evidence = _evidence_to_print(answer, config)
    if as_json:
        chosen = {} if choice is None else _choice_json(choice)
        print_json({**_answer_json(answer, evidence), "video": video_json(video), **chosen, **made_with})
    else:
        click.echo("\n".join([_answer_text(answer, evidence), *([] if choice is None else _choice_lines(choice))]))
    echo_warnings(video.path, answer.caveats.warnings)
    if report is not None:  # last, since it may fail
        from lvqa.report import write_page

        write_page(report, answer, video, evidence=evidence, made_with=made_with)


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
    return (None if library else Path(words[0])), "".join(words[num_videos:])


def _check(path: Path | None, request: Question, config: Config) -> Video | None:
    """Return what the file at the path contains. What can't be asked, or read, is refused before a model is loaded."""
    from lvqa.validation import check_question

    if path is not None:
        return inspect_for_question(path, request, config)
    check_question(request, distinct_options=True)
    return None


def _answer(
    qa: LongVideoQA, path: Path | None, video: Video | None, request: Question
) -> tuple[Answer, Video, LibraryAnswer | None]:
    """Answer from a video, or from the best one of the library; return which, and how that was chosen."""
    if path is not None and video is not None:
        return qa.answer(path, request), video, None
    from lvqa.library import ask_library

    choice = ask_library(qa, request)
    return choice.answer, choice.video, choice


def hit_json(hit: LibraryHit) -> dict[str, object]:
    """Return a moment of the library as an object of the JSON that commands print."""
    path = hit.location.path
    video = {"path": None if path is None else str(path), "video_id": hit.video_id, "state": hit.location.state}
    return {**video, **candidate_json(hit.candidate)}


def hit_line(hit: LibraryHit) -> str:
    """Return a moment of the library as a line: its time, its scores, and the path of its video."""
    state = "" if hit.location.is_there else f"  ({hit.location.state})"
    return f"{candidate_line(hit.candidate)}  {one_line(hit.location.path)}{state}"


def _choice_json(choice: LibraryAnswer) -> dict[str, object]:
    """Return why an answer is from this video of the library."""
    runners_up = [hit_json(hit) for hit in choice.runners_up[:NUM_RUNNERS_UP]]
    return {"library": {**hit_json(choice.hit), "runners_up": runners_up, "warnings": list(choice.warnings)}}


def _choice_lines(choice: LibraryAnswer) -> list[str]:
    lines = [f"video     {one_line(choice.hit.location.path)}, for {candidate_line(choice.hit.candidate)}"]
    for i, hit in enumerate(choice.runners_up[:NUM_RUNNERS_UP]):
        lines += [("next best " if i == 0 else " " * 10) + hit_line(hit)]
    return lines


def _selection_config(config: Config, frames: int | None, method: str | None) -> Config:
    if frames is not None:
        config = dataclasses.replace(config, selection=dataclasses.replace(config.selection, frames=frames))
    return config if method is None else dataclasses.replace(config, method=method)


def inspect_for_question(path: Path, question: Question, config: Config, *, is_search: bool = False) -> Video:
    """Check the question and return what the video file contains, before a model is loaded.

    Raises:
        LvqaError: If the question cannot be asked or the file is not a readable video.
    """
    from lvqa.validation import check_question

    check_question(question, is_search=is_search, distinct_options=True)
    return inspect_video(path, config)


def _evidence_to_print(answer: Answer, config: Config) -> tuple[Candidate, ...]:
    """Return the candidates that were reranked; without reranking, as many of the best."""
    reranked = tuple(candidate for candidate in answer.evidence if candidate.rerank_score is not None)
    return reranked or answer.evidence[: config.rerank.num_shown]


def candidate_json(candidate: Candidate) -> dict[str, object]:
    """Return the candidate as an object of the JSON that commands print."""
    return {
        "start_seconds": candidate.clip.start_seconds,
        "end_seconds": candidate.clip.end_seconds,
        "embed_score": candidate.embed_score,
        "rerank_score": candidate.rerank_score,
    }


def video_json(video: Video) -> dict[str, object]:
    """Return the video as an object of the JSON that commands print."""
    return {"path": str(video.path), "id": video.id, "duration_seconds": video.duration_seconds}


def caveats_json(caveats: Caveats) -> dict[str, object]:
    """Return what a reader must know of a result, as keys of the JSON that commands print."""
    return {"warnings": caveats.warnings, "frames_substituted": caveats.frames_substituted}


def _answer_json(answer: Answer, evidence: Sequence[Candidate]) -> dict[str, object]:
    use = answer.index
    index = use and {"reused": use.reused, "clips": use.clips, "path": None if use.path is None else str(use.path)}
    image, voice = answer.question.image, answer.question.voice
    return {
        "question": answer.question.text,
        "image": None if image is None else str(image),
        "voice": None if voice is None else str(voice),
        "options": answer.question.options,
        "answer": answer.text,
        "option": answer.option,
        "option_scores": answer.option_scores,
        "method": answer.method,
        "frames_budget": answer.frames_budget,
        "frames": [
            {"time_seconds": seconds, "substituted": seconds in answer.caveats.substituted_seconds}
            for seconds in answer.frames
        ],
        "evidence": [{**candidate_json(clip), "frames": answer.frames_of(clip)} for clip in evidence],
        **caveats_json(answer.caveats),
        "index": index,
        "counts": dataclasses.asdict(answer.counts),
        "answer_tokens": answer.answer_tokens,
        "answer_visual_tokens": answer.answer_visual_tokens,
        "seconds": {stage: round(seconds, 4) for stage, seconds in answer.seconds.items()},
    }


def candidate_line(candidate: Candidate) -> str:
    """Return the candidate's time and scores as a line: "0:16-0:32  embed 0.61  rerank 0.90"."""
    from lvqa.report import span_text

    rerank = "" if candidate.rerank_score is None else f"  rerank {candidate.rerank_score:.2f}"
    return f"{span_text(candidate)}  embed {candidate.embed_score:.2f}{rerank}"


def _answer_text(answer: Answer, evidence: Sequence[Candidate]) -> str:
    from lvqa.records import counted
    from lvqa.report import clock
    from lvqa.selection import SELECTORS

    text = one_line(answer.text) or "(the model gave an empty answer)"
    lines = [text if answer.option is None else f"{answer.option}. {text}"]
    if answer.option_scores:
        scores = zip(answer.question.letters, answer.option_scores, strict=True)
        lines += ["", "options   " + "  ".join(f"{letter} {score:.2f}" for letter, score in scores)]
    for i, candidate in enumerate(evidence[:EVIDENCE_LINES]):
        num_frames = len(answer.frames_of(candidate))
        seen = f"  {counted(num_frames, 'frame')} shown" if num_frames else "  not shown"
        lines += [("evidence  " if i == 0 else " " * 10) + candidate_line(candidate) + seen]
    frames = str(len(answer.frames))
    if 0 < len(answer.frames) < answer.frames_budget:
        frames += " (the video has no more)" if answer.method in SELECTORS else " (the method chose no more)"
    lines += [f"frames    {frames}: " + " ".join(map(clock, answer.frames)), f"cost      {_cost_text(answer)}"]
    return "\n".join(lines)


def _cost_text(answer: Answer) -> str:
    from lvqa.records import counted

    counts, use = answer.counts, answer.index
    index = "" if use is None else f"; index of {counted(use.clips, 'clip')} {'reused' if use.reused else 'built'}"
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in answer.seconds.items() if seconds >= 0.05)
    return (
        f"{counted(counts.frames_decoded, 'frame')} decoded, {counted(counts.pairs_encoded, 'pair')} encoded, "
        f"{counted(counts.tokens_prefilled, 'token')}{index}; {sum(answer.seconds.values()):.1f} s ({stages})"
    )
