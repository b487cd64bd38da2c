"""Compare the times that questions name with those of their evidence, in an annotation file of LVBench's form.

    python scripts/check_named_times.py data/lvbench/video_info.meta.jsonl

It prints how many questions name a clock time, how many of these lie within 5 s of the annotated time, and a line for
each that does not; then the questions with a colon between digits in which no time was read. What else is read of time
is counted below. Options are not read, and no time lies beyond a video, since the file has no durations.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import click

from lvqa.datasets.lvbench import LVBench
from lvqa.records import LvqaError, Question, clock_time
from lvqa.temporal import TemporalReading, read_temporal
from lvqa.temporal.clocks import clock_times
from lvqa.temporal.mentions import plain_text

TOLERANCE_SECONDS = 5.0


def questions_of(path: Path) -> list[Question]:
    """Return the questions of an annotation file in LVBench's form."""
    dataset = LVBench(path.parent)
    dataset.path = path
    return [entry.question for entry in dataset.entries()]


def gap_seconds(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the time between two spans, 0 where they overlap."""
    return max(0.0, first[0] - second[1], second[0] - first[1])


def line_of(question: Question, reading: TemporalReading) -> str:
    """Return a line on what was read of a question, and on what is annotated."""
    annotated = "-".join(map(clock_time, question.evidence_seconds)) if question.evidence_seconds else "no time"
    return f"{question.id}: read {reading.text or 'nothing'}, annotated {annotated}: {' '.join(question.text.split())}"


@click.command(help=__doc__)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """Print the counts and the disagreements."""
    counts: Counter[str] = Counter()
    far, unread = [], []
    try:
        questions = questions_of(file)
    except LvqaError as error:
        raise click.ClickException(str(error)) from error
    for question in questions:
        reading, clocks = read_temporal(question.text, math.inf), clock_times(plain_text(question.text))
        for name in ("position", "occurrence", "relation"):
            value = getattr(reading, name)
            counts[f"{name}: {value}"] += value is not None
        counts["clock time"] += bool(clocks)
        counts["minutes or seconds in words"] += len(reading.spans) > len({mention.seconds for mention in clocks})
        if not clocks:
            unread += [line_of(question, reading)] if re.search(r"[0-9]:[0-9]", question.text) else []
        elif question.evidence_seconds:
            gap = min(gap_seconds(mention.seconds, question.evidence_seconds) for mention in clocks)
            counts["annotated"] += 1
            counts["near"] += gap <= TOLERANCE_SECONDS
            far += [line_of(question, reading)] if gap > TOLERANCE_SECONDS else []
    click.echo(f"{len(questions)} questions")
    click.echo(f"{counts.pop('clock time')} name a clock time, {counts['annotated']} of them with an annotated time")
    click.echo(f"{counts.pop('near')} of {counts.pop('annotated')} lie within {TOLERANCE_SECONDS:g} s of it")
    for line in far:
        click.echo(f"  {line}")
    click.echo(f"{len(unread)} have a colon between digits, and no time was read")
    for line in unread:
        click.echo(f"  {line}")
    for name, count in sorted(counts.items()):
        if count:
            click.echo(f"{count} {name}")


if __name__ == "__main__":
    main()
