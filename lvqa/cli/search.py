"""`lvqa search`: find the moments that match a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.ask import candidate_json, candidate_line, caveats_json, inspect_for_question, video_json
from lvqa.cli.main import CommonOptions, common_options
from lvqa.cli.terminal import echo_warnings, one_line, print_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.records import Candidate, Question


@click.command()
@click.argument("video_and_query", nargs=-1, metavar="[VIDEO] [QUERY]")
@click.option("--image", type=click.Path(path_type=Path), help="Search for this picture, with QUERY or without.")
@click.option("--library", is_flag=True, help="Search all videos that were indexed with this model and these settings.")
@click.option("--top", type=int, default=5, show_default=True, help="Number of moments to print.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def search(
    common: CommonOptions,
    *,
    video_and_query: tuple[str, ...],
    image: Path | None,
    library: bool,
    top: int,
    as_json: bool,
) -> None:
    """Find the moments of VIDEO or the library that match QUERY."""
    num_videos, num_words = (0 if library else 1), len(video_and_query)
    if num_words != num_videos + 1 and not (image and num_words == num_videos):
        hint = f"got {num_words} word{'' if num_words == 1 else 's'}; quote a long query"
        raise click.UsageError(f"search takes VIDEO QUERY, or --library QUERY, or --image F for QUERY; {hint}")
    from lvqa.records import Question
    from lvqa.validation import check_count

    query = "".join(video_and_query[num_videos:])
    config = common.config()
    check_count(top, name="top")
    path = None if library else Path(video_and_query[0])
    request = Question(query, image=image)
    if path is not None:
        _search_video(common, config, path, request, top, as_json=as_json)
        return
    hits = _search_library(common, config, request, top)
    if as_json:
        results = [{"path": None if path is None else str(path), **candidate_json(hit)} for path, hit in hits]
        print_json({"query": query, "model": config.model.name, "results": results})
        return
    for path, hit in hits:
        click.echo(f"{candidate_line(hit)}  {one_line(path)}")


def _search_video(
    common: CommonOptions, config: Config, path: Path, query: Question, top: int, *, as_json: bool
) -> None:
    """Print the best moments of a video."""
    from lvqa.provenance import provenance

    video = inspect_for_question(path, query, config, is_search=True)
    with common.load_pipeline(config) as qa:
        result = qa.search_video(video.path, query, top=top)
        made_with = provenance(config, model_revision=qa.model.revision)
    if as_json:
        results = [{"path": str(video.path), **candidate_json(hit)} for hit in result.candidates]
        head = {"query": query.text, "results": results, **caveats_json(result.caveats)}
        print_json({**head, "video": video_json(video), **made_with})
    else:
        click.echo("\n".join(map(candidate_line, result.candidates)))
    echo_warnings(video.path, result.caveats.warnings)


def _search_library(
    common: CommonOptions, config: Config, query: Question, top: int
) -> list[tuple[Path | None, Candidate]]:
    """Return the best moments of the library, each with the path of its video."""
    from lvqa.validation import check_question

    check_question(query, is_search=True)
    with common.load_pipeline(config) as qa:
        return [(index.video_path, candidate) for index, candidate in qa.search_library(query, top=top)]
