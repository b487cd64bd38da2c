"""What requests of our own API hold. OpenAPI describes it from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lvqa.records import LETTERS

MAX_FRAMES = 1024
"""So many frames a request may ask for at most."""
MAX_TOP = 1000
MAX_CHARACTERS = 8000
"""A text is no longer: what the pipeline takes for a question."""

Line = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Body(BaseModel):
    """A body without keys that nobody knows."""

    model_config = ConfigDict(extra="forbid")


class Turn(Body):
    """An earlier turn of a conversation."""

    question: Line = Field(description="What was asked.")
    answer: Line = Field(description="What was answered.")


class Condition(Body):
    """Which videos of the library are taken: those that meet all conditions."""

    videos: list[Reference] = Field(default=[], max_length=1000, description="Ids, or absolute paths, of videos.")
    folder: Reference | None = Field(default=None, description="The absolute path of a folder; those below it count.")
    since: float | None = Field(default=None, description="Files changed then or later, in seconds since 1970.")
    until: float | None = Field(default=None, description="Files changed before then, in seconds since 1970.")
    min_seconds: float | None = Field(default=None, description="The shortest duration.")
    max_seconds: float | None = Field(default=None, description="The longest duration.")


class Query(Body):
    """What a question and a search share."""

    video: Reference | None = Field(default=None, description="The video: its id, or its path on the server.")
    library: bool = Field(default=False, description="Take all indexed videos instead of one.")
    condition: Condition = Field(default=Condition(), description="Which videos of the library are taken.")
    image: str | None = Field(default=None, description="A picture that belongs to the question, as a data: URL.")


class AskRequest(Query):
    """A question about a video, or about the library."""

    question: Line = Field(default="", description="The question; it may be empty if `voice` asks it.")
    options: list[Line] = Field(default=[], max_length=len(LETTERS), description="2 to 20 possible answers, or none.")
    voice: str | None = Field(default=None, description="A sound file that asks the question, as a data: URL.")
    answer_schema: dict[str, Any] | None = Field(
        default=None, alias="schema", description="A JSON schema that the answer fits, which is then an object."
    )
    history: list[Turn] = Field(
        default=[], max_length=32, description="The earlier turns of the conversation, oldest first."
    )
    frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES, description="How many frames the model may see.")
    method: str | None = Field(
        default=None, max_length=64, description="How the frames are chosen: a built-in method's name."
    )
    settings: list[Line] = Field(
        default=[], max_length=32, description="Further settings as `-s` takes them: rerank.pool=20."
    )
    stream: bool = Field(
        default=False, description="Send server-sent events: waiting, indexing, ranking, frames, answer."
    )
    record: bool = Field(default=False, description="Add the whole answer, as `LongVideoQA.connect` reads it.")


class SearchRequest(Query):
    """A search in one video, or in the library."""

    query: Line = Field(default="", description="What is searched for; it may be empty if `image` is.")
    top: int = Field(default=5, ge=1, le=MAX_TOP, description="How many clips to return, best first.")
    rerank: bool = Field(default=True, description="Let the model look at the best clips again, as in `ask`.")
    moments: bool = Field(default=False, description="In the library, join clips that follow each other.")
    exact: bool = Field(default=False, description="In the library, read the indexes of all videos.")
    light: bool = Field(default=False, description="In the library, search key frames, and rerank with all frames.")
    stream: bool = Field(default=False, description="Send server-sent events: waiting, indexing, ranking, results.")
    record: bool = Field(default=False, description="Add the whole result, as `LongVideoQA.connect` reads it.")


class AddRequest(Body):
    """A video to add: a file in the served folders, or an address if `--allow-urls` is on."""

    path: Reference | None = Field(default=None, description="The absolute path of a file in the served folders.")
    url: Reference | None = Field(default=None, description="The address of a video file.")


class IndexRequest(Body):
    """What may be said about indexing."""

    rebuild: bool = Field(default=False, description="Build the index even if it is there.")


class LoginRequest(Body):
    """The token, which a page changes into a cookie."""

    token: str = Field(max_length=4096)


class NoteRequest(Body):
    """A note on a question of a run."""

    key: Line = Field(description="The question: its key in the list of questions.")
    text: Line = Field(description="The note; an empty one takes it away.")


class RowQuery(BaseModel):
    """Which rows of a run are listed, and in which order."""

    arm: str | None = Field(default=None, description="An arm's name.")
    budget: int | None = Field(default=None, description="A budget of frames.")
    video: str | None = Field(default=None, description="A video's id in the dataset.")
    tag: str | None = Field(default=None, description="A question type.")
    text: str | None = Field(default=None, max_length=1000, description="What question, options or answer contain.")
    correct: bool | None = Field(default=None, description="Whether the answer is correct.")
    evidence: Literal["shown", "found", "missed"] | None = Field(
        None, description="Whether a frame of the annotated time was shown, its clip was only found, or neither."
    )
    warnings: bool | None = Field(default=None, description="Whether the row has warnings.")
    sort: Literal["asked", "confidence", "-confidence"] = Field(default="asked", description="The order of the rows.")
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=1000)
