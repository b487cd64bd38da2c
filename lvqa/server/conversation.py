"""From the messages of OpenAI's form to a question about a video, and from its answer to a reply."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.letters import listed_options
from lvqa.report.answers import clock
from lvqa.server.attachments import SUFFIXES
from lvqa.server.chat_schemas import ChatRequest, Message, Part
from lvqa.server.errors import ApiError
from lvqa.server.folders import ServedFolders
from lvqa.server.guard import MAX_BODY_BYTES
from lvqa.server.schemas import AskRequest, Turn

EVIDENCE, NOTE = "\n\nEvidence: ", "\n\nNote: "
"""What begins the lines that a reply adds to an answer; they are taken off when it comes back as an earlier turn."""
MAX_LINKS = 5
AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "ogg": "audio/ogg"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a conversation asks in the end."""

    request: AskRequest
    video: Part | None
    """The part that shows the video: the last one, wherever it stands."""


def read_conversation(chat: ChatRequest, folders: ServedFolders) -> Conversation:
    """Return the question of the last message, with the earlier turns as text.

    Options that are listed in the text are recognised. The system's message is for other models, and not read.
    """
    turns = [message for message in chat.messages if message.role in ("user", "assistant")]
    if not turns or turns[-1].role != "user":
        raise ApiError(400, "messages: the last one must be the user's")
    last = parts_of(turns[-1])
    text, options = text_of(turns[-1]), tuple(chat.lvqa.options or ())
    if chat.lvqa.options is None and chat.answer_schema is None and (listed := listed_options(text)):
        text, options = listed
    images = [part for part in last if part.image_url is not None]
    sounds = [part for part in last if part.input_audio is not None]
    if len(images) > 1 or len(sounds) > 1:
        raise ApiError(400, "a question has one picture and one sound at most")
    request = AskRequest(
        video=chat.lvqa.video,
        library=chat.lvqa.library,
        question=text,
        options=list(options),
        schema=chat.answer_schema,
        history=list(_earlier(turns[:-1])),
        image=image_url(images[0], folders) if images else None,
        voice=sound_url(sounds[0]) if sounds else None,
        frames=chat.lvqa.frames,
        method=chat.lvqa.method,
    )
    videos = video_parts(chat)
    return Conversation(request, videos[-1] if videos else None)


def video_parts(chat: ChatRequest) -> list[Part]:
    """Return the parts of all messages that show a video, in their order."""
    parts = [part for message in chat.messages for part in parts_of(message)]
    return [part for part in parts if part.video_url is not None or part.file is not None]


def parts_of(message: Message) -> list[Part]:
    """Return the parts of a message that are no plain text."""
    return message.content if isinstance(message.content, list) else []


def text_of(message: Message) -> str:
    """Return the text of a message."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in parts_of(message) if part.text is not None)


def address_of(part: Part) -> str:
    """Return where the picture or the video of a part is."""
    address = part.image_url if part.image_url is not None else part.video_url
    if address is None:
        raise ApiError(400, f"a part of type {part.type!r} has no url")
    return address if isinstance(address, str) else address.url


def _earlier(turns: Sequence[Message]) -> list[Turn]:
    """Return the earlier questions with their answers."""
    pairs: list[Turn] = []
    for before, after in itertools.pairwise(turns):
        if (before.role, after.role) == ("user", "assistant"):
            reply = text_of(after).split(EVIDENCE)[0].split(NOTE)[0]
            pairs.append(Turn(question=text_of(before), answer=reply))
    return pairs


def image_url(part: Part, folders: ServedFolders) -> str:
    """Return the picture of a part as a data: URL; see `picture_url`."""
    return picture_url(address_of(part), folders)


def picture_url(address: str, folders: ServedFolders) -> str:
    """Return a picture as a data: URL, which it may be already; a file:// path must lie in the served folders."""
    if not address.startswith("file://"):
        return address
    path = folders.resolve(address.removeprefix("file://"))
    kinds = {suffix: kind for kind, suffix in SUFFIXES.items() if kind.startswith("image/")} | {".jpeg": "image/jpeg"}
    kind = kinds.get(path.suffix.lower())
    if kind is None or path.stat().st_size > MAX_BODY_BYTES:
        raise ApiError(400, f"image: {path.name} is no picture of {MAX_BODY_BYTES >> 20} MiB at most")
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def sound_url(part: Part) -> str:
    """Return a sound as a data: URL."""
    sound = part.input_audio
    assert sound is not None
    if sound.format not in AUDIO_TYPES:
        raise ApiError(400, f"input_audio: format {sound.format!r} is not one of {', '.join(AUDIO_TYPES)}")
    return f"data:{AUDIO_TYPES[sound.format]};base64,{sound.data}"


def reply_text(answer: dict[str, Any], base_url: str, *, links: bool) -> str:
    """Return an answer as the text of a reply: the answer, and its evidence as links to clips.

    Args:
        answer: As `asking.answer` returns it.
        base_url: The address under which the client reaches the server.
        links: Whether evidence and warnings are added.
    """
    text = answer["answer"] if answer["option"] is None else f"{answer['option']}. {answer['answer']}"
    if not links:
        return str(text)
    shown_clips = [clip for clip in answer["evidence"] if clip["frames"]][:MAX_LINKS]
    listed = ", ".join(_link(clip, f"{base_url}/api/videos/{answer['video']['id']}") for clip in shown_clips)
    notes = "".join(f"{NOTE}{warning}" for warning in answer["warnings"])
    return f"{text}{EVIDENCE}{listed}{notes}" if listed else f"{text}{notes}"


def _link(clip: dict[str, Any], video_url: str) -> str:
    start, end = clip["start_seconds"], clip["end_seconds"]
    return f"[{clock(start)}-{clock(end)}]({video_url}/clip?start={start:g}&end={end:g})"
