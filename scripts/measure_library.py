"""Measure the table of a library's clips: how fast it is made and added to, and how fast and how well it is searched.

    python scripts/measure_library.py clips FOLDER --clips 1000000
    python scripts/measure_library.py videos FOLDER --videos 10000
    python scripts/measure_library.py kills FOLDER --kills 20

`clips` makes vectors of 7B's width: 20,000 centres with a 1/k spectrum, a common mean, so that any two have a cosine of
about 0.6, and a spread within a cluster as large as between clusters; queries come from the spread. It writes them as
indexes of videos of an hour, and searches for all queries exactly, too. With --hard the vectors are independent.
`videos` compares the whole process of `lvqa search --library` with a search in one video. `kills` kills a writer at
random times, and counts the videos that it had reported as saved and that a search does not return. What is there from
an earlier call is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lvqa.index import ClipIndex, Store
from lvqa.library.find import ClipFinder
from lvqa.library.indexed import ALL_VIDEOS, indexed_states
from lvqa.library.table import ClipTable
from lvqa.records import Clip, Video

WIDTH, CENTRES, CLIPS_IN_VIDEO, QUERIES, SOUGHT = 3584, 20_000, 225, 100, 50
SPEC = {"made": "measure_library"}


def made_vectors(rng: np.random.Generator, n: int, *, hard: bool) -> np.ndarray:
    """Return n vectors of unit length, float32."""
    if hard:
        vectors = rng.standard_normal((n, WIDTH), dtype=np.float32)
    else:
        scale, mean, centres = _spread()
        vectors = rng.standard_normal((n, WIDTH), dtype=np.float32) * scale
        vectors += centres[rng.integers(0, CENTRES, n)]
        vectors += mean
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


_SPREAD: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []


def _spread() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the standard deviations, the mean and the centres: 1 of variance between, 1 within, 3 of the mean."""
    if not _SPREAD:
        rng = np.random.default_rng(1)
        scale = np.sqrt(1 / np.arange(1, WIDTH + 1))
        scale = (scale / np.linalg.norm(scale)).astype(np.float32)
        mean = rng.standard_normal(WIDTH)
        mean = (mean / np.linalg.norm(mean) * np.sqrt(3)).astype(np.float32)
        _SPREAD.append((scale, mean, rng.standard_normal((CENTRES, WIDTH), dtype=np.float32) * scale))
    return _SPREAD[0]


def save_videos(store: Store, first: int, last: int, *, hard: bool, width: int = WIDTH) -> None:
    """Save the indexes of made videos of an hour, those that are not there yet."""
    for number in range(first, last):
        video_id = f"{number:016x}"
        if not store.path_of(video_id, SPEC).exists():
            vectors = made_vectors(np.random.default_rng(number + 1000), CLIPS_IN_VIDEO, hard=hard)[:, :width]
            clips = [Clip(video_id, 16.0 * i, 16.0 * i + 16) for i in range(CLIPS_IN_VIDEO)]
            index = ClipIndex.of(clips, vectors, video_id=video_id, spec=SPEC, model="made")
            store.save(index, Video(Path(f"/made/{number}.mp4"), video_id, 3600.0, 64, 48, 25.0))


def measure_clips(folder: Path, num_clips: int, *, hard: bool) -> None:
    """Print how a table of so many clips is made, added to and searched."""
    store, num_videos = Store(folder), num_clips // CLIPS_IN_VIDEO
    save_videos(store, 0, num_videos, hard=hard)
    table, states = ClipTable(store, SPEC), indexed_states(store, SPEC)
    first, later = dict(list(states.items())[: -num_videos // 20]), states
    for name, part in (("made", first), ("added to", later)):
        lacking = len(table.read(part).lacking)
        started = time.perf_counter()
        table.update(part)
        seconds, num = time.perf_counter() - started, lacking * CLIPS_IN_VIDEO
        print(f"table {name}: {num} clips in {seconds:.1f} s, {num / seconds:.0f} clips/s", flush=True)
    queries = made_vectors(np.random.default_rng(2), QUERIES, hard=hard)
    np.save(folder / "queries.npy", queries)
    search = [sys.executable, __file__, "search", str(folder)]
    searched = json.loads(subprocess.run(search, check=True, stdout=subprocess.PIPE).stdout)
    hits = searched.pop("hits")
    print(json.dumps(searched), flush=True)
    exact = exact_search(store, queries)
    recalls = [len(set(map(tuple, one)) & two) / SOUGHT for one, two in zip(hits, exact, strict=True)]
    half_width = 1.96 * np.std(recalls) / np.sqrt(len(recalls))
    print(f"recall@{SOUGHT}: {np.mean(recalls):.4f} +- {half_width:.4f}, the least of {QUERIES} queries {min(recalls)}")


def search_in_process(folder: Path) -> None:
    """Print what a process that only searches finds, and what it takes."""
    queries = np.load(folder / "queries.npy")
    started = time.perf_counter()
    finder = ClipFinder(Store(folder), SPEC)
    listing, milliseconds, hits = time.perf_counter() - started, [], []
    for query in queries:
        started = time.perf_counter()
        clips = finder.find(query, SOUGHT, ALL_VIDEOS)
        milliseconds.append(1000 * (time.perf_counter() - started))
        hits.append([(clip.video.id, clip.candidate.start_seconds) for clip in clips])
    times = {f"ms_{p}": round(float(np.percentile(milliseconds, p)), 1) for p in (50, 95)}
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    first = round(milliseconds[0], 1)
    print(
        json.dumps(
            {"list_ms": round(1000 * listing, 1), "ms_first": first, **times, "max_rss_gb": round(rss, 3), "hits": hits}
        )
    )


def exact_search(store: Store, queries: np.ndarray) -> list[set[tuple[str, float]]]:
    """Return the best clips of each query by reading all indexes."""
    best: list[list[tuple[float, str, float]]] = [[] for _ in queries]
    for video_id in indexed_states(store, SPEC):
        index = store.load(video_id, SPEC)
        assert index is not None
        scores = queries @ index.vectors.T
        for i, of_query in enumerate(scores):
            rows = [(-float(score), video_id, 16.0 * row) for row, score in enumerate(of_query)]
            best[i] = sorted([*best[i], *sorted(rows)[:SOUGHT]])[:SOUGHT]
    return [{(video_id, start) for _, video_id, start in of_query} for of_query in best]


def measure_videos(folder: Path, num_videos: int) -> None:
    """Print what a search of so many videos takes as a whole process, and a search in one, in turn."""
    video, query = _prepare_videos(folder, num_videos), "the red fish"
    common = ["--model", "tiny", "--store", str(folder / "store"), "--quiet", "--json"]
    commands = {"one video": ["search", str(video), query, *common], "library": ["search", "--library", query, *common]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    memory: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(8):
        for name, words in commands.items():
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "lvqa.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"lvqa {' '.join(words)} ended with {process.returncode}")
            if turn:  # the first makes the table, and fills the disk's cache
                times[name].append(time.perf_counter() - started)
                memory[name].append(usage.ru_maxrss / 1e3)
            elif name == "library":
                print(
                    f"first search of {num_videos} videos, which makes the table: {time.perf_counter() - started:.1f} s"
                )
    for name in commands:
        print(
            f"{name}: {np.median(times[name]):.2f} s, least {min(times[name]):.2f} s, {np.median(memory[name]):.0f} MB"
        )
    ratio = np.median(times["library"]) / np.median(times["one video"])
    print(f"library of {num_videos} videos to one video: {ratio:.2f}")


def _prepare_videos(folder: Path, num_videos: int) -> Path:
    """Index a synthetic video, save made indexes under its spec, and return its path."""
    from lvqa.config import load_config
    from lvqa.pipeline import LongVideoQA
    from lvqa.synthetic.videos import make_videos

    folder.mkdir(parents=True, exist_ok=True)
    (video,) = make_videos(folder, num_videos=1, minutes=2, num_questions=1, seed=700)
    qa = LongVideoQA.load("tiny", config=load_config(None, [f"store.folder={folder / 'store'}"]))
    qa.index(video)
    spec, store, width = qa.spec.to_dict(), qa.store, qa.model.dim
    for number in range(num_videos):
        video_id = f"{number:016x}"
        if not store.path_of(video_id, spec).exists():
            vectors = np.random.default_rng(number).normal(size=(CLIPS_IN_VIDEO, width)) + 1
            clips = [Clip(video_id, 16.0 * i, 16.0 * i + 16) for i in range(CLIPS_IN_VIDEO)]
            index = ClipIndex.of(clips, vectors, video_id=video_id, spec=spec, model="tiny")
            store.save(index, Video(Path(f"/made/{number}.mp4"), video_id, 3600.0, 64, 48, 25.0))
    return video


def measure_kills(folder: Path, num_kills: int) -> None:
    """Print how many videos that a killed writer had reported as saved a search does not return."""
    rng, reported, store = random.Random(0), set[str](), Store(folder)
    for kill in range(num_kills):
        command = [sys.executable, __file__, "write", str(folder), "--first", str(kill * 100_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(rng.uniform(0, 4))
            writer.send_signal(signal.SIGKILL)
            reported |= {line.strip() for line in (*lines, *writer.stdout) if line.endswith("\n")}
    states = indexed_states(store, SPEC)
    view = ClipTable(store, SPEC).read(states)
    in_table = len(states) - len(view.lacking)
    hits = ClipFinder(store, SPEC).find(np.ones(64), CLIPS_IN_VIDEO * len(states), ALL_VIDEOS)
    places = [(hit.video.id, hit.candidate.start_seconds) for hit in hits]
    lost, twice = len(reported - {video_id for video_id, _ in places}), len(places) - len(set(places))
    print(
        f"{num_kills} kills: {len(reported)} videos reported, {in_table} of {len(states)} in the table after the last"
    )
    print(f"a search then lacks {lost} of them, and returns {twice} clips twice")


def write(folder: Path, first: int) -> None:
    """Save made videos, and add them to the table, until this process is killed."""
    store, number = Store(folder), first
    while True:
        save_videos(store, number, number + 1, hard=True, width=64)
        sys.stdout.write(f"{number:016x}\n")
        sys.stdout.flush()
        number += 1
        if number % 5 == 0:
            ClipTable(store, SPEC).update(indexed_states(store, SPEC))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("clips", "search", "videos", "kills", "write"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--hard", action="store_true")
    options = parser.parse_args()
    if options.what == "clips":
        measure_clips(options.folder, options.clips, hard=options.hard)
    elif options.what == "videos":
        measure_videos(options.folder, options.videos)
    elif options.what == "kills":
        measure_kills(options.folder, options.kills)
    elif options.what == "write":
        write(options.folder, options.first)
    elif options.what == "search":
        search_in_process(options.folder)


if __name__ == "__main__":
    _main()
