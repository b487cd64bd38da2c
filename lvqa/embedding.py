"""Clips and questions -> unit vectors, by FreeRet's controlled prompt (section 3.2 of the paper).

The model is asked to put the content into one word, and the state from which it would say that word is the vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from lvqa import prompts
from lvqa.models import Model
from lvqa.models.prompt import ClipTokens, Prompt

CLIPS_AT_ONCE = 16
"""Are read together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """Which state is the vector, and which prompt asks for it."""

    state: str = "attention"
    """`attention`: the residual stream at the last position, after the last layer's attention and before its MLP."""
    final_norm: bool = False
    prompt: str = "freeret"
    task: bool = True
    semantics: bool = True
    noise: bool = True

    def clips(self, model: Model, blocks: Iterable[ClipTokens]) -> np.ndarray:
        """(clips, dim) float32, unit length. A GPU is waited for at the end alone: as it works, more is decoded."""
        return self._vectors(model, map(self.clip_prompt, blocks))

    def query(self, model: Model, text: str, *, image: Prompt = ()) -> np.ndarray:
        """(dim,) float32, unit length. `image` is what shows the query's picture, if it has one."""
        vector: np.ndarray = self.queries(model, [(text, image)])[0]
        return vector

    def queries(self, model: Model, asked: Iterable[tuple[str, Prompt]]) -> np.ndarray:
        """(queries, dim) float32, unit length: of texts, each with what shows its picture."""
        return self._vectors(model, (self.query_prompt(text, image=image) for text, image in asked))

    def clip_prompt(self, block: ClipTokens) -> Prompt:
        """What asks for a clip's vector."""
        return block, self._text(prompts.CLIP)

    def query_prompt(self, text: str, *, image: Prompt = ()) -> Prompt:
        """What asks for a question's vector."""
        return (
            *image,
            f"{text}\n{self._text(prompts.QUERY)}",
        )

    @property
    def stamp(self) -> dict[str, object]:
        """What tells these vectors from others: the switches, and the words themselves."""
        return {**asdict(self), "text": self._text(prompts.CLIP)}

    def _text(self, of: str) -> str:
        if self.prompt == "e5v":
            return prompts.embedding_e5v(of)
        return prompts.embedding(of, task=self.task, semantics=self.semantics, noise=self.noise)

    def _vectors(self, model: Model, shown: Iterator[Prompt]) -> np.ndarray:
        import torch

        vectors = []
        while some := list(itertools.islice(shown, CLIPS_AT_ONCE)):
            states = model.last_hidden_states(some, state=self.state, final_norm=self.final_norm)
            # Here and not at the end: how a norm is rounded depends on how many there are.
            vectors.append(states / states.norm(dim=1, keepdim=True))
        return np.asarray(torch.cat(vectors).cpu().numpy(), dtype=np.float32)
