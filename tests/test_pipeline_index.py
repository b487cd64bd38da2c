"""What the main path keeps of a video: its index, its tokens, and sessions that pipelines share."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from pipelines import SEED

from lvqa.config import with_settings
from lvqa.costs import CostMeter
from lvqa.indexing import build_here
from lvqa.synthetic.videos import make_videos
from lvqa.video import inspect_video


@pytest.mark.slow
def test_a_new_process_decodes_nothing_of_an_indexed_video(make, video, question):
    make().index(video)
    fresh, plain = make().answer(video, question), make("store.disk_mib=0").answer(video, question)
    assert (fresh.counts.frames_decoded, fresh.counts.pairs_encoded) == (0, 0)
    assert plain.counts.pairs_encoded > 0
    assert fresh.frames == plain.frames and fresh.option_scores == pytest.approx(plain.option_scores, abs=1e-5)


@pytest.mark.slow
def test_a_stored_index_gives_the_same_as_a_new_one(make, video, question):
    fresh, stored = make().answer(video, question), make().answer(video, question)
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
@pytest.mark.slow
def test_other_settings_never_use_an_old_index(make, video, setting):
    before, after = make().index(video), make(setting).index(video)
    assert after.reused is False
    assert after.path != before.path


@pytest.mark.slow
def test_an_index_is_rebuilt_on_demand(make, video):
    before = make().index(video)
    modified_ns = before.path.stat().st_mtime_ns
    assert make().index(video).reused is True
    assert make().index(video, rebuild=True).reused is False
    assert before.path.stat().st_mtime_ns > modified_ns


@pytest.mark.slow
def test_a_changed_video_has_another_index(make, video, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    assert make().index(video).reused is False
    assert make().index(copy).reused is True  # the same bytes under another name
    make_videos(tmp_path, num_videos=1, minutes=1, num_questions=1, seed=SEED + 1)[0].replace(copy)
    assert make().index(copy).reused is False


# --- many settings on one video --------------------------------------------------------------------------------------

OTHERS = (
    ("embedding.state=mlp",),
    ("embedding.state=mlp-1", "embedding.final_norm=true", "rerank.name=none"),
    ("embedding.prompt=e5v", "rerank.pool=null"),
    ("video.clip_seconds=4", "embedding.centre=true", "rerank.pool=3"),
    ("video.clip_seconds=4", "answer.time_encoding=mrope"),
)


@pytest.fixture(scope="module")
def long_video(synthetic_video) -> Path:
    """A video of several segments."""
    return synthetic_video(minutes=4, seed=SEED)


@pytest.mark.parametrize("memory_mib", [6144, 3])
@pytest.mark.slow
def test_pipelines_that_share_sessions_decode_and_encode_each_pair_once(make, long_video, tiny, memory_mib):
    """A third of three mebibytes holds the tokens of a segment, and not those of the video.

    The last two differ in what follows the embedding alone, so they have one index.
    """
    qa = make(f"model.memory_mib={memory_mib}", "video.clip_seconds=2")
    pipelines = [qa, *(qa.with_config(with_overrides(qa.config, *other)) for other in OTHERS)]
    before = dataclasses.replace(tiny.counts)
    uses = index_together(pipelines, long_video)
    counts = tiny.counts - before
    assert (counts.frames_decoded, counts.pairs_encoded) == (240, 120)
    assert [use.reused for use in uses] == [False] * 6 and len({use.path for use in uses}) == 5
    assert [use.clips for use in uses] == [120, 120, 120, 120, 60, 60]
    assert [use.reused for use in index_together(pipelines, long_video)] == [True] * 6


def index_together(pipelines, path):
    """Build the indexes of all pipelines in one reading of the video."""
    indexers = [qa.indexers[0] for qa in pipelines]
    return build_here(pipelines[0].store, indexers, inspect_video(path), CostMeter(pipelines[0].model.counts))


def with_overrides(config, *overrides):
    pairs = (override.split("=") for override in overrides)
    return with_settings(config, {key: yaml.safe_load(value) for key, value in pairs}, where="a test")


@pytest.mark.slow
def test_what_is_shared_changes_no_answer(make, video, question, tmp_path):
    alone = make("video.clip_seconds=2")
    pipelines = [alone.with_config(with_overrides(alone.config, *other)) for other in OTHERS]
    index_together(pipelines, video)
    for qa, other in zip(pipelines, OTHERS, strict=True):
        together = qa.answer(video, question, frames=4)
        fresh = make("video.clip_seconds=2", *other, f"store.folder={tmp_path / 'other'}").answer(
            video, question, frames=4
        )
        scores = [{c.clip: (c.embed_score, c.rerank_score) for c in a.evidence} for a in (together, fresh)]
        assert scores[0].keys() == scores[1].keys()
        assert all(scores[0][clip] == pytest.approx(scores[1][clip], abs=1e-5) for clip in scores[0])
        assert (together.frames, together.option) == (fresh.frames, fresh.option)


def test_pipelines_over_one_model_share_the_session_of_a_video(make, video):
    qa = make()
    other_qa = qa.with_config(with_overrides(qa.config, "embedding.state=mlp"))
    with qa.open(video) as session, other_qa.open(video) as other:
        assert other is session
