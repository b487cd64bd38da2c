"""Whatever is kept on disk changes only with the number of its format, so that nothing old is taken for new.

tests/golden/formats.json has, for each format and number, outputs of the code that had this number. Where an output
changes on purpose, raise the number, and run `python tests/test_formats.py --update`: it writes the entries of the
current numbers. The outputs are of a synthetic video and the embedded model, which the file names too.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet
import pytest

import lvqa
from lvqa.config import load_config
from lvqa.embedding import EMBEDDING_FORMAT
from lvqa.evaluation import load_run_config
from lvqa.evaluation.retrieval.rows import RANKINGS_FORMAT
from lvqa.evaluation.retrieval.run import retrieve
from lvqa.evaluation.retrieval.settings import load_retrieve_config
from lvqa.evaluation.rows import ROWS_FORMAT, to_line
from lvqa.evaluation.run import chosen_tasks
from lvqa.evaluation.runner import Runner
from lvqa.evaluation.schedule import WorkItem
from lvqa.index import INDEX_FORMAT, ClipIndex, Store
from lvqa.library.codes import CODES_FORMAT, ClipCodes
from lvqa.library.indexed import indexed_states
from lvqa.library.table import TABLE_FORMAT, ClipTable
from lvqa.models import Model, load_model
from lvqa.models.prompt import ClipTokens
from lvqa.pipeline import LongVideoQA
from lvqa.records import Clip, Video
from lvqa.session import VideoSession
from lvqa.speech import LINES_FORMAT, line_index, spoken_lines
from lvqa.synthetic.retrieval import make_sets
from lvqa.token_file import TokenBound, TokenFile
from lvqa.video import (
    FRAMES_FORMAT,
    IDENTITY_FORMAT,
    METADATA_FORMAT,
    RECORD_FORMAT,
    FrameGrid,
    cut_clips,
    inspect_video,
    read_frames,
    scene_changes,
    store_metadata,
)
from lvqa.visual_tokens import TOKENS_FORMAT

GOLDEN = Path(__file__).parent / "golden" / "formats.json"
UPDATE = "python tests/test_formats.py --update"
VIDEO = Path(__file__).parent / "golden" / "dataset" / "videos" / "film000011-1min.mp4"
"""A synthetic video with its annotations. It is kept, since x264 does not write the same bytes each time."""
NUM_VALUES = 32
"""How many numbers of a vector are compared."""
FRAME_SECONDS = (0.0, 13.0, 37.0, 59.0)
"""The times of the frames whose pixels are compared."""
TOLERANCES = {"clip_vectors": 1.5e-3, "query_vector": 1.5e-3, "first_tokens": 1.5e-3, "quarters": 1.5, "sharpness": 0.1}
"""By how much the numbers under these keys may differ: processors round differently. All others are exact."""

Output = dict[str, Any]
"""What JSON can hold."""


@dataclass(frozen=True)
class Material:
    """What the outputs are computed from."""

    path: Path
    """A synthetic video, in LVBench's layout."""
    model: Model
    """The embedded model."""
    folder: Path
    """An empty folder, for what is written."""

    @cached_property
    def video(self) -> Video:
        return inspect_video(self.path)

    def pipeline(self, *overrides: str) -> LongVideoQA:
        """Return a fresh pipeline, with an empty store of its own."""
        store = Path(tempfile.mkdtemp(dir=self.folder))
        return LongVideoQA(self.model, load_config(None, [f"store.folder={store}", *overrides]))

    def read_clips(self, session: VideoSession) -> list[ClipTokens]:
        """Return the visual tokens of two clips, which are the same however a video is cut into clips."""
        clips = [Clip(self.video.id, start, start + 16.0) for start in (0.0, 16.0)]
        return list(session.clip_reader().read(clips))

    def to_dict(self) -> dict[str, str]:
        """Return what tells this material from other material."""
        return {"av": version("av"), "model_revision": self.model.revision}


def index_output(material: Material) -> Output:
    """Return the layout of an index's file, the clips in it, and its name and digest for fixed contents."""
    indexes = {
        name: pyarrow.parquet.read_table(material.pipeline(*overrides).index(material.path).path)
        for name, overrides in {"clips": (), "clips_at_scene_cuts": ("video.scene_cuts=true",)}.items()
    }
    schema = indexes["clips"].schema
    fixed = Video(Path("/videos/a.mp4"), "0123456789abcdef", 32.0, 48, 64, 25.0)
    index = ClipIndex.of(
        [Clip(fixed.id, 0.0, 16.0), Clip(fixed.id, 16.0, 32.0)],
        np.array([[3.0, 4.0, 0.0], [1.0, 2.0, 2.0]]),
        video_id=fixed.id,
        spec={"model": "tiny", "clip_seconds": 16.0},
    )
    path = Store(material.folder / "fixed").save(index, fixed).path
    assert path is not None
    return {
        "columns": {field.name: str(field.type) for field in schema},
        "metadata": {key.decode(): _keys(value) for key, value in sorted(schema.metadata.items())},
        "file_name": path.name,
        "digest": pyarrow.parquet.read_schema(path).metadata[b"lvqa.digest"].decode(),
        **{name: _spans(table["start_seconds"], table["end_seconds"]) for name, table in indexes.items()},
    }


def embedding_output(material: Material) -> Output:
    """Return the vectors of two clips and of a query."""
    qa = material.pipeline()
    with qa.open(material.path) as session:
        clips = qa.spec.embedder.clips(material.model, material.read_clips(session))
    queries = qa.spec.embedder.queries(material.model, [("What colour is the boat?", ())])
    return {
        "shape": [list(clips.shape), list(queries.shape)],
        "dtype": str(clips.dtype),
        "clip_vectors": _rounded(clips[:, :NUM_VALUES]),
        "query_vector": _rounded(queries[0, :NUM_VALUES]),
    }


def frames_output(material: Material) -> Output:
    """Return grids, scene changes and clips of the video, and what some of its frames look like."""
    video = material.video
    grid, keyframes = FrameGrid.exact(video, 1.0), FrameGrid.keyframes(video, 1.0)
    changes = scene_changes(video, grid)
    batches = read_frames(video, np.array(FRAME_SECONDS), height=84, width=112)
    frames = np.concatenate([batch.pixels for batch in batches]).astype(np.float64)  # (frames, 84, 112, 3)
    quarters = frames.reshape(len(frames), 2, 42, 2, 56, 3).mean(axis=(2, 4))
    return {
        "exact": grid.times_seconds.tolist(),
        "exact_at_0.3": FrameGrid.exact(video, 0.3).times_seconds.round(6).tolist(),
        "keyframes": keyframes.times_seconds.round(6).tolist(),
        "scene_changes": changes,
        "clips": _clip_spans(cut_clips(video, grid, 16.0)),
        "clips_of_5_s": _clip_spans(cut_clips(video, grid, 5.0)),
        "clips_at_scene_cuts": _clip_spans(cut_clips(video, grid, 16.0, changes)),
        "clips_of_slides": _clip_spans(cut_clips(video, FrameGrid(np.r_[np.arange(9.0), 50.0, 55.0], 1.0), 16.0)),
        "clips_of_keyframes": _clip_spans(cut_clips(video, keyframes, 16.0)),
        "quarters": quarters.round(1).tolist(),
        "sharpness": np.abs(np.diff(frames, axis=2)).mean(axis=(1, 2, 3)).round(2).tolist(),
    }


def metadata_output(material: Material) -> Output:
    """Return the columns of the file of a video's metadata, and their first values."""
    folder = material.folder / "metadata"
    folder.mkdir()
    store_metadata(material.path, folder)
    (path,) = folder.glob("*.npz")
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    fingerprint = str(columns.pop("fingerprint"))
    for value in (version("av"), material.video.id, str(material.path.stat().st_mtime_ns)):
        assert value in fingerprint
        fingerprint = fingerprint.replace(value, "_")
    return {
        "file_name": path.name.replace(material.video.id, "_"),
        "fingerprint": fingerprint,
        "columns": {name: [str(values.dtype), values.ndim] for name, values in columns.items()},
        "first_values": {name: values[:8].tolist() for name, values in columns.items()},
    }


def identity_output(material: Material) -> Output:
    """Return the id of the video, and what the file holds that keeps it."""
    folder = material.folder / "identity"
    folder.mkdir()
    with mock.patch("lvqa.video.identity.SETTLED_NS", 0):
        store_metadata(Path(shutil.copy(material.path, material.folder / "copy.mp4")), folder)
    (path,) = folder.glob("*.identity.json")
    return {"id": material.video.id, "content": _types(json.loads(path.read_text()))}


def record_output(material: Material) -> Output:
    """Return what the file holds that keeps where a video was seen."""
    folder = material.folder / "record"
    folder.mkdir()
    store_metadata(material.path, folder)
    (path,) = folder.glob("*.video.json")
    content = json.loads(path.read_text())
    return {
        "file_name": path.name.replace(material.video.id, "_"),
        "content": _types(content),
        "duration_seconds": content["duration_seconds"],
    }


def tokens_output(material: Material) -> Output:
    """Return the bytes of a small token file, and the first tokens of two pairs of the video."""
    path = material.folder / "small.tokens"
    TokenFile(path, num_pairs=3, width=2, bound=TokenBound(100)).write({0: b"pair", 2: b"last"})
    qa = material.pipeline()
    qa.store.prepare()
    with qa.open(material.path) as session:
        material.read_clips(session)
    stored = qa.store.tokens_path(session.video.id, session.spec.to_dict())
    file = TokenFile(stored, num_pairs=session.grid.num_pairs, width=material.model.dim, bound=TokenBound(1 << 30))
    pairs = [bytes(file.read(slot) or b"") for slot in (0, 9)]
    return {
        "small_file": path.read_bytes().hex(),
        "pair_bytes": [len(pair) for pair in pairs],
        "first_tokens": [_rounded(np.frombuffer(pair[:-1], np.float32)[:NUM_VALUES]) for pair in pairs],
        "flags": [pair[-1:].hex() for pair in pairs],
    }


def lines_output(material: Material) -> Output:
    """Return the lines that a file of subtitles gives, and their vectors."""
    path = material.folder / "lines.srt"
    blocks = ("1\n00:00:01,000 --> 00:00:03,000\n<i>The sign says</i>\ntaxi.", "2\n00:00:30,000 --> 00:09:00,000\nBye.")
    path.write_text("\n\n".join(blocks))
    qa = material.pipeline(f"video.subtitles={path}")
    with qa.open(material.path) as session:
        spoken = spoken_lines(session, qa.config.video.spoken, qa.store)
        index = line_index(session, spoken, qa.spec, qa.model, qa.store)
    lines = [[line.start_seconds, line.end_seconds, line.text] for line in index.lines]
    return {"lines": lines, "query_vector": _rounded(index.vectors[:, :NUM_VALUES])}


def rows_output(material: Material) -> Output:
    """Return the keys and types of a run's rows: of an arm that searches, and of one without frames."""
    arms = "arms=[{name: searching, method: freeret}, {method: blind}]"
    benchmark = f"benchmark.folder={material.path.parent.parent}"
    settings = ["model={name: tiny, device: cpu}", arms, "frames=[4]", benchmark, f"store.folder={material.folder}"]
    config = load_run_config(None, settings)
    (task,) = chosen_tasks(config).tasks
    conditions = (("searching", 4), ("blind", 0))
    rows = Runner(config)(WorkItem(task.video_id, task.path, task.questions[:1], (conditions,))).rows
    return {row["arm"]: _types(json.loads(to_line(row))) for row in rows}


def codes_output(material: Material) -> Output:
    """Return the codes of fixed vectors, of few numbers and of many: of the latter the signs, which do not round."""
    vectors = np.random.default_rng(1).standard_normal((2, 1024)).astype(np.float16)
    mean = np.zeros(1024, np.float32)
    few, many = ClipCodes(4), ClipCodes(1024)
    return {
        "num_bytes": {str(width): ClipCodes(width).num_bytes for width in (4, 192, 1024, 3584)},
        "few": few.encode(np.array([[1.0, -2.0, 0.5, 3.0]]), np.array([1.0, 0.0, 0.0, 1.0])).tobytes().hex(),
        "signs": many.encode(vectors, mean)[:, : 1024 // 8].tobytes().hex(),
    }


def table_output(material: Material) -> Output:
    """Return the files of a library's table of two small indexes, and what the segment's description holds."""
    store = Store(material.folder / "library")
    spec = {"model": "tiny"}
    for number in range(2):
        video_id = f"{number:016x}"
        clips = [Clip(video_id, 16.0 * i, 16.0 * i + 16) for i in range(3)]
        index = ClipIndex.of(clips, np.eye(3, 4) + number, video_id=video_id, spec=spec)
        store.save(index, Video(Path("/videos/a.mp4"), video_id, 48.0, 48, 64, 25.0))
    table = ClipTable(store, spec)
    table.update(indexed_states(store, spec))
    (segment,) = table.folder.glob("*/")
    contents = {path.name: path for path in segment.iterdir()}
    description = {name: _types(json.loads(path.read_text())) for name, path in contents.items() if "json" in name}
    sizes = {name: path.stat().st_size for name, path in contents.items() if "json" not in name}
    return {"folder": table.folder.name, "sizes": sizes, "description": description}


def rankings_output(material: Material) -> Output:
    """Return the keys and types of the rows of a run of retrieval, with a reranked and an embedded arm."""
    folder = material.folder / "retrieval"
    make_sets(folder / "sets", queries=2, seed=706)
    dataset = f"dataset={{name: own, folder: {folder / 'sets'}, sets: [moment], queries: 1}}"
    settings = ["model={name: tiny, device: cpu}", dataset, "workers=0", f"store.folder={folder / 'store'}"]
    retrieve(load_retrieve_config(None, settings), folder / "run")
    lines = (folder / "run" / "rankings.jsonl").read_text().splitlines()
    return {row["arm"]: _types(row) for row in map(json.loads, lines)}


FORMATS: dict[str, tuple[int, Callable[[Material], Output]]] = {
    "CODES_FORMAT": (CODES_FORMAT, codes_output),
    "EMBEDDING_FORMAT": (EMBEDDING_FORMAT, embedding_output),
    "FRAMES_FORMAT": (FRAMES_FORMAT, frames_output),
    "IDENTITY_FORMAT": (IDENTITY_FORMAT, identity_output),
    "INDEX_FORMAT": (INDEX_FORMAT, index_output),
    "LINES_FORMAT": (LINES_FORMAT, lines_output),
    "METADATA_FORMAT": (METADATA_FORMAT, metadata_output),
    "RANKINGS_FORMAT": (RANKINGS_FORMAT, rankings_output),
    "RECORD_FORMAT": (RECORD_FORMAT, record_output),
    "ROWS_FORMAT": (ROWS_FORMAT, rows_output),
    "TABLE_FORMAT": (TABLE_FORMAT, table_output),
    "TOKENS_FORMAT": (TOKENS_FORMAT, tokens_output),
}
"""The name of a format -> its number today, and what computes the outputs that it stands for."""


def _rounded(values: np.ndarray) -> Any:
    return values.astype(np.float64).round(3).tolist()


def _clip_spans(clips: list[Clip]) -> list[list[float]]:
    return [[round(clip.start_seconds, 6), round(clip.end_seconds, 6)] for clip in clips]


def _spans(starts: Any, ends: Any) -> list[list[float]]:
    pairs = zip(starts.to_pylist(), ends.to_pylist(), strict=True)
    return [[round(start, 6), round(end, 6)] for start, end in pairs]


def _keys(value: bytes) -> Any:
    """Return the nested keys of a JSON mapping; what is no JSON is "text"."""

    def nested(tree: Any) -> Any:
        return {key: nested(tree[key]) for key in sorted(tree)} if isinstance(tree, dict) else type(tree).__name__

    try:
        return nested(json.loads(value))
    except ValueError:
        return "text"


def _types(value: Any) -> Any:
    """Return the value with types in place of what is not a mapping."""
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    if isinstance(value, list):
        return f"list of {', '.join(sorted({str(_types(item)) for item in value}))}" if value else "empty list"
    return "null" if value is None else type(value).__name__


# --- the comparison --------------------------------------------------------------------------------------------------


def find_difference(golden: Any, output: Any, *, path: str = "", tolerance: float = 0.0) -> str | None:
    """Return the keys and indices that lead to the first difference; None if there is none."""
    if isinstance(golden, dict) and isinstance(output, dict):
        if golden.keys() != output.keys():
            return f"{path}: the keys {sorted(golden.keys() ^ output.keys())}"
        pairs = [(f"{path}.{key}", golden[key], output[key], TOLERANCES.get(key, tolerance)) for key in golden]
    elif isinstance(golden, list) and isinstance(output, list):
        if len(golden) != len(output):
            return f"{path}: {len(golden)} items, now {len(output)}"
        pairs = [(f"{path}[{i}]", *items, tolerance) for i, items in enumerate(zip(golden, output, strict=True))]
    elif isinstance(golden, float) and isinstance(output, float):
        return None if abs(golden - output) <= tolerance else f"{path}: {golden}, now {output}"
    else:
        return None if golden == output else f"{path}: {golden!r}, now {output!r}"
    differences = (find_difference(a, b, path=name, tolerance=limit) for name, a, b, limit in pairs)
    return next(filter(None, differences), None)


def find_problem(name: str, number: int, output: Output, golden: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a format and how to fix it, in one line; None if all is well."""
    entry = golden.get(name, {}).get(str(number))
    if entry is None:
        return f"{name} {number} has no golden output: run {UPDATE}"
    difference = find_difference(entry, json.loads(json.dumps(output)))
    if difference is None:
        return None
    what = name.removesuffix("_FORMAT")
    return f"the output of {what} changed: raise {name} (now {number}) and run {UPDATE} ({difference.lstrip('.')})"


def read_golden() -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    return golden


@pytest.fixture(scope="module")
def material(tiny, tmp_path_factory) -> Material:
    return Material(VIDEO, tiny, tmp_path_factory.mktemp("formats"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_an_output_changes_with_its_number_alone(material, name):
    made_with, now = read_golden()["made_with"], material.to_dict()
    if made_with["av"] != now["av"]:
        pytest.skip(f"av {now['av']} may decode other pixels than av {made_with['av']}, whose outputs are golden")
    assert now == made_with, f"the model of this test changed: run {UPDATE}"
    number, compute = FORMATS[name]
    problem = find_problem(name, number, compute(material), read_golden())
    if problem is not None:
        pytest.fail(problem, pytrace=False)


def test_every_format_of_the_package_is_compared():
    sources = Path(lvqa.__file__).parent.rglob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert sorted(re.findall(r"^([A-Z_]+_FORMAT)\b.*=", text, re.MULTILINE)) == sorted(FORMATS)


def test_a_changed_output_and_a_new_number_are_named():
    golden = {"X_FORMAT": {"1": {"a": [1, 2.0], "clip_vectors": [[0.5]], "b": {"c": "text"}}}}
    output = golden["X_FORMAT"]["1"]
    assert find_problem("X_FORMAT", 1, output, golden) is None
    assert find_problem("X_FORMAT", 1, {**output, "clip_vectors": [(0.501,)]}, golden) is None
    for change, where in [
        ({"a": [1, 2.001]}, "a[1]: 2.0, now 2.001"),
        ({"a": [1]}, "a: 2 items, now 1"),
        ({"clip_vectors": [[0.503]]}, "clip_vectors[0][0]: 0.5, now 0.503"),
        ({"b": {"c": "other"}}, "b.c: 'text', now 'other'"),
        ({"b": {}}, "b: the keys ['c']"),
        ({"d": 1}, ": the keys ['d']"),
    ]:
        message = "the output of X changed: raise X_FORMAT (now 1) and run python tests/test_formats.py --update"
        assert find_problem("X_FORMAT", 1, {**output, **change}, golden) == f"{message} ({where})"
    missing = "X_FORMAT 2 has no golden output: run python tests/test_formats.py --update"
    assert find_problem("X_FORMAT", 2, output, golden) == missing
    assert find_problem("Y_FORMAT", 1, output, golden) == "Y_FORMAT 1 has" + missing.removeprefix("X_FORMAT 2 has")


# --- the script ------------------------------------------------------------------------------------------------------


def to_text(tree: Any, indent: str = "") -> str:
    """Return JSON with a mapping's keys on lines of their own, and each list on one line."""
    if not isinstance(tree, dict) or not tree:
        return json.dumps(tree)
    lines = [f"{indent} {json.dumps(key)}: {to_text(value, indent + ' ')}" for key, value in tree.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def update() -> None:
    """Write the entries of the current numbers; those of other numbers stay."""
    golden = read_golden()
    with tempfile.TemporaryDirectory() as folder:
        material = Material(VIDEO, load_model("tiny", device="cpu"), Path(folder) / "outputs")
        material.folder.mkdir()
        golden["made_with"] = material.to_dict()
        for name, (number, compute) in FORMATS.items():
            golden[name] = {**golden.get(name, {}), str(number): compute(material)}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(to_text(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep the golden outputs of all formats.")
    parser.add_argument("--update", action="store_true", required=True, help="Write those of the current numbers.")
    parser.parse_args()
    update()
