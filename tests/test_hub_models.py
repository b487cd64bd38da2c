"""Models of the hub are known by their commit, folders by their content. The hub is a cache on disk, offline."""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import small_models
import torch
import video_files
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import lvqa.models.checkpoint
from lvqa.config import load_config
from lvqa.index import fingerprint
from lvqa.index_steps import EmbedStep, PlanStep, SplitStep, run_step
from lvqa.models.checkpoint import TINY, find_checkpoint
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError
from lvqa.session import FrameSpec

FIRST, SECOND = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"
COMMITS = {"one": "a1" * 20, "two": "0123456789" * 4, "three": "3" * 40}
NARROW = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}


class Hub:
    """A cache of the hub: what `huggingface_hub` finds without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, model: str, commit: str, *, seed: int, text: dict[str, Any] | None = None) -> None:
        """Add a commit with a small model of random weights."""
        repository = self._repository(model)
        snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir(exist_ok=True)
        text = small_models.TEXT | (text or {})
        vision = small_models.WINDOWED | {"out_hidden_size": text["hidden_size"]}
        torch.manual_seed(seed)
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **small_models.IDS)
        Qwen2_5_VLForConditionalGeneration(config).save_pretrained(snapshot)
        AutoTokenizer.from_pretrained(TINY).save_pretrained(snapshot)
        for path in list(snapshot.iterdir()):
            blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
            path.replace(blob)
            path.symlink_to(Path("../../blobs") / blob.name)

    def point(self, model: str, commit: str, *, ref: str = "main") -> None:
        """Let a branch or a tag stand for a commit."""
        path = self._repository(model) / "refs" / ref
        path.parent.mkdir(exist_ok=True)
        path.write_text(commit)

    def _repository(self, model: str) -> Path:
        return self.folder / f"models--{model.replace('/', '--')}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty cache; the first model's commit `one` is its main branch."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub = Hub(tmp_path / "hub")
    hub.add(FIRST, COMMITS["one"], seed=1)
    hub.point(FIRST, COMMITS["one"])
    return hub


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video_files.write_video(tmp_path_factory.mktemp("videos") / "video.mp4", 100)


Load = Callable[..., LongVideoQA]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(model: str, *overrides: str, store: str = "store") -> LongVideoQA:
        """Load a model as a new process would."""
        settings = ["model.device=cpu", "model.dtype=float32", f"store.folder={tmp_path / store}", *overrides]
        return LongVideoQA.load(model, overrides=settings)

    return load


def outcome(qa: LongVideoQA, video: Path) -> list[Any]:
    """Return all that an index and visual tokens lead to, with both methods."""
    answers = [
        qa.ask(video, "What is it?", options=["a", "b"], frames=2, method=method) for method in (None, "uniform")
    ]
    return [(answer.option_scores, answer.evidence) for answer in answers]


@pytest.mark.slow
@pytest.mark.parametrize("text", [{}, NARROW], ids=["of one width", "of two widths"])
def test_two_models_of_the_hub_share_nothing_in_a_store(
    text: dict[str, Any], hub: Hub, load: Load, video: Path, tmp_path: Path
) -> None:
    hub.add(SECOND, COMMITS["two"], seed=2, text=text)
    hub.point(SECOND, COMMITS["two"])
    first, second = load(FIRST), load(SECOND)
    assert [qa.model.revision for qa in (first, second)] == [COMMITS["one"], COMMITS["two"]]
    assert first.spec.fingerprint() != second.spec.fingerprint()
    first_outcome, kept = outcome(first, video), contents(tmp_path / "store")
    assert outcome(second, video) == outcome(load(SECOND, store="its own"), video) != first_outcome
    both = contents(tmp_path / "store")
    assert kept.items() < both.items(), "what the first model keeps stays as it was"
    for suffix in (".parquet", ".tokens"):
        assert len({content for name, content in both.items() if name.endswith(suffix)}) == 2
    assert load(FIRST).index(video).reused and load(SECOND).index(video).reused
    assert outcome(load(FIRST), video) == first_outcome


def contents(store: Path) -> dict[str, bytes]:
    """Return the files of a store, by name, whose content is the model's."""
    paths = (path for path in (store / "index").iterdir() if path.suffix in (".parquet", ".tokens"))
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_model_that_was_updated_makes_a_new_index(hub: Hub, load: Load, video: Path) -> None:
    hub.point(FIRST, COMMITS["one"], ref="v1")
    before = load(FIRST).index(video)
    hub.add(FIRST, COMMITS["two"], seed=2)
    hub.point(FIRST, COMMITS["two"])
    after = load(FIRST)
    assert after.model.revision == COMMITS["two"]
    index = after.index(video)
    assert not index.reused and index.path != before.path
    for revision in (COMMITS["one"], "v1"):
        old = load(FIRST, f"model.revision={revision}")
        assert old.model.revision == COMMITS["one"] and old.index(video).path == before.path


@pytest.mark.slow
def test_all_files_are_of_one_commit_though_the_hub_moves(
    hub: Hub, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other commit's config, weights and tokens would not fit together with those of the first."""
    hub.add(FIRST, COMMITS["two"], seed=2, text=NARROW)
    expected = load(FIRST).model.lm_head.rows([0, 1])
    find = lvqa.models.checkpoint.hf_hub_download

    def find_and_move(*args: Any, **options: Any) -> str:
        path = find(*args, **options)
        hub.point(FIRST, COMMITS["two"])
        return path

    monkeypatch.setattr(lvqa.models.checkpoint, "hf_hub_download", find_and_move)
    model = load(FIRST).model
    assert (model.revision, model.dim) == (COMMITS["one"], 64)
    assert torch.equal(model.lm_head.rows([0, 1]), expected)
    assert load(FIRST).model.dim == 32, "the next process loads what the branch has become"


@pytest.mark.slow
def test_a_worker_with_an_updated_model_refuses_the_segment_of_an_index(hub: Hub, load: Load, video: Path) -> None:
    """Vectors of two commits never come into one index."""
    planner = load(FIRST)
    hub.add(FIRST, COMMITS["two"], seed=2)
    hub.point(FIRST, COMMITS["two"])
    worker = load(FIRST)
    plan = run_step(planner.indexers, PlanStep(0, video))
    clips = tuple(run_step(planner.indexers, SplitStep(0, plan.video)))
    step = EmbedStep(0, plan.video, clips, fingerprint(plan.spec))
    assert run_step(planner.indexers, step).vectors.shape == (len(clips), 64)
    with pytest.raises(LvqaError, match=r"video\.mp4: the model was updated while it was being indexed"):
        run_step(worker.indexers, step)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        (FIRST, "v2", r"Qwen2.5-VL-7B-Instruct' is not in the cache .* revision 'v2'.*commit, a tag or a branch"),
        (FIRST, "9" * 40, r"revision '9{40}'"),
        (FIRST, "a\0b", "revision"),
        (FIRST, "../" * 9 + "etc/passwd", "revision"),
        (SECOND, None, "HF_HUB_OFFLINE.*folder with its files"),
        ("tiny", "main", r"model.revision 'main' is for a model of the hub, and model 'tiny' is the embedded model"),
        (str(TINY), COMMITS["one"], "is for a model of the hub.*is a folder"),
    ],
)
def test_a_revision_that_is_not_there_is_refused_in_one_line(
    hub: Hub, load: Load, model: str, revision: str | None, message: str
) -> None:
    with pytest.raises(LvqaError, match=message) as caught:
        load(model, *([f"model.revision={revision!r}"] if revision else []))
    assert "\n" not in str(caught.value)


@pytest.fixture
def answering_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A hub on this machine, which answers all requests with an error; the headers that say which are yielded."""
    headers: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address, constants = f"http://127.0.0.1:{server.server_port}", huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield headers
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RevisionNotFound", r"has no revision 'v9' on the hub; give a commit, a tag or a branch of it"),
        ("RepoNotFound", "is not on the hub, or the hub is out of reach"),
        ("GatedRepo", "who asked for access"),
        ("EntryNotFound", "has no config.json on the hub"),
    ],
)
def test_what_the_hub_refuses_is_one_line(answering_hub: dict[str, str], load: Load, code: str, message: str) -> None:
    answering_hub["X-Error-Code"] = code
    with pytest.raises(LvqaError, match=message) as caught:
        load(SECOND, "model.revision=v9")
    assert "\n" not in str(caught.value)


def test_a_cache_without_commits_is_refused(hub: Hub, load: Load) -> None:
    """Some tools fill a cache with folders that are named otherwise; what they hold can't be told from an update."""
    hub.add(FIRST, "my-own-snapshot", seed=3)
    hub.point(FIRST, "my-own-snapshot")
    with pytest.raises(LvqaError, match="names no commit"):
        load(FIRST)


@pytest.mark.parametrize("revision", ["None", ""])
def test_nothing_is_kept_under_a_revision_that_says_nothing(tiny: Any, revision: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(tiny, "revision", revision)
    with pytest.raises(LvqaError, match="revision is"):
        FrameSpec.of(tiny, load_config())


def write_folder(folder: Path, tensors: dict[str, torch.Tensor], *, name: str = "model.safetensors") -> Path:
    """Write a folder that looks like a model's, with these weights."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    save_file(tensors, folder / name) if name.endswith(".safetensors") else torch.save(tensors, folder / name)
    return folder


@pytest.mark.slow
def test_folders_that_differ_in_one_tensor_have_two_revisions(tmp_path: Path) -> None:
    """As when one layer alone was trained. A copy has the revision of its original."""
    tensors = {f"layer{i}": torch.full((2, 16384), float(i)) for i in range(120)}  # 15 MiB
    original = write_folder(tmp_path / "original", tensors)
    revisions = {find_checkpoint(str(original)).revision}
    assert revisions == {find_checkpoint(shutil.copytree(original, tmp_path / "copy")).revision}
    for i in range(0, 120, 7):
        changed = tensors | {f"layer{i}": tensors[f"layer{i}"] + 1}
        revisions.add(find_checkpoint(str(write_folder(tmp_path / f"changed{i}", changed))).revision)
    assert len(revisions) == 1 + len(range(0, 120, 7))


def test_folders_with_other_weights_in_the_old_format_have_two_revisions(tmp_path: Path) -> None:
    folders = [
        write_folder(tmp_path / str(i), {"a": torch.full((8,), float(i))}, name="pytorch_model.bin") for i in range(2)
    ]
    assert len({find_checkpoint(str(folder)).revision for folder in folders}) == 2


OUTSIDE = struct.pack("<Q", 60) + b'{"a": {"data_offsets": [-99, 1]}, "b": {"data_offsets": [1e9, 1e99]}}'.ljust(60)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 9, b"\x05" + bytes(7) + b"[[[[[", b"\x02" + bytes(7) + b"[]", OUTSIDE]
)
def test_weights_that_are_damaged_have_a_revision_all_the_same(tmp_path: Path, content: bytes) -> None:
    """They are refused when they are loaded, with a line that says why."""
    folder = write_folder(tmp_path / "folder", {})
    (folder / "model.safetensors").write_bytes(content + bytes(5 << 20))
    assert len(find_checkpoint(str(folder)).revision) == 16
