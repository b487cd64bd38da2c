"""The rerankers against the library's own model and the formulas, on noise in the place of clips.

Scores may be as small as 1e-11, so they are compared by their ratio.
"""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from lvqa import prompts
from lvqa.components import check_settings, reranker_of
from lvqa.config import load_config
from lvqa.models import enhancement, load_model
from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.records import Candidate, LvqaError
from lvqa.rerank import RERANKERS, MultipleChoice, RerankRequest, make_reranker, rerank_each, retllm
from lvqa.rerank.contract import CHECKS, candidates_like, clip_tokens_for
from lvqa.rerank.retllm import MOST_OF_A_TIE, PaperRetLLM, ReleasedRetLLM, RetLLM, written_score

QUERY = "Where is the dog?"
FRAMINGS = {
    "letters": ("A", "B"),
    "yes_no": ("Yes", "No"),
    "true_false": ("True", "False"),
    "right_wrong": ("Right", "Wrong"),
}


@pytest.fixture(scope="module")
def model():
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    return candidates_like(4)


@pytest.fixture(scope="module")
def scores(model, candidates):
    """The scores of the candidates by a reranker, in the order of time."""

    def scores(reranker, **given) -> list[float | None]:
        found = reranker.rerank(model, QUERY, candidates, clip_tokens_for(model), **given)
        return [one.rerank_score for one in sorted(found, key=lambda one: one.start_seconds)]

    return scores


@pytest.fixture(scope="module")
def blocks(model, candidates) -> list[ClipTokens]:
    """What is seen of the clips, in the order of time."""
    return list(clip_tokens_for(model)(sorted(candidate.clip for candidate in candidates)))


def embedded(model, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor]:
    """(1, sequence, dim) embeddings, (3, 1, sequence) positions and (sequence,) where it is visual, of one prompt."""
    sequence = model.encode_prompt(prompt)
    states = model.library.get_input_embeddings()(sequence.ids[None])
    visual = sequence.visual_mask
    states[0, visual] = torch.cat([part.tokens.flatten(0, 1) for part in prompt if not isinstance(part, str)])
    return states, sequence.positions[:, None], visual


@torch.no_grad()
def full_logits(model, prompt: Prompt) -> Tensor:
    """(vocabulary,) float64 logits of the reply's first token, by the library's own forward pass."""
    states, positions, _ = embedded(model, prompt)
    return model.library(inputs_embeds=states, position_ids=positions, use_cache=False).logits[0, -1].double()


def token(model, word: str) -> int:
    return model.first_tokens([word])[0]


# --- FreeRet -------------------------------------------------------------------------------------------------------


def expected(model, blocks, labels: str, swapped: bool, layout: str) -> tuple[list[float], list[float]]:
    """P(it matches) of each clip, over the two labels and over the whole vocabulary, from the library's logits."""
    before, after = prompts.rerank(QUERY, labels=labels, swapped=swapped, clip_first=layout == "clip_first")
    match, other = FRAMINGS[labels]
    if swapped and labels == "letters":
        match, other = other, match
    logits = [full_logits(model, (before, block, after)) for block in blocks]
    yes, no = token(model, match), token(model, other)
    of_two = [float(one[yes].exp() / (one[yes].exp() + one[no].exp())) for one in logits]
    return of_two, [float(one[yes].exp() / one.exp().sum()) for one in logits]


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("labels", FRAMINGS)
def test_every_framing_scores_as_the_librarys_logits_say(model, scores, blocks, labels, layout):
    plain, swapped = (expected(model, blocks, labels, order, layout) for order in (False, True))
    for number, probability in enumerate(("options", "vocabulary")):
        make = {"labels": labels, "probability": probability, "layout": layout}
        assert scores(MultipleChoice(**make)) == pytest.approx(plain[number], rel=1e-3, abs=0)
        mean = [(a + b) / 2 for a, b in zip(plain[number], swapped[number], strict=True)]
        assert scores(MultipleChoice(**make, both_orders=True)) == pytest.approx(mean, rel=1e-3, abs=0)


def test_the_framings_are_those_of_the_paper():
    assert prompts.LABELS == FRAMINGS
    texts = {
        prompts.rerank(QUERY, labels=labels, swapped=swapped, clip_first=clip_first)
        for labels, swapped, clip_first in itertools.product(FRAMINGS, (False, True), (False, True))
    }
    assert len(texts) == 16 and all("".join(text).count(QUERY) == 1 for text in texts)
    _, neutral = prompts.rerank(QUERY)
    assert neutral.splitlines()[:2] == [
        "A. Yes, the candidate fully matches the query.",
        "B. No, the candidate does not match or only partially matches.",
    ]


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
def test_with_both_orders_a_clip_is_read_once(model, scores, blocks, layout):
    spent = []
    for both_orders in (False, True):
        before = model.counts.tokens_prefilled
        scores(MultipleChoice(layout=layout, both_orders=both_orders), beginnings=PrefixCache(1 << 30))
        spent.append(model.counts.tokens_prefilled - before)
    _, after = prompts.rerank(QUERY, clip_first=layout == "clip_first")
    rests = [len(model.encode_suffix(after, 0)) for _ in blocks]
    assert spent[1] - spent[0] == pytest.approx(sum(rests), abs=2 * len(blocks))  # the texts differ by a few tokens


def test_what_was_read_serves_every_question(model, candidates, blocks):
    kept, reranker = PrefixCache(1 << 30), MultipleChoice(layout="clip_first", both_orders=True)
    spent = []
    for _ in range(2):
        before = model.counts.tokens_prefilled
        reranker.rerank(model, QUERY, candidates, clip_tokens_for(model), kept)
        spent.append(model.counts.tokens_prefilled - before)
    assert len(list(kept)) == len(candidates)
    assert spent[0] - spent[1] == sum(map(len, kept.values()))


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["rerank.labels=maybe"], "labels must be one of letters, yes_no, true_false, right_wrong, got 'maybe'"),
        (["rerank.probability=all"], "probability must be one of options, vocabulary, got 'all'"),
        (["rerank.options.top=3"], "unknown option 'top' of rerank.name 'mcq' (rerank.options); it takes: layout"),
        (["rerank.name=retllm", "rerank.options.k=3"], "(rerank.options); it takes: top, score, ratio"),
        (["rerank.name=retllm", "rerank.options.ratio=1.5"], "ratio must be a number from 0 to 1, got 1.5"),
        (["rerank.name=retllm", "rerank.options.top=0"], "top must be 1 or more, or null, got 0"),
        (["rerank.name=retllm", "rerank.options.score=sure"], "score must be one of p_true, generated"),
        (
            ["rerank.name=retllm", "rerank.options.decimals=true"],
            "decimals must be a whole number from 0 to 9, or null",
        ),
        (["rerank.name=retllm", "rerank.options.formula=memvr"], "formula must be one of released, paper"),
        (["rerank.name=no.py"], "cannot read the plug-in"),
        (["rerank.name=best"], "rerank.name must be one of none, mcq, retllm"),
    ],
)
def test_what_no_reranker_knows_is_refused_before_any_work(overrides, named):
    with pytest.raises(LvqaError) as refused:
        check_settings(load_config(None, overrides))
    assert named in str(refused.value) and "\n" not in str(refused.value)


def test_the_settings_make_the_reranker():
    overrides = ["rerank.labels=yes_no", "rerank.both_orders=true", "rerank.probability=vocabulary"]
    made = reranker_of(load_config(None, overrides), layout="clip_first")
    assert made == MultipleChoice(layout="clip_first", labels="yes_no", both_orders=True, probability="vocabulary")
    overrides = ["rerank.name=retllm_released", "rerank.options={ratio: 0.3}", "rerank.options.top=null"]
    assert reranker_of(load_config(None, overrides)) == ReleasedRetLLM(ratio=0.3, top=None)


# --- RetLLM --------------------------------------------------------------------------------------------------------


def verdict(logits: Tensor, true: int) -> tuple[float, float]:
    """P(True) and the entropy over the vocabulary, as a part of the largest possible."""
    shares = logits.exp() / logits.exp().sum()
    return float(shares[true]), float(-(shares * shares.log()).sum() / math.log(len(shares)))


@torch.no_grad()
def enhanced_logits(model, prompt: Prompt, *, ratio: float, formula: str) -> tuple[Tensor, list[int]]:
    """(vocabulary,) float64 logits, and the layers enhanced: the formulas, on one prompt, layer by layer."""
    library, text = model.library, model.library.model.language_model
    states, positions, visual = embedded(model, prompt)
    shown, rotary, length = states[0, visual], text.rotary_emb(states, positions), states.shape[1]
    causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    enhanced, due = [], False
    for number, layer in enumerate(text.layers):
        normal = layer.input_layernorm(states)
        states = states + layer.self_attn(normal, attention_mask=causal, position_embeddings=rotary)[0]
        x = layer.post_attention_layernorm(states)[0]
        memory = layer.mlp(x)
        if due:
            keys = values = shown
            if formula == "released":
                keys = layer.mlp.gate_proj.weight.abs().mean() / shown.abs().mean() * shown
                values = layer.mlp.down_proj.weight.abs().mean() / shown.abs().mean() * shown
            pairs = list(zip(keys, values, strict=True))
            looked_up = torch.stack([sum(silu(place @ key) * value for key, value in pairs) for place in x])
            if formula == "released":
                looked_up = looked_up * memory.abs().mean() / looked_up.abs().mean()
            memory, due = ratio * looked_up + (1 - ratio) * memory, False
            enhanced.append(number)
        states = states + memory
        if 5 / 28 < number / len(text.layers) < 16 / 28 and not enhanced:
            largest = library.lm_head(states[0, -1]).sort(descending=True).values[:10]
            shares = largest.softmax(dim=0)
            due = float(-(shares * shares.log()).sum()) / math.log(10) > enhancement.MAX_ENTROPY
    return library.lm_head(text.norm(states[0, -1])).double(), enhanced


def test_without_enhancement_the_score_is_p_true(model, scores, blocks):
    text, true = prompts.retllm_true(QUERY), token(model, "True")
    expected = [verdict(full_logits(model, ("", block, text)), true)[0] for block in blocks]
    assert scores(RetLLM(ratio=0)) == pytest.approx(expected, rel=1e-3, abs=0)


@pytest.mark.parametrize("formula", ["released", "paper"])
@pytest.mark.parametrize("sure", [0.0, 0.3, 1.0])
def test_enhanced_scores_follow_the_formulas(model, scores, blocks, monkeypatch, formula, sure):
    """At 0 the first layer that is watched is followed by the enhanced one; at 1 none is."""
    monkeypatch.setattr(enhancement, "MAX_ENTROPY", sure)
    text, true = prompts.retllm_true(QUERY), token(model, "True")
    found = [enhanced_logits(model, ("", block, text), ratio=0.3, formula=formula) for block in blocks]
    if sure != 0.3:  # in between it depends on the weights
        assert [layers for _, layers in found] == [[] if sure else [3]] * len(blocks)
    expected = [verdict(logits, true)[0] for logits, _ in found]
    enhanced = scores(RetLLM(ratio=0.3, formula=formula))
    assert enhanced == pytest.approx(expected, rel=2e-3, abs=0)
    assert (enhanced != scores(RetLLM(ratio=0))) == any(layers for _, layers in found)


def test_a_published_depth_is_watched_as_published():
    class Text:
        layers = range(28)

    watched = enhancement.VisualEnhancement(Text, None, ratio=0.12, formula="released").watched
    assert watched == list(range(6, 16))


def test_in_a_batch_each_prompt_has_its_own_trigger_and_means(model, blocks, monkeypatch):
    """Prompts of different lengths, without and with visual tokens, padded to one batch: as one by one."""
    shown: list[Prompt] = [("", blocks[0], "Is it?"), ("no picture",), (blocks[3], blocks[1], "And this one here?")]
    with model.visual_enhancement(ratio=0.0):
        plain = model.next_token_logits(shown)
    for sure in (0.0, 0.5, 0.75):
        monkeypatch.setattr(enhancement, "MAX_ENTROPY", sure)
        with model.visual_enhancement(ratio=0.5):
            singles = torch.cat([model.next_token_logits([prompt]) for prompt in shown])
            torch.testing.assert_close(model.next_token_logits(shown), singles, atol=1e-3, rtol=1e-4)
            with pytest.raises(ValueError, match="before the question"):
                model.prefill_prefix([(blocks[0],)])
        if sure == 0.0:
            assert not torch.allclose(singles[0], plain[0], atol=1e-2)
        torch.testing.assert_close(singles[1], plain[1], atol=1e-3, rtol=1e-4)
    assert torch.equal(model.next_token_logits(shown), plain)  # ratio 0, and afterwards: the same bits


def test_a_reply_is_written_with_the_enhancement_too(model, blocks, monkeypatch):
    monkeypatch.setattr(enhancement, "MAX_ENTROPY", 0.0)
    prompt, seen = ("", blocks[0], "Describe it."), []
    norm = model.library.model.language_model.norm
    hook = norm.register_forward_hook(lambda _, __, normed: seen.append(normed[0, -1]))
    with model.visual_enhancement(ratio=0.5):
        model.generate(prompt, max_new_tokens=1)
    hook.remove()
    expected, _ = enhanced_logits(model, prompt, ratio=0.5, formula="released")
    torch.testing.assert_close(model.library.lm_head(seen[0]).double(), expected, atol=1e-3, rtol=1e-4)


def test_only_the_best_are_looked_at(scores, candidates):
    best = sorted(candidates, key=lambda one: -one.embed_score)[:2]
    expected = [one in best for one in sorted(candidates, key=lambda one: one.start_seconds)]
    assert [score is not None for score in scores(RetLLM(top=2))] == expected
    assert None not in scores(RetLLM(top=None))


def test_equal_scores_are_told_apart_by_entropy(model, scores, blocks):
    """With no decimal all are cut to 0, and tie; the guarded rule leaves those that are not likely to match."""
    text, true = prompts.retllm_true(QUERY), token(model, "True")
    found = [verdict(full_logits(model, ("", block, text)), true) for block in blocks]
    cut, sure = ReleasedRetLLM(decimals=0, ratio=0), [MOST_OF_A_TIE * (1 - entropy) for _, entropy in found]
    assert scores(cut) == pytest.approx(sure, rel=1e-3, abs=0)
    guarded = [more if p > 0.5 else 0.0 for more, (p, _) in zip(sure, found, strict=True)]
    assert scores(dataclasses.replace(cut, ties="guarded")) == pytest.approx(guarded, rel=1e-3, abs=0)
    assert scores(dataclasses.replace(cut, ties="none")) == [0.0] * len(blocks)


def test_a_score_is_read_from_what_the_model_writes(model, candidates, monkeypatch):
    written = iter(["Answer: 0.8231", "I think Answer: 0.91", "none", "Answer: 0.1"])
    monkeypatch.setattr(model, "generate", lambda prompt, max_new_tokens: next(written))
    found = RetLLM(score="generated", decimals=2).rerank(model, QUERY, candidates, clip_tokens_for(model))
    expected = [(16.0, 0.91), (0.0, 0.82), (48.0, 0.1), (32.0, 0.0)]
    assert [(one.start_seconds, one.rerank_score) for one in found] == expected


@pytest.mark.parametrize(
    ("text", "score"),
    [("Answer: 0.7500", 0.75), ("Answer:1", 1.0), ("It is 0.9", 0.0), ("", 0.0), ("Answer: 3.", 3.0)],
)
def test_a_written_score(text, score):
    assert written_score(text) == score


def test_the_paper_asks_again_about_those_with_the_highest_score(model, candidates, blocks, monkeypatch):
    written = iter(["Answer: 0.5", "Answer: 0.9", "Answer: 0.9", "Answer: 0.9"])
    monkeypatch.setattr(model, "generate", lambda prompt, max_new_tokens: next(written))
    found = PaperRetLLM(ratio=0).rerank(model, QUERY, candidates, clip_tokens_for(model))
    before, after = prompts.retllm_tie(QUERY)
    true = token(model, "True")
    entropies = [verdict(full_logits(model, (before, block, after)), true)[1] for block in blocks]
    expected = [0.5, *(0.9 + MOST_OF_A_TIE * (1 - entropy) for entropy in entropies[1:])]
    scores = [one.rerank_score for one in sorted(found, key=lambda one: one.start_seconds)]
    assert scores == pytest.approx(expected, rel=1e-9)
    assert found[-1].start_seconds == 0.0


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("both_orders", [False, True])
@pytest.mark.parametrize("in_hand", [1, 3])
def test_scores_do_not_depend_on_how_many_clips_are_in_hand(scores, monkeypatch, layout, both_orders, in_hand):
    reranker = MultipleChoice(layout=layout, both_orders=both_orders)
    at_once = scores(reranker)
    monkeypatch.setattr(scoring, "CHUNK", in_hand)
    assert scores(reranker) == pytest.approx(at_once, abs=1e-5)
    assert scores(reranker, beginnings=PrefixCache(1 << 30)) == pytest.approx(at_once, abs=1e-5)


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("both_orders", [False, True])
@pytest.mark.parametrize("in_hand", [1, 64])
def test_queries_together_are_scored_as_alone(model, monkeypatch, layout, both_orders, in_hand):
    """A clip of several pools is shown once; clip first, it is read once, even if nothing can be held."""
    monkeypatch.setattr(scoring, "CHUNK", in_hand)
    reranker, pool, shown = MultipleChoice(layout=layout, both_orders=both_orders), candidates_like(5), []
    sought = [
        RerankRequest(QUERY, pool[:4]),
        RerankRequest("Who sings in the rain, and why?", pool[1:]),
        RerankRequest("Why?", pool[:1]),
    ]

    def clip_tokens(clips):
        shown.extend(clips)
        return clip_tokens_for(model)(clips)

    before = model.counts.tokens_prefilled
    together = rerank_each(reranker, model, sought, clip_tokens, PrefixCache(0))
    spent = model.counts.tokens_prefilled - before
    assert sorted(shown) == sorted({one.clip for one in pool})
    kept, begun = PrefixCache(1 << 30), model.counts.tokens_prefilled
    for one, found in zip(sought, together, strict=True):
        alone = reranker.rerank(model, one.query, one.candidates, clip_tokens_for(model), kept)
        scores = [{each.clip: each.rerank_score for each in some} for some in (found, alone)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        assert [each.rerank_score for each in found] == sorted(scores[0].values(), reverse=True)
    assert spent == model.counts.tokens_prefilled - begun


# --- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", RERANKERS)
def test_every_reranker_keeps_the_contract(name, check, monkeypatch):
    monkeypatch.setattr(retllm, "MAX_NEW_TOKENS", 8)  # a longer reply shows no more
    assert CHECKS[check](lambda: make_reranker(name)) is None


def test_so_does_mcq_with_its_switches():
    options = {"layout": "clip_first", "both_orders": True, "probability": "vocabulary", "labels": "right_wrong"}
    assert {what: check(lambda: MultipleChoice(**options)) for what, check in CHECKS.items()} == dict.fromkeys(CHECKS)


def test_so_does_retllm_without_enhancement():
    assert {what: check(lambda: RetLLM(ratio=0)) for what, check in CHECKS.items()} == dict.fromkeys(CHECKS)
