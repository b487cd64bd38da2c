"""FreeRet's reranker against the library's own model and the formulas, and the contract of all rerankers.

The clips are noise. Scores may be as small as 1e-11, so they are compared by their ratio.
"""

import itertools
from dataclasses import replace

import pytest
from reranking import QUERY, clip_tokens_of, first_token, full_logits, rerank, scores_in_time_order

from lvqa import prompts
from lvqa.components import check_settings, reranker_of
from lvqa.config import load_config
from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.rerank import RERANKERS, MultipleChoice, RerankRequest, best_first, make_reranker, retllm, scoring
from lvqa.rerank.contract import CHECKS, NoiseReader, candidates_like
from lvqa.rerank.retllm import ReleasedRetLLM, RetLLM

FRAMINGS = {
    "letters": ("A", "B"),
    "yes_no": ("Yes", "No"),
    "true_false": ("True", "False"),
    "right_wrong": ("Right", "Wrong"),
}


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    return candidates_like(4)


@pytest.fixture(scope="module")
def scores(tiny, candidates):
    """Return the candidates' scores by a reranker, in the order of time."""

    def scores(reranker, prefix_cache: PrefixCache | None = None) -> list[float | None]:
        return scores_in_time_order(rerank(reranker, tiny, candidates, prefix_cache=prefix_cache))

    return scores


@pytest.fixture(scope="module")
def clips(tiny, candidates) -> list[ClipTokens]:
    """What the model sees of the clips, in the order of time."""
    return clip_tokens_of(tiny, candidates)


def expected_scores(model, clips, labels: str, swapped: bool, layout: str) -> tuple[list[float], list[float]]:
    """Return P(it matches) of each clip, over the two labels and over the whole vocabulary, by the library's logits."""
    before, after = prompts.rerank(QUERY, labels=labels, swapped=swapped, clip_first=layout == "clip_first")
    match, other = FRAMINGS[labels]
    if swapped and labels == "letters":
        match, other = other, match
    rows = [full_logits(model, (before, clip, after)) for clip in clips]
    yes, no = first_token(model, match), first_token(model, other)
    of_two = [float(row[yes].exp() / (row[yes].exp() + row[no].exp())) for row in rows]
    return of_two, [float(row[yes].exp() / row.exp().sum()) for row in rows]


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("labels", FRAMINGS)
@pytest.mark.slow
def test_every_framing_scores_as_the_librarys_logits_say(tiny, scores, clips, labels, layout):
    plain, swapped = (expected_scores(tiny, clips, labels, order, layout) for order in (False, True))
    for i, probability in enumerate(("options", "vocabulary")):
        settings = {"labels": labels, "probability": probability, "layout": layout}
        assert scores(MultipleChoice(**settings)) == pytest.approx(plain[i], rel=1e-3, abs=0)
        mean = [(a + b) / 2 for a, b in zip(plain[i], swapped[i], strict=True)]
        assert scores(MultipleChoice(**settings, both_orders=True)) == pytest.approx(mean, rel=1e-3, abs=0)


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
def test_with_both_orders_a_clip_is_read_once(tiny, scores, clips, layout):
    tokens = []
    for both_orders in (False, True):
        before = tiny.counts.tokens_prefilled
        scores(MultipleChoice(layout=layout, both_orders=both_orders), prefix_cache=PrefixCache(1 << 30))
        tokens.append(tiny.counts.tokens_prefilled - before)
    _, after = prompts.rerank(QUERY, clip_first=layout == "clip_first")
    lead = prompts.RERANK_TASK if layout == "clip_first" else ""
    suffixes = sum(tiny.prompt_length((clip, after))[0] - len(tiny.encode_prefix((clip,), lead)) for clip in clips)
    assert tokens[1] - tokens[0] == pytest.approx(suffixes, abs=2 * len(clips))  # the texts differ by a few tokens


def test_what_was_read_serves_every_question(tiny, candidates):
    prefix_cache, reranker = PrefixCache(1 << 30), MultipleChoice(layout="clip_first", both_orders=True)
    tokens = []
    for _ in range(2):
        before = tiny.counts.tokens_prefilled
        rerank(reranker, tiny, candidates, prefix_cache=prefix_cache)
        tokens.append(tiny.counts.tokens_prefilled - before)
    assert len(prefix_cache) == len(candidates)
    assert tokens[0] - tokens[1] == sum(map(len, prefix_cache.values()))


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("both_orders", [False, True])
@pytest.mark.parametrize("clips_in_memory", [1, 3])
@pytest.mark.slow
def test_scores_do_not_depend_on_how_many_clips_are_in_memory(
    scores, monkeypatch, layout, both_orders, clips_in_memory
):
    reranker = MultipleChoice(layout=layout, both_orders=both_orders)
    at_once = scores(reranker)
    monkeypatch.setattr(scoring, "CLIPS_IN_MEMORY", clips_in_memory)
    assert scores(reranker) == pytest.approx(at_once, abs=1e-5)
    assert scores(reranker, prefix_cache=PrefixCache(1 << 30)) == pytest.approx(at_once, abs=1e-5)


class CountingReader:
    """A reader that notes which clips it has read."""

    def __init__(self, model, prefix_cache: PrefixCache) -> None:
        self.prefix_cache, self.clips_read = prefix_cache, list[Clip]()
        self._reader = NoiseReader(model)

    def read(self, clips):
        self.clips_read.extend(clips)
        return self._reader.read(clips)


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("both_orders", [False, True])
@pytest.mark.parametrize("clips_in_memory", [1, 64])
@pytest.mark.slow
def test_requests_together_are_scored_as_alone(tiny, monkeypatch, layout, both_orders, clips_in_memory):
    """A clip of several pools is shown once; clip first, it is read once, even if nothing can be cached."""
    monkeypatch.setattr(scoring, "CLIPS_IN_MEMORY", clips_in_memory)
    reranker, pool = MultipleChoice(layout=layout, both_orders=both_orders), candidates_like(5)
    reader = CountingReader(tiny, PrefixCache(0))
    requests = [
        RerankRequest(QUERY, pool[:4], reader),
        RerankRequest("Who sings in the rain, and why?", pool[1:], reader),
        RerankRequest("Why?", pool[:1], reader),
    ]
    before = tiny.counts.tokens_prefilled
    together = reranker.rerank(tiny, requests)
    tokens_together = tiny.counts.tokens_prefilled - before
    assert sorted(reader.clips_read) == sorted({candidate.clip for candidate in pool})
    prefix_cache, before = PrefixCache(1 << 30), tiny.counts.tokens_prefilled
    for request, answer in zip(requests, together, strict=True):
        alone = rerank(reranker, tiny, request.candidates, query=request.query, prefix_cache=prefix_cache)
        of_clips = [{candidate.clip: candidate.rerank_score for candidate in group} for group in (answer, alone)]
        assert of_clips[0] == pytest.approx(of_clips[1], abs=1e-5)
        assert [candidate.rerank_score for candidate in answer] == sorted(of_clips[0].values(), reverse=True)
    assert tokens_together == tiny.counts.tokens_prefilled - before


# --- ties ----------------------------------------------------------------------------------------------------------


def test_of_equal_scores_the_better_by_embedding_comes_first(candidates):
    """Whatever order they come in: that of the video is another one than the embedding's."""
    in_time_order = sorted(candidates, key=lambda candidate: candidate.start_seconds)
    assert in_time_order != candidates
    for order in (in_time_order, in_time_order[::-1], candidates):
        equal = [replace(candidate, rerank_score=0.5) for candidate in order]
        assert [candidate.clip for candidate in best_first(equal)] == [candidate.clip for candidate in candidates]
        best = equal.pop(2)
        ranked = best_first([*equal, replace(best, rerank_score=0.6)])
        rest = [candidate.clip for candidate in candidates if candidate.clip != best.clip]
        assert [candidate.clip for candidate in ranked] == [best.clip, *rest]


class StillReader(NoiseReader):
    """A reader of a video in which nothing changes: each clip looks the same."""

    def read(self, clips):
        (tokens,) = super().read([Clip("v", 0.0, 16.0)])
        return iter([tokens for _ in clips])


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
def test_clips_that_look_alike_keep_the_order_of_the_embedding(tiny, candidates, layout):
    request = RerankRequest(QUERY, candidates, StillReader(tiny))
    (answer,) = MultipleChoice(layout=layout).rerank(tiny, [request])
    assert len({candidate.rerank_score for candidate in answer}) == 1
    assert [candidate.clip for candidate in answer] == [candidate.clip for candidate in candidates]


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
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
def test_what_no_reranker_knows_is_refused_before_any_work(overrides, message):
    with pytest.raises(LvqaError) as refused:
        check_settings(load_config(None, overrides))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_settings_make_the_reranker():
    overrides = ["rerank.labels=yes_no", "rerank.both_orders=true", "rerank.probability=vocabulary"]
    reranker = reranker_of(load_config(None, overrides), layout="clip_first")
    assert reranker == MultipleChoice(layout="clip_first", labels="yes_no", both_orders=True, probability="vocabulary")
    overrides = ["rerank.name=retllm_released", "rerank.options={ratio: 0.3}", "rerank.options.top=null"]
    assert reranker_of(load_config(None, overrides)) == ReleasedRetLLM(ratio=0.3, top=None)


# --- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", RERANKERS)
@pytest.mark.slow
def test_every_reranker_keeps_the_contract(name, check, monkeypatch):
    monkeypatch.setattr(retllm, "MAX_NEW_TOKENS", 8)  # a longer reply shows no more
    assert CHECKS[check](lambda: make_reranker(name)) is None


@pytest.mark.slow
def test_mcq_keeps_the_contract_with_its_switches():
    options = {"layout": "clip_first", "both_orders": True, "probability": "vocabulary", "labels": "right_wrong"}
    problems = {name: check(lambda: MultipleChoice(**options)) for name, check in CHECKS.items()}
    assert problems == dict.fromkeys(CHECKS)


@pytest.mark.slow
def test_retllm_keeps_the_contract_without_enhancement():
    assert {name: check(lambda: RetLLM(ratio=0)) for name, check in CHECKS.items()} == dict.fromkeys(CHECKS)
