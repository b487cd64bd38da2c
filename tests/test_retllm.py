"""RetLLM's reranker and its visual enhancement against the library's own model and the formulas.

The clips are noise. Scores may be as small as 1e-11, so they are compared by their ratio.
"""

import contextlib
import dataclasses
import math

import pytest
import torch
from reranking import QUERY, clip_tokens_of, embed_prompt, first_token, full_logits, rerank, scores_in_time_order
from torch import Tensor
from torch.nn.functional import silu

from lvqa import prompts
from lvqa.models import enhancement
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.records import Candidate
from lvqa.rerank.contract import candidates_like
from lvqa.rerank.retllm import MAX_TIE_BONUS, PaperRetLLM, ReleasedRetLLM, RetLLM, written_score


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    return candidates_like(4)


@pytest.fixture(scope="module")
def scores(tiny, candidates):
    """Return the candidates' scores by a reranker, in the order of time."""
    return lambda reranker: scores_in_time_order(rerank(reranker, tiny, candidates))


@pytest.fixture(scope="module")
def clips(tiny, candidates) -> list[ClipTokens]:
    """What the model sees of the clips, in the order of time."""
    return clip_tokens_of(tiny, candidates)


def verdict(logits: Tensor, true: int) -> tuple[float, float]:
    """Return P(True), and the entropy over the vocabulary as a part of the largest possible."""
    shares = logits.exp() / logits.exp().sum()
    return float(shares[true]), float(-(shares * shares.log()).sum() / math.log(len(shares)))


# --- the enhancement -----------------------------------------------------------------------------------------------


@torch.no_grad()
def enhanced_logits(model, prompt: Prompt, *, ratio: float, formula: str) -> tuple[Tensor, list[int]]:
    """Return (vocabulary,) float64 logits, and the enhanced layers: the formulas, on one prompt, layer by layer."""
    library, text = model.library, model.library.model.language_model
    states, positions, visual = embed_prompt(model, prompt)
    visual_states, rotary, length = states[0, visual], text.rotary_emb(states, positions), states.shape[1]
    causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    enhanced, is_due = [], False
    for i, layer in enumerate(text.layers):
        normal = layer.input_layernorm(states)
        states = states + layer.self_attn(normal, attention_mask=causal, position_embeddings=rotary)[0]
        x = layer.post_attention_layernorm(states)[0]
        memory = layer.mlp(x)
        if is_due:
            keys = values = visual_states
            if formula == "released":
                keys = layer.mlp.gate_proj.weight.abs().mean() / visual_states.abs().mean() * visual_states
                values = layer.mlp.down_proj.weight.abs().mean() / visual_states.abs().mean() * visual_states
            pairs = list(zip(keys, values, strict=True))
            delta = torch.stack([sum(silu(position @ key) * value for key, value in pairs) for position in x])
            if formula == "released":
                delta = delta * memory.abs().mean() / delta.abs().mean()
            memory, is_due = ratio * delta + (1 - ratio) * memory, False
            enhanced.append(i)
        states = states + memory
        if 5 / 28 < i / len(text.layers) < 16 / 28 and not enhanced:
            largest = library.lm_head(states[0, -1]).sort(descending=True).values[:10]
            shares = largest.softmax(dim=0)
            is_due = float(-(shares * shares.log()).sum()) / math.log(10) > enhancement.MAX_ENTROPY
    return library.lm_head(text.norm(states[0, -1])).double(), enhanced


def test_without_enhancement_the_score_is_p_true(tiny, scores, clips):
    text, true = prompts.retllm_true(QUERY), first_token(tiny, "True")
    expected = [verdict(full_logits(tiny, ("", clip, text)), true)[0] for clip in clips]
    assert scores(RetLLM(ratio=0)) == pytest.approx(expected, rel=1e-3, abs=0)


@pytest.mark.parametrize("formula", ["released", "paper"])
@pytest.mark.parametrize("max_entropy", [0.0, 0.3, 1.0])
def test_enhanced_scores_follow_the_formulas(tiny, scores, clips, monkeypatch, formula, max_entropy):
    """At 0 the first layer that is watched is followed by the enhanced one; at 1 none is."""
    monkeypatch.setattr(enhancement, "MAX_ENTROPY", max_entropy)
    text, true = prompts.retllm_true(QUERY), first_token(tiny, "True")
    results = [enhanced_logits(tiny, ("", clip, text), ratio=0.3, formula=formula) for clip in clips]
    if max_entropy != 0.3:  # in between it depends on the weights
        assert [layers for _, layers in results] == [[] if max_entropy else [3]] * len(clips)
    expected = [verdict(logits, true)[0] for logits, _ in results]
    enhanced = scores(RetLLM(ratio=0.3, formula=formula))
    assert enhanced == pytest.approx(expected, rel=2e-3, abs=0)
    assert (enhanced != scores(RetLLM(ratio=0))) == any(layers for _, layers in results)


def test_a_published_depth_is_watched_as_published():
    class Text:
        layers = range(28)

    watched = enhancement.VisualEnhancement(Text, None, ratio=0.12, formula="released").watched
    assert watched == list(range(6, 16))


def test_in_a_batch_each_prompt_has_its_own_trigger_and_means(tiny, clips, monkeypatch):
    """Prompts of different lengths, without and with visual tokens, padded to one batch: as one by one."""
    batch: list[Prompt] = [("", clips[0], "Is it?"), ("no picture",), (clips[3], clips[1], "And this one here?")]
    with tiny.visual_enhancement(ratio=0.0):
        plain = tiny.next_token_logits(batch)
    for max_entropy in (0.0, 0.5, 0.75):
        monkeypatch.setattr(enhancement, "MAX_ENTROPY", max_entropy)
        with tiny.visual_enhancement(ratio=0.5):
            singles = torch.cat([tiny.next_token_logits([prompt]) for prompt in batch])
            torch.testing.assert_close(tiny.next_token_logits(batch), singles, atol=1e-3, rtol=1e-4)
            with pytest.raises(ValueError, match="before the question"):
                tiny.prefill_prefix([(clips[0],)])
        if max_entropy == 0.0:
            assert not torch.allclose(singles[0], plain[0], atol=1e-2)
        torch.testing.assert_close(singles[1], plain[1], atol=1e-3, rtol=1e-4)
    assert torch.equal(tiny.next_token_logits(batch), plain)  # ratio 0, and afterwards: the same bits


def test_a_reply_is_written_with_the_enhancement_too(tiny, clips, monkeypatch):
    monkeypatch.setattr(enhancement, "MAX_ENTROPY", 0.0)
    prompt, states = ("", clips[0], "Describe it."), []
    norm = tiny.library.model.language_model.norm
    hook = norm.register_forward_hook(lambda _, __, normed: states.append(normed[0, -1]))
    with tiny.visual_enhancement(ratio=0.5):
        tiny.generate([prompt], max_new_tokens=1)
    hook.remove()
    expected, _ = enhanced_logits(tiny, prompt, ratio=0.5, formula="released")
    torch.testing.assert_close(tiny.library.lm_head(states[0]).double(), expected, atol=1e-3, rtol=1e-4)


# --- scores --------------------------------------------------------------------------------------------------------


def test_only_the_best_are_reranked(scores, candidates):
    best = sorted(candidates, key=lambda candidate: -candidate.embed_score)[:2]
    expected = [candidate in best for candidate in sorted(candidates, key=lambda candidate: candidate.start_seconds)]
    assert [score is not None for score in scores(RetLLM(top=2))] == expected
    assert None not in scores(RetLLM(top=None))


@pytest.mark.parametrize(
    ("text", "score"),
    [("Answer: 0.7500", 0.75), ("Answer:1", 1.0), ("It is 0.9", 0.0), ("", 0.0), ("Answer: 3.", 3.0)],
)
def test_a_written_score(text, score):
    assert written_score(text) == score


def let_write(monkeypatch, model, *texts: str) -> None:
    """Make the model write these texts, one after the other."""
    written = iter(texts)
    monkeypatch.setattr(model, "generate", lambda prompts, max_new_tokens: [next(written)])


def test_a_score_is_read_from_what_the_model_writes(tiny, candidates, monkeypatch):
    let_write(monkeypatch, tiny, "Answer: 0.8231", "I think Answer: 0.91", "none", "Answer: 0.1")
    answer = rerank(RetLLM(score="generated", decimals=2), tiny, candidates)
    expected = [(16.0, 0.91), (0.0, 0.82), (48.0, 0.1), (32.0, 0.0)]
    assert [(candidate.start_seconds, candidate.rerank_score) for candidate in answer] == expected


# --- ties ----------------------------------------------------------------------------------------------------------


def test_equal_scores_are_ordered_by_entropy(tiny, scores, clips):
    """With no decimal all are cut to 0, and tie; the guarded rule leaves those that are not likely to match."""
    text, true = prompts.retllm_true(QUERY), first_token(tiny, "True")
    verdicts = [verdict(full_logits(tiny, ("", clip, text)), true) for clip in clips]
    cut, bonus = ReleasedRetLLM(decimals=0, ratio=0), [MAX_TIE_BONUS * (1 - entropy) for _, entropy in verdicts]
    assert scores(cut) == pytest.approx(bonus, rel=1e-3, abs=0)
    guarded = [more if p > 0.5 else 0.0 for more, (p, _) in zip(bonus, verdicts, strict=True)]
    assert scores(dataclasses.replace(cut, ties="guarded")) == pytest.approx(guarded, rel=1e-3, abs=0)
    assert scores(dataclasses.replace(cut, ties="none")) == [0.0] * len(clips)


def test_ties_that_nothing_resolves_keep_the_order_of_the_embedding(tiny, candidates):
    answer = rerank(RetLLM(decimals=0, ratio=0, ties="none"), tiny, candidates)
    assert [candidate.rerank_score for candidate in answer] == [0.0] * len(candidates)
    assert [candidate.clip for candidate in answer] == [candidate.clip for candidate in candidates]


class DecidedModel:
    """A model made with its logits for each clip, in the order of time: of True, False and two more tokens."""

    dim = 8

    def __init__(self, *logits: list[float]) -> None:
        self._logits = torch.tensor(logits, dtype=torch.float64)

    def first_tokens(self, words):
        return [("True", "False").index(word) for word in words]

    def next_token_logits(self, inputs, words=None):
        assert len(inputs) == len(self._logits) and words is None
        return self._logits

    def visual_enhancement(self, **settings):
        return contextlib.nullcontext()


IMPOSSIBLE = -200.0
"""A logit that takes no probability: 1 + exp(-200) is 1."""


def logits_of(p: float) -> list[float]:
    """Return logits of which True has the probability p, and False the rest."""
    return [math.log(p / (1 - p)), 0.0, IMPOSSIBLE, IMPOSSIBLE]


def test_the_guarded_rule_is_for_clips_more_likely_than_not(candidates):
    """Below one half and at one half exactly a clip gets nothing; the least above it, and it stands before them.

    The clip above one half is the last one by embedding.
    """
    last = candidates[-1].clip
    in_time_order = sorted(candidate.clip for candidate in candidates)
    others = iter([logits_of(0.5), logits_of(0.4999), logits_of(0.01)])
    model = DecidedModel(*(logits_of(0.5001) if clip == last else next(others) for clip in in_time_order))
    reranker = RetLLM(decimals=0, ratio=0, top=None)
    answer = rerank(reranker, model, candidates)
    assert [candidate.clip for candidate in answer] == [last, *(candidate.clip for candidate in candidates[:-1])]
    assert 0 < answer[0].rerank_score <= MAX_TIE_BONUS
    assert [candidate.rerank_score for candidate in answer[1:]] == [0.0] * 3
    literal = rerank(dataclasses.replace(reranker, ties="literal"), model, candidates)
    assert all(candidate.rerank_score > 0 for candidate in literal)
    assert literal[0].clip != last, "the clip that fails most confidently"


def test_the_paper_asks_again_about_those_with_the_highest_score(tiny, candidates, clips, monkeypatch):
    let_write(monkeypatch, tiny, "Answer: 0.5", "Answer: 0.9", "Answer: 0.9", "Answer: 0.9")
    answer = rerank(PaperRetLLM(ratio=0), tiny, candidates)
    before, after = prompts.retllm_tie(QUERY)
    true = first_token(tiny, "True")
    entropies = [verdict(full_logits(tiny, (before, clip, after)), true)[1] for clip in clips]
    expected = [0.5, *(0.9 + MAX_TIE_BONUS * (1 - entropy) for entropy in entropies[1:])]
    assert scores_in_time_order(answer) == pytest.approx(expected, rel=1e-9)
    assert answer[-1].start_seconds == 0.0
