"""The content of a model's prompt: text and encoded clips in order, all in one user turn."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

Seconds = tuple[float, float]
"""The times of the two frames of a pair; twice the same time for a frame without a partner."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipTokens:
    """The visual tokens of a run of frame pairs. The model sees them as one video."""

    tokens: Tensor
    """The visual tokens as the model has encoded them, (pairs, rows * cols, width)."""
    rows: int
    cols: int
    seconds: tuple[Seconds, ...] = ()
    """The times of each pair, in seconds from the clip's own zero, never falling; empty: pairs follow evenly."""
    is_image: bool = False
    """Whether this is a picture and not video."""
    source: Hashable = None
    """What tells the clip from all others of its video; None: nothing but the object does."""

    def __post_init__(self) -> None:
        pairs, cells = self.tokens.shape[:2]
        if pairs == 0 or cells != self.rows * self.cols or len(self.seconds) not in (0, pairs):
            raise ValueError(
                f"tokens of shape {tuple(self.tokens.shape)} are no clip of {self.rows} x {self.cols} cells "
                f"with the seconds of {len(self.seconds)} pairs"
            )

    @property
    def num_pairs(self) -> int:
        """How many frame pairs the clip has."""
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the tokens take."""
        return self.tokens.nbytes


class AudioTokens(ClipTokens):
    """Encoded audio: each of its tokens has the shape of a pair with one cell."""


class SystemText(str):
    """The system message, in place of that of the model's own template; it stands nowhere in the user's turn."""

    __slots__ = ()


class UserTurn(str):
    """What was said in an earlier turn of the conversation by the user: text alone."""

    __slots__ = ()


class AssistantTurn(str):
    """What was said in an earlier turn of the conversation by the model."""

    __slots__ = ()


class ReplyStart(str):
    """What the reply begins with; the model goes on from there. It may be the last part of a prompt."""

    __slots__ = ()


Part = str | ClipTokens
"""A piece of text, or a clip."""
Prompt = tuple[Part, ...]
"""The content of the one user turn, in order."""
