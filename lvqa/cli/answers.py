"""How commands print answers and candidates: as lines, and as objects of JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvqa.cli.terminal import one_line

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.records import Answer, Candidate, Caveats, QuestionKind, Video

EVIDENCE_LINES = 5


def evidence_to_print(answer: Answer, config: Config) -> tuple[Candidate, ...]:
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


def kind_json(kind: QuestionKind | None) -> dict[str, float] | None:
    """Return what the model takes a question to be about as an object of the JSON that commands print."""
    from lvqa.records import QUESTION_KINDS

    return None if kind is None else dict(zip(QUESTION_KINDS, kind.probabilities, strict=True))


def answer_json(answer: Answer, evidence: Sequence[Candidate]) -> dict[str, object]:
    """Return the answer as an object of the JSON that commands print, with the evidence that is to be printed."""
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
        "time_read": answer.time_read,
        "question_kind": kind_json(answer.question_kind),
        "looked_again": answer.looked_again,
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
