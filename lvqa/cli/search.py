"""`lvqa search`: the moments that fit a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.ask import candidate_json, candidate_line, checked
from lvqa.cli.main import Setup, common
from lvqa.cli.terminal import one_line, print_json

if TYPE_CHECKING:
    from lvqa.records import Candidate


@click.command()
@click.argument("video_and_query", nargs=-1, metavar="[VIDEO] [QUERY]")
@click.option("--image", type=click.Path(path_type=Path), help="A picture to search for, with QUERY or alone.")
@click.option("--library", is_flag=True, help="Search all videos that were indexed with this model and these settings.")
@click.option("--top", type=int, default=5, show_default=True, help="How many moments to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common
def search(
    setup: Setup, *, video_and_query: tuple[str, ...], image: Path | None, library: bool, top: int, as_json: bool
) -> None:
    """Find the moments of VIDEO, or of the whole library, that fit QUERY best."""
    videos, given = (0 if library else 1), len(video_and_query)
    if given != videos + 1 and not (image and given == videos):
        words = f"got {given} word{'' if given == 1 else 's'}; quote a long query"
        raise click.UsageError(f"search takes VIDEO QUERY, or --library QUERY, or --image F for QUERY; {words}")
    from lvqa.records import Question
    from lvqa.validation import check_count, check_question

    query = "".join(video_and_query[videos:])
    asked = Question(query, image=image)
    config = setup.config()
    check_count(top, name="top")
    found: list[tuple[Path | None, Candidate]]
    if library:
        check_question(asked, is_search=True)
        with setup.loaded(config) as qa:
            found = [(index.video_path, candidate) for index, candidate in qa.search_library(asked, top=top)]
    else:
        probed = checked(Path(video_and_query[0]), asked, config, is_search=True)
        with setup.loaded(config) as qa:
            found = [(probed.path, candidate) for candidate in qa.search(probed.path, asked, top=top)]
    if as_json:
        results = [{"path": None if path is None else str(path), **candidate_json(c)} for path, c in found]
        print_json({"query": query, "model": config.model.name, "results": results})
        return
    for path, candidate in found:
        click.echo(candidate_line(candidate) + (f"  {one_line(path)}" if library else ""))
