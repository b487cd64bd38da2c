"""How commands print answers and candidates as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvqa.cli.terminal import one_line

if TYPE_CHECKING:
    from lvqa.records import Answer, Candidate

EVIDENCE_LINES = 5


def candidate_line(candidate: Candidate) -> str:
    """Return the candidate's time and scores as a line: "0:16-0:32  embed 0.61  rerank 0.90"."""
    from lvqa.report import span_text

    rerank = "" if candidate.rerank_score is None else f"  rerank {candidate.rerank_score:.2f}"
    return f"{span_text(candidate)}  embed {candidate.embed_score:.2f}{rerank}"


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
        f"{counted(counts.tokens_prefilled, 'token')}{index}; {sum(answer.seconds.values()):.1f} s"
        + (f" ({stages})" if stages else "")
    )
