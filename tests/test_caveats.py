"""What is wrong with a video, the model or the evidence reaches whoever reads the result: stderr, JSON, page, rows."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import video_files
import worker_tasks
from click.testing import CliRunner, Result
from forked import Program
from stored_pages import stored_answer

from lvqa.caveats import WEAK_EVIDENCE, describe_damage
from lvqa.cli.main import lvqa_command
from lvqa.evaluation import load_run_config
from lvqa.evaluation.runner import Runner
from lvqa.evaluation.schedule import WorkItem
from lvqa.records import SYNTHETIC_TAG, Question
from lvqa.report import Report
from lvqa.video import inspect_video

TINY = ("--model", "tiny", "--device", "cpu", "--quiet")
TAG = {"comment": SYNTHETIC_TAG}
"""So that the embedded model does not warn of a video that it does not know."""
WEAK = f"weak evidence: the reranker gives no clip {WEAK_EVIDENCE:.2f} or more"
Lvqa = Callable[..., Result]


@pytest.fixture
def lvqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lvqa:
    """Run a command, with a store of the test's own; `code` is the exit code that is expected."""
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "store"))

    def run(*words: object, code: int = 0) -> Result:
        result = CliRunner().invoke(lvqa_command, [*map(str, words), *TINY])
        assert result.exit_code == code, result.output
        return result

    return run


def lines_of(result: Result, path: Path) -> list[str]:
    """Return the lines on stderr, each of which must name the file, without its name."""
    lines = result.stderr.splitlines()
    assert all(line.startswith(f"lvqa: {path}: ") for line in lines), lines
    return [line.removeprefix(f"lvqa: {path}: ") for line in lines]


def without_weak_evidence(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("weak evidence")]


def write_video(path: Path, num_frames: int = 100) -> Path:
    """Write a video of 5 frames a second, 20 s by default, with the tag of make-videos and its header in front."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else None
    return video_files.write_video(path, num_frames, fps=5, metadata=TAG, container_options=options)


# --- files that are not whole ----------------------------------------------------------------------------------------

IN_THE_HEADER = "its header says 20 s, and only {seconds} s can be read: a part is missing, as after half a download"
IN_A_PACKET = "it ends within a packet, as after half a download; how much is missing can't be known"
BYTES = "a part is missing, as after half a download"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.flv", "a.asf", "a.ts"])
def test_half_a_download_is_told(name: str, lvqa: Lvqa, tmp_path: Path) -> None:
    whole = write_video(tmp_path / f"whole_{name}")
    assert inspect_video(whole).warnings == ()
    half = tmp_path / name
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2 + 1])
    result = lvqa("ask", half, "What is seen?", "--json")
    output = json.loads(result.stdout)
    first, *_ = lines_of(result, half)
    assert first in output["warnings"] and output["warnings"] == lines_of(result, half)
    assert 8 < output["video"]["duration_seconds"] < 12
    if name.endswith(".ts"):
        assert first == IN_A_PACKET
    elif name.endswith(".asf"):
        assert first.startswith(f"its header says {whole.stat().st_size:,} bytes") and first.endswith(BYTES)
    else:
        assert first == IN_THE_HEADER.format(seconds=round(output["video"]["duration_seconds"]))


def test_sound_that_goes_on_without_pictures_is_no_half_a_download(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "long_sound.mkv"
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("libx264", rate=5)
        sound: Any = container.add_stream("aac", rate=16000, layout="mono")
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        for i in range(20):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(video_files.picture(i), format="rgb24")))
        container.mux(pictures.encode(None))
        for i in range(0, 20 * 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOM"))  # what the tracks say of themselves
    video = inspect_video(path)
    assert (video.duration_seconds, video.warnings) == (4.0, ())
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(inspect_video(cut).warnings) == 1, "the sound is cut, too"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts", ".flv", ".asf", ".mov", ".ivf", ".mpg"])
def test_a_whole_file_is_whole(suffix: str, tmp_path: Path) -> None:
    codec = {".webm": "libvpx-vp9", ".ivf": "libvpx-vp9", ".mpg": "mpeg2video"}.get(suffix, "libx264")
    assert inspect_video(video_files.write_video(tmp_path / f"a{suffix}", codec=codec)).warnings == ()


def zeroed(path: Path, share: float = 0.4) -> Path:
    """Overwrite the middle of a file, so much of it, with zeros."""
    data = bytearray(path.read_bytes())
    size = int(len(data) * share)
    start = (len(data) - size) // 2
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    return path


@pytest.mark.slow
def test_frames_that_stand_in_for_damaged_ones_are_told_in_each_process(lvqa: Lvqa, tmp_path: Path) -> None:
    path = zeroed(write_video(tmp_path / "zeroed.mp4", 300))
    first = lvqa("index", path, "--json")
    indexed = json.loads(first.stdout)
    num = indexed["frames_substituted"]
    assert indexed["frames"] == 60 and 15 < num < 40
    line = f"{num} of 60 frames are damaged; the nearest good ones stand in for them"
    assert lines_of(first, path) == indexed["warnings"] == [line]
    # The index and the visual tokens come from the disk now, as in another process.
    for words in (("ask", path, "What is seen?"), ("search", path, "a disc"), ("index", path)):
        result = lvqa(*words, "--json")
        output = json.loads(result.stdout)
        assert output["frames_substituted"] == num
        assert without_weak_evidence(output["warnings"]) == without_weak_evidence(lines_of(result, path)) == [line]
    assert lvqa("index", path).stdout.endswith("already indexed\n")


@pytest.mark.slow
def test_what_a_worker_sees_is_told_once_by_the_command(
    lvqa: Lvqa, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = write_video(tmp_path / "good.mp4"), zeroed(write_video(tmp_path / "bad.mp4", 300))
    result = lvqa("index", good, bad, "--json")
    outputs = {output["path"]: output for output in map(json.loads, result.stdout.splitlines())}
    assert (outputs[str(good)]["warnings"], outputs[str(good)]["frames_substituted"]) == ([], 0)
    assert lines_of(result, bad) == outputs[str(bad)]["warnings"]
    assert outputs[str(bad)]["warnings"] == list(describe_damage(60, outputs[str(bad)]["frames_substituted"]))
    assert capfd.readouterr().err == "", "the worker prints nothing of its own"


@pytest.mark.slow
def test_without_an_index_the_frames_of_the_answer_count(lvqa: Lvqa, tmp_path: Path) -> None:
    path = zeroed(write_video(tmp_path / "zeroed.mp4", 300))
    lvqa("index", path)
    for frames in (60, 8):  # the first come from the disk as pairs, the others have lost their partners
        result = lvqa("ask", path, "What is seen?", "--method", "uniform", "--frames", frames, "--json")
        output = json.loads(result.stdout)
        num = output["frames_substituted"]
        damaged = [frame["time_seconds"] for frame in output["frames"] if frame["substituted"]]
        assert len(damaged) == num > 0 and all(10 < seconds < 50 for seconds in damaged)
        assert lines_of(result, path) == output["warnings"] == list(describe_damage(frames, num))
        assert output["counts"]["frames_decoded"] == (0 if frames == 60 else 8)


@pytest.mark.parametrize("name", ["zeroed.mkv", "zeroed.ts"])
def test_frames_that_a_container_has_lost_are_told(name: str, tmp_path: Path) -> None:
    path = zeroed(write_video(tmp_path / name, 300))
    (line,) = inspect_video(path).warnings
    match = re.fullmatch(r"([\d,]+) bytes of it can't be read: the frames from (1\d) to (4\d) s are missing", line)
    assert match and int(match[1].replace(",", "")) > 0.3 * path.stat().st_size


def test_damage_is_told_in_the_words_of_its_number() -> None:
    assert list(describe_damage(300, 0)) == []
    assert list(describe_damage(16, 1)) == ["1 of 16 frames is damaged; the nearest good one stands in for it"]


# --- files that change between two questions -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_that_is_finished_in_place_is_read_again(lvqa: Lvqa, tmp_path: Path) -> None:
    whole, path = write_video(tmp_path / "whole.mkv"), tmp_path / "video.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    half = json.loads(lvqa("ask", path, "What is seen?", "--json").stdout)
    path.write_bytes(whole.read_bytes())
    result = lvqa("ask", path, "What is seen?", "--json")
    output = json.loads(result.stdout)
    assert len(without_weak_evidence(half["warnings"])) == 1
    assert without_weak_evidence(output["warnings"]) == without_weak_evidence(lines_of(result, path)) == []
    assert half["video"]["id"] != output["video"]["id"] and output["index"]["reused"] is False
    assert (output["video"]["duration_seconds"], output["video"]["id"]) == (20.0, inspect_video(whole).id)


@pytest.mark.slow
def test_a_moved_file_keeps_its_index_and_a_deleted_one_is_named(lvqa: Lvqa, tmp_path: Path) -> None:
    before, after = write_video(tmp_path / "before.mkv"), tmp_path / "after.mkv"
    first = json.loads(lvqa("ask", before, "What is seen?", "--json").stdout)
    before.rename(after)
    output = json.loads(lvqa("ask", after, "What is seen?", "--json").stdout)
    assert output["index"] == {**first["index"], "reused": True}
    assert output["video"] == {**first["video"], "path": str(after)}
    for path in (before, after):  # the one was moved, the other is deleted
        after.unlink(missing_ok=True)
        result = lvqa("ask", path, "What is seen?", "--json", code=1)
        assert result.stdout == ""
        assert result.stderr == f"lvqa: {path}: No such file or directory; expected a video file\n"


@pytest.mark.slow
def test_a_report_that_cannot_be_written_costs_no_answer(lvqa: Lvqa, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv")
    (tmp_path / "taken").write_text("")
    for page in (tmp_path / "taken" / "a.html", tmp_path):
        for form in ((), ("--json",)):
            result = lvqa("ask", path, "What is seen?", "--method", "uniform", "--report", page, *form, code=1)
            if form:
                assert json.loads(result.stdout)["answer"]
            else:
                assert "\nframes    16: " in result.stdout
            (line,) = result.stderr.splitlines()
            assert line.startswith(f"lvqa: cannot write {page}: ")


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_answer(tmp_path: Path) -> None:
    path, store = write_video(tmp_path / "video.mkv"), tmp_path / "store"
    words = ["ask", path, "What is seen?", *TINY, "--store", store, "--json"]
    running = Program(*words, before=worker_tasks.limit_files)
    out, err = running.communicate()
    output = json.loads(out)
    assert running.process.exitcode == 0 and output["answer"] and output["index"]["path"] is None
    first = output["warnings"][0]
    assert first.startswith(f"its index is not kept: cannot write the index into {store}") and "make room" in first
    assert err.splitlines() == [f"lvqa: {path}: {line}" for line in output["warnings"]]


# --- the model and the evidence --------------------------------------------------------------------------------------

OF_TINY = (
    "model tiny knows only the world of lvqa make-videos, and this video is not from there: "
    "its answers and scores mean nothing"
)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("ask", "What is seen?"), ("search", "a disc")])
def test_the_embedded_model_warns_on_a_video_that_it_cannot_know(
    words: tuple[str, str], lvqa: Lvqa, tmp_path: Path, synthetic_video: Callable[..., Path]
) -> None:
    command, text = words
    other = video_files.write_video(tmp_path / "other.mp4")
    result = lvqa(command, other, text, "--json")
    assert OF_TINY in json.loads(result.stdout)["warnings"] and OF_TINY in lines_of(result, other)
    known = synthetic_video()
    copy = video_files.remuxed(known, tmp_path / "no_tag.mp4")
    assert OF_TINY in lines_of(lvqa(command, copy, text), copy)
    assert OF_TINY not in lines_of(lvqa(command, known, text), known)


@pytest.mark.slow
def test_weak_evidence_is_told(lvqa: Lvqa, tmp_path: Path, synthetic_video: Callable[..., Path]) -> None:
    from lvqa.synthetic.videos import ask_about, write_script

    known, page = synthetic_video(), tmp_path / "page.html"
    strong = json.loads(lvqa("ask", known, ask_about(write_script(11, 1), 1)[0].text, "--json").stdout)
    assert strong["warnings"] == [] and strong["evidence"][0]["rerank_score"] >= WEAK_EVIDENCE
    words = ("ask", known, "In what place is the black heart that moves down with the word zoo?")
    result = lvqa(*words, "--json", "--report", page)
    weak = json.loads(result.stdout)
    (line,) = weak["warnings"]
    assert line.startswith(WEAK) and lines_of(result, known) == [line]
    assert max(clip["rerank_score"] for clip in weak["evidence"]) < WEAK_EVIDENCE
    assert stored_answer(page)["warnings"] == [line]
    # Without a reranker there is no probability to go by.
    assert json.loads(lvqa(*words, "--json", "-s", "rerank.pool=0").stdout)["warnings"] == []


# --- what was used, and what it was made with ------------------------------------------------------------------------


@pytest.mark.slow
def test_clips_of_which_nothing_was_shown_are_marked(lvqa: Lvqa, synthetic_video: Callable[..., Path]) -> None:
    video = synthetic_video(minutes=2)
    words = ("ask", video, "What is seen?", "--frames", 8)
    output = json.loads(lvqa(*words, "--json").stdout)
    times = [frame["time_seconds"] for frame in output["frames"]]
    assert len(output["evidence"]) == 8
    for clip in output["evidence"]:
        assert clip["frames"] == [t for t in times if clip["start_seconds"] <= t < clip["end_seconds"]]
    assert sorted(t for clip in output["evidence"] for t in clip["frames"]) == times
    lines = lvqa(*words).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("evidence"))
    for line, clip in zip(lines[start : start + 5], output["evidence"], strict=False):
        num = len(clip["frames"])
        assert line.endswith(f"  {num} frames shown" if num else "  not shown")


@pytest.mark.slow
def test_a_result_names_its_video_model_settings_and_versions(
    lvqa: Lvqa, tmp_path: Path, synthetic_video: Callable[..., Path]
) -> None:
    video, page = synthetic_video(), tmp_path / "page.html"
    asked_with = ("-s", "rerank.pool=7")
    answer = json.loads(lvqa("ask", video, "What is seen?", "--json", "--report", page, *asked_with).stdout)
    search = json.loads(lvqa("search", video, "a ball", "--json", *asked_with).stdout)
    for key in ("video", "model", "model_revision", "versions", "settings"):
        assert answer[key] == search[key]
    inspected = inspect_video(video)
    assert answer["video"] == {"path": str(video), "id": inspected.id, "duration_seconds": inspected.duration_seconds}
    assert answer["settings"]["rerank"]["pool"] == 7 and len(answer["model_revision"]) == 16
    assert {"lvqa", "torch", "transformers", "av"} <= set(answer["versions"])
    html = page.read_text()
    for text in (inspected.id, answer["model_revision"], f"torch {answer['versions']['torch']}", "&#34;pool&#34;: 7"):
        assert text in html


# --- evaluations -----------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged_rows(tmp_path: Path) -> list[dict[str, Any]]:
    """The rows of a question on a damaged video that the embedded model does not know."""
    path = zeroed(video_files.write_video(tmp_path / "zeroed.mp4", 300, fps=5))
    arms = "arms=[{method: freeret}, {method: uniform}]"
    store = f"store.folder={tmp_path / 'store'}"
    config = load_run_config(None, ["model={name: tiny, device: cpu}", arms, "frames=[8]", store])
    question = Question("What is seen?", ("a", "b"), id="q", video_id="v")
    item = WorkItem("v", path, (question,), ((("freeret", 8), ("uniform", 8)),))
    return [dict(row) for row in Runner(config)(item).rows]


@pytest.mark.slow
def test_rows_name_their_video_and_tell_what_is_wrong(damaged_rows: list[dict[str, Any]], tmp_path: Path) -> None:
    video = inspect_video(tmp_path / "zeroed.mp4")
    for row, num_frames in zip(damaged_rows, (60, 8), strict=True):
        assert (row["video_path"], row["content_id"], row["duration_seconds"]) == (str(video.path), video.id, 60.0)
        damage, of_tiny, *weak = row["warnings"]
        assert [damage] == list(describe_damage(num_frames, row["frames_substituted"])) and of_tiny == OF_TINY
        assert all(line.startswith(WEAK) for line in weak)


@pytest.mark.slow
def test_a_run_warns_once_and_its_report_lists_the_videos(lvqa: Lvqa, tmp_path: Path) -> None:
    folder, run = tmp_path / "data", tmp_path / "run"
    lvqa_words = ("-s", f"benchmark.folder={folder}", "-s", "benchmark.name=lvbench", "-s", "frames=[4]")
    (folder / "videos").mkdir(parents=True)
    shutil.copy(zeroed(video_files.write_video(tmp_path / "z.mp4", 300, fps=5)), folder / "videos" / "v.mp4")
    question = {"uid": "1", "question": "What?\n(A) a\n(B) b", "answer": "A", "question_type": [], "time_reference": ""}
    lines = [{"key": "v", "type": "x", "qa": [question, {**question, "uid": "2"}], "video_info": {}}]
    (folder / "video_info.meta.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tmp_path / "run.yaml"
    config.write_text("arms: [{method: uniform}]\n")
    result = lvqa("eval", config, "--folder", run, *lvqa_words)
    assert [line.removeprefix("lvqa: video v: ") for line in result.stderr.splitlines()][1:] == [OF_TINY]
    assert "damaged" in result.stderr.splitlines()[0]
    assert set(json.loads((run / "run.json").read_text())) >= {"settings", "versions", "model", "model_revision"}
    warnings = Report([run]).to_markdown().split("## Warnings")[1]
    assert f"v, 2 questions, 2 answers: {OF_TINY}" in warnings and "frames are damaged" in warnings
    page = tmp_path / "taken" / "r.html"
    page.parent.write_text("")
    unwritten = CliRunner().invoke(lvqa_command, ["report", str(run), "--html", str(page), "--csv", os.devnull])
    assert unwritten.exit_code == 1 and unwritten.stdout.startswith("# Report")
    assert unwritten.stderr.startswith("lvqa: cannot write ")
