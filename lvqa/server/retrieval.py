"""The model as a retriever: `/v1/embeddings` in OpenAI's form, `/v1/rerank` in that of Jina and Cohere."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from lvqa.items import Item
from lvqa.pipeline import LongVideoQA
from lvqa.prompts import VIDEO_RETRIEVAL, RetrievalTask
from lvqa.records import LvqaError, Video, shorten
from lvqa.retriever import Match, Retriever
from lvqa.server.attachments import attached_files, decode_data_url
from lvqa.server.chat import FILE_PREFIX, PIPELINE, video_of
from lvqa.server.chat_schemas import Part
from lvqa.server.conversation import address_of, picture_url, sound_url
from lvqa.server.errors import ApiError
from lvqa.server.model import Work
from lvqa.server.retrieval_schemas import EmbeddingsRequest, ItemBody, RerankBody, TaskBody
from lvqa.server.state import ServerState, state_of
from lvqa.server.streams import result_of

router = APIRouter(prefix="/v1", tags=["OpenAI's form"])

SOUNDS = ("sound", "voice")


@router.post("/embeddings", response_model=None)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """Return a unit vector for each input: a text, a picture, a clip, a video, a sound, or several of them together."""
    state = state_of(request)
    _check_model(state, body.model)
    items = await _read_items(state, body.items, "input")
    if not items:
        raise ApiError(400, "input: give a text, or a list with an item at least")
    job = state.submit("embed", _embed_work(body, items), video_id=_video_id(items))
    return JSONResponse(await result_of(request, job))


@router.post("/rerank", response_model=None)
async def rerank(request: Request, body: RerankBody) -> Response:
    """Return the documents by how well the model judges that each matches the query, best first."""
    state = state_of(request)
    _check_model(state, body.model)
    (query,) = await _read_items(state, [body.query], "query")
    documents = await _read_items(state, body.documents, "documents")
    job = state.submit("rerank", _rerank_work(body, query, documents), video_id=_video_id([query, *documents]))
    return JSONResponse(await result_of(request, job))


def _check_model(state: ServerState, name: str) -> None:
    if name not in (PIPELINE, state.model.name):
        raise ApiError(404, f"model {shorten(name)} is not served here; GET /v1/models lists all")


# --- from a request to items ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentItem:
    """An item as it was sent: its files are contents, which lie on the disk only while the model reads them."""

    fields: Mapping[str, Any]
    """The fields of an `Item` but for its files."""
    contents: Mapping[str, tuple[bytes, str]]
    """The name of a field -> the content of its file and the suffix of its type."""

    @property
    def is_text(self) -> bool:
        """Whether there is nothing but a text."""
        return not self.contents and "video" not in self.fields

    def on_disk(self, paths: Sequence[Path | None]) -> Item:
        """Return the item whose files lie at these paths, in the order of `contents`."""
        files: dict[str, Any] = dict(zip(self.contents, paths, strict=True))
        return Item(**self.fields, **files)


async def _read_items(state: ServerState, items: Sequence[Any], name: str) -> list[SentItem]:
    """Return items as they were sent. What can't be an item is refused, before anything waits."""
    sent = []
    for i, item in enumerate(items):
        try:
            sent.append(await _read_item(state, _as_body(item)))
        except (ApiError, LvqaError) as error:
            status = error.status if isinstance(error, ApiError) else 400
            raise ApiError(status, f"{name}[{i}]: {error}" if len(items) > 1 else f"{name}: {error}") from None
    return sent


def _as_body(item: str | ItemBody | list[Part]) -> ItemBody:
    """Return an item in any of its forms as an object."""
    if isinstance(item, str):
        return ItemBody(text=item)
    if isinstance(item, ItemBody):
        return item
    fields: dict[str, str] = {}
    texts = [part.text for part in item if part.text is not None]
    for part in item:
        if part.text is not None:
            continue
        kind, address = _medium_of(part)
        if kind in fields:
            raise ApiError(400, f"an item has one {kind} at most")
        fields[kind] = address
    return ItemBody.model_validate({"text": "\n".join(texts), **fields})


def _medium_of(part: Part) -> tuple[str, str]:
    """Return which field of an item a part of a message is, and where its content is."""
    if part.image_url is not None:
        return "image", address_of(part)
    if part.video_url is not None:
        return "video", address_of(part)
    if part.input_audio is not None:
        return "sound", sound_url(part)
    if part.file is not None and (part.file.file_id or part.file.file_data):
        return "video", (part.file.file_id or "").removeprefix(FILE_PREFIX) or part.file.file_data or ""
    raise ApiError(400, f"a part of type {shorten(part.type)} is not read here")


async def _read_item(state: ServerState, body: ItemBody) -> SentItem:
    contents: dict[str, tuple[bytes, str]] = {}
    if body.image is not None:
        contents["image"] = decode_data_url(picture_url(body.image, state.registry.folders), "image")
    for name in SOUNDS:
        if (address := getattr(body, name)) is not None:
            contents[name] = decode_data_url(address, "audio")
    names = ("text", "start_seconds", "end_seconds", "num_frames")
    fields: dict[str, Any] = {name: getattr(body, name) for name in names}
    if body.video is not None:
        fields["video"] = await video_of(state, Part(type="video_url", video_url=body.video))
    item = SentItem(fields, contents)
    item.on_disk([Path(name) for name in contents])  # what can't be one is refused here
    return item


def _video_id(items: Sequence[SentItem]) -> str | None:
    """Return the id of the video that all items are of, if there is one: who has it open is to do the work."""
    videos = {item.fields["video"].id for item in items if isinstance(item.fields.get("video"), Video)}
    return videos.pop() if len(videos) == 1 else None


@contextmanager
def _on_disk(items: Sequence[SentItem]) -> Iterator[list[Item]]:
    """Have the files of items lie on the disk inside the `with` block."""
    with attached_files(*(content for item in items for content in item.contents.values())) as paths:
        paths_left = iter(paths)
        yield [item.on_disk([next(paths_left) for _ in item.contents]) for item in items]


# --- what the model does --------------------------------------------------------------------------------------------


def _embed_work(body: EmbeddingsRequest, items: Sequence[SentItem]) -> Work:
    task, name = _task(body.task), body.model
    sides = [body.input_type or ("query" if item.is_text else "document") for item in items]
    dimensions, is_base64 = body.dimensions, body.encoding_format == "base64"

    def work(qa: LongVideoQA) -> dict[str, Any]:
        if dimensions not in (None, qa.model.dim):
            raise ApiError(400, f"dimensions: the model's vectors have {qa.model.dim} numbers, got {dimensions}")
        retriever, before = qa.retriever.for_task(task), qa.model.counts.tokens_prefilled
        vectors = np.zeros((len(items), qa.model.dim), np.float32)
        with _on_disk(items) as on_disk:
            for side, of_item in (("query", "query"), ("candidate", "document")):
                rows = [i for i, name_of_side in enumerate(sides) if name_of_side == of_item]
                vectors[rows] = retriever.embed([on_disk[i] for i in rows], side=side)  # type: ignore[arg-type]
        data = [
            {"object": "embedding", "index": i, "embedding": _encoded(vector) if is_base64 else vector.tolist()}
            for i, vector in enumerate(vectors)
        ]
        return {"object": "list", "data": data, "model": name, "usage": _usage(qa, before)}

    return work


def _encoded(vector: np.ndarray) -> str:
    """Return a vector as OpenAI's clients decode it: base64 of float32, the lowest byte first."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _rerank_work(body: RerankBody, query: SentItem, documents: Sequence[SentItem]) -> Work:
    task, name, top_n = _task(body.task), body.model, body.top_n
    sent = [_as_sent(document) for document in body.documents] if body.return_documents else None

    def work(qa: LongVideoQA) -> dict[str, Any]:
        retriever, before = qa.retriever.for_task(task), qa.model.counts.tokens_prefilled
        with _on_disk([query, *documents]) as (wanted, *on_disk):
            matches = rank_documents(retriever, wanted, on_disk)[:top_n]
        results: list[dict[str, Any]] = [{"index": m.index, "relevance_score": score} for m, score in matches]
        if sent is not None:
            results = [{**result, "document": sent[result["index"]]} for result in results]
        identifier = f"rerank-{secrets.token_hex(12)}"
        return {"id": identifier, "model": name, "results": results, "usage": _usage(qa, before)}

    return work


def rank_documents(retriever: Retriever, query: Item, documents: Sequence[Item]) -> list[tuple[Match, float]]:
    """Return the documents best first, each with its score: the reranker's, or the cosine where nothing is reranked.

    A reranker that judges a part of a pool gets the best by embedding. What it leaves out comes last, with 0.
    """
    settings = retriever.config.rerank
    if not settings.is_on:
        return [(match, match.embed_score or 0.0) for match in retriever.search(query, documents, pool=0)]
    if settings.name == "mcq":
        matches = retriever.rerank(query, documents)
    else:
        matches = retriever.search(query, documents, pool=len(documents))
    return [(match, match.rerank_score or 0.0) for match in matches]


def _as_sent(document: Any) -> dict[str, Any]:
    """Return a document as an object with the fields that were sent."""
    if isinstance(document, str):
        return {"text": document}
    if isinstance(document, list):
        return {"content": [_as_sent(part) for part in document]}
    assert isinstance(document, BaseModel)
    return document.model_dump(exclude_unset=True)


def _task(body: TaskBody | None) -> RetrievalTask:
    return VIDEO_RETRIEVAL if body is None else body.to_task()


def _usage(qa: LongVideoQA, before: int) -> dict[str, int]:
    """Return how many tokens the model has read since there were so many, the prompts' own included."""
    num_tokens = qa.model.counts.tokens_prefilled - before
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
