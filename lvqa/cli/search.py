"""`lvqa search`: find the moments that match a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.answers import print_moments
from lvqa.cli.ask import inspect_for_question
from lvqa.cli.library_filters import filter_of, library_filters
from lvqa.cli.main import CommonOptions, common_options
from lvqa.cli.remote import check_alone, search_server, server_option
from lvqa.cli.terminal import echo_warnings
from lvqa.output import ranking_json, search_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.records import Question


@click.command()
@click.argument("video_and_query", nargs=-1, metavar="[VIDEO] [QUERY]")
@click.option("--image", type=click.Path(path_type=Path), help="Search for this picture, with QUERY or without.")
@click.option("--library", is_flag=True, help="Search all videos that were indexed with this model and these settings.")
@library_filters
@click.option("--moments", is_flag=True, help="With --library: join clips that follow each other.")
@click.option("--exact", is_flag=True, help="With --library: read the indexes of all videos, however many they are.")
@click.option("--light", is_flag=True, help="With --library: search key frames alone, and rerank with all frames.")
@click.option("--no-rerank", is_flag=True, help="Rank by embedding alone, which is faster and less exact.")
@click.option("--top", type=int, default=5, show_default=True, help="Number of moments to print.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@server_option
@common_options
def search(
    common: CommonOptions,
    *,
    video_and_query: tuple[str, ...],
    image: Path | None,
    library: bool,
    moments: bool,
    exact: bool,
    light: bool,
    no_rerank: bool,
    top: int,
    as_json: bool,
    server: str | None,
    **conditions: Any,
) -> None:
    """Find moments of VIDEO or the library that match QUERY.

    The best by embedding are reranked: the model looks at them again, next to the query.
    """
    num_videos, num_words = (0 if library else 1), len(video_and_query)
    if num_words != num_videos + 1 and not (image and num_words == num_videos):
        hint = f"got {num_words} word{'' if num_words == 1 else 's'}; quote a long query"
        raise click.UsageError(f"search takes VIDEO QUERY, or --library QUERY, or --image F for QUERY; {hint}")
    from lvqa.places import as_path
    from lvqa.records import Question
    from lvqa.validation import check_count

    query = "".join(video_and_query[num_videos:])
    check_count(top, name="top")
    request, condition = Question(query, image=image), filter_of(conditions, library=library)
    how = {"moments": moments, "exact": exact, "light": light}
    if any(how.values()) and not library:
        raise click.UsageError(f"--{next(name for name, is_on in how.items() if is_on)} goes with --library")
    in_library: dict[str, Any] = {"condition": condition, **how} if library else {}
    if server is not None:
        check_alone(common, {})
        path = None if library else as_path(video_and_query[0])
        options = {"top": top, "rerank": not no_rerank, **in_library}
        return search_server(common, server, path, request, options, as_json=as_json)
    config = common.config()
    if no_rerank:
        from lvqa.config import without_reranking

        config = without_reranking(config)
    if library:
        output = _search_library(common, config, request, top=top, **in_library)
    else:
        output = _search_video(common, config, as_path(video_and_query[0]), request, top)
    print_moments({"query": query, "reranked": config.rerank.is_on, **output}, as_json=as_json, quiet=common.quiet)


def _search_video(common: CommonOptions, config: Config, path: Path, query: Question, top: int) -> dict[str, object]:
    """Return the best moments of one video, as JSON."""
    from lvqa.provenance import provenance

    video = inspect_for_question(path, query, config, is_search=True)
    with common.load_pipeline(config) as qa:
        result = qa.search_video(video.path, query, top=top)
        made_with = provenance(config, model_revision=qa.model.revision)
    echo_warnings(video.path, result.caveats.warnings)
    return {**search_json(result, video), **made_with}


def _search_library(common: CommonOptions, config: Config, query: Question, **options: Any) -> dict[str, object]:
    """Return the best moments of all videos in the store, as JSON."""
    from lvqa.library import search_library
    from lvqa.provenance import provenance
    from lvqa.validation import check_question

    check_question(query, is_search=True)
    with common.load_pipeline(config) as qa:
        ranking = search_library(qa, query, **options)
        made_with = provenance(config, model_revision=qa.model.revision)
    return {**ranking_json(ranking), **made_with}
