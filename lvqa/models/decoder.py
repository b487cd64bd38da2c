"""What all models share: a decoder that reads text and visual tokens. An adapter says how a model sees and is shown."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, AutoTokenizer, DynamicCache, ProcessorMixin
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from lvqa.models import ENHANCEMENTS, gpu
from lvqa.models.attention import SHARED_KEYS, attend_sharing_keys
from lvqa.models.batching import TokenBudget
from lvqa.models.chat import Batch, ChatTemplate, Sequence3D, Shown, Special, collate
from lvqa.models.checkpoint import find_checkpoint
from lvqa.models.devices import to_device
from lvqa.models.enhancement import VisualEnhancement
from lvqa.models.lm_head import LMHead
from lvqa.models.prefix import PrefixKV
from lvqa.models.prompt import AudioTokens, ClipTokens, Prompt
from lvqa.records import Counts, LvqaError

PATCHES_PER_TOKEN = 4
"""All these models merge two by two patches into a token."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
BATCH_TOKENS = {"cuda": 16384, "cpu": 4096}
"""A GPU is kept busy by large batches; on a CPU they leave the cache, which costs the embedded model a third."""
READ_BEFORE = 1 / 8
"""Of what a token costs, one that was read earlier costs: keys and values, and no states."""
HEAD_ROWS = 16_384
"""Of the language head, in float32 at a time."""
STATES = {"attention": (1, False), "mlp": (1, True), "mlp-1": (2, True), "mlp-2": (3, True)}
"""A state's name -> the layer it leaves, counted from the end, and whether that layer's MLP is included."""

Layer = Callable[..., Tensor]
"""A layer of the decoder, as `through_layer`."""
Note = Callable[[nn.Module, Tensor, Tensor, tuple[Tensor, Tensor]], None]
"""Called with a layer, the states before and after it, and the rotation."""


class Decoder(ABC):
    """A model of any size. It is never trained here, and its weights are never changed.

    An adapter gives the members without a value here a value, and has `frame_size`, `token_grid`, `encode` and `show`.
    """

    model_type: ClassVar[str]
    pad: ClassVar[Special]
    """What holds the place of a visual token."""
    sound_pad: ClassVar[Special | None] = None
    """What holds the place of a token of sound; None: the model does not hear."""
    delimiters: ClassVar[tuple[Special, ...]]
    """The other special tokens that blocks are shown with."""
    library_class: ClassVar[Any] = AutoModelForImageTextToText
    after_block: ClassVar[str] = ""
    """The text between a block and what follows it."""
    time_encoding = "text"
    max_pixels: int

    def __init__(self, model: Any, tokenizer: Any, *, name: str, revision: str, max_batch_tokens: int | None) -> None:
        self.name = name
        self.revision = revision
        self.counts = Counts()
        if model.device.type == "cuda":
            gpu.fit(model)
        self.dim = int(model.config.text_config.hidden_size)
        """Width of the states."""
        self.rerank_layout = str(getattr(model.config, "rerank_layout", "question_first"))
        self.answer_mode = str(getattr(model.config, "answer_mode", "logits"))
        self._model = model
        self._text = model.model.language_model
        self._text.config._attn_implementation = SHARED_KEYS
        self._chat = ChatTemplate(
            tokenizer,
            show=self.show,
            pad=self.pad,
            sound_pad=self.sound_pad,
            others=self.delimiters,
            after=self.after_block,
        )
        self.head = LMHead(self._text.norm, model.lm_head.weight, self._chat)
        most = max_batch_tokens or BATCH_TOKENS[model.device.type]
        self._pixel_budget, self._prompt_budget = TokenBudget(most), TokenBudget(most)
        self._enhancement: VisualEnhancement | None = None
        self._through_layer: Layer = through_layer

    @classmethod
    def load(
        cls, model: str, *, device: str | None = None, dtype: str | None = None, max_batch_tokens: int | None = None
    ) -> Self:
        """The model under a hub id, in a folder, or the embedded "tiny".

        Without a device it is CUDA where there is one, else the CPU; without a dtype, bfloat16 on CUDA and on CPUs that
        multiply in it, else float32; a config.json can say `cpu_dtype`.
        """
        place = best_device(device)
        if dtype is not None and dtype not in DTYPES:
            raise LvqaError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
        checkpoint = find_checkpoint(model)
        if checkpoint.model_type != cls.model_type:
            raise LvqaError(f"model {model!r} is a {checkpoint.model_type}; only a {cls.model_type} can be used")
        precision = DTYPES[dtype or usual_dtype(place, checkpoint.cpu_dtype)]
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.source)
            if tokenizer.chat_template is None:  # older models keep it with their processor alone
                tokenizer.chat_template = ProcessorMixin.get_processor_dict(checkpoint.source)[0].get("chat_template")
            loaded, report = cls.library_class.from_pretrained(
                checkpoint.source,
                dtype=precision,
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
        except (OSError, ValueError) as error:  # without a tokenizer it is a ValueError
            raise LvqaError(f"model {model!r} is incomplete: {str(error).splitlines()[0]}") from error
        if report["missing_keys"]:
            raise LvqaError(f"model {model!r} lacks weights, among them {min(report['missing_keys'])}")
        if report["mismatched_keys"]:
            raise LvqaError(f"model {model!r}: {_misfit(min(report['mismatched_keys']))}")
        words = loaded.config.text_config.vocab_size
        if len(tokenizer) > words:
            raise LvqaError(
                f"model {model!r}: its tokenizer has {len(tokenizer)} tokens and its vocabulary {words}; "
                "they belong to different models"
            )
        if getattr(loaded.model.language_model, "has_sliding_layers", False):
            raise LvqaError(f"model {model!r} uses sliding-window attention, which is not supported")
        loaded.eval().requires_grad_(False).to(place)
        return cls(loaded, tokenizer, name=model, revision=checkpoint.revision, max_batch_tokens=max_batch_tokens)

    def compile(self) -> None:
        """Have the layers compiled when they are first used, which fuses what lies between their products."""
        self._through_layer = torch.compile(through_layer, dynamic=True)

    # --- what an adapter says ---------------------------------------------------------------------------------------

    @abstractmethod
    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Height and width to decode frames of this size at."""

    @abstractmethod
    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns of visual tokens a pair of frames of this size has."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """(n, tokens, width) visual tokens of (n, 2, height, width, 3) uint8 pixels on the model's device.

        Behind the first `dim` of the width, `dim` each, stands what is added to them after the decoder's first layers.
        """

    @abstractmethod
    def show(self, block: ClipTokens) -> Iterable[Shown]:
        """What stands for a block in the sequence. It does not end with text, so that a beginning can end there."""

    def rows(self, block: ClipTokens) -> Tensor:
        """(places, width): what goes to the places of a block's visual tokens, in order."""
        return block.tokens.flatten(0, 1)

    # --- what is asked of it ----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._model.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and the tokens."""
        return self._model.dtype  # type: ignore[no-any-return]

    @property
    def library(self) -> Any:
        """The library's own model, whose weights these are."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """As it was loaded."""
        return self._chat.tokenizer

    def encode_prompt(self, prompt: Prompt, *, is_whole: bool = True) -> Sequence3D:
        """The token sequence that a prompt becomes; without `is_whole`, the beginning of one."""
        return self._chat.encode(prompt, is_whole=is_whole)

    def pairs_at_once(self, height: int, width: int) -> int:
        """How many pairs of such frames fill a batch; fewer leave the device idle."""
        return max(1, self._pixel_budget.tokens // self._patches(height, width))

    @torch.no_grad()
    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        """(n, tokens, width) visual tokens of n frame pairs given as (n, 2, height, width, 3) uint8."""

        def work(batch: list[int]) -> Tensor:
            # Pairs are equally large, so those of a batch are neighbours.
            return self.encode(to_device(torch.from_numpy(pixels[batch[0] : batch[-1] + 1]), self.device))

        n, _, height, width, _ = pixels.shape
        if n == 0:
            raise ValueError("there are no frame pairs to encode")
        tokens = self._pixel_budget.run([self._patches(height, width)] * n, work)
        self.counts.pairs_encoded += n
        return tokens

    def _patches(self, height: int, width: int) -> int:
        """Of a pair of such frames."""
        return PATCHES_PER_TOKEN * math.prod(self.token_grid(height, width))

    def encode_audio(self, samples: np.ndarray) -> AudioTokens:
        """What is heard of (samples,) float32 at `lvqa.audio`'s rate. LvqaError where the model does not hear."""
        raise LvqaError(f"model {self.name!r} does not hear; ask in words, or ask a Qwen2.5-Omni")

    def last_hidden_states(
        self, prompts: Sequence[Prompt], *, state: str = "attention", final_norm: bool = False
    ) -> Tensor:
        """(n, dim) float32: the residual stream at each prompt's last position, where the reply begins.

        `attention`: after the last layer's attention, before its MLP. `mlp`: after the last MLP. `mlp-1`, `mlp-2`: one
        or two layers earlier. Nothing behind that point is computed, and the last layer of it for one position only.
        """
        return self._prefill(prompts, state=state, final_norm=final_norm).float()

    def sublayer_states(self, prompts: Sequence[Prompt]) -> Tensor:
        """(n, 1 + 2 * layers, dim) float32: the residual stream at each prompt's last position, from start to end.

        The word's embedding, then what is there after each layer's attention and after its MLP; no final norm.
        """
        return self._in_batches(prompts, self._last_states_by_depth).float()

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """The token that each word begins with. LvqaError if two begin with the same one, which tells nothing."""
        if not all(words):
            raise ValueError(f"an empty word has no token: {words!r}")
        tokens = [self._chat.text_ids(word)[0] for word in words]
        for word, token in zip(words, tokens, strict=True):
            if (first := words[tokens.index(token)]) != word:
                raise LvqaError(f"model {self.name!r} begins {first!r} and {word!r} with the same token; say others")
        return tokens

    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str] | None = None) -> Tensor:
        """(n, words) float32: the logit of each word's first token as that of the reply; without words all logits.

        LvqaError if two words begin with the same token.
        """
        rows = None if words is None else self.first_tokens(words)
        return self._logits(self._prefill(prompts, state="mlp", final_norm=True), rows)

    @torch.no_grad()
    def prefill_prefix(self, prompts: Sequence[Prompt]) -> list[PrefixKV]:
        """Each prompt, which ends with a visual block, read once for all that may follow it."""
        self._require_plain()
        sequences = [self._chat.encode(prompt, is_whole=False) for prompt in prompts]

        def work(batch: list[int]) -> Tensor:
            return self._keys_values(collate([sequences[number] for number in batch]))

        rows = self._prompt_budget.run_alike([(len(sequence),) for sequence in sequences], work)
        self.counts.tokens_prefilled += sum(map(len, sequences))
        # Copies: a row of a batch would keep the whole batch alive.
        return [
            PrefixKV(row.clone(), int(sequence.positions.max()) + 1)
            for row, sequence in zip(rows, sequences, strict=True)
        ]

    @torch.no_grad()
    def score_with_prefix(
        self, beginnings: Sequence[PrefixKV], rests: Sequence[Prompt], words: Sequence[str] | None = None
    ) -> Tensor:
        """(n, words) float32: as `next_token_logits`, of prompts of which the beginning is read already."""
        rows = None if words is None else self.first_tokens(words)
        self._require_plain()
        pairs = list(zip(beginnings, rests, strict=True))
        sequences = [self._chat.encode_suffix(rest, beginning.next_position) for beginning, rest in pairs]

        def work(batch: list[int]) -> Tensor:
            return self._last_state_after([beginnings[n] for n in batch], collate([sequences[n] for n in batch]))

        lengths = [(len(beginning), len(rest)) for beginning, rest in zip(beginnings, sequences, strict=True)]
        states = torch.stack(self._prompt_budget.run_alike(lengths, work, weights=(READ_BEFORE, 1)))
        self.counts.tokens_prefilled += sum(map(len, sequences))
        return self._logits(self._text.norm(states), rows)

    @torch.no_grad()
    def generate(self, prompt: Prompt, *, max_new_tokens: int = 64) -> str:
        """The reply, chosen greedily token by token, without special tokens."""
        batch = collate([self._chat.encode(prompt)])
        cache = DynamicCache(config=self._text.config)
        states, position, reply, stops = (
            self._read(batch, cache),
            int(batch.positions.max()),
            list[int](),
            self._stop_ids(),
        )
        for _ in range(max_new_tokens):
            token = self._model.lm_head(states[:, -1]).argmax(-1)  # (1,)
            if int(token) in stops:
                break
            reply.append(int(token))
            position += 1
            states = self._go_on(token[:, None], position, cache)
        self.counts.tokens_prefilled += batch.ids.shape[1]
        return self._chat.tokenizer.decode(reply, skip_special_tokens=True).strip()  # type: ignore[no-any-return]

    @torch.no_grad()
    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str]) -> Tensor:
        """(replies,) float32: the log-probability that the reply is exactly this text. The prompt is read once."""
        batch = collate([self._chat.encode(prompt)])
        cache = DynamicCache(config=self._text.config)
        before = self._read(batch, cache).expand(len(replies), -1, -1)
        cache.batch_repeat_interleave(len(replies))
        said = [torch.tensor([*self._chat.text_ids(reply), self._chat.tokenizer.eos_token_id]) for reply in replies]
        ids = pad_sequence(said, batch_first=True, padding_value=-1).to(self.device)  # (replies, longest)
        states = self._go_on(ids[:, :-1].clamp(min=0), int(batch.positions.max()) + 1, cache)
        log_probs: Tensor = self._model.lm_head(torch.cat([before, states], dim=1)).float().log_softmax(-1)
        self.counts.tokens_prefilled += batch.ids.shape[1] + sum(map(len, said))
        return log_probs.gather(-1, ids.clamp(min=0)[..., None]).squeeze(-1).masked_fill(ids < 0, 0).sum(1)

    @contextmanager
    def visual_enhancement(self, *, ratio: float, formula: str = "released") -> Iterator[None]:
        """While it lasts, prompts are read with RetLLM's visual enhancement, as `lvqa.models.enhancement` has it.

        A ratio of 0 is none. Prompts must be read whole: ValueError for beginnings.
        """
        if formula not in ENHANCEMENTS:
            raise LvqaError(f"formula {formula!r} is unknown; use one of {', '.join(ENHANCEMENTS)}")
        if ratio == 0:
            yield
            return
        enhancement = VisualEnhancement(self._text, self._model.lm_head, ratio=ratio, formula=formula)
        with enhancement.attached():
            self._enhancement = enhancement
            try:
                yield
            finally:
                self._enhancement = None

    @torch.no_grad()
    def _prefill(self, prompts: Sequence[Prompt], *, state: str, final_norm: bool) -> Tensor:
        """(n, dim) in the model's dtype: the named state at the last position."""
        if state not in STATES:
            raise LvqaError(f"state {state!r} is unknown; use one of {', '.join(STATES)}")
        states = self._in_batches(prompts, lambda batch: self._last_state(batch, state=state))
        return self._text.norm(states) if final_norm else states

    @torch.no_grad()
    def _in_batches(self, prompts: Sequence[Prompt], work: Callable[[Batch], Tensor]) -> Tensor:
        """The rows of `work`, which gets the prompts in batches."""
        if not prompts:
            raise ValueError("there are no prompts to read")
        sequences = [self._chat.encode(prompt) for prompt in prompts]
        sizes = [len(sequence) for sequence in sequences]
        rows = self._prompt_budget.run(sizes, lambda batch: work(collate([sequences[number] for number in batch])))
        self.counts.tokens_prefilled += sum(sizes)
        return rows

    def _last_states_by_depth(self, batch: Batch) -> Tensor:
        """(batch, 1 + 2 * layers, dim): the last position after every sub-layer."""
        padding = None if batch.mask is None else to_device(batch.mask, self.device)
        found: list[Tensor] = []

        def note(layer: nn.Module, before: Tensor, after: Tensor, rotary: tuple[Tensor, Tensor]) -> None:
            attended = before[:, -1] + _attend_from_last(layer, before, rotary=rotary, padding=padding)
            found.extend([attended, after[:, -1]] if found else [before[:, -1], attended, after[:, -1]])

        self._through(batch, layers=len(self._text.layers), note=note)
        return torch.stack(found, dim=1)

    def _last_state(self, batch: Batch, *, state: str) -> Tensor:
        """(batch, dim): whole layers up to the one that the state leaves, and of that one the last position."""
        from_end, with_mlp = STATES[state]
        states, rotary = self._through(batch, layers=len(self._text.layers) - from_end)
        padding = None if batch.mask is None else to_device(batch.mask, self.device)
        layer = self._text.layers[-from_end]
        last = states[:, -1] + _attend_from_last(layer, states, rotary=rotary, padding=padding)
        return last + layer.mlp(layer.post_attention_layernorm(last)) if with_mlp else last

    def _keys_values(self, batch: Batch) -> Tensor:
        """(batch, layers, 2, kv_heads, sequence, head_dim) of equally long beginnings."""
        cache = DynamicCache(config=self._text.config)
        # Of the last layer no more is needed: nothing is read at the end of a beginning.
        states, rotary = self._through(batch, layers=len(self._text.layers) - 1, cache=cache)
        layer = self._text.layers[-1]
        last = _keys_and_values(layer.self_attn, layer.input_layernorm(states), rotary=rotary)
        layers: list[Any] = cache.layers[:-1]
        of_layers = [torch.stack([layer.keys, layer.values], dim=1) for layer in layers]
        return torch.stack([*of_layers, torch.stack(last, dim=1)], dim=1)

    def _last_state_after(self, beginnings: Sequence[PrefixKV], batch: Batch) -> Tensor:
        """(batch, dim): the last position, after the last MLP, of each beginning and its row of the batch behind it."""
        held = torch.stack([beginning.keys_values for beginning in beginnings], dim=2)  # (layers, 2, batch, heads, ...)
        cache = DynamicCache([(keys, values) for keys, values in held[:-1]], config=self._text.config)
        states, rotary = self._through(batch, layers=len(self._text.layers) - 1, cache=cache)
        layer = self._text.layers[-1]
        last: Tensor = states[:, -1] + _attend_from_last(layer, states, rotary=rotary, padding=None, before=held[-1])
        return last + layer.mlp(layer.post_attention_layernorm(last))  # type: ignore[no-any-return]

    def _read(self, batch: Batch, cache: DynamicCache) -> Tensor:
        """(batch, 1, dim) of the last position, after the final norm, without padding; the cache holds all of them."""
        states, rotary = self._through(batch, layers=len(self._text.layers) - 1, cache=cache)
        layer = self._text.layers[-1]
        keys_values = _keys_and_values(layer.self_attn, layer.input_layernorm(states), rotary=rotary)
        cache.update(*keys_values, len(self._text.layers) - 1)
        last = states[:, -1] + _attend_from_last(layer, states, rotary=rotary, padding=None)
        last = last + layer.mlp(layer.post_attention_layernorm(last))
        return self._text.norm(last[:, None])  # type: ignore[no-any-return]

    def _go_on(self, ids: Tensor, position: int, cache: DynamicCache) -> Tensor:
        """(batch, sequence, dim) after the final norm, of (batch, sequence) tokens that follow what was read."""
        positions = position + torch.arange(ids.shape[1], device=self.device).expand(*ids.shape)
        read = self._text(
            inputs_embeds=self._text.embed_tokens(ids),
            position_ids=self._axes(positions.expand(3, -1, -1)),
            past_key_values=cache,
            use_cache=True,
        )
        return read.last_hidden_state  # type: ignore[no-any-return]

    def _through(
        self, batch: Batch, *, layers: int, cache: DynamicCache | None = None, note: Note | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(batch, sequence, dim) after the first so many layers, and the rotation; keys and values go to the cache."""
        states, places, added = self._embed(batch)
        padding = None if batch.mask is None else to_device(batch.mask, self.device)
        mask = create_causal_mask(
            config=self._text.config, inputs_embeds=states, attention_mask=padding, past_key_values=cache
        )
        rotary = self._text.rotary_emb(states, self._axes(to_device(batch.positions, self.device)))
        for number, layer in enumerate(self._text.layers[:layers]):
            before = states
            if cache is None and self._enhancement is None:
                states = self._through_layer(layer, states, mask, rotary)
            else:  # each layer's place in a cache would be compiled anew, and hooks can't be
                states = through_layer(layer, states, mask, rotary, cache)
            if note is not None:
                note(layer, before, states, rotary)
            if number < len(added):
                states.flatten(0, 1).index_add_(0, places, added[number])
        return states, rotary

    def _axes(self, positions: Tensor) -> Tensor:
        """The (3, batch, sequence) positions as the decoder takes them."""
        return positions

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """(batch, sequence, dim): the words' embeddings, and the visual tokens in their places.

        With it these places in (batch * sequence), and what is added there after the first layers, (places, dim) a
        layer.
        """
        states: Tensor = self._text.embed_tokens(to_device(batch.ids, self.device))
        # Found on the host: a GPU would be waited for until it has counted them.
        places = to_device(batch.visual.flatten().nonzero().squeeze(1), self.device)
        added: Sequence[Tensor] = ()
        if batch.blocks:
            rows = [to_device(self.rows(block), self.device).to(states.dtype) for block in batch.blocks]
            tokens, *added = torch.split(torch.cat(rows), self.dim, dim=1)  # (places, dim) each
            states.flatten(0, 1).index_copy_(0, places, tokens)
        if self._enhancement is not None:
            self._enhancement.see(batch, states)
        return states, places, added

    def _logits(self, states: Tensor, rows: Sequence[int] | None) -> Tensor:
        """(n, rows) float32, of (n, dim) states after the final norm: by some rows of the language head, or by all."""
        weight = self._model.lm_head.weight
        # In float32, or what differs little would be equal; a part at a time, for a copy of all of it can be 2 GB.
        parts = weight.split(HEAD_ROWS) if rows is None else [weight[rows]]
        return torch.cat([linear(states.float(), part.float()) for part in parts], dim=1)

    def _require_plain(self) -> None:
        if self._enhancement is not None:
            raise ValueError("what is read before the question can't be enhanced by how sure the answer is")

    def _stop_ids(self) -> set[int]:
        """The tokens that end a reply, by the model's generation settings and the tokenizer's."""
        ends = self._model.generation_config.eos_token_id
        return {self._chat.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}


def through_layer(
    layer: nn.Module,
    states: Tensor,
    mask: Any,
    rotary: tuple[Tensor, Tensor],
    cache: DynamicCache | None = None,
) -> Tensor:
    """(batch, sequence, dim) after a layer; keys and values go to the cache."""
    return layer(  # type: ignore[no-any-return]
        states,
        attention_mask=mask,
        position_embeddings=rotary,
        past_key_values=cache,
        use_cache=cache is not None,
    )


def _attend_from_last(
    layer: nn.Module,
    states: Tensor,
    *,
    rotary: tuple[Tensor, Tensor],
    padding: Tensor | None,
    before: Tensor | None = None,
) -> Tensor:
    """(batch, dim): what the last position takes from all, by the layer's own attention weights.

    `before`, (2, batch, kv_heads, length, head_dim): keys and values of what was read earlier.
    """
    attn: Any = layer.self_attn
    normal = layer.input_layernorm(states)  # type: ignore[operator]
    key, value = _keys_and_values(attn, normal, rotary=rotary)
    if before is not None:
        key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
    query = _heads(attn, "q", normal[:, -1:])  # (batch, heads, 1, head_dim)
    query, _ = apply_rotary_pos_emb(query, query, *(angles[:, -1:] for angles in rotary))
    mask = None if padding is None else padding[:, None, None]  # (batch, 1, 1, sequence)
    mixed = attend_sharing_keys(query, key, value, mask)
    return attn.o_proj(mixed.flatten(1))  # type: ignore[no-any-return]


def _keys_and_values(attn: Any, normal: Tensor, *, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(batch, kv_heads, sequence, head_dim) each, keys with their rotation; `normal` are the layer's normed states."""
    key, value = _heads(attn, "k", normal), _heads(attn, "v", normal)
    key, _ = apply_rotary_pos_emb(key, key, *rotary)
    return key, value


def _heads(attn: Any, name: str, normal: Tensor) -> Tensor:
    """(batch, heads, sequence, head_dim) by the projection of this name, with the norm that some models have on it."""
    heads = getattr(attn, f"{name}_proj")(normal).unflatten(-1, (-1, attn.head_dim))
    norm = getattr(attn, f"{name}_norm", nn.Identity())
    return norm(heads).transpose(1, 2)  # type: ignore[no-any-return]


def _misfit(mismatched: tuple[str, Any, Any]) -> str:
    name, found, wanted = mismatched
    return f"{name} is of {tuple(found)}, and config.json asks for {tuple(wanted)}; they belong to different models"


def usual_dtype(device: torch.device, cpu_dtype: str | None = None) -> str:
    """What is quick there: bfloat16 on CUDA and on CPUs that multiply in it, else float32; or a CPU's `cpu_dtype`."""
    if device.type == "cpu" and cpu_dtype in DTYPES:
        return cpu_dtype
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # young in torch
    return "bfloat16" if device.type == "cuda" or able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def best_device(name: str | None) -> torch.device:
    """The named device, or the best one here."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise LvqaError(f"device {name!r} is unknown; use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LvqaError(f"device {name!r}: there is no usable CUDA device here; use cpu")
    return device
