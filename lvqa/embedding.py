"""Clips and questions -> unit vectors, by FreeRet's controlled prompt (section 3.2 of the paper).

The model is asked to put the content into one word, and the state from which it would say that word is the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lvqa import prompts
from lvqa.backbones import Backbone
from lvqa.backbones.prompt import Prompt, VisualBlock


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

    def clips(self, backbone: Backbone, blocks: Sequence[VisualBlock]) -> np.ndarray:
        """(clips, dim) float32, unit length."""
        return self._vectors(backbone, [self.clip_prompt(block) for block in blocks])

    def query(self, backbone: Backbone, text: str, *, image: Prompt = ()) -> np.ndarray:
        """(dim,) float32, unit length. `image` is what shows the query's picture, if it has one."""
        vector: np.ndarray = self._vectors(backbone, [self.query_prompt(text, image=image)])[0]
        return vector

    def clip_prompt(self, block: VisualBlock) -> Prompt:
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

    def _vectors(self, backbone: Backbone, shown: Sequence[Prompt]) -> np.ndarray:
        states = backbone.last_states(shown, state=self.state, final_norm=self.final_norm)
        states = states / states.norm(dim=1, keepdim=True)
        return np.asarray(states.cpu().numpy(), dtype=np.float32)
