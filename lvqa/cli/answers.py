"""How commands print answers and candidates as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.terminal import echo_message, one_line, print_json
from lvqa.output import candidate_json

if TYPE_CHECKING:
    from lvqa.records import Answer, Candidate

EVIDENCE_LINES = 5
MAX_LINE_CHARACTERS = 60
"""A longer line of subtitles is cut where it is printed."""


def candidate_line(candidate: Candidate) -> str:
    """Return the candidate's time and scores as a line: "0:16-0:32  embed 0.61  rerank 0.90"."""
    return moment_line(candidate_json(candidate))


def moment_line(moment: Mapping[str, Any]) -> str:
    """Return the line of a moment; one of the library, as `output.hit_json` returns it, ends with its video's path."""
    from lvqa.report import clock

    rerank = "" if moment["rerank_score"] is None else f"  rerank {moment['rerank_score']:.2f}"
    line = f"{clock(moment['start_seconds'])}-{clock(moment['end_seconds'])}  embed {moment['embed_score']:.2f}{rerank}"
    if moment.get("line"):
        text = one_line(moment["line"]["text"])
        line += f'  said "{text if len(text) <= MAX_LINE_CHARACTERS else text[: MAX_LINE_CHARACTERS - 3] + "..."}"'
    if "state" not in moment:
        return line
    state = "" if moment["state"] in ("ok", "moved") else f"  ({moment['state']})"
    return f"{line}  {one_line(moment['path'])}{state}"


def choice_lines(library: Mapping[str, Any]) -> list[str]:
    """Return why an answer is from this video of the library, as lines; `output.choice_json` has it under "library"."""
    best = {key: value for key, value in library.items() if key != "state"}
    lines = [f"video     {one_line(library['path'])}, for {moment_line(best)}"]
    for i, runner_up in enumerate(library["runners_up"]):
        lines += [("next best " if i == 0 else " " * 10) + moment_line(runner_up)]
    return lines


def answer_text(answer: Answer, evidence: Sequence[Candidate]) -> str:
    """Return the answer with its evidence and its cost as lines."""
    from lvqa.records import counted
    from lvqa.report import clock
    from lvqa.selection import SELECTORS

    text = one_line(answer.text) or "(the model gave an empty answer)"
    lines = [text if answer.option is None else f"{answer.option}. {text}"]
    if answer.option_scores:
        scores = zip(answer.question.letters, answer.option_scores, strict=True)
        lines += ["", "options   " + "  ".join(f"{letter} {score:.2f}" for letter, score in scores)]
    if answer.time_read:
        lines += [f"time read from the question: {answer.time_read}"]
    if answer.question_kind is not None:
        lines += [f"the question is about: {answer.question_kind.text}"]
    for i, candidate in enumerate(evidence[:EVIDENCE_LINES]):
        num_frames = len(answer.frames_of(candidate))
        seen = f"  {counted(num_frames, 'frame')} shown" if num_frames else "  not shown"
        lines += [("evidence  " if i == 0 else " " * 10) + candidate_line(candidate) + seen]
    frames = str(len(answer.frames))
    if answer.looked_again is not None:
        frames += " (looked again)" if answer.looked_again else " (sure at the first look)"
    elif 0 < len(answer.frames) < answer.frames_budget:
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
        f"{counted(counts.tokens_prefilled, 'token')}{index}; {sum(answer.seconds.values()):.1f} s"
        + (f" ({stages})" if stages else "")
    )


def print_moments(content: Mapping[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print what a search finds."""
    if as_json:
        print_json(dict(content))
        return
    click.echo("\n".join(map(moment_line, content["results"])))
    if not content["reranked"] and not quiet:
        echo_message("ranked by embedding alone")
