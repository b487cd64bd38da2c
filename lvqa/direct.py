"""Ask the model itself: it sees what is sent, all of it and nothing else. Nothing is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvqa.answering import Answerer
from lvqa.audio import read_audio
from lvqa.components import selector_of
from lvqa.pairs import PACKINGS
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question, Video
from lvqa.schema import AnswerSchema
from lvqa.visual_tokens import image_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prompt import Part, Prompt


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a message."""

    path: Path


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound in a message, for a model that hears."""

    path: Path


Content = str | Picture | Sound | Video
"""A part of a message. Of a video the model sees frames at an even step, as many as `selection.frames` says."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token of a reply, or one that could stand in its place."""

    id: int
    text: str
    log_prob: float
    top: tuple[TokenScore, ...] = ()
    """The likeliest tokens in its place, and after them those that were asked for."""


@dataclass(frozen=True, slots=True)
class DirectReply:
    """What the model replies."""

    text: str
    prompt_tokens: int
    is_cut: bool
    """Whether the bound ended it."""
    tokens: tuple[TokenScore, ...] = field(default=(), repr=False)
    """Its tokens; the one that ends it is the last."""


def reply(
    qa: LongVideoQA,
    turns: Sequence[Turn],
    *,
    max_new_tokens: int = 64,
    schema: str | None = None,
    num_top: int = 0,
    token_ids: Sequence[int] = (),
) -> DirectReply:
    """Return the model's reply to a conversation. Its tokens are chosen as `answer.generation` says.

    Args:
        qa: The pipeline of the model; videos are opened in it.
        turns: The last one is the user's, and may have pictures, sounds and videos; earlier ones are text.
        max_new_tokens: The bound on the reply.
        schema: A JSON schema that a reply fits unless it is cut, as `schema_text` returns it; the model isn't told.
        num_top: So many of the likeliest tokens are scored at each position.
        token_ids: These tokens are scored at each position, too.

    Raises:
        LvqaError: The last turn is not the user's, an earlier one is no text, or there is no such token.
    """
    model = qa.model
    tokens: list[TokenScore] = []

    def on_token(_: int, token: int, logits: Tensor) -> None:
        tokens.append(_score(model.tokenizer, token, logits, num_top, token_ids))

    prompt = _prompt(qa, turns)
    num_tokens, _ = model.prompt_length(prompt)
    (text,) = model.generate(
        [prompt],
        max_new_tokens=max_new_tokens,
        decoding=model.decoding(qa.config.answer.generation, seed=qa.config.seed),
        schemas=[None if schema is None else AnswerSchema(schema)],
        on_token=on_token,
    )
    ends = {model.tokenizer.eos_token_id}
    is_cut = len(tokens) == max_new_tokens and tokens[-1].id not in ends
    return DirectReply(text, num_tokens, is_cut, tuple(tokens))


def _prompt(qa: LongVideoQA, turns: Sequence[Turn]) -> Prompt:
    from lvqa.models.prompt import AssistantTurn, SystemText, UserTurn

    kinds = {"system": SystemText, "user": UserTurn, "assistant": AssistantTurn}
    if not turns or turns[-1].role != "user":
        raise LvqaError("the last message of a conversation must be the user's")
    parts: list[Part] = []
    for turn in turns[:-1]:
        if not all(isinstance(content, str) for content in turn.content):
            raise LvqaError("pictures, sounds and videos stand in the last message; earlier ones are text")
        parts.append(kinds[turn.role]("\n".join(map(str, turn.content))))
    for content in turns[-1].content:
        parts += _parts(qa, content)
    return tuple(parts)


def _parts(qa: LongVideoQA, content: Content) -> list[Part]:
    """Return what shows a part of a message to the model."""
    model, max_pixels = qa.model, qa.spec.frames.max_pixels
    match content:
        case Picture():
            return [image_tokens(content.path, model, max_pixels=max_pixels)]
        case Sound():
            return [model.encode_audio(read_audio(content.path))]
        case Video():
            return _video_parts(qa, content)
    return [content]


def _video_parts(qa: LongVideoQA, video: Video) -> list[Part]:
    """Return frames of a video at an even step, with their times as in an answer."""
    selector = selector_of(qa.config, "uniform")
    answerer = Answerer.of(qa.model, qa.config.answer)
    with qa.open(video) as session:  # one at a time: who held one video and waited for another could wait for ever
        inputs = qa.ranker.selector_input(session, Question(""), None, None, selector, qa.config.selection)
        pairs = PACKINGS[answerer.packing](
            map(session.grid.frame_at, selector.select(inputs).times_seconds), session.grid
        )
        return answerer.frame_parts(pairs, session.tokens)


def _score(tokenizer: Any, token: int, logits: Tensor, num_top: int, token_ids: Sequence[int]) -> TokenScore:
    log_probs = logits.float().log_softmax(-1)
    if token_ids and not all(0 <= other < len(log_probs) for other in token_ids):
        raise LvqaError(f"a token id must be from 0 to {len(log_probs) - 1}, got {list(token_ids)}")
    likeliest = log_probs.topk(num_top).indices.tolist() if num_top else []

    def scored(other: int) -> TokenScore:
        return TokenScore(other, tokenizer.decode([other]), float(log_probs[other]))

    top = tuple(scored(other) for other in dict.fromkeys((*likeliest, *token_ids)))
    return TokenScore(token, tokenizer.decode([token]), float(log_probs[token]), top)
