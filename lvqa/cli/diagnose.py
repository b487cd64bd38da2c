"""`lvqa diagnose`: run the paper's diagnostics of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import CommonOptions, common_options, inspect_video
from lvqa.cli.terminal import echo_warnings, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvqa.diagnostics import Diagnostics
    from lvqa.records import Question


@click.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--query", metavar="TEXT", help="Diagnose the states of this question as well.")
@click.option(
    "--questions",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Measure how well each framing judges clips, by the questions on VIDEO in this folder, which has LVBench's "
    "layout; their times must be annotated.",
)
@click.option("--clips", type=int, default=16, show_default=True, help="Number of clips of VIDEO, evenly spaced.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Write the files into this folder.",
)
@common_options
def diagnose(
    common: CommonOptions, *, video: Path, query: str | None, questions: Path | None, clips: int, out: Path
) -> None:
    """Plot what happens in the model as it reads VIDEO.

    The diagnostics are those of FreeRet's authors. depth.png: what each sub-layer does to the state. words.png: the
    one word that the state stands for. bias.png: which label the model prefers if nothing speaks for either.
    framing.png: with --questions, how well the model judges under each pair of labels. diagnostics.json: all of it in
    numbers.
    """
    from lvqa.caveats import describe_model
    from lvqa.diagnostics import diagnose_model
    from lvqa.records import Question
    from lvqa.report import write_diagnostics
    from lvqa.validation import check_count, check_question

    check_count(clips, name="clips")
    if query is not None:
        check_question(Question(query))
    config = common.config()
    inspected = inspect_video(video, config)
    annotated = () if questions is None else _questions_on(inspected.path, questions)
    with common.load_pipeline(config) as qa:
        diagnostics = diagnose_model(qa, inspected.path, query=query, num_clips=clips, questions=annotated)
    for line in _diagnostics_lines(diagnostics):
        click.echo(line)
    echo_warnings(inspected.path, describe_model(qa.model, inspected))
    click.echo(f"written   {' '.join(one_line(path) for path in write_diagnostics(diagnostics, out))}")


def _diagnostics_lines(diagnostics: Diagnostics) -> Iterator[str]:
    """Yield the main numbers, one line for each."""
    for name, depth in diagnostics.depth.items():
        attention, mlp = depth.similarity[:, -2:].mean(axis=0)
        yield (
            f"{name:<8}  last layer: alpha {attention:.2f} by attention, {mlp:.2f} by the MLP "
            f"({depth.similarity_normed.mean():.2f} with the final norm); "
            f"beta {depth.alignment[:, -2].mean():.2f} before the MLP, {depth.alignment[:, -1].mean():.2f} after it"
        )
    for words in diagnostics.words:
        likeliest = ", ".join(f"{one_line(word)} {100 * share:.0f}%" for word, share in words.mean[:5])
        yield f"{words.source:<8}  {words.prompt}: {likeliest}"
    for bias in diagnostics.bias:
        shares = ", ".join(f"{label} {100 * p:.1f}%" for label, p in zip(bias.labels, bias.probabilities, strict=True))
        yield f"bias      {shares}  ({bias.context})"
    for framing in diagnostics.framings:
        correct, preferred = (100 * sum(hits) / len(hits) for hits in (framing.correct, framing.preferred))
        yield (
            f"framing   {'/'.join(framing.labels)}: {correct:.1f}% of {len(framing.correct)} clips judged correctly; "
            f"the matching clip has the higher score in {preferred:.1f}% of {len(framing.preferred)} pairs"
        )


def _questions_on(video: Path, folder: Path) -> Sequence[Question]:
    """Return the folder's questions about this file."""
    from lvqa.datasets import load_dataset
    from lvqa.records import LvqaError, counted

    tasks = load_dataset("lvbench", folder).tasks
    for task in tasks:
        if task.path.resolve() == video.resolve():
            return task.questions
    raise LvqaError(
        f"{folder} has no questions on {video}; it has some on {counted(len(tasks), 'video')}, {tasks[0].path} first"
    )
