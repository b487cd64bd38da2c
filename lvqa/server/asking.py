"""What the model does for a request: each function runs in the model's thread and returns JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from lvqa.components import check_settings
from lvqa.config import with_call, with_overrides, without_reranking
from lvqa.library import ALL_VIDEOS, LibraryFilter, ask_library, search_library
from lvqa.output import (
    choice_json,
    evidence_to_print,
    finite,
    ranking_json,
    record_json,
    search_json,
    video_json,
)
from lvqa.pipeline import LongVideoQA
from lvqa.places import as_path
from lvqa.provenance import provenance
from lvqa.records import Question, Video
from lvqa.schema import schema_text
from lvqa.selection import SELECTORS
from lvqa.server.attachments import attached_files, decode_data_url
from lvqa.server.errors import ApiError
from lvqa.server.model import Work
from lvqa.server.schemas import AskRequest, Query, SearchRequest
from lvqa.validation import check_question, require_one_of
from lvqa.web import answer_view

REMOTE_METHODS = tuple(SELECTORS)
"""The methods that a request may name: never a file of code, which would be run."""
REMOTE_SETTINGS = (
    *("rerank.pool", "rerank.both_orders", "rerank.labels"),
    *("selection.frames_per_clip", "selection.read_times", "selection.smooth_seconds", "selection.gate"),
    *("answer.look_again", "answer.first_look", "answer.packing"),
)
"""The settings that a request may change: they name no file, and no index is built anew for them."""


def ask_work(request: AskRequest, video: Video | None) -> Work:
    """Return the work that answers a question about a video, or about the library if there is none.

    What can't be asked is refused here, before it waits.
    """
    image = None if request.image is None else decode_data_url(request.image, "image")
    condition = _condition(request)
    voice = None if request.voice is None else decode_data_url(request.voice, "audio")
    history = tuple((turn.question, turn.answer) for turn in request.history)
    schema = None if request.answer_schema is None else schema_text(request.answer_schema)
    question = Question(request.question, tuple(request.options), history=history, schema=schema)
    if request.method is not None:
        require_one_of(request.method, "method", REMOTE_METHODS)
    for setting in request.settings:
        require_one_of(setting.partition("=")[0].strip(), "settings", REMOTE_SETTINGS)
    if voice is None:
        check_question(question, distinct_options=True)

    def work(qa: LongVideoQA) -> dict[str, Any]:
        with attached_files(image, voice) as (image_path, voice_path):
            complete = dataclasses.replace(question, image=image_path, voice=voice_path)
            check_question(complete, distinct_options=True)
            changed = with_overrides(qa.config, request.settings)
            check_settings(with_call(changed, frames=request.frames, method=request.method))
            pipeline = qa.with_config(changed) if request.settings else qa
            call: dict[str, Any] = {"frames": request.frames, "method": request.method, "record": request.record}
            return answer(pipeline, complete, video, condition=condition, **call)

    return work


def answer(
    qa: LongVideoQA,
    question: Question,
    video: Video | None,
    *,
    frames: int | None,
    method: str | None,
    condition: LibraryFilter = ALL_VIDEOS,
    record: bool = False,
) -> dict[str, Any]:
    """Answer a question as `lvqa ask --json` does, with the scores of all clips."""
    choice = None
    if video is None:
        choice = ask_library(qa, question, condition=condition, frames=frames, method=method)
        result, video = choice.answer, choice.video
    else:
        result = qa.answer(video, question, frames=frames, method=method)
    settings = with_call(qa.config, frames=frames, method=method)
    content = {
        **answer_view(result, video, evidence_to_print(result, qa.config)),
        **({} if choice is None else choice_json(choice)),
        **provenance(settings, model_revision=qa.model.revision),
        **({"record": record_json(result)} if record else {}),
    }
    return finite(content)  # type: ignore[no-any-return]


def search_work(request: SearchRequest, video: Video | None) -> Work:
    """Return the work that searches a video, or the library if there is none."""
    image, condition = None if request.image is None else decode_data_url(request.image, "image"), _condition(request)
    if image is None:
        check_question(Question(request.query), is_search=True)

    def work(qa: LongVideoQA) -> dict[str, Any]:
        config = qa.config
        if not request.rerank:
            config = without_reranking(config)
            qa = qa.with_config(config)
        with attached_files(image) as (image_path,):
            question = Question(request.query, image=image_path)
            if video is None:
                how: dict[str, Any] = {name: getattr(request, name) for name in ("moments", "exact", "light")}
                output = ranking_json(search_library(qa, question, top=request.top, condition=condition, **how))
            else:
                result = qa.search_video(video, question, top=request.top)
                output = search_json(result, video)
                output |= {"record": record_json(result)} if request.record else {}
        made_with = provenance(config, model_revision=qa.model.revision)
        return finite({"query": request.query, "reranked": config.rerank.is_on, **output, **made_with})  # type: ignore[no-any-return]

    return work


def _condition(request: Query) -> LibraryFilter:
    """Return which videos of the library a request takes. Raises LvqaError for a number that is none."""
    conditions = request.condition.model_dump()
    folder = conditions.pop("folder")
    return LibraryFilter(tuple(conditions.pop("videos")), None if folder is None else as_path(folder), **conditions)


def index_work(video: Video, *, rebuild: bool) -> Work:
    """Return the work that indexes a video."""

    def work(qa: LongVideoQA) -> dict[str, Any]:
        use = qa.index(video.path, rebuild=rebuild)
        if use.path is None:
            raise ApiError(507, f"the index can't be kept: {use.unsaved}")
        index = {"reused": use.reused, "clips": use.clips, "index": str(use.path)}
        damage = {"frames": use.frames, "frames_substituted": use.frames_substituted}
        return finite({"video": video_json(video), **index, **damage, "record": record_json(use)})  # type: ignore[no-any-return]

    return work
