"""The structure of the package: one library has one module, arrows point one way, and nothing grows too large."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pytest

PACKAGE = Path(__file__).parent.parent / "lvqa"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_MEDIAN_FUNCTION_LINES, MAX_PIPELINE_LINES = 400, 60, 8, 300

MODEL_MODULES = {
    *("models", "profiling", "embedding", "rerank", "answering", "direct", "pipeline", "retrieval", "session"),
    *("checkup", "visual_tokens"),
}

# library -> the modules that may import it. A library that is not here may be imported anywhere.
LIBRARIES = {
    "ray": {"server", "workers"},
    "faiss": {"index", "library"},
    "pyarrow": {"index", "datasets", "places", "token_file"},
    "fsspec": {"places"},
    "aiohttp": {"places"},
    "av": {"audio", "synthetic", "video"},
    "decord": {"video"},
    "click": {"cli"},
    "yaml": {"config", "settings_tree"},
    "msgspec": {"config", "datasets", "evaluation", "selection", "validation"},
    "torch": MODEL_MODULES,
    "transformers": MODEL_MODULES,
    "accelerate": {"models"},
    "bitsandbytes": {"models"},
    "torchao": {"models"},
    "matplotlib": {"report"},
    "jinja2": {"report", "web"},
    "PIL": {"image"},
    "filelock": {"evaluation", "library"},
    "cachetools": {"models", "places", "server", "session", "video"},
    "lmms_eval": {"lmms"},
    "torchvision": set(),
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "pydantic": {"server"},
    "mcp": {"server"},
    "llguidance": {"schema"},
}

# module -> the modules that it may import. The package itself (its lazy names) is the module "lvqa".
BASE = {"prompts", "records", "schema", "validation"}
MODEL = BASE | {"concurrency", "costs", "embedding", "models"}
SESSION = MODEL | {"config", "index", "pairs", "session", "token_file", "video", "visual_tokens"}
ARROWS = {
    "records": {"lazy"},
    "schema": {"records"},
    "concurrency": set(),
    "lazy": set(),
    "places": {"records"},
    "files": {"places"},
    "old_settings": set(),
    "subtitles": {"places", "records"},
    "speech": SESSION | {"files", "places", "subtitles"},
    "platforms": {"records"},
    "control_group": set(),
    "deferred": set(),
    "startup": {"control_group", "deferred"},
    "audio": {"records"},
    "image": {"records"},
    "validation": {"audio", "image", "places", "records", "schema"},
    "batches": {"records"},
    "costs": {"concurrency", "records"},
    "settings_tree": {"records", "validation"},
    "config": {"old_settings", "records", "settings_tree", "subtitles", "validation"},
    "prompts": {"records", "schema"},
    "video": {"concurrency", "files", "places", "records", "startup", "subtitles"},
    "index": {"files", "places", "records"},
    "plugins": {"records", "validation"},
    "selection": {"plugins", "records", "temporal", "validation"},
    "datasets": {"places", "records", "subtitles", "validation"},
    "workers": {"records", "startup", "validation"},
    "models": {"concurrency", "control_group", "deferred", "prompts", "records", "schema", "startup"},
    "embedding": {"models", "prompts", "records"},
    "rerank": BASE | {"models", "plugins"},
    "pairs": {"records", "video"},
    "token_file": {"places"},
    "visual_tokens": {"concurrency", "models", "image", "pairs", "records", "token_file", "video"},
    "session": {"audio", "places", *SESSION},
    "protocols": {"datasets", "records"},
    "answering": SESSION | {"letters", "protocols", "speech", "subtitles"},
    "letters": {"records"},
    "temporal": {"records"},
    "opening": SESSION,
    "items": SESSION | {"audio", "image"},
    "retriever": SESSION | {"components", "items", "opening", "rerank"},
    "retrieval": SESSION | {"rerank", "retriever", "selection", "speech", "temporal"},
    "gate": SESSION,
    "looking": SESSION | {"answering", "caveats", "selection"},
    "provenance": {"config"},
    "caveats": {"models", "records", "session"},
    "index_steps": SESSION,
    "node_check": {"files", "places", "provenance", "records", "video", "workers"},
    "indexing": SESSION | {"caveats", "index_steps"},
    "components": {
        *("config", "models", "plugins", "records", "rerank", "selection", "subtitles", "validation", "video"),
    },
    "pipeline": {
        *SESSION,
        *("answering", "caveats", "client", "components", "gate", "index_steps", "indexing", "looking", "opening"),
        *("platforms", "protocols", "retrieval", "retriever", "selection"),
    },
    "library": {
        *("caveats", "components", "config", "index", "index_steps", "indexing", "node_check", "pipeline", "places"),
        *("lazy", "records", "rerank", "session", "settings_tree", "startup", "token_file", "validation", "video"),
        "workers",
    },
    "evaluation": {
        *("batches", "caveats", "components", "config", "costs", "datasets", "embedding", "files", "image", "index"),
        *("indexing", "items", "models", "node_check", "pipeline", "places", "plugins", "prompts", "protocols"),
        *("provenance", "records", "retriever", "settings_tree"),
        *("validation", "video", "workers"),
    },
    "harness_files": {"datasets", "files", "image", "records", "selection", "video"},
    "lmms": {"batches", "config", "datasets", "image", "models", "pipeline", "protocols", "records", "video"},
    "diagnostics": MODEL | {"pipeline", "rerank", "session"},
    "checkup": MODEL | {"diagnostics"},
    "report": {"datasets", "evaluation", "files", "image", "diagnostics", "lazy", "protocols", "records", "video"},
    "profiling": SESSION | {"answering", "provenance", "rerank", "startup"},
    "synthetic": {"image", "records"},
    "client": {"places", "records", "schema", "validation"},
    "direct": {"answering", "audio", "components", "models", "pairs", "pipeline", "records", "schema", "visual_tokens"},
    "output": {"config", "library", "records", "settings_tree"},
    "web": {"evaluation", "files", "image", "output", "places", "records", "report", "temporal", "validation", "video"},
    "server": {
        *("components", "concurrency", "config", "direct", "evaluation", "image", "index", "items", "letters"),
        *("library", "output", "pipeline", "places", "prompts", "provenance", "records", "report", "retriever"),
        *("schema", "selection", "settings_tree", "validation", "video", "web", "workers"),
    },
    "lvqa": {"items", "lazy", "pipeline", "prompts", "records", "retriever"},
}
# The command line may import every module; nothing may import it.
ARROWS["cli"] = set(ARROWS)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands: in functions, and by import_module("name") too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from lvqa import video` imports a module; elsewhere the part before `import` says enough.
            names = [f"lvqa.{alias.name}" for alias in node.names] if base == "lvqa" else [base]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def offences(module: str, source: str, file: str) -> list[str]:
    """One line for each import that breaks a rule."""
    lines = []
    for line, name in imports(ast.parse(source)):
        library, _, rest = name.partition(".")
        where = f"{file}:{line}"
        if name.startswith("."):
            lines.append(f"{where}: relative import of {name}")
        elif library == "lvqa":
            imported = rest.partition(".")[0]
            if imported in ("", "__version__"):  # the bare package holds nothing but its version and lazy names
                continue
            imported = imported if imported in ARROWS else "lvqa"
            if imported != module and imported not in ARROWS[module]:
                allowed = ", ".join(sorted(ARROWS[module]))
                lines.append(f"{where}: {module} may not import {imported}; it may: {allowed}")
        elif module not in LIBRARIES.get(library, {module}):
            allowed = ", ".join(sorted(LIBRARIES[library])) or "no module"
            lines.append(f"{where}: {module} may not import {library}; only {allowed} may")
    return lines


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "lvqa" if parts == ("__init__",) else parts[0]


def test_every_file_is_in_a_module_of_the_design():
    assert {module_of(path) for path in SOURCES} >= {"lvqa", "records", "config", "index", "selection"}
    assert {module_of(path) for path in SOURCES} <= set(ARROWS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_design(path):
    assert offences(module_of(path), path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE.parent))) == []


def assert_no_cycle(graph: dict[str, set[str]]) -> None:
    left = {module: targets - {module} for module, targets in graph.items()}
    while left:
        free = {module for module, targets in left.items() if not targets & set(left)}
        assert free, f"a cycle among {sorted(left)}"
        left = {module: targets for module, targets in left.items() if module not in free}


def test_the_arrows_form_no_cycle():
    assert_no_cycle(ARROWS)


@pytest.mark.slow
def test_the_files_import_each_other_in_no_cycle():
    """Imports at run time, in functions too; those for type checkers alone do not count."""
    names = {".".join(("lvqa", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in SOURCES}
    graph = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        targets = {target for _, target in imports(tree)}
        graph[name] = {target if target in names else f"{target}.__init__" for target in targets} & set(names)
    # The packages import their own parts for their names; that a part imports its package's names is no cycle of files.
    graph = {name: {t for t in targets if not t.endswith("__init__")} for name, targets in graph.items()}
    assert_no_cycle({name: targets for name, targets in graph.items() if not name.endswith("__init__")})


@pytest.mark.parametrize(
    ("module", "source", "offender"),
    [
        ("selection", "def f():\n    import faiss", "x.py:2: selection may not import faiss; only index, library may"),
        ("selection", "import torch.nn as nn", "x.py:1: selection may not import torch"),
        ("records", "from pyarrow import parquet", "x.py:1: records may not import pyarrow"),
        ("video", "import importlib\nimportlib.import_module('ray.data')", "x.py:2: video may not import ray"),
        ("pipeline", "import torchvision", "x.py:1: pipeline may not import torchvision; only no module may"),
        ("index", "from lvqa.video import probe", "x.py:1: index may not import video; it may: files, places, records"),
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
def test_a_planted_offence_is_named(module, source, offender):
    (line,) = offences(module, source, "x.py")
    assert line.startswith(offender)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("index", "import faiss, pyarrow.parquet, numpy\nfrom lvqa.records import Clip\nfrom lvqa import __version__"),
        ("pipeline", "import lvqa\nfrom lvqa.session import VideoSession"),
        ("synthetic", "import av\nfrom lvqa.synthetic.world import Scene\nfrom lvqa.records import Question"),
        ("cli", "import click\nfrom lvqa import evaluation, LongVideoQA"),
        ("workers", "import ray.data"),
        ("records", "import rayon, avro"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert offences(module, source, "x.py") == []


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def num_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function has, with its signature and its docstring."""
    return (node.end_lineno or 0) - node.lineno + 1


@pytest.mark.slow
def test_modules_and_functions_are_small():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}
    assert lengths["pipeline.py"] <= MAX_PIPELINE_LINES
    sizes = {
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": num_lines(node)
        for path, tree in TREES.items()
        for node in functions(tree)
    }
    assert {name: lines for name, lines in sizes.items() if lines > MAX_FUNCTION_LINES} == {}
    assert median(sizes.values()) <= MAX_MEDIAN_FUNCTION_LINES


OWN = ("self", "cls")


def test_nothing_outside_a_class_touches_its_private_members():
    strange = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in OWN):
                strange.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    libraries = ("config._attn_implementation", "os._exit")  # these are the libraries' own names
    assert [line for line in strange if not line.endswith(libraries)] == []


PRIVATE_WORDS = {"asked", "shown", "found", "held", "said", "told", "done"}
"""Participles that once did the work of nouns: a reader can't search for them, nor guess what they hold."""


@pytest.mark.slow
def test_no_name_is_a_participle_that_says_nothing():
    names = []
    tests = {path: ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.rglob("*.py")}
    for path, tree in (TREES | tests).items():
        for node in ast.walk(tree):
            is_stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if is_stored else node.arg if isinstance(node, ast.arg) else ""
            if name in PRIVATE_WORDS:
                names.append(f"{path.name}:{node.lineno}: {name}")
    assert names == []


HEAVY = {"torch", "ray", "transformers", "faiss", "pyarrow", "av", "decord", "cv2", "scipy", "matplotlib", "tokenizers"}


@pytest.mark.parametrize(
    "module",
    [
        "lvqa",
        "lvqa.config",
        "lvqa.index",
        "lvqa.plugins",
        "lvqa.selection",
        "lvqa.temporal",
        "lvqa.cli.main",
        "lvqa.client",
        "lvqa.cli.remote",
    ],
)
def test_importing_it_loads_nothing_heavy(module):
    assert find_spec(module) is not None
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & set({sorted(HEAVY)})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [], f"import {module} loads {result.stdout}"
