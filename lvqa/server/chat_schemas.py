"""What requests in OpenAI's form hold, as far as they are read here; keys that nobody reads are passed over."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lvqa.records import LETTERS
from lvqa.server.schemas import MAX_FRAMES, Body, Line, Reference

MAX_MESSAGES = 256
MAX_NEW_TOKENS = 4096


class Loose(BaseModel):
    """A part of a request that may have keys of other servers."""

    model_config = ConfigDict(extra="allow")


class Address(Loose):
    """Where a picture or a video is: a data: URL, a file:// path, an id."""

    url: str


class Sound(Loose):
    """A sound in base64."""

    data: str
    format: str = "wav"


class FileReference(Loose):
    """A file that was uploaded, or its content."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Part(Loose):
    """A part of a message."""

    type: str
    text: str | None = None
    image_url: Address | str | None = None
    video_url: Address | str | None = None
    input_audio: Sound | None = None
    file: FileReference | None = None


class Message(Loose):
    """A turn of the conversation."""

    role: str
    content: str | list[Part] | None = None


class LvqaOptions(Body):
    """What OpenAI's form has no place for."""

    video: Reference | None = Field(default=None, description="The video: its id, or its path on the server.")
    library: bool = Field(default=False, description="Take all indexed videos instead of one.")
    options: list[Line] | None = Field(
        default=None, max_length=len(LETTERS), description="Possible answers, not in the text."
    )
    frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES, description="How many frames the model may see.")
    method: str | None = Field(default=None, max_length=64, description="How the frames are chosen.")
    links: bool = Field(default=True, description="Add the evidence to the text, as links to clips.")


class StreamOptions(Loose):
    """What a stream ends with."""

    include_usage: bool = False


class JsonSchema(Loose):
    """A schema with its name, which nobody reads here."""

    content: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Loose):
    """What the reply must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The schema that the reply must fit; None: it is text."""
        if self.type == "json_schema" and self.json_schema is not None:
            return self.json_schema.content
        return {"type": "object"} if self.type == "json_object" else None


class ChatRequest(Loose):
    """A conversation whose last message asks something."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    n: int | None = Field(default=1, ge=1, le=1)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    logprob_token_ids: list[int] | None = Field(
        default=None, max_length=256, description="Tokens to score at each position."
    )
    lvqa: LvqaOptions = Field(default_factory=lambda: LvqaOptions.model_validate({}))

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The schema that the reply must fit; None: it is text."""
        return None if self.response_format is None else self.response_format.answer_schema

    @property
    def max_new_tokens(self) -> int | None:
        """The bound on the reply, by either name."""
        return self.max_completion_tokens or self.max_tokens


Json = dict[str, Any]
