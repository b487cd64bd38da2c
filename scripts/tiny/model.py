"""The embedded model before its training: its tokenizer, its configuration and its initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lvqa import prompts, synthetic
from lvqa.records import Question
from lvqa.synthetic import language
from lvqa.synthetic.questions import KIND_SHARES, QuestionWriter
from lvqa.synthetic.script import write_script
from lvqa.synthetic.world import ATTRIBUTES

WEIGHTS = Path(synthetic.__file__).parent / "weights"
"""The folder of the trained model that the package holds."""

HEAD_TO_WORDS = 0.25
"""The language head is initialised with the word vectors, scaled by this factor."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level BPE with Qwen's split and special tokens; every word of the synthetic world is one token."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Each word once, in order: the tokens depend on nothing else in the texts.
    words = {word for text in _texts() for word, _ in split.pre_tokenize_str(text)}
    tokenizer.train_from_iterator(sorted(words), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        chat_template=_CHAT_TEMPLATE,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Return the id of one token."""
    index = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(index, int)
    return index


def _texts() -> Iterator[str]:
    """Yield texts with every word that the model meets: the prompts, and questions about a few videos."""
    rng = np.random.default_rng(0)
    yield "system\nYou are a helpful assistant.\nuser\nassistant\n"
    for content in (prompts.CLIP, prompts.QUERY):
        yield prompts.embedding(content)
        yield prompts.embedding_e5v(content)
    yield from prompts.rerank("")
    question = Question("", ("a", "b"))
    answers = prompts.answer(question) + prompts.answer(Question("")) + prompts.short_answer(question)
    yield answers + prompts.timestamp(0)
    yield " ".join(language.CAPTION_PROMPTS)
    for attribute, values in ATTRIBUTES.items():
        for word in (attribute, *values):
            yield f"{word} {word} {word}"
    for seed in range(6):
        script = write_script(seed, 30)
        writer = QuestionWriter(script, rng)
        for take in script.takes:
            yield language.caption(take.shots[0].scene)
        for kind in KIND_SHARES:
            for draft in filter(None, (writer.draft_kind(kind) for _ in range(200))):
                yield f"{draft.text}\n{prompts.options([draft.correct, *draft.distractors[:3]])}\n{draft.correct}"
                yield language.sentence(draft.kind, draft.correct)


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return the configuration of a Qwen2.5-VL with five million parameters."""
    hidden = 192
    return Qwen2_5_VLConfig(  # type: ignore[call-arg]
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": token_id(tokenizer, "<|im_end|>"),
            "pad_token_id": token_id(tokenizer, "<|endoftext|>"),
        },
        vision_config={
            "depth": 5,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "out_hidden_size": hidden,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [4],
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=False,
        video_max_pixels=12 * 28 * 28,
        prompts="lvqa",
        rerank_layout="clip_first",
        answer_mode="likelihood",
        answer_packing="aligned",
        cpu_dtype="float32",
        synthetic_videos_only=True,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """Initialise the model in float32.

    Two choices make it learn faster. Tokens that spell the same word (" red", "red", "Red") start with nearly the same
    vector. Queries and keys start with nearly the same projection, so that heads attend to equal content from the first
    step, because this model mostly has to learn to compare (after Trockman and Kolter's mimetic initialisation,
    arXiv 2305.09828).
    """
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    generator = torch.Generator().manual_seed(seed)
    embedding = model.model.language_model.embed_tokens.weight
    hidden = embedding.shape[1]
    words: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for index in range(len(tokenizer)):
            word = str(tokenizer.decode([index])).strip().lower() or f"#{index}"
            base = words.setdefault(word, torch.randn(hidden, generator=generator))
            own = torch.randn(hidden, generator=generator)
            embedding[index] = 0.25 * (base + 0.3 * own) / 1.09**0.5
        model.lm_head.weight.copy_(HEAD_TO_WORDS * embedding)
        for layer in model.model.language_model.layers:
            attention = layer.self_attn
            key = attention.k_proj.weight  # (kv_heads * head_dim, hidden)
            torch.nn.init.normal_(key, std=0.5 * hidden**-0.5, generator=generator)
            groups = attention.num_key_value_groups
            query = key.view(-1, 1, attention.head_dim, hidden).expand(-1, groups, -1, -1).reshape(-1, hidden)
            noise = torch.randn(query.shape, generator=generator) * 0.25 * hidden**-0.5
            attention.q_proj.weight.copy_(query + noise)
    return model


def save(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model in bfloat16 and its tokenizer into a folder that any Qwen2.5-VL loader reads."""
    tokenizer.save_pretrained(folder)
    copy = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    copy.load_state_dict(model.state_dict())
    copy.bfloat16().save_pretrained(folder)
