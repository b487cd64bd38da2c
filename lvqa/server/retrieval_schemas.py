"""What requests for embeddings and for reranking hold: OpenAI's form, and that of Jina and Cohere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lvqa.prompts import RetrievalTask
from lvqa.server.chat_schemas import Loose, Part
from lvqa.server.schemas import MAX_FRAMES, Body, Reference

MAX_ITEMS = 2048
"""So many inputs or documents a request may have, as OpenAI's own."""
MAX_ITEM_CHARACTERS = 32_000
"""The text of an item is no longer."""

ItemText = Annotated[str, StringConstraints(max_length=MAX_ITEM_CHARACTERS)]
Noun = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class ItemBody(Body):
    """A text, a picture, a video or a clip of one, a sound, or several of them together."""

    text: ItemText = Field(default="", description="A text, alone or beside the media.")
    image: str | None = Field(default=None, description="A picture: a data: URL, or a file:// path.")
    video: str | None = Field(
        default=None, description="A video: its id, its path, a data: URL, or an address if the server fetches some."
    )
    start_seconds: float | None = Field(default=None, ge=0, le=1e9, description="Where a clip of it begins.")
    end_seconds: float | None = Field(default=None, ge=0, le=1e9, description="Where the clip ends.")
    num_frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES, description="How many frames are seen at most.")
    sound: str | None = Field(default=None, description="A sound, as a data: URL.")
    voice: str | None = Field(default=None, description="A sound that asks for what is searched, as a data: URL.")


AnyItem = ItemText | ItemBody | Annotated[list[Part], Field(min_length=1, max_length=64)]
"""An item: a text, an object, or parts as in a message of a chat, which are one item together."""


class TaskBody(Body):
    """The task's own words in the prompts; what is left out is as for questions about clips."""

    query: Noun | None = Field(default=None, description='What a query is: "image and news".')
    candidate: Noun | None = Field(default=None, description='What a candidate is: "sentence".')
    query_topic: Noun | None = Field(default=None, description="Whose topic a query's vector favours.")
    candidate_topic: Noun | None = Field(default=None, description="Whose topic a candidate's vector favours.")
    relation: tuple[Noun, Noun] | None = Field(default=None, description="What is assessed to be related.")
    instruction: Sentence | None = Field(default=None, description="How the reranking prompt begins.")
    match: Sentence | None = Field(default=None, description="The option for a candidate that matches.")
    mismatch: Sentence | None = Field(default=None, description="The option for another one.")

    def to_task(self) -> RetrievalTask:
        """Return the task."""
        return RetrievalTask(**self.model_dump(exclude_none=True))


class EmbeddingsRequest(Loose):
    """Items to embed, in OpenAI's form; `input_type` is that of Cohere and Voyage."""

    model: Reference
    input: ItemText | list[Part] | Annotated[list[AnyItem], Field(max_length=MAX_ITEMS)] = Field(
        description="A text; parts as in a message, which are one item; or a list of items."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, description="The model's own width, or left out.")
    input_type: Literal["query", "document"] | None = Field(
        default=None, description="Which side of the search it is; left out: a text is a query, all else a document."
    )
    task: TaskBody | None = None

    @property
    def items(self) -> list[Any]:
        """The items, as a list."""
        if isinstance(self.input, str) or all(isinstance(item, Part) for item in self.input):
            return [self.input] if self.input else []
        return list(self.input)


class RerankBody(Loose):
    """A query and documents to rerank, in the form of Jina and Cohere."""

    model: Reference
    query: AnyItem
    documents: list[AnyItem] = Field(min_length=1, max_length=MAX_ITEMS)
    top_n: int | None = Field(default=None, ge=1, description="How many results to return; left out: all.")
    return_documents: bool = Field(default=False, description="Add each document as it was sent.")
    task: TaskBody | None = None
