"""`lvqa diagnose`: the paper's diagnostics of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import Setup, common, probed
from lvqa.cli.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvqa.records import Question


@click.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--query", metavar="TEXT", help="A question whose states are probed beside the clips'.")
@click.option(
    "--questions",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder in LVBench's layout with questions on VIDEO whose time is annotated: how well each framing judges.",
)
@click.option("--clips", type=int, default=16, show_default=True, help="How many clips of VIDEO, evenly spaced.")
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where the files go."
)
@common
def inspect_video(
    setup: Setup, *, video: Path, query: str | None, questions: Path | None, clips: int, out: Path
) -> None:
    """Look into the model as it reads clips of VIDEO, as FreeRet's authors did: plots and their figures.

    depth.png: what each sub-layer does to the state. words.png: the one word that it would say. bias.png: whether it
    prefers a label that nothing speaks for. framing.png: with --questions, how well it judges under each pair of
    labels. probes.json: all of it in numbers.
    """
    from lvqa.diagnostics import diagnose_model
    from lvqa.records import Question
    from lvqa.report import write_diagnostics
    from lvqa.validation import check_count, check_question

    check_count(clips, name="clips")
    if query is not None:
        check_question(Question(query))
    config = setup.config()
    film = probed(video, config)
    asked = () if questions is None else _questions_on(film.path, questions)
    with setup.loaded(config) as qa:
        probes = diagnose_model(qa, film.path, query=query, num_clips=clips, questions=asked)
    for name, depth in probes.depth.items():
        attention, mlp = depth.similarity[:, -2:].mean(axis=0)
        click.echo(
            f"{name:<8}  last layer: alpha {attention:.2f} by attention, {mlp:.2f} by the MLP "
            f"({depth.similarity_normed.mean():.2f} with the final norm); "
            f"beta {depth.alignment[:, -2].mean():.2f} before the MLP, {depth.alignment[:, -1].mean():.2f} after it"
        )
    for words in probes.words:
        said = ", ".join(f"{one_line(word)} {100 * share:.0f}%" for word, share in words.mean[:5])
        click.echo(f"{words.of:<8}  {words.prompt}: {said}")
    for bias in probes.bias:
        shares = ", ".join(f"{label} {100 * p:.1f}%" for label, p in zip(bias.labels, bias.probabilities, strict=True))
        click.echo(f"bias      {shares}  ({bias.context})")
    for framing in probes.framings:
        right, preferred = (100 * sum(hits) / len(hits) for hits in (framing.right, framing.preferred))
        click.echo(
            f"framing   {'/'.join(framing.labels)}: {right:.1f}% of {len(framing.right)} clips judged rightly; "
            f"the clip that matches has the higher score in {preferred:.1f}% of {len(framing.preferred)} pairs"
        )
    click.echo(f"written   {' '.join(one_line(path) for path in write_diagnostics(probes, out))}")


def _questions_on(video: Path, folder: Path) -> Sequence[Question]:
    """The questions of the folder that are about this file."""
    from lvqa.datasets import load_dataset
    from lvqa.records import LvqaError

    tasks = load_dataset("lvbench", folder).tasks
    for task in tasks:
        if task.path.resolve() == video.resolve():
            return task.questions
    raise LvqaError(f"{folder} has no questions on {video}; it has some on {len(tasks)} videos, {tasks[0].path} first")
