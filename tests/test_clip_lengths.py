"""Clips of several lengths from the same visual tokens: each is ranked as if alone, then all are ranked together."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from pipelines import make_pipeline

from lvqa.components import check_settings
from lvqa.config import load_config
from lvqa.library import index_videos
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.retrieval import ranked_together
from lvqa.settings_tree import ConfigError

LENGTHS = ("video.clip_seconds=16", "video.more_clip_seconds=[8, 32]")


def candidate(start: float, end: float, embed_score: float, rerank_score: float | None = None) -> Candidate:
    return Candidate(Clip("v", start, end), embed_score, rerank_score)


def disjoint(clips: list[Clip]) -> bool:
    ordered = sorted(clips, key=lambda clip: clip.start_seconds)
    return all(a.end_seconds <= b.start_seconds for a, b in itertools.pairwise(ordered))


# --- ranked together -------------------------------------------------------------------------------------------------


def test_a_single_ranking_stays_as_it_is():
    """Also where a reranker of one's own does not sort by its scores."""
    ranking = [candidate(16, 32, 0.1, 0.2), candidate(0, 16, 0.3, 0.9), candidate(32, 48, 0.8), candidate(48, 64, 0.9)]
    assert ranked_together([ranking]) == tuple(ranking)


def test_of_clips_that_overlap_the_best_stays():
    eights = [candidate(8, 16, 0.5, 0.9), candidate(0, 8, 0.4, 0.3), candidate(24, 32, 0.3), candidate(16, 24, 0.2)]
    sixteens = [candidate(16, 32, 0.5, 0.8), candidate(0, 16, 0.6, 0.7)]
    thirties = [candidate(0, 32, 0.9)]
    assert ranked_together([sixteens, eights, thirties]) == (eights[0], sixteens[0], eights[1])
    assert ranked_together([thirties, sixteens]) == tuple(sixteens)  # a reranked clip comes before all others
    assert ranked_together([thirties, eights[2:]]) == tuple(thirties)


def test_clips_inside_each_other_leave_no_gap():
    rng = np.random.default_rng(3)
    for _ in range(20):
        rankings = []
        for length in (8, 16, 32):
            clips = [candidate(start, start + length, rng.random()) for start in range(0, 128, length)]
            rankings.append(sorted(clips, key=lambda one: -one.embed_score))
        clips = [one.clip for one in ranked_together(rankings)]
        assert disjoint(clips) and sum(clip.end_seconds - clip.start_seconds for clip in clips) == 128
        best = max((one for ranking in rankings for one in ranking), key=lambda one: one.embed_score)
        assert clips[0] == best.clip


# --- of a video ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_length_is_indexed_and_ranked_as_if_alone(make, tiny, video, question, tmp_path):
    before = dataclasses.replace(tiny.counts)
    together = make(*LENGTHS)
    use = together.index(video)
    counts = tiny.counts - before
    assert (counts.frames_decoded, counts.pairs_encoded) == (60, 30)  # nothing is decoded or encoded twice
    assert (use.reused, use.clips, use.frames) == (False, 4 + 8 + 2, 60)
    alone = {}
    with together.open(video) as session:
        for length, spec in zip((16, 8, 32), (indexer.spec for indexer in together.indexers), strict=True):
            qa = make_pipeline(tiny, tmp_path / str(length), f"video.clip_seconds={length}")
            with qa.open(video) as other:
                qa.index(video)
                assert qa.spec == spec
                assert np.array_equal(other.indexes[spec].vectors, session.indexes[spec].vectors)
            alone[length] = qa.search(video, question, top=100)
    ranked = together.search(video, question, top=100)
    assert tuple(ranked) == ranked_together(list(alone.values()))
    assert disjoint([one.clip for one in ranked]) and len(ranked) > 2
    assert make(*LENGTHS).index(video).reused is True


@pytest.mark.slow
def test_an_answer_has_frames_and_evidence_from_clips_of_all_lengths(make, video, question):
    for method in ("freeret", "apportion", "topk", "mmr"):
        answer = make(*LENGTHS).answer(video, question, frames=8, method=method)
        lengths = {one.end_seconds - one.start_seconds for one in answer.evidence}
        assert len(answer.frames) == 8 and disjoint([one.clip for one in answer.evidence])
        assert len(lengths) > 1 and lengths <= {4, 8, 12, 16, 28, 32}
    default, none = make(), make("video.more_clip_seconds=[]")
    ask = [qa.answer(video, question, frames=8) for qa in (default, none)]
    assert ask[0].evidence == ask[1].evidence and ask[0].frames == ask[1].frames


@pytest.mark.slow
def test_many_videos_are_indexed_in_all_lengths_and_told_once(synthetic_video, tmp_path, tiny, question):
    videos = [synthetic_video(minutes=1, seed=seed) for seed in (11, 12)]
    config = load_config(None, ["model.name=tiny", "model.device=cpu", *LENGTHS, f"store.folder={tmp_path / 's'}"])
    missing = tmp_path / "none.mp4"
    reports: list[tuple[str, int, int]] = []
    iterator = index_videos([*videos, missing], config, progress=lambda *report: reports.append(report))
    results = {result.path: result for result in iterator}
    assert [report for report in reports if report[0] == "plan"] == [("plan", n, 3) for n in (1, 2, 3)]
    assert sorted(results) == sorted([*videos, missing]) and results[missing].error
    assert [(results[path].use.clips, results[path].use.reused) for path in videos] == [(14, False)] * 2
    qa = make_pipeline(tiny, tmp_path / "s", *LENGTHS)
    assert qa.answer(videos[0], question, frames=4).index.reused is True


@pytest.mark.parametrize(
    ("lengths", "clips"),
    [("[16]", "16 and 16 s"), ("[8, 8]", "8 and 8 s"), ("[24]", "16 and 24 s"), ("[5]", "5 and 16 s")],
)
def test_lengths_that_do_not_fit_are_refused(lengths, clips):
    config = load_config(None, [f"video.more_clip_seconds={lengths}"])
    with pytest.raises(LvqaError, match=f"have clips of {clips}; each length must be a whole multiple"):
        check_settings(config)


@pytest.mark.parametrize("lengths", ["8", "[0]", "[-4]", "[soon]", "[.inf]"])
def test_what_is_no_list_of_lengths_is_refused(lengths):
    with pytest.raises(ConfigError, match=r"^video\.more_clip_seconds.* must be .*, got"):
        load_config(None, [f"video.more_clip_seconds={lengths}"])
