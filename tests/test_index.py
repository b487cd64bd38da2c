"""Searching an index: cosines, ties, and what can't be compared."""

import pickle

import numpy as np
import pytest
from indexes import SPEC, VIDEO, is_same, load, make_index, refusal

from lvqa.index import ClipIndex, Store
from lvqa.records import Clip, LvqaError


@pytest.mark.parametrize("k", [None, 1, 3, 300, 1000])
def test_search_is_brute_force_over_cosines(k):
    index = make_index(300, 32)
    query = np.random.default_rng(9).normal(size=32) * 3
    hits = index.search(query, k)
    cosines = index.vectors.astype(np.float64) @ (query / np.linalg.norm(query))
    best = np.argsort(-cosines)[:k]
    assert [index.clips.index(candidate.clip) for candidate in hits] == best.tolist()
    np.testing.assert_allclose([candidate.embed_score for candidate in hits], cosines[best], atol=1e-6)
    assert all(candidate.rerank_score is None for candidate in hits)


@pytest.mark.parametrize("k", [1, 2, 5, None])
def test_equal_clips_come_in_the_order_of_time(k):
    vectors = np.tile([[3.0, 4.0], [4.0, 3.0]], (40, 1))
    index = ClipIndex.of([Clip(VIDEO.id, i, i + 1) for i in range(80)], vectors, video_id=VIDEO.id, spec=SPEC)
    hits = [int(candidate.clip.start_seconds) for candidate in index.search(np.array([1.0, 0.0]), k)]
    assert hits == ([*range(1, 80, 2), *range(0, 80, 2)])[:k]


def test_vectors_have_length_one_and_the_callers_are_left_alone():
    vectors = np.random.default_rng(0).normal(size=(4, 3584)).astype(np.float32)
    before = vectors.copy()
    index = ClipIndex.of([Clip(VIDEO.id, i, i + 1) for i in range(4)], vectors, video_id=VIDEO.id, spec=SPEC)
    np.testing.assert_allclose(np.linalg.norm(index.vectors.astype(np.float64), axis=1), 1, atol=1e-7)
    assert (vectors == before).all()
    query = index.vectors[2]
    assert index.search(query)[0].clip == index.clips[2] and (query == index.vectors[2]).all()


@pytest.mark.parametrize(
    ("clips", "vectors"),
    [
        ([Clip(VIDEO.id, 0, 1)], np.zeros((1, 4))),
        ([Clip(VIDEO.id, 0, 1)], np.full((1, 4), np.nan)),
        ([Clip(VIDEO.id, 0, 1)], np.array([[np.inf, 1]])),
        ([Clip(VIDEO.id, 0, 1)], np.ones((2, 4))),
        ([Clip(VIDEO.id, 0, 1)], np.ones(4)),
        ([], np.ones((0, 4))),
        ([Clip("feedfeed", 0, 1)], np.ones((1, 4))),
        ([Clip(VIDEO.id, 1, 2), Clip(VIDEO.id, 0, 1)], np.ones((2, 4))),
    ],
)
def test_what_only_a_bug_can_cause_is_refused_at_once(clips, vectors):
    with pytest.raises(ValueError, match=r"clip|vector"):
        ClipIndex.of(clips, vectors, video_id=VIDEO.id, spec=SPEC)


@pytest.mark.parametrize("query", [np.zeros(8), np.ones(7), np.ones((1, 8)), np.full(8, np.nan), np.full(8, np.inf)])
def test_a_query_that_cannot_be_compared_is_refused(query):
    with pytest.raises(ValueError, match="query"):
        make_index().search(query)


def test_an_index_file_of_another_width_is_refused_by_name(tmp_path):
    index = Store(tmp_path).save(make_index(dim=8), VIDEO)
    message = refusal(lambda: index.search(np.ones(16)))
    assert str(index.path) in message and "8 numbers" in message and "16" in message


def test_centred_is_less_the_mean_and_leaves_the_rest(tmp_path):
    index = make_index(50, 16)
    shared = ClipIndex.of(index.clips, index.vectors + 20, video_id=VIDEO.id, spec=SPEC)
    before, centred = shared.vectors.copy(), shared.centred()
    rows = shared.vectors.astype(np.float64) - shared.vectors.astype(np.float64).mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = np.random.default_rng(4).normal(size=16)
    hits = centred.search(query)
    best = np.argsort(-(rows @ query))
    assert [shared.clips.index(candidate.clip) for candidate in hits] == best.tolist()
    np.testing.assert_allclose([c.embed_score for c in hits], (rows @ query)[best] / np.linalg.norm(query), atol=1e-6)
    assert (shared.vectors == before).all() and centred.clips == shared.clips
    Store(tmp_path).save(centred, VIDEO)
    loaded = load(Store(tmp_path))
    assert loaded is not None and is_same(loaded, shared)


def test_centred_clips_that_are_all_alike_score_zero():
    for n in (1, 3):
        index = ClipIndex.of(
            [Clip(VIDEO.id, i, i + 1) for i in range(n)], np.full((n, 7), 0.3), video_id=VIDEO.id, spec=SPEC
        )
        assert [candidate.embed_score for candidate in index.centred().search(np.ones(7))] == [0.0] * n


def test_k_must_be_positive():
    with pytest.raises(LvqaError, match="1 or more, got 0"):
        make_index().search(np.ones(8), 0)


def test_a_searched_index_travels_to_another_process():
    index = make_index()
    hits = index.search(np.ones(8))
    assert pickle.loads(pickle.dumps(index)).search(np.ones(8)) == hits
