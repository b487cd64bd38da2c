"""The house rules of design.md, section 2: one library has one room, and arrows point one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "lvqa"

MODEL_ROOMS = {"models", "profiling", "embedding", "rerank", "answering", "pipeline", "synthetic", "visual_tokens"}

# library -> the rooms that may import it. A library that is not here may be imported anywhere.
LIBRARIES = {
    "ray": {"workers"},
    "faiss": {"index"},
    "pyarrow": {"index", "datasets"},
    "av": {"audio", "synthetic", "video"},
    "decord": {"video"},
    "click": {"cli"},
    "yaml": {"config"},
    "torch": MODEL_ROOMS,
    "transformers": MODEL_ROOMS,
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "PIL": {"image"},
    "lmms_eval": {"lmms"},
    "torchvision": set(),
}

# room -> the rooms that it may import. The package itself (its lazy names) is the room "lvqa".
STAGE = {"models", "prompts", "records"}
PIPELINE = STAGE | {
    "answering",
    "audio",
    "components",
    "config",
    "image",
    "rerank",
    "selection",
    "validation",
    "video",
    "embedding",
    "index",
    "visual_tokens",
}
ARROWS = {
    "records": set(),
    "files": set(),
    "validation": {"audio", "image", "records"},
    "config": {"records", "validation"},
    "prompts": {"records"},
    "video": {"files", "records"},
    "image": {"records"},
    "audio": {"records"},
    "index": {"files", "records"},
    "plugins": {"records"},
    "selection": {"plugins", "records", "validation"},
    "datasets": {"records", "validation"},
    "workers": {"records", "validation"},
    "models": {"prompts", "records"},
    "embedding": STAGE,
    "rerank": STAGE | {"plugins", "validation"},
    "visual_tokens": {"models", "image", "records", "video"},
    "answering": STAGE | {"visual_tokens"},
    "components": {"config", "plugins", "records", "rerank", "selection", "validation", "video"},
    "pipeline": PIPELINE,
    "library": {"components", "config", "index", "pipeline", "records", "workers"},
    "evaluation": {
        "components",
        "datasets",
        "files",
        "validation",
        "config",
        "pipeline",
        "plugins",
        "records",
        "video",
        "workers",
    },
    "lmms": {"datasets", "config", "pipeline", "records"},
    "diagnostics": STAGE | {"embedding", "pipeline", "rerank", "visual_tokens"},
    "report": {"evaluation", "files", "image", "diagnostics", "records", "video"},
    "profiling": STAGE | {"answering", "embedding", "rerank", "video", "visual_tokens"},
    "synthetic": STAGE | {"video", "visual_tokens"},
    "lvqa": {"pipeline", "records"},
}
# The door may open every room; nothing may import it.
ARROWS["cli"] = set(ARROWS)


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands: in functions, and by import_module("name") too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from lvqa import video` enters a room; elsewhere the part before `import` says enough.
            names = [f"lvqa.{alias.name}" for alias in node.names] if base == "lvqa" else [base]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def offences(room: str, source: str, file: str) -> list[str]:
    """One line for each import that breaks a rule."""
    found = []
    for line, name in imports(source):
        library, _, rest = name.partition(".")
        where = f"{file}:{line}"
        if name.startswith("."):
            found.append(f"{where}: relative import of {name}")
        elif library == "lvqa":
            entered = rest.partition(".")[0]
            if entered in ("", "__version__"):  # the bare package holds nothing but its version and lazy names
                continue
            entered = entered if entered in ARROWS else "lvqa"
            if entered != room and entered not in ARROWS[room]:
                found.append(f"{where}: {room} may not import {entered}; it may: {', '.join(sorted(ARROWS[room]))}")
        elif room not in LIBRARIES.get(library, {room}):
            allowed = ", ".join(sorted(LIBRARIES[library])) or "no room"
            found.append(f"{where}: {room} may not import {library}; only {allowed} may")
    return found


def room_of(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return "lvqa" if parts == ("__init__",) else parts[0]


SOURCES = sorted(HOUSE.rglob("*.py"))


def test_every_file_is_in_a_room_of_the_design():
    assert {room_of(path) for path in SOURCES} >= {"lvqa", "records", "config", "index", "selection"}
    assert {room_of(path) for path in SOURCES} <= set(ARROWS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_keep_to_the_design(path):
    assert offences(room_of(path), path.read_text(encoding="utf-8"), str(path.relative_to(HOUSE.parent))) == []


def test_the_arrows_form_no_circle():
    left = {room: set(targets) for room, targets in ARROWS.items()}
    left["cli"] -= {"cli"}
    while left:
        free = {room for room, targets in left.items() if not targets & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {room: targets for room, targets in left.items() if room not in free}


@pytest.mark.parametrize(
    ("room", "source", "offender"),
    [
        ("selection", "def f():\n    import faiss", "x.py:2: selection may not import faiss; only index may"),
        ("selection", "import torch.nn as nn", "x.py:1: selection may not import torch"),
        ("records", "from pyarrow import parquet", "x.py:1: records may not import pyarrow"),
        ("video", "import importlib\nimportlib.import_module('ray.data')", "x.py:2: video may not import ray"),
        ("pipeline", "import torchvision", "x.py:1: pipeline may not import torchvision; only no room may"),
        ("index", "from lvqa.video import probe", "x.py:1: index may not import video; it may: records"),
        ("index", "from lvqa import video", "x.py:1: index may not import video"),
        ("index", "import lvqa.selection", "x.py:1: index may not import selection"),
        ("rerank", "from lvqa.embedding import embed", "x.py:1: rerank may not import embedding"),
        ("rerank", "from lvqa.config import Config", "x.py:1: rerank may not import config"),
        ("models", "from lvqa.pipeline import LongVideoQA", "x.py:1: models may not import pipeline"),
        ("video", "from lvqa import LongVideoQA", "x.py:1: video may not import lvqa"),
        ("evaluation", "from lvqa.cli.main import main", "x.py:1: evaluation may not import cli"),
        ("index", "from .records import Clip", "x.py:1: relative import of .records"),
        ("index", "from . import records", "x.py:1: relative import of ."),
        ("records", "if False:\n  try:\n    import a, yaml\n  finally: 0", "x.py:3: records may not import yaml"),
    ],
)
def test_a_planted_offence_is_named(room, source, offender):
    (found,) = offences(room, source, "x.py")
    assert found.startswith(offender)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("index", "import faiss, pyarrow.parquet, numpy\nfrom lvqa.records import Clip\nfrom lvqa import __version__"),
        ("pipeline", "import lvqa\nfrom lvqa.visual_tokens import VisualTokens"),
        ("synthetic", "import av, torch\nfrom lvqa.synthetic.world import Scene\nfrom lvqa import prompts"),
        ("cli", "import click\nfrom lvqa import evaluation, LongVideoQA"),
        ("workers", "import ray.data"),
        ("records", "import rayon, avro"),
    ],
)
def test_what_is_allowed_passes(room, source):
    assert offences(room, source, "x.py") == []


HEAVY = {"torch", "ray", "transformers", "faiss", "pyarrow", "av", "decord", "cv2", "scipy", "matplotlib", "tokenizers"}


@pytest.mark.parametrize("module", ["lvqa", "lvqa.config", "lvqa.index", "lvqa.plugins", "lvqa.selection", "lvqa.cli"])
def test_importing_it_loads_nothing_heavy(module):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not written yet")
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & set({sorted(HEAVY)})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], f"import {module} loads {done.stdout}"
