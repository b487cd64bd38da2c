"""Measure mixed queries on synthetic videos: a text, a picture, a clip, and a text with either, find the clip to find.

    lvqa make-videos DIR --videos 12 --minutes 3 --questions 8 --seed 941000
    python scripts/measure_mixed_queries.py DIR

A picture is the frame in the middle of the annotated time, a clip the six seconds around it; the candidates are the
video's clips of 16 seconds. Questions about more than 32 seconds are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from lvqa import Item, LongVideoQA, Question, Retriever
from lvqa.datasets import load_dataset
from lvqa.records import Video
from lvqa.video import read_frames

CLIP_SECONDS, MAX_EVIDENCE_SECONDS, HALF_QUERY_SECONDS, POOL = 16, 32, 3, 10


def main() -> None:
    """Print for each kind of query how often the best clip is one with the evidence, by Wilson's interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of lvqa make-videos")
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    qa = LongVideoQA.load(arguments.model, overrides=[f"store.folder={arguments.folder / 'store'}"])
    hits: dict[str, list[tuple[bool, bool]]] = {}
    chances = []
    for video, questions in videos(qa, arguments.folder):
        for kind, hit, chance in measure(qa.retriever, video, questions):
            hits.setdefault(kind, []).append(hit)
            chances.append(chance)
    print(f"by chance {np.mean(chances):.3f}")
    for kind, of_kind in hits.items():
        columns = [(name, [hit[i] for hit in of_kind]) for i, name in enumerate(("embedding", "reranked"))]
        print(f"{kind:14} n={len(of_kind)}", *(f"{name} {share(values)}" for name, values in columns))


def videos(qa: LongVideoQA, folder: Path) -> Iterator[tuple[Video, list[Question]]]:
    """Yield each video with its questions about a short time."""
    for task in load_dataset("lvbench", folder).tasks:
        spans = [(q, q.evidence_seconds) for q in task.questions]
        short = [q for q, span in spans if span is not None and span[1] - span[0] <= MAX_EVIDENCE_SECONDS]
        yield qa.inspect_video(task.path), short


def measure(
    retriever: Retriever, video: Video, questions: list[Question]
) -> Iterator[tuple[str, tuple[bool, bool], float]]:
    """Yield for each question and kind of query whether embedding and reranking find it, and the chance to."""
    starts = np.arange(0, video.duration_seconds - 1, CLIP_SECONDS)
    clips = [Item(video=video, start_seconds=float(a), end_seconds=float(a) + CLIP_SECONDS) for a in starts]
    vectors = retriever.embed(clips)
    for question in questions:
        assert question.evidence_seconds is not None
        start, end = question.evidence_seconds
        right = set(np.flatnonzero((starts < max(end, start + 1)) & (starts + CLIP_SECONDS > start)).tolist())
        for kind, query in queries(video, question, (start + end) / 2).items():
            best = [retriever.search(query, clips, vectors=vectors, pool=pool)[0].index for pool in (0, POOL)]
            yield kind, (best[0] in right, best[1] in right), len(right) / len(clips)


def queries(video: Video, question: Question, middle: float) -> dict[str, Item]:
    """Return the queries of a question by kind."""
    (frames,) = read_frames(video, [min(middle, video.duration_seconds - 0.1)], height=video.height, width=video.width)
    picture, text = frames.pixels[0], question.text
    start, end = max(0.0, middle - HALF_QUERY_SECONDS), middle + HALF_QUERY_SECONDS
    return {
        "text": Item(text),
        "image": Item(image=picture),
        "image and text": Item(text, image=picture),
        "clip": Item(video=video, start_seconds=start, end_seconds=end),
        "clip and text": Item(text, video=video, start_seconds=start, end_seconds=end),
    }


def share(hits: list[bool]) -> str:
    """Return the share of hits with its 95 % interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.3f} [{interval.low:.3f}, {interval.high:.3f}]"


if __name__ == "__main__":
    main()
