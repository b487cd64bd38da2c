"""The model under its own name in OpenAI's form: it sees exactly what is sent, and its tokens can be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvqa import direct
from lvqa.direct import DirectReply, Picture, Sound, TokenScore, Turn
from lvqa.output import finite
from lvqa.pipeline import LongVideoQA
from lvqa.records import Video
from lvqa.schema import check_schema, schema_text
from lvqa.server.attachments import attached_files, decode_data_url
from lvqa.server.chat_schemas import ChatRequest, Message, Part
from lvqa.server.conversation import image_url, parts_of, sound_url
from lvqa.server.errors import ApiError
from lvqa.server.folders import ServedFolders
from lvqa.server.model import Work

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def direct_work(chat: ChatRequest, videos: Mapping[int, Video], folders: ServedFolders) -> Work:
    """Return the work that asks the model itself.

    Args:
        chat: The conversation.
        videos: The identity of a part that shows a video -> the video.
        folders: Where pictures may lie.
    """
    contents: dict[int, tuple[bytes, str]] = {}
    keyed: list[tuple[Message, list[tuple[int, Part]]]] = []  # a copy in another process has other identities
    for message in chat.messages:
        if message.role not in ROLES:
            raise ApiError(400, f"role {message.role!r} is not one of {', '.join(ROLES)}")
        keyed.append((message, [(id(part), part) for part in parts_of(message)]))
        for part in parts_of(message):
            if part.image_url is not None:
                contents[id(part)] = decode_data_url(image_url(part, folders), "image")
            elif part.input_audio is not None:
                contents[id(part)] = decode_data_url(sound_url(part), "audio")
    num_top = (chat.top_logprobs or 0) if chat.logprobs else 0
    token_ids = chat.logprob_token_ids or []

    schema = None if chat.answer_schema is None else schema_text(chat.answer_schema)
    if schema is not None:
        check_schema(schema)

    def work(qa: LongVideoQA) -> dict[str, Any]:
        answer = qa.config.answer
        with attached_files(*contents.values()) as files:
            paths = {key: path for key, path in zip(contents, files, strict=True) if path is not None}
            turns = [_turn(message, parts, videos, paths) for message, parts in keyed]
            limit = chat.max_new_tokens or (answer.max_new_tokens if schema is None else answer.max_object_tokens)
            scores: dict[str, Any] = {"num_top": num_top, "token_ids": token_ids}
            reply = direct.reply(qa, turns, max_new_tokens=limit, schema=schema, **scores)
        return finite(completion_choice(reply, with_scores=bool(chat.logprobs or token_ids)))  # type: ignore[no-any-return]

    return work


def _turn(
    message: Message, parts: Sequence[tuple[int, Part]], videos: Mapping[int, Video], paths: Mapping[int, Path]
) -> Turn:
    if isinstance(message.content, str):
        return Turn(ROLES[message.role], (message.content,))
    return Turn(ROLES[message.role], tuple(_content(key, part, videos, paths) for key, part in parts))


def _content(key: int, part: Part, videos: Mapping[int, Video], paths: Mapping[int, Path]) -> direct.Content:
    if key in videos:
        return videos[key]
    if part.image_url is not None:
        return Picture(paths[key])
    if part.input_audio is not None:
        return Sound(paths[key])
    if part.text is None:
        raise ApiError(400, f"a part of type {part.type!r} is not read here")
    return part.text


def completion_choice(reply: DirectReply, *, with_scores: bool) -> dict[str, Any]:
    """Return a reply as a choice of OpenAI's form, and what it cost in tokens."""
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    scores = {"content": [_score_json(token) for token in reply.tokens], "refusal": None} if with_scores else None
    choice = {"index": 0, "message": message, "finish_reason": "length" if reply.is_cut else "stop", "logprobs": scores}
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": len(reply.tokens)}
    return {"choice": choice, "usage": {**usage, "total_tokens": reply.prompt_tokens + len(reply.tokens)}}


def _score_json(token: TokenScore) -> dict[str, Any]:
    known = {"token": token.text, "token_id": token.id, "logprob": token.log_prob}
    known["bytes"] = list(token.text.encode("utf-8", "replace"))
    return {**known, "top_logprobs": [{**_score_json(other), "top_logprobs": []} for other in token.top]}
