"""Prompts to token sequences: the chat template around the user's turn, and places for the visual tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lvqa.models.positions import Cells, Heard, position_ids
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.records import LvqaError

SENTINEL = "lvqa-content-5d1f0c"


@dataclass(frozen=True, slots=True)
class Special:
    """A special token, by its text."""

    text: str


Shown = str | Special | Cells | Heard
"""What stands for a block in the sequence: plain text, special tokens, and the places of its visual or sound tokens."""
Show = Callable[[ClipTokens], Iterable[Shown]]


@dataclass(frozen=True, slots=True, eq=False)
class Sequence3D:
    """One prompt, ready for the model."""

    ids: Tensor
    """(sequence,) int64; the pad id where a visual token goes, or one of sound."""
    positions: Tensor
    """(3, sequence) int64."""
    visual: Tensor
    """(sequence,) bool: the places of what is not text."""
    blocks: tuple[ClipTokens, ...]
    """What goes there, in order."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Several prompts, padded on the left, so that the last place is the last of each."""

    ids: Tensor
    """(batch, sequence) int64."""
    positions: Tensor
    """(3, batch, sequence) int64; 0 where padded."""
    visual: Tensor
    """(batch, sequence) bool."""
    mask: Tensor | None
    """(batch, sequence) bool, false where padded; None without padding."""
    blocks: tuple[ClipTokens, ...]


class ChatTemplate:
    """The tokenizer and its chat template; `show` says what stands for a block, `pad` where a visual token goes, and
    `sound_pad` where one of sound does.

    `after` is the text between a block and whatever follows it.

    Special tokens that occur in a prompt's text are spelt out as plain characters: a question can't end the turn.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        show: Show,
        pad: Special,
        sound_pad: Special | None = None,
        others: Sequence[Special] = (),
        after: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        specials = [token.content for token in tokenizer.added_tokens_decoder.values()]
        pads = (pad,) if sound_pad is None else (pad, sound_pad)
        lacking = [token.text for token in (*pads, *others) if token.text not in specials]
        if lacking:
            raise LvqaError(f"the tokenizer in {tokenizer.name_or_path} has no token {lacking[0]}")
        self._show, self._after = show, after
        self._pads = dict(zip((Cells, Heard), map(self._id, pads), strict=False))
        before, after = self._render(SENTINEL)
        # The template's own text next to the content is tokenised together with it, as the library would.
        head = max(before.rfind(token) + len(token) for token in specials if token in before)
        tail = min(after.find(token) for token in specials if token in after)
        self._head, self._near_head = self._template_ids(before[:head]), before[head:]
        self._near_tail, self._tail = after[:tail], self._template_ids(after[tail:])

    def _render(self, text: str) -> list[str]:
        """What the template puts before and after a user's text; some take it bare, some as one part of several."""
        if self.tokenizer.chat_template is None:
            raise LvqaError(f"the model in {self.tokenizer.name_or_path} has no chat template; use one tuned to answer")
        for content in (text, [{"type": "text", "text": text}]):
            message = [{"role": "user", "content": content}]
            rendered = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            if text in rendered:
                return rendered.split(text)  # type: ignore[no-any-return]
        raise LvqaError(f"the chat template in {self.tokenizer.name_or_path} does not show the user's text")

    def _id(self, token: Special) -> int:
        return self.tokenizer.convert_tokens_to_ids(token.text)  # type: ignore[no-any-return]

    def _template_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids  # type: ignore[no-any-return]

    def text_ids(self, text: str) -> list[int]:
        """The tokens of plain text; no special token is recognised in it."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids  # type: ignore[no-any-return]

    def encode(self, prompt: Prompt, *, is_whole: bool = True) -> Sequence3D:
        """The prompt as the one user turn, up to where the reply begins; not whole: up to the end of its last block."""
        if not is_whole and (not prompt or isinstance(prompt[-1], str)):
            raise ValueError("a beginning must end with a visual block, for text is tokenised with what follows it")
        parts = (self._near_head, *prompt, self._near_tail) if is_whole else (self._near_head, *prompt)
        shown = self._shown(parts)
        if is_whole:
            return self._sequence(self._head, shown, self._tail, prompt)
        return self._sequence(self._head, shown[:-1], [], prompt)  # what is between it and the rest begins the rest

    def encode_suffix(self, prompt: Prompt, first_position: int) -> Sequence3D:
        """What follows such a beginning, whose positions end before `first_position`."""
        rest = self._sequence([], [self._after, *self._shown((*prompt, self._near_tail))], self._tail, prompt)
        return replace(rest, positions=first_position + rest.positions)

    def _shown(self, parts: Prompt) -> list[Shown]:
        groups = ([part] if isinstance(part, str) else [*self._show(part), self._after] for part in parts)
        return list(itertools.chain.from_iterable(groups))

    def _sequence(self, head: list[int], content: Sequence[Shown], tail: list[int], prompt: Prompt) -> Sequence3D:
        ids = list(head)
        visual = [False] * len(ids)
        runs: list[int | Cells | Heard] = [len(ids)]

        def add(tokens: list[int], run: int | Cells | Heard) -> None:
            ids.extend(tokens)
            visual.extend([not isinstance(run, int)] * len(tokens))
            runs.append(run)

        for is_text, group in itertools.groupby(content, key=lambda part: isinstance(part, str)):
            if is_text:
                tokens = self.text_ids("".join(str(part) for part in group))
                add(tokens, len(tokens))
                continue
            for part in group:
                if isinstance(part, Cells | Heard):
                    add([self._pads[type(part)]] * len(part), part)
                elif isinstance(part, Special):
                    add([self._id(part)], 1)
        add(tail, len(tail))
        blocks = tuple(part for part in prompt if isinstance(part, ClipTokens))
        return Sequence3D(torch.tensor(ids), position_ids(runs), torch.tensor(visual), blocks)


def collate(sequences: Sequence[Sequence3D]) -> Batch:
    """The sequences as one batch, in their order."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = int(lengths.max())
    mask = torch.arange(longest) >= (longest - lengths)[:, None]  # (batch, sequence)
    return Batch(
        ids=_pad_left([sequence.ids for sequence in sequences]),
        positions=_pad_left([sequence.positions.T for sequence in sequences]).permute(2, 0, 1),
        visual=_pad_left([sequence.visual for sequence in sequences]),
        mask=None if bool(mask.all()) else mask,
        blocks=tuple(block for sequence in sequences for block in sequence.blocks),
    )


def _pad_left(rows: list[Tensor]) -> Tensor:
    """(batch, longest, ...) with zeros before the shorter rows."""
    return pad_sequence(rows, batch_first=True, padding_side="left")
