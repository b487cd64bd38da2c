"""The main path on the embedded model: methods and budgets, and what is decoded, encoded and read how often.

Nothing here depends on how well the model was trained.
"""

import pytest
import small_models
import video_files
from pipelines import FRAMES_IN_VIDEO, MINUTES, SEED, make_pipeline

from lvqa.components import CONTROLS, METHODS
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question
from lvqa.rerank import RERANKERS
from lvqa.synthetic.videos import ask_about, write_script
from lvqa.video import FrameGrid, inspect_video


@pytest.fixture(scope="module")
def shared(tiny, tmp_path_factory) -> LongVideoQA:
    """One pipeline whose video stays open, for tests that look at results alone."""
    return make_pipeline(tiny, tmp_path_factory.mktemp("store"), "video.clip_seconds=8")


BUDGETS = {"freeret": (1, 2, 3, 16, 59, 60, 64), "uniform": (1, 2, 3, 16, 59, 60, 64)}
"""The budgets of two methods. The others, which the contract checks, get few frames, and more than there are."""


@pytest.mark.parametrize(
    ("method", "budget"),
    [(method, m) for method in METHODS if method not in CONTROLS for m in BUDGETS.get(method, (3, 64))],
)
@pytest.mark.slow
def test_every_method_selects_exactly_its_budget(shared, video, question, method, budget):
    answer = shared.answer(video, question, method=method, frames=budget)
    assert len(answer.frames) == min(budget, FRAMES_IN_VIDEO)
    assert list(answer.frames) == sorted(set(answer.frames))
    assert all(0 <= seconds < FRAMES_IN_VIDEO for seconds in answer.frames)
    assert (answer.method, answer.frames_budget) == (method, budget)
    assert answer.option in tuple("ABCD")
    assert answer.text == question.options["ABCD".index(answer.option)]
    assert sum(answer.option_scores) == pytest.approx(1)


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("family", small_models.SMALL)
@pytest.mark.slow
def test_every_model_goes_the_whole_way(video, question, tmp_path, family, layout):
    folder = small_models.save(family, tmp_path / "model")
    settings = ["model.device=cpu", "video.clip_seconds=8", f"store.folder={tmp_path}", f"rerank.layout={layout}"]
    qa = LongVideoQA.load(str(folder), overrides=settings)
    choice = qa.answer(video, question, frames=8)
    assert len(choice.frames) == 8 and choice.option in tuple("ABCD") and sum(choice.option_scores) == pytest.approx(1)
    assert all(candidate.rerank_score is not None for candidate in choice.evidence) and len(choice.evidence) == 8
    free = qa.ask(video, "What happens?", frames=3)
    assert free.option is None and len(free.frames) == 3 and free.index.reused


OWN = """
import numpy as np

class Nearest:
    needs_features = True

    def select(self, inputs):
        assert len(inputs.features) == len(inputs) == len(inputs.clip_ids) == 60
        assert np.allclose(np.linalg.norm(inputs.features, axis=1), 1) and np.isclose(np.linalg.norm(inputs.query), 1)
        assert inputs.question_text.endswith("?") and inputs.question_id and inputs.video_id
        return inputs.selection([np.argmax(inputs.features @ inputs.query)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("centre", [False, True])
def test_a_selector_of_ones_own_sees_the_vectors_that_were_searched(make, video, question, tmp_path, centre):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    qa = make(f"embedding.centre={centre}", "video.clip_seconds=8")
    answer = qa.answer(video, question, method=str(path), frames=1)
    nearest = max(answer.evidence, key=lambda candidate: candidate.embed_score)
    assert answer.frames == (nearest.start_seconds,)
    assert answer.method == str(path)


@pytest.mark.slow
def test_vectors_alone_need_the_index_and_no_ranking(make, video, question):
    answer = make().answer(video, question, method="kmeans", frames=4)
    assert answer.index is not None and answer.evidence == ()
    assert "rerank" not in answer.seconds and "search" not in answer.seconds


@pytest.mark.slow
def test_options_reach_the_method(make, video, question):
    short, long = (make("method=bolt", f"selection.options.power={power}") for power in (0.01, 50))
    assert short.answer(video, question, frames=8).frames != long.answer(video, question, frames=8).frames
    with pytest.raises(LvqaError, match="unknown option 'power' of method 'uniform'"):
        short.answer(video, question, method="uniform")
    with pytest.raises(
        LvqaError, match=r"unknown option 'power' of method 'blind' \(selection.options\); it takes: none"
    ):
        short.answer(video, question, method="blind")


@pytest.mark.slow
def test_scores_that_are_smoothed_over_the_whole_video_say_nothing(make, video, question):
    qa = make("video.clip_seconds=8", "selection.smooth_seconds=1000000000000.0")
    smooth, even = (qa.answer(video, question, method=method, frames=4) for method in ("topk", "uniform"))
    assert smooth.frames == even.frames
    assert smooth.evidence == qa.answer(video, question, method="freeret").evidence, "the evidence keeps its scores"


def test_blind_shows_nothing_and_decodes_nothing(make, video, question):
    answer = make().answer(video, question, method="blind")
    assert (answer.frames, answer.evidence, answer.index) == ((), (), None)
    assert (answer.counts.frames_decoded, answer.counts.pairs_encoded) == (0, 0)
    assert answer.option is not None


def test_the_oracle_sees_the_evidence_and_nothing_else(shared, video, question):
    start, end = question.evidence_seconds
    answer = shared.answer(video, question, method="oracle", frames=8)
    assert len(answer.frames) == 8
    assert all(start <= seconds < end for seconds in answer.frames)
    firsts, seconds = answer.frames[::2], answer.frames[1::2]
    assert all(first % 2 == 0 and second == first + 1 for first, second in zip(firsts, seconds, strict=True)), "pairs"


@pytest.mark.slow
def test_a_budget_shows_as_many_different_frames_as_there_are(make, tmp_path):
    times = [0.0, 1.0, 2.0, 3.0, 60.0, 600.0, 603.0]
    path = video_files.write_video(tmp_path / "slides.mp4", len(times), times=times)
    for method in ("uniform", "freeret"):
        answer = make().ask(path, "What happens?", frames=16, method=method)
        assert list(answer.frames) == times
        assert answer.counts.frames_decoded == len(times)
    assert answer.counts.pairs_encoded == answer.index.clips + 1 == 4  # (0, 1), (2, 3), 60 alone, (600, 603)


def test_the_oracle_needs_the_evidence(shared, video):
    with pytest.raises(LvqaError, match="'oracle' needs the time of the evidence"):
        shared.ask(video, "Where is it?", method="oracle")


@pytest.mark.parametrize("method", ["uniform", "random", "blind"])
def test_methods_that_search_for_nothing_build_no_index(make, video, question, store, method):
    answer = make().answer(video, question, method=method)
    assert answer.index is None
    assert answer.evidence == ()
    assert not store.exists()


@pytest.mark.slow
def test_a_first_question_encodes_each_pair_once(make, video, question):
    answer = make().answer(video, question)
    assert answer.index.reused is False
    # The index has read every frame, and reranking and answering take their pairs from it.
    assert answer.counts.frames_decoded == FRAMES_IN_VIDEO
    assert answer.counts.pairs_encoded == FRAMES_IN_VIDEO // 2
    assert answer.counts.tokens_prefilled > 0


@pytest.mark.parametrize("memory_mib", [0, 1, 4096])
@pytest.mark.slow
def test_clips_that_were_read_before_score_the_same(make, video, memory_mib):
    """Some, none or all of what the first question made the model read is in the cache for the second."""
    questions = ask_about(write_script(SEED, MINUTES), 2)
    settings = ("video.clip_seconds=4", "rerank.layout=clip_first")
    qa = make(*settings, f"model.memory_mib={memory_mib}")
    first, second = (qa.answer(video, question) for question in questions)
    alone = make(*settings).answer(video, questions[1])
    scores = [{c.clip: (c.embed_score, c.rerank_score) for c in answer.evidence} for answer in (second, alone)]
    assert scores[0].keys() == scores[1].keys()
    assert all(scores[0][clip] == pytest.approx(scores[1][clip], abs=1e-5) for clip in scores[0])
    assert (second.option, second.frames) == (alone.option, alone.frames)
    ratio = second.counts.tokens_prefilled / first.counts.tokens_prefilled
    assert ratio < 0.45 if memory_mib == 4096 else ratio > 0.45


@pytest.mark.parametrize("mode", ["logits", "likelihood"])
@pytest.mark.slow
def test_questions_answered_together_are_answered_as_alone(make, video, mode):
    questions = ask_about(write_script(SEED, MINUTES), 3)
    setting = f"answer.mode={mode}"
    make(setting).index(video)
    together, one_by_one = make(setting).answers(video, questions), make(setting)
    alone = [one_by_one.answer(video, question) for question in questions]
    for answer, expected, question in zip(together, alone, questions, strict=True):
        assert (answer.question, answer.option, answer.frames) == (question, expected.option, expected.frames)
        assert answer.option_scores == pytest.approx(expected.option_scores, abs=1e-5)
        tokens = answer.answer_cost.counts.tokens_prefilled
        assert tokens == expected.answer_cost.counts.tokens_prefilled > 0
    totals = [sum(answer.counts.tokens_prefilled for answer in answers) for answers in (together, alone)]
    assert 0 < totals[0] <= totals[1]  # what those with the same frames share is read once
    assert make().answers(video, []) == []


@pytest.mark.slow
def test_the_same_question_again_encodes_nothing(make, video, question):
    qa = make()
    first, again = qa.answer(video, question), qa.answer(video, question)
    assert (again.counts.frames_decoded, again.counts.pairs_encoded) == (0, 0)
    assert again.index.reused is True
    assert (again.evidence, again.frames, again.option_scores) == (first.evidence, first.frames, first.option_scores)


@pytest.mark.slow
def test_another_question_encodes_only_what_is_new(make, video, question):
    make().index(video)
    qa = make("rerank.pool=1", "store.disk_mib=0")  # a fresh one: it has the index, and no pair
    first = qa.answer(video, question, frames=2)
    assert first.index.reused is True
    assert first.counts.pairs_encoded == 8  # the one clip that was reranked; the answer's pair lies in it
    assert first.counts.frames_decoded == 16
    second = qa.answer(video, Question("Where is the green fish?"), method="uniform", frames=2)
    known = set(range(int(first.evidence[0].clip.start_seconds), int(first.evidence[0].clip.end_seconds)))
    assert second.counts.pairs_encoded == 2  # frames without their neighbours are pairs of their own
    assert second.counts.frames_decoded == len(set(map(int, second.frames)))
    third = qa.answer(video, Question("What is white?"), frames=2)
    new = set(range(int(third.evidence[0].clip.start_seconds), int(third.evidence[0].clip.end_seconds))) - known
    assert third.counts.frames_decoded == len(new)
    assert third.counts.pairs_encoded == len(new) // 2


@pytest.mark.parametrize("encoding", ["text", "mrope"])
@pytest.mark.parametrize("method", ["freeret", "uniform", "mmr"])
def test_a_skimmed_video_is_answered_from_its_keyframes(make, video, question, method, encoding):
    keys = set(FrameGrid.keyframes(inspect_video(video), 1.0).times_seconds.tolist())
    qa = make("video.sampling=keyframes", "video.threads=2", f"answer.time_encoding={encoding}")
    answer = qa.answer(video, question, method=method, frames=64)
    assert set(answer.frames) == keys
    assert answer.counts.frames_decoded == len(keys) < FRAMES_IN_VIDEO
    if method != "uniform":
        edges = sorted(edge for clip in answer.evidence for edge in (clip.start_seconds, clip.end_seconds))
        assert (edges[0], edges[-1]) == (0.0, FRAMES_IN_VIDEO)


@pytest.mark.slow
def test_evidence_holds_every_clip_once_reranked_ones_first(make, video, question):
    answer = make("rerank.pool=2").answer(video, question)
    assert sorted(c.clip.start_seconds for c in answer.evidence) == [0, 16, 32, 48]
    scores = [c.rerank_score for c in answer.evidence]
    assert scores[0] >= scores[1]
    assert scores[2:] == [None, None]
    assert answer.evidence[2].embed_score >= answer.evidence[3].embed_score


@pytest.mark.slow
def test_a_pool_can_be_the_whole_video(make, video, question):
    answer = make("rerank.pool=null", "video.clip_seconds=1").answer(video, question)
    assert [c.rerank_score is None for c in answer.evidence] == [False] * 30


@pytest.mark.slow
@pytest.mark.parametrize("override", ["rerank.name=none", "rerank.pool=0"])
def test_without_reranking_the_embedding_ranks(make, video, question, override):
    answer = make(override).answer(video, question)
    embedded = [c.embed_score for c in answer.evidence]
    assert embedded == sorted(embedded, reverse=True)
    assert {c.rerank_score for c in answer.evidence} == {None}


@pytest.mark.slow
def test_search_gives_the_best_clips(make, video):
    qa = make()
    hits = qa.search(video, "the red fish", top=3)
    assert len(hits) == 3
    assert hits == qa.search(video, "the red fish", top=100)[:3]


@pytest.mark.slow
def test_progress_is_reported_in_pairs(make, video, question):
    steps = []
    make(progress=lambda *step: steps.append(step)).answer(video, question)
    assert [step for step in steps if step[0] == "index"] == [("index", n, 30) for n in (8, 16, 24, 30)]
    assert [step for step in steps if step[0] == "rerank"] == [("rerank", n, 30) for n in (8, 16, 24, 30)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("video.decoder=vlc", "video.decoder must be one of pyav, decord, got 'vlc'"),
        ("rerank.name=best", f"rerank.name must be one of {', '.join(RERANKERS)}, or a file ending in .py, got 'best'"),
        ("video.sampling=best", "video.sampling must be one of exact, keyframes, got 'best'"),
        ("method=best", f"method must be one of {', '.join(METHODS)}, or a file ending in .py or .json, got 'best'"),
    ],
)
def test_unknown_names_are_refused_before_a_model_is_looked_for(override, message):
    with pytest.raises(LvqaError) as refused:
        LongVideoQA.load("no/such/model", overrides=[override])
    assert str(refused.value) == message
