"""Prompts to token sequences: the chat template around the user's turn, and positions for the visual tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lvqa.models.positions import AudioTokenSpan, Span, VisualTokenSpan, position_ids
from lvqa.models.prefix import PrefixKV
from lvqa.models.prompt import AssistantTurn, ClipTokens, Prompt, ReplyStart, SystemText, UserTurn
from lvqa.records import LvqaError

SENTINEL = "lvqa-content-5d1f0c"
"""A text that no chat template contains; it marks where the user's content goes."""
THOUGHT = "<think>"
"""With this a template opens a thought."""
TEXTS_IN_MEMORY = 4096
"""The tokens of so many texts are kept: times and instructions stand in prompt after prompt."""


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A special token, by its text."""

    text: str


PromptPart = str | SpecialToken | VisualTokenSpan | AudioTokenSpan
"""What a prompt consists of once its clips are laid out: plain text, special tokens, and runs of encoded tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPrompt:
    """One prompt, ready for the model."""

    ids: Tensor
    """The token ids, (sequence,) int64; the pad token's id where a visual or an audio token goes."""
    positions: Tensor
    """The positions on three axes, (3, sequence) int64."""
    visual_mask: Tensor
    """Whether a visual or an audio token goes there, (sequence,) bool."""
    clips: tuple[ClipTokens, ...]
    """The encoded tokens that go there, in order."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def next_position(self) -> int:
        """The position of the first token after it."""
        return int(self.positions.max()) + 1

    def followed_by(self, ids: Sequence[int]) -> TokenizedPrompt:
        """Return the sequence with tokens of text behind it."""
        if not ids:
            return self
        positions = self.next_position + torch.arange(len(ids)).expand(3, -1)
        return TokenizedPrompt(
            torch.cat([self.ids, torch.tensor(ids)]),
            torch.cat([self.positions, positions], dim=1),
            torch.cat([self.visual_mask, torch.zeros(len(ids), dtype=torch.bool)]),
            self.clips,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Several prompts, padded on the left, so that the last position of the batch is the last of each prompt."""

    ids: Tensor
    """The token ids, (batch, sequence) int64."""
    positions: Tensor
    """The positions on three axes, (3, batch, sequence) int64; 0 where padded."""
    visual_mask: Tensor
    """Whether a visual or an audio token goes there, (batch, sequence) bool."""
    attention_mask: Tensor | None
    """False where padded, (batch, sequence) bool; None without padding."""
    clips: tuple[ClipTokens, ...]
    """The encoded tokens of all prompts, in order."""


@dataclass(frozen=True, slots=True)
class _TurnFrame:
    """What a chat template puts around the user's turn."""

    head: list[int]
    """The tokens of what stands before it, up to the last special token."""
    text_before: str
    text_after: str
    tail: str
    """What follows it, from the first special token on to where the reply begins."""


class ChatTemplate:
    """A tokenizer and its chat template, which make token sequences of prompts.

    Special tokens that occur in a prompt's text are encoded as plain characters: a question can't end the turn.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        lay_out: Callable[[ClipTokens], Iterable[PromptPart]],
        pad: SpecialToken,
        audio_pad: SpecialToken | None = None,
        delimiters: Sequence[SpecialToken] = (),
        text_after_clip: str = "",
    ) -> None:
        """Check the tokenizer, and take its template apart.

        Args:
            tokenizer: The library's tokenizer.
            lay_out: Returns the parts that a clip consists of in the token sequence.
            pad: Stands in the sequence where a visual token goes.
            audio_pad: Stands in the sequence where an audio token goes; None: the model takes no audio.
            delimiters: The other special tokens that clips are laid out with.
            text_after_clip: The text between a clip and whatever follows it.

        Raises:
            LvqaError: The tokenizer lacks one of these tokens, or has no chat template that can be used.
        """
        self.tokenizer = tokenizer
        specials = [token.content for token in tokenizer.added_tokens_decoder.values()]
        pads = (pad,) if audio_pad is None else (pad, audio_pad)
        lacking = [token.text for token in (*pads, *delimiters) if token.text not in specials]
        if lacking:
            raise LvqaError(f"the tokenizer in {tokenizer.name_or_path} has no token {lacking[0]}")
        self._lay_out, self._text_after_clip = lay_out, text_after_clip
        self._text_ids: LRUCache[str, tuple[int, ...]] = LRUCache(TEXTS_IN_MEMORY)
        self._pad_ids = dict(zip((VisualTokenSpan, AudioTokenSpan), map(self._id, pads), strict=False))
        self._specials = specials
        self._frames = {"": self._frame_of("")}

    def _frame_of(self, system: str, earlier: Sequence[UserTurn | AssistantTurn] = ()) -> _TurnFrame:
        """Return what the template puts around the user's turn, after this system message or its own."""
        if any(token in text for text in earlier for token in self._specials):
            raise LvqaError("an earlier turn has the text of a special token, which would end it")
        before, after = self._render(SENTINEL, system, earlier)
        if after.rstrip().endswith(THOUGHT):
            raise LvqaError(
                f"the chat template in {self.tokenizer.name_or_path} begins every reply with a thought, so that its "
                "first token is no answer; use the model of the same family that was tuned to answer at once (Instruct)"
            )
        if not all(any(token in text for token in self._specials) for text in (before, after)):
            where = self.tokenizer.name_or_path
            raise LvqaError(f"the chat template in {where} has none of the tokenizer's special tokens around a turn")
        # The template's own text next to the content is tokenised together with it, as the library would.
        head_end = max(before.rfind(token) + len(token) for token in self._specials if token in before)
        tail_start = min(after.find(token) for token in self._specials if token in after)
        head = self._template_ids(before[:head_end])
        return _TurnFrame(head, before[head_end:], after[:tail_start], after[tail_start:])

    def _frame(self, system: str = "") -> _TurnFrame:
        if system not in self._frames:
            self._frames[system] = self._frame_of(system)
        return self._frames[system]

    def _render(self, text: str, system: str, earlier: Sequence[UserTurn | AssistantTurn]) -> list[str]:
        """Return what the template puts before and after a user's text; some want it as one item of a list."""
        where = self.tokenizer.name_or_path
        if self.tokenizer.chat_template is None:
            raise LvqaError(f"the model in {where} has no chat template; use one tuned to answer")
        contents = [("system", system)] if system else []
        contents += [("user" if isinstance(turn, UserTurn) else "assistant", str(turn)) for turn in earlier]
        contents.append(("user", text))
        for as_list in (False, True):
            messages = [
                {"role": role, "content": [{"type": "text", "text": content}] if as_list else content}
                for role, content in contents
            ]
            # A template that lets models think or not is asked for no thought; others don't look at the argument.
            options = {"add_generation_prompt": True, "enable_thinking": False}
            rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
            if text in rendered and system not in rendered:
                raise LvqaError(f"the chat template in {where} has no place for a system message")
            if text in rendered:
                return rendered.split(text)  # type: ignore[no-any-return]
        raise LvqaError(f"the chat template in {where} does not show the user's text")

    def _id(self, token: SpecialToken) -> int:
        return self.tokenizer.convert_tokens_to_ids(token.text)  # type: ignore[no-any-return]

    def _template_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids  # type: ignore[no-any-return]

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of plain text; no special token is recognised in it. Texts come again and again."""
        ids = self._text_ids.get(text)
        if ids is None:
            ids = tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
            self._text_ids[text] = ids
        return ids

    def encode(self, prompt: Prompt) -> TokenizedPrompt:
        """Return the prompt as the one user turn, up to where the reply begins or goes on."""
        system = "".join(part for part in prompt if isinstance(part, SystemText))
        earlier = [part for part in prompt if isinstance(part, UserTurn | AssistantTurn)]
        frame = self._frame_of(system, earlier) if earlier else self._frame(system)
        reply_start = "".join(part for part in prompt if isinstance(part, ReplyStart))
        content = tuple(p for p in prompt if not isinstance(p, SystemText | ReplyStart | UserTurn | AssistantTurn))
        parts = self._lay_out_all((frame.text_before, *content, frame.text_after))
        return self._tokenize(frame.head, parts, self._template_ids(frame.tail + reply_start), content)

    def encode_prefix(self, prompt: Prompt, lead: str = "") -> TokenizedPrompt:
        """Return a prompt up to the end of its last clip, and the tokens of a text behind it.

        Raises:
            ValueError: The prompt does not end with a clip.
        """
        if not prompt or isinstance(prompt[-1], str):
            raise ValueError("a prefix must end with a clip, for text is tokenised with what follows it")
        frame = self._frame("".join(part for part in prompt if isinstance(part, SystemText)))
        content = tuple(part for part in prompt if not isinstance(part, SystemText))
        parts = self._lay_out_all((frame.text_before, *content))[:-1]  # the text after the clip begins the suffix
        return self._tokenize(frame.head, parts, self.lead_ids(lead), content)

    def lead_ids(self, lead: str) -> tuple[int, ...]:
        """Return the tokens with which a suffix begins that begins with this text; nothing without a text."""
        return self.text_ids(self._text_after_clip + lead) if lead else ()

    def encode_suffix(self, prompt: Prompt, first_position: int) -> TokenizedPrompt:
        """Return what follows a prefix, up to where the reply begins; its positions start at `first_position`."""
        frame, reply_start = self._frame(), "".join(part for part in prompt if isinstance(part, ReplyStart))
        content = tuple(part for part in prompt if not isinstance(part, ReplyStart))
        parts = [self._text_after_clip, *self._lay_out_all((*content, frame.text_after))]
        suffix = self._tokenize([], parts, self._template_ids(frame.tail + reply_start), content)
        return replace(suffix, positions=first_position + suffix.positions)

    def encode_rest(self, prefix: PrefixKV | None, prompt: Prompt) -> tuple[PrefixKV | None, TokenizedPrompt]:
        """Return a prefix as far as a prompt agrees with it, and what is left of the prompt.

        The text that was read with a prefix may end with other tokens where it goes on.

        Args:
            prefix: What was read; None: nothing.
            prompt: What follows the prefix's last clip; without a prefix the whole prompt.
        """
        if prefix is None:
            return None, self.encode(prompt)
        text = prefix.text_ids
        suffix = self.encode_suffix(prompt, prefix.next_position - len(text))
        agreeing = zip(text, suffix.ids[:-1].tolist(), strict=False)  # a suffix has a token at least
        num_read = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], agreeing))
        rest = TokenizedPrompt(
            suffix.ids[num_read:], suffix.positions[:, num_read:], suffix.visual_mask[num_read:], suffix.clips
        )
        return prefix.without_last(len(text) - num_read), rest

    def _lay_out_all(self, content: Prompt) -> list[PromptPart]:
        groups = ([x] if isinstance(x, str) else [*self._lay_out(x), self._text_after_clip] for x in content)
        return list(itertools.chain.from_iterable(groups))

    def _tokenize(
        self, head: list[int], parts: Sequence[PromptPart], tail: Sequence[int], prompt: Prompt
    ) -> TokenizedPrompt:
        ids = list(head)
        visual_mask = [False] * len(ids)
        spans: list[Span] = [len(ids)]

        def add(tokens: Sequence[int], span: Span) -> None:
            ids.extend(tokens)
            visual_mask.extend([not isinstance(span, int)] * len(tokens))
            spans.append(span)

        for is_text, group in itertools.groupby(parts, key=lambda part: isinstance(part, str)):
            if is_text:
                tokens = self.text_ids("".join(str(part) for part in group))
                add(tokens, len(tokens))
                continue
            for part in group:
                if isinstance(part, VisualTokenSpan | AudioTokenSpan):
                    add([self._pad_ids[type(part)]] * len(part), part)
                elif isinstance(part, SpecialToken):
                    add([self._id(part)], 1)
        add(tail, len(tail))
        clips = tuple(part for part in prompt if isinstance(part, ClipTokens))
        return TokenizedPrompt(torch.tensor(ids), position_ids(spans), torch.tensor(visual_mask), clips)


def collate(prompts: Sequence[TokenizedPrompt]) -> Batch:
    """Return the prompts as one batch, in their order."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    attention_mask = torch.arange(longest) >= (longest - lengths)[:, None]  # (batch, sequence)
    return Batch(
        ids=_pad_left([prompt.ids for prompt in prompts]),
        positions=_pad_left([prompt.positions.T for prompt in prompts]).permute(2, 0, 1),
        visual_mask=_pad_left([prompt.visual_mask for prompt in prompts]),
        attention_mask=None if bool(attention_mask.all()) else attention_mask,
        clips=tuple(clip for prompt in prompts for clip in prompt.clips),
    )


def _pad_left(rows: list[Tensor]) -> Tensor:
    """Return (batch, longest, ...) with zeros before the shorter rows."""
    return pad_sequence(rows, batch_first=True, padding_side="left")
