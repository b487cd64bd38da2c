"""Turn clips, questions and other content into unit vectors, by FreeRet's controlled prompt (section 3.2 and 3.3).

The model is prompted to put the content into one word. The state from which it would say that word is the vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lvqa import prompts
from lvqa.models import Model
from lvqa.prompts import RetrievalTask

if TYPE_CHECKING:
    from lvqa.models.prompt import ClipTokens, Prompt

Content = tuple[str, "Prompt"]
"""What is embedded: a text, which may be empty, and the media that stand before it."""

CLIPS_AT_ONCE = 16
"""How many clips or questions are embedded in one batch."""
EMBEDDING_FORMAT = 1
"""Raise this number when the same clip, settings and model get another vector: it is in every index's fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """Which state of the model is the vector, and which prompt leads to it."""

    state: str = "attention"
    """`attention`: the residual stream at the last position, after the last layer's attention and before its MLP."""
    final_norm: bool = False
    """Whether the model's final norm is applied to the state."""
    prompt: str = "freeret"
    """The prompt: `freeret`, or `e5v` for the paper's baseline."""
    task: bool = True
    """Whether the prompt has FreeRet's first constraint, the task."""
    semantics: bool = True
    """Whether it has the second one, semantics."""
    noise: bool = True
    """Whether it has the third one, noise."""
    nouns: RetrievalTask = prompts.VIDEO_RETRIEVAL
    """What the prompt calls the two sides of retrieval."""
    wording: str = "lvqa"
    """One of prompts.WORDINGS."""

    def for_task(self, nouns: RetrievalTask) -> Embedder:
        """Return the same embedder with a prompt that has another task's nouns."""
        return replace(self, nouns=nouns)

    def clips(self, model: Model, clips: Iterable[ClipTokens]) -> np.ndarray:
        """Embed clips.

        A GPU is waited for only at the end: while it works, the next clips are decoded.

        Args:
            model: The model that embeds.
            clips: The visual tokens of each clip.

        Returns:
            (clips, dim) float32 vectors of unit length.
        """
        return self.candidates(model, (("", (clip,)) for clip in clips))

    def candidates(self, model: Model, candidates: Iterable[Content]) -> np.ndarray:
        """Embed what is searched; a clip is a content without a text. See `queries`."""
        return self._vectors(model, (self.candidate_prompt(text, media=media) for text, media in candidates))

    def queries(self, model: Model, queries: Iterable[Content]) -> np.ndarray:
        """Embed queries.

        Args:
            model: The model that embeds.
            queries: The text of each query, and what shows its picture or its voice.

        Returns:
            (queries, dim) float32 vectors of unit length.
        """
        return self._vectors(model, (self.query_prompt(text, media=media) for text, media in queries))

    def clip_prompt(self, clip: ClipTokens) -> Prompt:
        """Return the prompt that leads to a clip's vector."""
        return self.candidate_prompt(media=(clip,))

    def candidate_prompt(self, text: str = "", *, media: Prompt = ()) -> Prompt:
        """Return the prompt that leads to a candidate's vector."""
        return self._after_content(text, media, self._candidate_instruction())

    def query_prompt(self, text: str, *, media: Prompt = ()) -> Prompt:
        """Return the prompt that leads to a query's vector."""
        nouns = self.nouns
        return self._after_content(text, media, self._instruction(nouns.query, nouns.candidate, nouns.query_topic))

    def to_dict(self) -> dict[str, object]:
        """Return what tells these vectors from others, for a fingerprint: the switches, and the prompt's own words."""
        switches = asdict(self)
        nouns, wording = switches.pop("nouns"), switches.pop("wording")
        own = {} if self.nouns == prompts.VIDEO_RETRIEVAL else {"nouns": nouns}
        own |= {} if wording == "lvqa" else {"wording": wording}
        return {**switches, "text": self._candidate_instruction(), **own}

    def _candidate_instruction(self) -> str:
        return self._instruction(self.nouns.candidate, self.nouns.query, self.nouns.candidate_topic)

    def _instruction(self, content: str, other: str, topic: str | None) -> str:
        if self.prompt == "e5v":
            return prompts.embedding_e5v(content, wording=self.wording)
        nouns = self.nouns
        # In the paper's Figure 3 both sides have one task sentence.
        one_sentence = (nouns.candidate, nouns.query) if self.wording == "paper" else None
        return prompts.embedding(
            content,
            other=other,
            topic=topic,
            relation=nouns.relation or one_sentence,
            task=self.task,
            semantics=self.semantics,
            noise=self.noise,
            wording=self.wording,
        )

    def _after_content(self, text: str, media: Prompt, instruction: str) -> Prompt:
        """Return the whole prompt. In the paper's equation 1 what follows the content is on a line of its own."""
        is_apart = bool(text) or self.wording == "paper"
        return *media, f"{text}\n{instruction}" if is_apart else instruction

    def _vectors(self, model: Model, inputs: Iterator[Prompt]) -> np.ndarray:
        import torch

        vectors = []
        while batch := list(itertools.islice(inputs, CLIPS_AT_ONCE)):
            states = model.last_hidden_states(batch, state=self.state, final_norm=self.final_norm)
            # Here and not at the end: how a norm is rounded depends on how many there are.
            vectors.append(states / states.norm(dim=1, keepdim=True))
        return np.asarray(torch.cat(vectors).cpu().numpy(), dtype=np.float32)
