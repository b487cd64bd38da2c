"""The whole path on the embedded model: budgets, what is encoded how often, and what a stored index changes.

Nothing here depends on how well the model was trained.
"""

import dataclasses
import weakref
from pathlib import Path

import pytest
import small_models
import yaml

from lvqa.components import CONTROLS, METHODS
from lvqa.config import load_config, with_settings
from lvqa.index import Store
from lvqa.models import MODELS, load_model
from lvqa.pipeline import LongVideoQA, index_together
from lvqa.records import LvqaError, Question
from lvqa.rerank import RERANKERS
from lvqa.synthetic.videos import ask_about, make_videos, write_script
from lvqa.video import FrameGrid, inspect_video

SEED, MINUTES = 11, 1
FRAMES_IN_FILM = 60 * MINUTES
"""On the default grid of one a second."""


@pytest.fixture(scope="module")
def model():
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (path,) = make_videos(folder, num_videos=1, minutes=MINUTES, num_questions=1, seed=SEED)
    return path


@pytest.fixture(scope="module")
def question() -> Question:
    return ask_about(write_script(SEED, MINUTES), 1)[0]


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def make(model, store):
    """Makes a fresh pipeline over the one loaded model, as a new process would."""

    def make(*overrides, **options) -> LongVideoQA:
        config = load_config(None, overrides)
        config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
        return LongVideoQA(model, config, **options)

    return make


@pytest.fixture(scope="module")
def shared(model, tmp_path_factory) -> LongVideoQA:
    """One pipeline whose film stays open, for tests that look at results alone."""
    config = load_config(None, ["video.clip_seconds=8"])
    folder = tmp_path_factory.mktemp("store")
    return LongVideoQA(model, dataclasses.replace(config, store=dataclasses.replace(config.store, folder=folder)))


BUDGETS = {"freeret": (1, 2, 3, 16, 59, 60, 64), "uniform": (1, 2, 3, 16, 59, 60, 64)}
"""The others, which the contract of selectors checks, are asked for few frames and for more than there are."""


@pytest.mark.parametrize(
    ("method", "budget"),
    [(method, m) for method in METHODS if method not in CONTROLS for m in BUDGETS.get(method, (3, 64))],
)
def test_every_method_shows_exactly_its_budget(shared, film, question, method, budget):
    answer = shared.answer(film, question, method=method, frames=budget)
    assert len(answer.frames) == min(budget, FRAMES_IN_FILM)
    assert list(answer.frames) == sorted(set(answer.frames))
    assert all(0 <= seconds < FRAMES_IN_FILM for seconds in answer.frames)
    assert (answer.method, answer.frames_budget) == (method, budget)
    assert answer.option in tuple("ABCD")
    assert answer.text == question.options["ABCD".index(answer.option)]
    assert sum(answer.option_scores) == pytest.approx(1)


@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
@pytest.mark.parametrize("family", MODELS)
def test_every_model_goes_the_whole_way(film, question, tmp_path, family, layout):
    folder = small_models.save(family, tmp_path / "model")
    settings = ["model.device=cpu", "video.clip_seconds=8", f"store.folder={tmp_path}", f"rerank.layout={layout}"]
    qa = LongVideoQA.load(str(folder), overrides=settings)
    choice = qa.answer(film, question, frames=8)
    assert len(choice.frames) == 8 and choice.option in tuple("ABCD") and sum(choice.option_scores) == pytest.approx(1)
    assert all(candidate.rerank_score is not None for candidate in choice.evidence) and len(choice.evidence) == 8
    free = qa.ask(film, "What happens?", frames=3)
    assert free.option is None and len(free.frames) == 3 and free.index.reused


OWN = """
import numpy as np

class Nearest:
    needs_features = True

    def select(self, grid):
        assert len(grid.features) == len(grid) == len(grid.clip_ids) == 60
        assert np.allclose(np.linalg.norm(grid.features, axis=1), 1) and np.isclose(np.linalg.norm(grid.query), 1)
        assert grid.question_text.endswith("?") and grid.question_id and grid.video_id
        return grid.selection([np.argmax(grid.features @ grid.query)])
"""


@pytest.mark.parametrize("centre", [False, True])
def test_a_selector_of_ones_own_sees_the_vectors_that_were_searched(make, film, question, tmp_path, centre):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    qa = make(f"embedding.centre={centre}", "video.clip_seconds=8")
    answer = qa.answer(film, question, method=str(path), frames=1)
    nearest = max(answer.evidence, key=lambda candidate: candidate.embed_score)
    assert answer.frames == (nearest.start_seconds,)
    assert answer.method == str(path)


def test_vectors_alone_need_the_index_and_no_ranking(make, film, question):
    answer = make().answer(film, question, method="kmeans", frames=4)
    assert answer.index is not None and answer.evidence == ()
    assert "rerank" not in answer.seconds and "search" not in answer.seconds


def test_options_reach_the_method(make, film, question):
    short, long = (make("method=bolt", f"selection.options.power={power}") for power in (0.01, 50))
    assert short.answer(film, question, frames=8).frames != long.answer(film, question, frames=8).frames
    with pytest.raises(LvqaError, match="unknown option 'power' of method 'uniform'"):
        short.answer(film, question, method="uniform")
    with pytest.raises(LvqaError, match="unknown option 'power' of method 'blind'"):
        short.answer(film, question, method="blind")


def test_blind_shows_nothing_and_decodes_nothing(make, film, question):
    answer = make().answer(film, question, method="blind")
    assert (answer.frames, answer.evidence, answer.index) == ((), (), None)
    assert (answer.counts.frames_decoded, answer.counts.pairs_encoded) == (0, 0)
    assert answer.option is not None


def test_the_oracle_sees_the_evidence_and_nothing_else(shared, film, question):
    start, end = question.evidence_seconds
    answer = shared.answer(film, question, method="oracle", frames=8)
    assert len(answer.frames) == 8
    assert all(start <= seconds < end for seconds in answer.frames)
    firsts, seconds = answer.frames[::2], answer.frames[1::2]
    assert all(first % 2 == 0 and second == first + 1 for first, second in zip(firsts, seconds, strict=True)), "pairs"


def test_the_oracle_needs_the_evidence(shared, film):
    with pytest.raises(LvqaError, match="'oracle' needs the time of the evidence"):
        shared.ask(film, "Where is it?", method="oracle")


@pytest.mark.parametrize("method", ["uniform", "random", "blind"])
def test_methods_that_look_for_nothing_build_no_index(make, film, question, store, method):
    answer = make().answer(film, question, method=method)
    assert answer.index is None
    assert answer.evidence == ()
    assert not store.exists()


def test_a_first_question_encodes_each_pair_once(make, film, question):
    answer = make().answer(film, question)
    assert answer.index.reused is False
    # The index has read every frame, and reranking and answering take their pairs from it.
    assert answer.counts.frames_decoded == FRAMES_IN_FILM
    assert answer.counts.pairs_encoded == FRAMES_IN_FILM // 2
    assert answer.counts.tokens_prefilled > 0


@pytest.mark.parametrize("memory_mib", [0, 1, 4096])
def test_clips_that_were_read_score_as_those_read_anew(make, film, memory_mib):
    """Some, none or all of what the first question made the model read is held for the second."""
    questions = ask_about(write_script(SEED, MINUTES), 2)
    settings = ("video.clip_seconds=4", "rerank.layout=clip_first")
    qa = make(*settings, f"rerank.memory_mib={memory_mib}")
    first, second = (qa.answer(film, question) for question in questions)
    alone = make(*settings).answer(film, questions[1])
    scores = [{c.clip: (c.embed_score, c.rerank_score) for c in answer.evidence} for answer in (second, alone)]
    assert scores[0].keys() == scores[1].keys()
    assert all(scores[0][clip] == pytest.approx(scores[1][clip], abs=1e-5) for clip in scores[0])
    assert (second.option, second.frames) == (alone.option, alone.frames)
    spent = second.counts.tokens_prefilled / first.counts.tokens_prefilled
    assert spent < 0.45 if memory_mib == 4096 else spent > 0.45


@pytest.mark.parametrize("read", ["logits", "likelihood"])
def test_questions_answered_together_are_answered_as_alone(make, film, read):
    questions = ask_about(write_script(SEED, MINUTES), 3)
    setting = f"answer.mode={read}"
    make(setting).index(film)
    together, one_by_one = make(setting).answers(film, questions), make(setting)
    alone = [one_by_one.answer(film, question) for question in questions]
    for found, expected, question in zip(together, alone, questions, strict=True):
        assert (found.question, found.option, found.frames) == (question, expected.option, expected.frames)
        assert found.option_scores == pytest.approx(expected.option_scores, abs=1e-5)
    spent = [sum(answer.counts.tokens_prefilled for answer in answers) for answers in (together, alone)]
    assert spent[0] == spent[1] > 0
    assert make().answers(film, []) == []


def test_the_same_question_again_encodes_nothing(make, film, question):
    qa = make()
    first, again = qa.answer(film, question), qa.answer(film, question)
    assert (again.counts.frames_decoded, again.counts.pairs_encoded) == (0, 0)
    assert again.index.reused is True
    assert (again.evidence, again.frames, again.option_scores) == (first.evidence, first.frames, first.option_scores)


def test_another_question_encodes_only_what_it_has_not_seen(make, film, question):
    make().index(film)
    qa = make("rerank.pool=1", "store.disk_mib=0")  # a fresh one: the index is there, no pair has been seen
    first = qa.answer(film, question, frames=2)
    assert first.index.reused is True
    assert first.counts.pairs_encoded == 8  # the one clip that was reranked; the answer's pair lies in it
    assert first.counts.frames_decoded == 16
    second = qa.answer(film, Question("Where is the green fish?"), method="uniform", frames=2)
    seen = set(range(int(first.evidence[0].clip.start_seconds), int(first.evidence[0].clip.end_seconds)))
    assert second.counts.pairs_encoded == 2  # frames shown alone are pairs of their own
    assert second.counts.frames_decoded == len(set(map(int, second.frames)))
    third = qa.answer(film, Question("What is white?"), frames=2)
    new = set(range(int(third.evidence[0].clip.start_seconds), int(third.evidence[0].clip.end_seconds))) - seen
    assert third.counts.frames_decoded == len(new)
    assert third.counts.pairs_encoded == len(new) // 2


def test_a_new_process_decodes_nothing_of_an_indexed_film(make, film, question):
    make().index(film)
    fresh, plain = make().answer(film, question), make("store.disk_mib=0").answer(film, question)
    assert (fresh.counts.frames_decoded, fresh.counts.pairs_encoded) == (0, 0)
    assert plain.counts.pairs_encoded > 0
    assert fresh.frames == plain.frames and fresh.option_scores == pytest.approx(plain.option_scores, abs=1e-5)


def test_a_stored_index_gives_the_same_as_a_new_one(make, film, question):
    fresh, stored = make().answer(film, question), make().answer(film, question)
    assert (fresh.index.reused, stored.index.reused) == (False, True)
    assert stored.index.path == fresh.index.path
    assert stored.evidence == fresh.evidence
    assert (stored.frames, stored.option, stored.text) == (fresh.frames, fresh.option, fresh.text)
    assert stored.option_scores == fresh.option_scores


@pytest.mark.parametrize(
    "setting",
    [
        "video.clip_seconds=8",
        "video.frames_per_second=0.5",
        "video.sampling=keyframes",
        "embedding.state=mlp",
        "embedding.noise=false",
    ],
)
def test_other_settings_never_use_an_old_index(make, film, caplog, setting):
    before = make().index(film)
    with caplog.at_level("INFO", logger="lvqa"):
        after = make(setting).index(film)
    assert after.reused is False
    assert after.path != before.path
    assert [record.getMessage() for record in caplog.records] == [
        f"{film}: index made anew because settings or model changed"
    ]


@pytest.mark.parametrize("encoding", ["text", "mrope"])
@pytest.mark.parametrize("method", ["freeret", "uniform", "mmr"])
def test_a_skimmed_film_is_answered_from_its_key_frames(make, film, question, method, encoding):
    keys = set(FrameGrid.of_key_frames(inspect_video(film), 1.0).times_seconds.tolist())
    qa = make("video.sampling=keyframes", "video.threads=2", f"answer.time_encoding={encoding}")
    answer = qa.answer(film, question, method=method, frames=64)
    assert set(answer.frames) == keys
    assert answer.counts.frames_decoded == len(keys) < FRAMES_IN_FILM
    if method != "uniform":
        edges = sorted(edge for found in answer.evidence for edge in (found.start_seconds, found.end_seconds))
        assert (edges[0], edges[-1]) == (0.0, FRAMES_IN_FILM)


def test_an_index_is_made_anew_on_demand(make, film):
    before = make().index(film)
    made = before.path.stat().st_mtime_ns
    assert make().index(film).reused is True
    assert make().index(film, rebuild=True).reused is False
    assert before.path.stat().st_mtime_ns > made


def test_a_changed_film_has_another_index(make, film, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(film.read_bytes())
    assert make().index(film).reused is False
    assert make().index(copy).reused is True  # the same bytes under another name
    make_videos(tmp_path, num_videos=1, minutes=1, num_questions=1, seed=SEED + 1)[0].replace(copy)
    assert make().index(copy).reused is False


def test_evidence_holds_every_clip_once_reranked_ones_first(make, film, question):
    answer = make("rerank.pool=2").answer(film, question)
    assert sorted(c.clip.start_seconds for c in answer.evidence) == [0, 16, 32, 48]
    scores = [c.rerank_score for c in answer.evidence]
    assert scores[0] >= scores[1]
    assert scores[2:] == [None, None]
    assert answer.evidence[2].embed_score >= answer.evidence[3].embed_score


def test_a_pool_can_be_the_whole_video(make, film, question):
    answer = make("rerank.pool=null", "video.clip_seconds=1").answer(film, question)
    assert [c.rerank_score is None for c in answer.evidence] == [False] * 30


@pytest.mark.parametrize("override", ["rerank.name=none", "rerank.pool=0"])
def test_without_reranking_the_embedding_ranks(make, film, question, override):
    answer = make(override).answer(film, question)
    embedded = [c.embed_score for c in answer.evidence]
    assert embedded == sorted(embedded, reverse=True)
    assert {c.rerank_score for c in answer.evidence} == {None}


def test_search_gives_the_best_clips(make, film):
    qa = make()
    found = qa.search(film, "the red fish", top=3)
    assert len(found) == 3
    assert found == qa.search(film, "the red fish", top=100)[:3]


def test_the_library_is_searched_under_one_maker(make, film, tmp_path):
    other = make_videos(tmp_path, num_videos=1, minutes=1, num_questions=1, seed=SEED + 1)[0]
    qa = make()
    for path in (film, other):
        qa.index(path)
    make("video.clip_seconds=8").index(film)
    assert len(Store(qa.config.store.folder).paths()) == 3
    found = qa.search_library("the red fish", top=100)
    assert len(found) == 8
    scores = [candidate.embed_score for _, candidate in found]
    assert scores == sorted(scores, reverse=True)
    assert [c for _, c in found[:3]] == [c for _, c in qa.search_library("the red fish", top=3)]
    assert {candidate.clip.video_id for _, candidate in found} == {inspect_video(film).id, inspect_video(other).id}
    for index, candidate in found:
        assert candidate.clip.video_id == inspect_video(index.video_path).id


def test_an_empty_library_says_so(make, film):
    with pytest.raises(LvqaError, match=r"no index in .* was made with tiny and these settings \(0 with others\)"):
        make().search_library("a red car")
    make("video.clip_seconds=8").index(film)
    with pytest.raises(LvqaError, match=r"\(1 with others\); index some videos first"):
        make().search_library("a red car")


def test_progress_is_told_in_pairs(make, film, question):
    told = []
    make(progress=lambda *step: told.append(step)).answer(film, question)
    assert [step for step in told if step[0] == "index"] == [("index", done, 30) for done in (8, 16, 24, 30)]
    assert [step for step in told if step[0] == "rerank"] == [("rerank", done, 30) for done in (8, 16, 24, 30)]


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


# --- many settings on one video --------------------------------------------------------------------------------------

OTHERS = (
    ("embedding.state=mlp",),
    ("embedding.state=mlp-1", "embedding.final_norm=true", "rerank.name=none"),
    ("embedding.prompt=e5v", "rerank.pool=null"),
    ("video.clip_seconds=4", "embedding.centre=true", "rerank.pool=3"),
    ("video.clip_seconds=4", "answer.time_encoding=mrope"),
)


@pytest.fixture(scope="module")
def longer(tmp_path_factory) -> Path:
    """A film of several segments."""
    folder = tmp_path_factory.mktemp("longer")
    (path,) = make_videos(folder, num_videos=1, minutes=4, num_questions=1, seed=SEED)
    return path


@pytest.mark.parametrize("memory_mib", [2048, 1])
def test_pipelines_beside_each_other_decode_and_encode_each_pair_once(make, longer, model, memory_mib):
    """One mebibyte holds the tokens of a segment, and not those of the film.

    The last two differ in what follows the embedding alone, so they have one index.
    """
    qa = make(f"store.memory_mib={memory_mib}", "video.clip_seconds=2")
    pipelines = [qa, *(qa.beside(with_overrides(qa.config, *other)) for other in OTHERS)]
    before = dataclasses.replace(model.counts)
    uses = index_together(pipelines, inspect_video(longer))
    spent = model.counts - before
    assert (spent.frames_decoded, spent.pairs_encoded) == (240, 120)
    assert [use.reused for use in uses] == [False] * 6 and len({use.path for use in uses}) == 5
    assert [use.clips for use in uses] == [120, 120, 120, 120, 60, 60]
    assert [use.reused for use in index_together(pipelines, inspect_video(longer))] == [True] * 6


def with_overrides(config, *overrides):
    pairs = (override.split("=") for override in overrides)
    return with_settings(config, {key: yaml.safe_load(value) for key, value in pairs}, where="a test")


def test_what_is_shared_changes_no_answer(make, film, question, tmp_path):
    alone = make("video.clip_seconds=2")
    pipelines = [alone.beside(with_overrides(alone.config, *other)) for other in OTHERS]
    index_together(pipelines, inspect_video(film))
    for qa, other in zip(pipelines, OTHERS, strict=True):
        together = qa.answer(film, question, frames=4)
        fresh = make("video.clip_seconds=2", *other, f"store.folder={tmp_path / 'other'}").answer(
            film, question, frames=4
        )
        scores = [{c.clip: (c.embed_score, c.rerank_score) for c in a.evidence} for a in (together, fresh)]
        assert scores[0].keys() == scores[1].keys()
        assert all(scores[0][clip] == pytest.approx(scores[1][clip], abs=1e-5) for clip in scores[0])
        assert (together.frames, together.option) == (fresh.frames, fresh.option)


def test_another_video_lets_go_of_the_last_ones_tokens(make, film, question, tmp_path):
    (other,) = make_videos(tmp_path, num_videos=1, minutes=1, num_questions=1, seed=SEED + 1)
    qa = make()
    beside = qa.beside(with_overrides(qa.config, "embedding.state=mlp"))
    tokens = weakref.ref(qa.open(film).tokens)
    assert beside.open(film).tokens is tokens()
    beside.open(other)
    assert tokens() is None
