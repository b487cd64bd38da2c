"""What all models share: a decoder that reads text and visual tokens. An adapter adds how its family sees."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from lvqa.models import ENHANCEMENTS, gpu
from lvqa.models.batching import KEPT_TOKEN_COST, TokenBudget
from lvqa.models.chat import Batch, ChatTemplate, PromptPart, SpecialToken, TokenizedPrompt, collate
from lvqa.models.decoding import GREEDY, Decoding
from lvqa.models.devices import execution_device, keep_to_cores, to_device
from lvqa.models.enhancement import VisualEnhancement
from lvqa.models.exclusive import Exclusive, exclusive
from lvqa.models.forward import STATES, ForwardPasses
from lvqa.models.generation import Generator, OnToken, Reply, stop_ids
from lvqa.models.lm_head import LMHead
from lvqa.models.loading import load_pretrained
from lvqa.models.memory import default_batch_tokens, free_bytes, measured_bytes
from lvqa.models.prefix import PrefixKV
from lvqa.models.prompt import AudioTokens, ClipTokens, Prompt
from lvqa.records import LvqaError
from lvqa.schema import AnswerSchema

PATCHES_PER_TOKEN = 4
"""All these models merge two by two patches into a token."""


class Decoder(Exclusive, ABC):
    """A model of any size. It is never trained here, and its weights are never changed.

    An adapter gives the class variables without a value here a value, and defines `frame_size`, `token_grid`, `encode`
    and `lay_out`.
    """

    model_type: ClassVar[str]
    """The architecture, as config.json names it."""
    pad: ClassVar[SpecialToken]
    """This token stands in the sequence where a visual token goes."""
    audio_pad: ClassVar[SpecialToken | None] = None
    """This token stands in the sequence where an audio token goes; None: the model does not hear."""
    delimiters: ClassVar[tuple[SpecialToken, ...]]
    """The other special tokens that clips are laid out with."""
    video_in_template: ClassVar[str]
    """How the chat template of the family shows a video."""
    library_class: ClassVar[Any] = AutoModelForImageTextToText
    """The library's class that loads the weights."""
    text_after_clip: ClassVar[str] = ""
    """The text between a clip and what follows it."""
    default_packing: ClassVar[str] = "sampled"
    """How an answer's frames become pairs, if config.json does not say."""
    time_encoding = "text"
    max_pixels: int

    def __init__(
        self,
        library: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str,
        max_batch_tokens: int | None,
        quantisation: str | None = None,
    ) -> None:
        """Wrap the library's model, which lies on its device or devices already."""
        super().__init__()
        keep_to_cores()
        text_model = library.model.language_model
        self.device = execution_device(text_model.embed_tokens)
        """The device of the embeddings, where visual tokens and prefixes lie; layers may be on others."""
        if self.device.type == "cuda":
            gpu.fit(library)
        self.name, self.revision, self.quantisation = name, revision, quantisation
        self.library = library
        """The library's own model, whose weights these are."""
        self.tokenizer = tokenizer
        """The library's tokenizer, as it was loaded."""
        self.dtype: torch.dtype = text_model.embed_tokens.weight.dtype
        """The precision of the states and the tokens, and of the weights that are not packed."""
        self.dim = int(library.config.text_config.hidden_size)
        """The width of the states."""
        self.rerank_layout = str(getattr(library.config, "rerank_layout", "question_first"))
        self.prompts = str(getattr(library.config, "prompts", "paper"))
        self.answer_mode = str(getattr(library.config, "answer_mode", "logits"))
        self.answer_packing = str(getattr(library.config, "answer_packing", self.default_packing))
        self.is_for_synthetic = getattr(library.config, "synthetic_videos_only", False) is True
        self.lm_head = LMHead(text_model.norm, library.lm_head, tokenizer)
        self._forward = ForwardPasses(text_model, embedding_rows=self.embedding_rows, position_axes=self.position_axes)
        self._chat = ChatTemplate(
            tokenizer,
            lay_out=self.lay_out,
            pad=self.pad,
            audio_pad=self.audio_pad,
            delimiters=self.delimiters,
            text_after_clip=self.text_after_clip,
        )
        free = free_bytes(self.device, library)
        tokens = max_batch_tokens or default_batch_tokens(self.device, library, free)
        self._pixel_budget, self._prompt_budget = TokenBudget(tokens), TokenBudget(tokens)
        self._generator = Generator(self._forward, library.lm_head, tokenizer, self._prompt_budget)
        self.memory_bytes = measured_bytes(self.device, library, tokens, free)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_tokens: int | None = None,
        **placement: Any,
    ) -> Self:
        """Load a model of this family; `lvqa.models.load_model` describes the arguments and the errors."""
        family: dict[str, Any] = {"model_type": cls.model_type, "library_class": cls.library_class}
        loaded = load_pretrained(name, revision=revision, device=device, dtype=dtype, **family, **placement)
        more: dict[str, Any] = {"quantisation": loaded.quantisation, "max_batch_tokens": max_batch_tokens}
        return cls(loaded.model, loaded.tokenizer, name=name, revision=loaded.revision, **more)

    def compile(self) -> None:
        """Have the layers compiled when they are first used, which fuses what lies between their products."""
        self._forward.compile()

    # --- what an adapter defines ------------------------------------------------------------------------------------

    @abstractmethod
    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Return the height and width at which frames of this size are decoded."""

    @abstractmethod
    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return how many rows and columns of visual tokens a pair of frames of this size has."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Return the visual tokens of frame pairs, (n, tokens, width).

        The first `dim` of the width are the embedding; each further `dim` is added after one of the decoder's first
        layers.

        Args:
            pixels: (n, 2, height, width, 3) uint8 on the model's device.
        """

    @abstractmethod
    def lay_out(self, clip: ClipTokens) -> Iterable[PromptPart]:
        """Return the parts that a clip consists of in the sequence.

        The last part is no text, so that a prefix can end there.
        """

    def embedding_rows(self, clip: ClipTokens) -> Tensor:
        """Return the rows for the positions of a clip's tokens in the sequence, (tokens, width), in their order."""
        return clip.tokens.flatten(0, 1)

    def position_axes(self, positions: Tensor) -> Tensor:
        """Return (3, batch, sequence) positions as the library's decoder takes them."""
        return positions

    # --- what is asked of it ----------------------------------------------------------------------------------------

    @exclusive
    def encode_prompt(self, prompt: Prompt) -> TokenizedPrompt:
        """Return the token sequence of a whole prompt, up to where the reply begins."""
        return self._chat.encode(prompt)

    @exclusive
    def prompt_length(self, prompt: Prompt) -> tuple[int, int]:
        """Return how many tokens a whole prompt has, and how many of them are visual or audio tokens."""
        tokenized = self.encode_prompt(prompt)
        return len(tokenized), int(tokenized.visual_mask.sum())

    def encode_prefix(self, prompt: Prompt, lead: str = "") -> TokenizedPrompt:
        """Return the token sequence of a prompt's prefix, which must end with a clip, and of a text behind it."""
        return self._chat.encode_prefix(prompt, lead)

    def pairs_at_once(self, height: int, width: int) -> int:
        """Return how many pairs of frames of this size fill a batch; fewer leave the device idle."""
        return max(1, self._pixel_budget.tokens // self._num_patches(height, width))

    @exclusive
    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        """Return the visual tokens of frame pairs, (n, tokens, width).

        Args:
            pixels: (n, 2, height, width, 3) uint8.
        """

        def encode_batch(batch: list[int]) -> Tensor:
            # Pairs are equally large, so those of a batch are neighbours.
            return self.encode(to_device(torch.from_numpy(pixels[batch[0] : batch[-1] + 1]), self.device))

        n, _, height, width, _ = pixels.shape
        if n == 0:
            raise ValueError("there are no frame pairs to encode")
        tokens = self._pixel_budget.run([self._num_patches(height, width)] * n, encode_batch).to(self.device)
        self.counts.pairs_encoded += n
        return tokens

    def _num_patches(self, height: int, width: int) -> int:
        """Return how many patches a pair of frames of this size has."""
        return PATCHES_PER_TOKEN * math.prod(self.token_grid(height, width))

    def encode_audio(self, samples: np.ndarray) -> AudioTokens:
        """Return the audio tokens of (samples,) float32 at the rate of `lvqa.audio`; LvqaError if it does not hear."""
        raise LvqaError(f"model {self.name!r} does not hear; ask in words, or ask a Qwen2.5-Omni")

    @exclusive
    def last_hidden_states(
        self, prompts: Sequence[Prompt], *, state: str = "attention", final_norm: bool = False
    ) -> Tensor:
        """Return the residual stream at each prompt's last position, where the reply begins, (n, dim) float32.

        Nothing behind that point is computed, and the last layer before it for one position only.

        Args:
            prompts: The whole prompts.
            state: `attention` is after the last layer's attention, before its MLP (FreeRet 3.2); `mlp` after the last
                MLP; `mlp-1` and `mlp-2` one and two layers earlier.
            final_norm: Whether the model's final norm is applied.
        """
        return self._last_states(prompts, state=state, final_norm=final_norm).float()

    @exclusive
    def sublayer_states(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return the residual stream at each prompt's last position, (n, 1 + 2 * layers, dim) float32.

        It has the last token's embedding, then the state after each layer's attention and after its MLP; no final norm.
        """
        return self._in_batches(prompts, self._forward.last_state_by_sublayer).float()

    @exclusive
    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """Return the token that each word begins with.

        Raises:
            LvqaError: Two words begin with the same token, so that it does not tell them apart.
        """
        if not all(words):
            raise ValueError(f"an empty word has no token: {words!r}")
        tokens = [self._chat.text_ids(word)[0] for word in words]
        for word, token in zip(words, tokens, strict=True):
            if (first := words[tokens.index(token)]) != word:
                raise LvqaError(f"model {self.name!r} begins {first!r} and {word!r} with the same token; use others")
        return tokens

    @exclusive
    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str] | None = None) -> Tensor:
        """Return the logit of each word's first token as the reply's first token, (n, words) float32.

        Args:
            prompts: The whole prompts.
            words: The words; None means every token of the vocabulary.

        Raises:
            LvqaError: Two words begin with the same token.
        """
        tokens = None if words is None else self.first_tokens(words)
        return self.lm_head.logits(self._last_states(prompts, state="mlp", final_norm=True), tokens)

    @exclusive
    def prefill_prefix(self, prompts: Sequence[Prompt], *, lead: str = "") -> list[PrefixKV]:
        """Return the keys and values of prefixes, each of which ends with a clip, and of the text `lead` behind it."""
        self._require_no_enhancement()
        prefixes = [self.encode_prefix(prompt, lead) for prompt in prompts]

        def keys_values(batch: list[int]) -> Tensor:
            return self._forward.prefix_keys_values(collate([prefixes[i] for i in batch]))

        rows = self._prompt_budget.run_by_shape([(len(prefix),) for prefix in prefixes], keys_values)
        self.counts.tokens_prefilled += sum(map(len, prefixes))
        # Copies: a row of a batch would keep the whole batch alive.
        return [
            PrefixKV(row.clone(), prefix.next_position, tuple(prefix.ids.tolist()), self._chat.lead_ids(lead))
            for row, prefix in zip(rows, prefixes, strict=True)
        ]

    @exclusive
    def score_with_prefix(
        self, prefixes: Sequence[PrefixKV], suffixes: Sequence[Prompt], words: Sequence[str] | None = None
    ) -> Tensor:
        """Return the logits of `next_token_logits` for each prefix with its suffix behind it, (n, words) float32."""
        tokens = None if words is None else self.first_tokens(words)
        self._require_no_enhancement()
        pairs = [self._chat.encode_rest(*pair) for pair in zip(prefixes, suffixes, strict=True)]
        prefixes, tokenized = [prefix for prefix, _ in pairs if prefix is not None], [rest for _, rest in pairs]

        def last_states(batch: list[int]) -> Tensor:
            return self._forward.last_state_after([prefixes[i] for i in batch], collate([tokenized[i] for i in batch]))

        lengths = [(len(prefix), len(suffix)) for prefix, suffix in zip(prefixes, tokenized, strict=True)]
        rows = self._prompt_budget.run_by_shape(lengths, last_states, token_costs=(KEPT_TOKEN_COST, 1))
        self.counts.tokens_prefilled += sum(map(len, tokenized))
        return self.lm_head.logits(self._forward.final_norm(torch.stack(rows)), tokens)

    @exclusive
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        prefixes: Sequence[PrefixKV | None] | None = None,
        max_new_tokens: int = 64,
        decoding: Decoding = GREEDY,
        schemas: Sequence[AnswerSchema | None] | None = None,
        on_token: OnToken = lambda *_: None,
    ) -> list[str]:
        """Return the replies, without special tokens. They are written together, token by token.

        Args:
            prompts: Whole prompts, or what follows the prefixes.
            prefixes: What was read of each prompt; None: nothing of any.
            max_new_tokens: A longer reply is cut.
            decoding: How tokens are chosen.
            schemas: What each reply must fit; None: anything.
            on_token: As OnToken says; it gets the token that ends a reply, too.
        """
        if self._forward.enhancement is not None and len(prompts) > 1:
            raise ValueError("the enhancement of a reply is that of its own prompt: have replies generated one by one")
        processors = [self._generator.processors(decoding, schema) for schema in schemas or [None] * len(prompts)]
        begun = zip(self._begin_replies(prompts, prefixes), processors, strict=True)
        replies = [Reply(*pair, of_one, partial(on_token, i)) for i, (pair, of_one) in enumerate(begun)]
        self._generator.write(replies, max_new_tokens=max_new_tokens, stop_ids=stop_ids(self.library, self.tokenizer))
        self.counts.tokens_prefilled += sum(len(reply.prompt) for reply in replies)
        return [self.tokenizer.decode(reply.tokens, skip_special_tokens=True).strip() for reply in replies]

    def decoding(self, generation: str, *, seed: int) -> Decoding:
        """Return how tokens are chosen under `answer.generation`; LvqaError for settings that are not followed."""
        settings = self.library.generation_config.to_diff_dict()
        return GREEDY if generation == "greedy" else Decoding.of_checkpoint(settings, model=self.name, seed=seed)

    @exclusive
    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str], *, prefix: PrefixKV | None = None) -> Tensor:
        """Return the log-probability that the reply is exactly each of these texts, (replies,) float32.

        The prompt, or what follows its prefix, is processed once for all of them.
        """
        ((prefix, rest),) = self._begin_replies([prompt], [prefix])
        tokens = [[*self._chat.text_ids(reply), self.tokenizer.eos_token_id] for reply in replies]
        self.counts.tokens_prefilled += len(rest) + sum(map(len, tokens))
        return self._generator.log_probs(rest, prefix, tokens)

    @contextmanager
    def visual_enhancement(self, *, ratio: float, formula: str = "released") -> Iterator[None]:
        """Apply RetLLM's visual enhancement to all forward passes inside the `with` block.

        Whole prompts only: a prefix raises ValueError. Other threads wait for the end of the block.

        Args:
            ratio: The weight of the enhancement, as `lvqa.models.enhancement` explains it; 0 changes nothing.
            formula: One of ENHANCEMENTS.
        """
        if formula not in ENHANCEMENTS:
            raise LvqaError(f"formula {formula!r} is unknown; use one of {', '.join(ENHANCEMENTS)}")
        if ratio == 0:
            yield
            return
        text_model, lm_head = self.library.model.language_model, self.library.lm_head
        enhancement = VisualEnhancement(text_model, lm_head, ratio=ratio, formula=formula)
        with self.lock, self._forward.enhanced(enhancement):
            yield

    def _last_states(self, prompts: Sequence[Prompt], *, state: str, final_norm: bool) -> Tensor:
        """Return (n, dim) in the model's dtype: the named state at the last position."""
        if state not in STATES:
            raise LvqaError(f"state {state!r} is unknown; use one of {', '.join(STATES)}")
        states = self._in_batches(prompts, lambda batch: self._forward.last_state(batch, state=state))
        return self._forward.final_norm(states) if final_norm else states

    def _in_batches(self, prompts: Sequence[Prompt], compute: Callable[[Batch], Tensor]) -> Tensor:
        """Return the rows of `compute`, which gets the prompts in batches, in the prompts' order."""
        if not prompts:
            raise ValueError("there are no prompts to read")
        tokenized = [self.encode_prompt(prompt) for prompt in prompts]
        lengths = [len(prompt) for prompt in tokenized]
        rows = self._prompt_budget.run(lengths, lambda batch: compute(collate([tokenized[i] for i in batch])))
        self.counts.tokens_prefilled += sum(lengths)
        return rows

    def _begin_replies(
        self, prompts: Sequence[Prompt], prefixes: Sequence[PrefixKV | None] | None
    ) -> list[tuple[PrefixKV | None, TokenizedPrompt]]:
        """Return what was read of each prompt and holds for it, and what is left of it."""
        prefixes = [None] * len(prompts) if prefixes is None else prefixes
        if any(prefix is not None for prefix in prefixes):
            self._require_no_enhancement()
        return [self._chat.encode_rest(*pair) for pair in zip(prefixes, prompts, strict=True)]

    def _require_no_enhancement(self) -> None:
        if self._forward.enhancement is not None:
            raise ValueError("a prefix is processed before the question, so the answer's confidence can't enhance it")
