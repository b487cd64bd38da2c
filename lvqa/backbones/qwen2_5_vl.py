"""Qwen2.5-VL, untouched: the one model that embeds, reranks and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, DynamicCache, Qwen2_5_VLForConditionalGeneration
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from lvqa.backbones import ENHANCEMENTS
from lvqa.backbones.batching import TokenBudget
from lvqa.backbones.beginnings import Beginning
from lvqa.backbones.chat import Batch, ChatFormat, Sequence3D, collate
from lvqa.backbones.checkpoint import find_checkpoint
from lvqa.backbones.enhancement import VisualEnhancement
from lvqa.backbones.head import LanguageHead
from lvqa.backbones.positions import position_ids
from lvqa.backbones.prompt import Prompt
from lvqa.backbones.vision import encode_pixels, target_size
from lvqa.records import Counts, LvqaError

__all__ = ["STATES", "Qwen25VL", "encode_pixels", "position_ids", "target_size"]

MODEL_TYPE = "qwen2_5_vl"
MAX_PIXELS = 128 * 28 * 28
"""A frame's default size limit: Qwen's own cap for LVBench. A config's `video_max_pixels` goes first."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
HEAD_ROWS = 16_384
"""Of the language head, in float32 at a time."""
STATES = {"attention": (1, False), "mlp": (1, True), "mlp-1": (2, True), "mlp-2": (3, True)}
"""A state's name -> the layer it leaves, counted from the end, and whether that layer's MLP is included."""


class Qwen25VL:
    """A Qwen2.5-VL of any size. It is never trained here, and its weights are never changed."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, revision: str, max_batch_tokens: int) -> None:
        self.name = name
        self.revision = revision
        self.counts = Counts()
        self.dim = int(model.config.text_config.hidden_size)
        """Width of the visual tokens and of the states."""
        vision = model.config.vision_config
        self.cell_pixels = int(vision.patch_size * vision.spatial_merge_size)
        self.positions_per_second = float(vision.tokens_per_second)
        self.max_pixels = int(getattr(model.config, "video_max_pixels", MAX_PIXELS))
        self.rerank_layout = str(getattr(model.config, "rerank_layout", "question_first"))
        self.answer_reading = str(getattr(model.config, "answer_reading", "logits"))
        self._model = model
        self._text = model.model.language_model
        self._chat = ChatFormat(tokenizer)
        self.head = LanguageHead(self._text.norm, model.lm_head.weight, self._chat)
        self._patch_budget = TokenBudget(max_batch_tokens)
        self._prompt_budget = TokenBudget(max_batch_tokens)
        self._enhancement: VisualEnhancement | None = None

    @classmethod
    def load(
        cls, model: str, *, device: str | None = None, dtype: str | None = None, max_batch_tokens: int = 16384
    ) -> Qwen25VL:
        """The model under a hub id, in a folder, or the embedded "tiny".

        Without a device it is CUDA where there is one, else the CPU; without a dtype, bfloat16 on CUDA, else float32.
        """
        place = _device(device)
        if dtype is not None and dtype not in DTYPES:
            raise LvqaError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
        checkpoint = find_checkpoint(model)
        if checkpoint.model_type != MODEL_TYPE:
            raise LvqaError(f"model {model!r} is a {checkpoint.model_type}; only a {MODEL_TYPE} can be used")
        precision = DTYPES[dtype or ("bfloat16" if place.type == "cuda" else "float32")]
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.source)
            library: Any = Qwen2_5_VLForConditionalGeneration  # typed as if it returned the model alone
            loaded, report = library.from_pretrained(
                checkpoint.source, dtype=precision, attn_implementation="sdpa", output_loading_info=True
            )
        except OSError as error:
            raise LvqaError(f"model {model!r} is incomplete: {str(error).splitlines()[0]}") from error
        if report["missing_keys"]:
            raise LvqaError(f"model {model!r} lacks weights, among them {min(report['missing_keys'])}")
        if loaded.model.language_model.has_sliding_layers:
            raise LvqaError(f"model {model!r} uses sliding-window attention, which is not supported")
        loaded.eval().requires_grad_(False).to(place)
        return cls(loaded, tokenizer, name=model, revision=checkpoint.revision, max_batch_tokens=max_batch_tokens)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._model.device  # type: ignore[no-any-return]

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

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Height and width to decode at: multiples of 28, at most `max_pixels` together, the aspect nearly kept."""
        least = min(4 * self.cell_pixels**2, max_pixels)
        return target_size(height, width, max_pixels=max_pixels, min_pixels=least, factor=self.cell_pixels)

    @torch.no_grad()
    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        """(n, tokens, dim) visual tokens of n frame pairs given as (n, 2, height, width, 3) uint8."""
        visual = self._model.model.visual

        def work(batch: list[int]) -> Tensor:
            return encode_pixels(visual, torch.tensor(pixels[batch], device=self.device))

        n, _, height, width, _ = pixels.shape
        if n == 0:
            raise ValueError("there are no frame pairs to encode")
        patches = height * width // visual.config.patch_size**2
        tokens = self._patch_budget.run([patches] * n, work)
        self.counts.pairs_encoded += n
        return tokens

    def last_states(self, prompts: Sequence[Prompt], *, state: str = "attention", final_norm: bool = False) -> Tensor:
        """(n, dim) float32: the residual stream at each prompt's last position, where the reply begins.

        `attention`: after the last layer's attention, before its MLP. `mlp`: after the last MLP. `mlp-1`, `mlp-2`: one
        or two layers earlier. Nothing behind that point is computed, and the last layer of it for one position only.
        """
        return self._prefill(prompts, state=state, final_norm=final_norm).float()

    def sublayer_states(self, prompts: Sequence[Prompt]) -> Tensor:
        """(n, 1 + 2 * layers, dim) float32: the residual stream at each prompt's last position, from start to end.

        The word's embedding, then what is there after each layer's attention and after its MLP; no final norm.
        """
        return self._read(prompts, self._last_states_by_depth).float()

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
    def read_beginnings(self, prompts: Sequence[Prompt]) -> list[Beginning]:
        """Each prompt, which ends with a visual block, read once for all that may follow it."""
        self._require_plain()
        sequences = [self._chat.encode(prompt, is_whole=False) for prompt in prompts]

        def work(batch: list[int]) -> Tensor:
            return self._keys_values(collate([sequences[number] for number in batch]))

        rows = self._prompt_budget.run_alike([(len(sequence),) for sequence in sequences], work)
        self.counts.tokens_prefilled += sum(map(len, sequences))
        # Copies: a row of a batch would keep the whole batch alive.
        return [
            Beginning(row.clone(), int(sequence.positions.max()) + 1)
            for row, sequence in zip(rows, sequences, strict=True)
        ]

    @torch.no_grad()
    def next_token_logits_after(
        self, beginnings: Sequence[Beginning], texts: Sequence[str], words: Sequence[str] | None = None
    ) -> Tensor:
        """(n, words) float32: as `next_token_logits`, of prompts of which all but the last text is read already."""
        rows = None if words is None else self.first_tokens(words)
        self._require_plain()
        pairs = list(zip(beginnings, texts, strict=True))
        rests = [self._chat.encode_rest(text, beginning.next_position) for beginning, text in pairs]

        def work(batch: list[int]) -> Tensor:
            return self._last_state_after([beginnings[n] for n in batch], collate([rests[n] for n in batch]))

        lengths = [(len(beginning), len(rest)) for beginning, rest in zip(beginnings, rests, strict=True)]
        states = torch.stack(self._prompt_budget.run_alike(lengths, work))
        self.counts.tokens_prefilled += sum(map(len, rests))
        return self._logits(self._text.norm(states), rows)

    @torch.no_grad()
    def generate(self, prompt: Prompt, *, max_new_tokens: int = 64) -> str:
        """The reply, chosen greedily token by token, without special tokens."""
        batch = collate([self._chat.encode(prompt)])
        cache = DynamicCache(config=self._text.config)
        states, positions = self._embed(batch), batch.positions.to(self.device)
        last, reply, stops = int(positions.max()), list[int](), self._stop_ids()
        for step in range(1, max_new_tokens + 1):
            output = self._text(inputs_embeds=states, position_ids=positions, past_key_values=cache, use_cache=True)
            token = self._model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)  # (1,)
            if int(token) in stops:
                break
            reply.append(int(token))
            states = self._text.embed_tokens(token[:, None])  # (1, 1, dim)
            positions = torch.full((3, 1, 1), last + step, device=self.device)
        self.counts.tokens_prefilled += batch.ids.shape[1]
        return self._chat.tokenizer.decode(reply, skip_special_tokens=True).strip()  # type: ignore[no-any-return]

    @torch.no_grad()
    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str]) -> Tensor:
        """(replies,) float32: the log-probability that the reply is exactly this text. The prompt is read once."""
        batch = collate([self._chat.encode(prompt)])
        cache = DynamicCache(config=self._text.config)
        positions = batch.positions.to(self.device)
        output = self._text(
            inputs_embeds=self._embed(batch), position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache.batch_repeat_interleave(len(replies))
        said = [torch.tensor([*self._chat.text_ids(reply), self._chat.tokenizer.eos_token_id]) for reply in replies]
        ids = pad_sequence(said, batch_first=True, padding_value=-1).to(self.device)  # (replies, longest)
        after = int(positions.max()) + 1 + torch.arange(ids.shape[1] - 1, device=self.device)
        states = self._text(
            inputs_embeds=self._text.embed_tokens(ids[:, :-1].clamp(min=0)),
            position_ids=after.expand(3, len(replies), -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        before = output.last_hidden_state[:, -1:].expand(len(replies), -1, -1)
        log_probs: Tensor = self._model.lm_head(torch.cat([before, states], dim=1)).float().log_softmax(-1)
        self.counts.tokens_prefilled += batch.ids.shape[1] + sum(map(len, said))
        return log_probs.gather(-1, ids.clamp(min=0)[..., None]).squeeze(-1).masked_fill(ids < 0, 0).sum(1)

    @contextmanager
    def visual_enhancement(self, *, ratio: float, formula: str = "released") -> Iterator[None]:
        """While it lasts, prompts are read with RetLLM's visual enhancement, as `lvqa.backbones.enhancement` has it.

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
        states = self._read(prompts, lambda batch: self._last_state(batch, state=state))
        return self._text.norm(states) if final_norm else states

    @torch.no_grad()
    def _read(self, prompts: Sequence[Prompt], work: Callable[[Batch], Tensor]) -> Tensor:
        """The rows of `work`, which gets the prompts in batches."""
        if not prompts:
            raise ValueError("there are no prompts to read")
        sequences = [self._chat.encode(prompt) for prompt in prompts]
        sizes = [len(sequence) for sequence in sequences]
        rows = self._prompt_budget.run(sizes, lambda batch: work(collate([sequences[number] for number in batch])))
        self.counts.tokens_prefilled += sum(sizes)
        return rows

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None, Any, tuple[Tensor, Tensor]]:
        """What the layers take: states (batch, sequence, dim), padding, causal mask, and rotations."""
        states = self._embed(batch)
        padding = None if batch.mask is None else batch.mask.to(self.device)
        mask = create_causal_mask(
            config=self._text.config, inputs_embeds=states, attention_mask=padding, past_key_values=None
        )
        return states, padding, mask, self._text.rotary_emb(states, batch.positions.to(self.device))

    def _last_states_by_depth(self, batch: Batch) -> Tensor:
        """(batch, 1 + 2 * layers, dim): the last position after every sub-layer."""
        states, padding, mask, rotary = self._inputs(batch)
        found = [states[:, -1]]
        for layer in self._text.layers:
            attended = states[:, -1] + _attend_from_last(layer, states, rotary=rotary, padding=padding)
            states = layer(states, attention_mask=mask, position_embeddings=rotary)
            found += [attended, states[:, -1]]
        return torch.stack(found, dim=1)

    def _last_state(self, batch: Batch, *, state: str) -> Tensor:
        """(batch, dim): whole layers up to the one that the state leaves, and of that one the last position."""
        from_end, with_mlp = STATES[state]
        states, padding, mask, rotary = self._inputs(batch)
        for layer in self._text.layers[:-from_end]:
            states = layer(states, attention_mask=mask, position_embeddings=rotary)
        layer = self._text.layers[-from_end]
        last = states[:, -1] + _attend_from_last(layer, states, rotary=rotary, padding=padding)
        return last + layer.mlp(layer.post_attention_layernorm(last)) if with_mlp else last

    def _keys_values(self, batch: Batch) -> Tensor:
        """(batch, layers, 2, kv_heads, sequence, head_dim) of equally long beginnings."""
        states = self._embed(batch)
        rotary = self._text.rotary_emb(states, batch.positions.to(self.device))
        cache = DynamicCache(config=self._text.config)
        mask = create_causal_mask(
            config=self._text.config, inputs_embeds=states, attention_mask=None, past_key_values=None
        )
        for layer in self._text.layers[:-1]:
            states = layer(
                states, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, use_cache=True
            )
        # Of the last layer no more is needed: nothing is read at the end of a beginning.
        layer = self._text.layers[-1]
        last = _keys_and_values(layer.self_attn, layer.input_layernorm(states), rotary=rotary)
        layers: list[Any] = cache.layers[:-1]
        of_layers = [torch.stack([layer.keys, layer.values], dim=1) for layer in layers]
        return torch.stack([*of_layers, torch.stack(last, dim=1)], dim=1)

    def _last_state_after(self, beginnings: Sequence[Beginning], batch: Batch) -> Tensor:
        """(batch, dim): the last position, after the last MLP, of each beginning and its row of the batch behind it."""
        held = torch.stack([beginning.keys_values for beginning in beginnings], dim=2)  # (layers, 2, batch, heads, ...)
        cache = DynamicCache([(keys, values) for keys, values in held[:-1]], config=self._text.config)
        states = self._embed(batch)
        rotary = self._text.rotary_emb(states, batch.positions.to(self.device))
        length, before = states.shape[1], held.shape[4]
        mask = torch.ones(length, before + length, dtype=torch.bool, device=self.device).tril(before)
        for layer in self._text.layers[:-1]:
            states = layer(
                states, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, use_cache=True
            )
        layer = self._text.layers[-1]
        last: Tensor = states[:, -1] + _attend_from_last(layer, states, rotary=rotary, padding=None, before=held[-1])
        return last + layer.mlp(layer.post_attention_layernorm(last))  # type: ignore[no-any-return]

    def _embed(self, batch: Batch) -> Tensor:
        """(batch, sequence, dim): the words' embeddings, and the visual tokens in their places."""
        states: Tensor = self._text.embed_tokens(batch.ids.to(self.device))
        if batch.blocks:
            visual = torch.cat([block.tokens.flatten(0, 1).to(states) for block in batch.blocks])
            states[batch.visual.to(self.device)] = visual
        if self._enhancement is not None:
            self._enhancement.see(batch, states)
        return states

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
    query = (
        attn.q_proj(normal[:, -1:]).unflatten(-1, (-1, attn.head_dim)).transpose(1, 2)
    )  # (batch, heads, 1, head_dim)
    query, _ = apply_rotary_pos_emb(query, query, *(angles[:, -1:] for angles in rotary))
    grouped = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)  # (batch, kv_heads, heads per kv_head, head_dim)
    mask = None if padding is None else padding[:, None, None]  # (batch, 1, 1, sequence)
    mixed = scaled_dot_product_attention(grouped, key, value, mask)
    return attn.o_proj(mixed.flatten(1))  # type: ignore[no-any-return]


def _keys_and_values(attn: Any, normal: Tensor, *, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(batch, kv_heads, sequence, head_dim) each, keys with their rotation; `normal` are the layer's normed states."""
    key, value = (
        project(normal).unflatten(-1, (-1, attn.head_dim)).transpose(1, 2) for project in (attn.k_proj, attn.v_proj)
    )
    key, _ = apply_rotary_pos_emb(key, key, *rotary)
    return key, value


def _device(name: str | None) -> torch.device:
    """The named device, or the best one here."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise LvqaError(f"device {name!r} is unknown; use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LvqaError(f"device {name!r}: there is no usable CUDA device here; use cpu")
    return device
