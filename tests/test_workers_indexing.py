"""Indexing by workers with the embedded model: the indexes are the same, and a bad video costs only itself.

All processes are real.
"""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import video_files
import worker_tasks
from click.testing import CliRunner
from processes import PATIENCE_SECONDS, needs_proc, worker_children

from lvqa.cli.main import lvqa_command
from lvqa.config import load_config
from lvqa.embedding import CLIPS_AT_ONCE
from lvqa.index import Store
from lvqa.index_steps import segments
from lvqa.library import index_videos
from lvqa.pipeline import LongVideoQA
from lvqa.synthetic.videos import make_videos
from lvqa.workers.ray_cluster import start_ray

SETTINGS = ["model.name=tiny", "model.device=cpu", "video.frames_per_second=2", "video.clip_seconds=1"]
"""Settings with a clip a second, so that a minute is two segments."""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of two cores for the whole module, which this process has joined before any pool."""
    start_ray(2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> list[Path]:
    """Two synthetic videos of a minute."""
    return make_videos(tmp_path_factory.mktemp("videos"), num_videos=2, minutes=1, num_questions=1, seed=11)


def config_with(store: Path):
    config = load_config(None, SETTINGS)
    return dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Store(store).paths()}


@pytest.fixture(scope="module")
def expected_contents(library, tmp_path_factory) -> dict[str, bytes]:
    """The indexes of the videos as this process builds them."""
    store = tmp_path_factory.mktemp("expected")
    qa = LongVideoQA.load(config=config_with(store))
    assert [qa.index(path).clips for path in library] == [60, 60]
    return contents(store)


def test_segments_cover_all_clips_in_whole_batches():
    for num_clips in (1, 15, 16, 17, 32, 33, 225, 512, 513, 10_000):
        clips_by_segment = [list(range(num_clips))[segment] for segment in segments(num_clips)]
        assert np.concatenate(clips_by_segment).tolist() == list(range(num_clips))
        assert all(clips[0] % CLIPS_AT_ONCE == 0 for clips in clips_by_segment)
        assert len(clips_by_segment) <= 16
    assert len(segments(60)) == 2
    assert len(segments(225)) == 8
    assert segments(0) == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_the_index_does_not_depend_on_the_number_of_workers(request, library, expected_contents, tmp_path, workers):
    if workers:
        request.getfixturevalue("local_ray")
    reports: list[tuple[str, int, int]] = []
    config = config_with(tmp_path)
    results = list(index_videos(library, config, workers=workers, progress=lambda *report: reports.append(report)))
    assert contents(tmp_path) == expected_contents
    assert sorted(result.path for result in results) == library
    assert all((result.error, result.use.reused, result.use.clips) == (None, False, 60) for result in results)
    assert reports[:2] == [("plan", 1, 2), ("plan", 2, 2)]
    assert [num_done for _, num_done, _ in reports[2:]] == sorted(num_done for _, num_done, _ in reports[2:])
    assert reports[-1] == ("index", 120, 120)


@pytest.mark.slow
@needs_proc
def test_workers_killed_while_indexing_cost_nothing(local_ray, library, expected_contents, tmp_path):
    killed: set[int] = set()

    def kill(stage: str, num_done: int, total: int) -> None:
        if stage == "index" and not killed:
            killed.update(worker_children())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    results = list(index_videos(library, config_with(tmp_path), workers=2, progress=kill))
    assert len(killed) == 2
    assert [result.error for result in results] == [None, None]
    assert contents(tmp_path) == expected_contents


@pytest.mark.slow
def test_a_video_that_kills_its_process_costs_only_itself(library, expected_contents, tmp_path):
    crashing, copy = tmp_path / "crash.mp4", tmp_path / "copy.mp4"
    video_files.write_video(tmp_path / "whole.mp4", 100, fps=2).rename(crashing)
    copy.write_bytes(library[0].read_bytes())
    started = time.monotonic()
    paths, config = [crashing, *library, copy], config_with(tmp_path / "store")
    results = list(index_videos(paths, config, workers=0, prepare=worker_tasks.install_crashing_decoder))
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert {result.path: result.error or result.use.reused for result in results} == {
        crashing: f"{crashing}: its process was killed by SIGSEGV (2 tries)",
        **dict.fromkeys(library, False),
        copy: True,  # the same video under another name is indexed once
    }
    assert contents(tmp_path / "store") == expected_contents


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_the_command_indexes_seven_good_videos_and_names_three_bad_ones(request, tmp_path, workers):
    if workers:
        request.getfixturevalue("local_ray")
    folder = tmp_path / "videos"
    folder.mkdir()
    good = [video_files.write_video(folder / f"{i}.mkv", 20 + i, fps=5) for i in range(7)]
    (folder / "corrupt.mp4").write_bytes(os.urandom(5000))
    video_files.write_sound(folder / "sound.mp4")
    arguments = ["index", folder, folder / "missing.mp4", "--workers", workers, "--store", tmp_path / "store"]
    arguments += ["--model", "tiny", "--device", "cpu", "--json"]
    result = CliRunner().invoke(lvqa_command, [*map(str, arguments), "--quiet"])
    assert result.exit_code == 3, result.output
    errors = {Path(line["path"]): line["error"] for line in map(json.loads, result.stdout.splitlines())}
    assert {path for path, error in errors.items() if error is None} == set(good)
    bad = {"corrupt.mp4": "not readable", "sound.mp4": "no video stream", "missing.mp4": "No such file"}
    assert {path.name for path, error in errors.items() if error is not None} == set(bad)
    assert all(reason in errors[folder / name] for name, reason in bad.items())
    assert len(contents(tmp_path / "store")) == 7
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(any(name in line for line in lines) for name in bad)
