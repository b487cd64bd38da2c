"""Imports that wait: what programs see of the stand-ins, and that models are the same with them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import small_models

from lvqa.deferred import deferred_imports
from lvqa.models import load_model

SLOW = {
    "__init__.py": "loads = 1\nfrom slow_library.shapes import Square\n__all__ = ['Square', 'twice', 'loads']\n"
    "def twice(function):\n    return lambda *args: 2 * function(*args)\n"
    "def times(number):\n    return lambda function: lambda *args: number * function(*args)\n",
    "shapes.py": "class Shape:\n    sides = 0\n"
    "class Square(Shape):\n    sides = 4\n    def __init__(self, side=1):\n        self.side = side\n"
    "    def __eq__(self, other):\n        return self.side == other.side\n"
    "    def __hash__(self):\n        return self.side\n"
    "_hidden = 1\n",
}
"""A library that takes long to import."""


@pytest.fixture(autouse=True)
def _slow_library(tmp_path, monkeypatch):
    folder = tmp_path / "slow_library"
    folder.mkdir()
    for name, text in SLOW.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "slow_library"]:
        del sys.modules[name]


def imported(text: str) -> dict:
    """Return the names of a module with this text, which was imported while the slow library waited."""
    names: dict = {"__name__": "a_module"}
    with deferred_imports(("slow_library",)):
        exec(text, names)
        names["is_loaded_by_import"] = "slow_library.shapes" in sys.modules and hasattr(
            sys.modules["slow_library.shapes"], "__file__"
        )
    names["is_loaded"] = "slow_library" in sys.modules
    return names


@pytest.mark.parametrize(
    ("text", "use", "value"),
    [
        ("import slow_library", "slow_library.loads + 1", 2),
        ("import slow_library.shapes", "slow_library.shapes.Square(3).side", 3),
        ("import slow_library.shapes as shapes", "shapes.__name__", "slow_library.shapes"),
        ("from slow_library import shapes", "shapes.Square.sides", 4),
        ("from slow_library.shapes import Square", "Square(side=2).side", 2),
        ("from slow_library.shapes import Square\nunit = Square()", "unit.side", 1),
        ("from slow_library.shapes import Square\nunit = Square(5)", "unit == Square(5) and Square(5) == unit", True),
        ("from slow_library.shapes import Square\nunit = Square(5)", "{unit: 1}[Square(5)]", 1),
        ("from slow_library.shapes import Square", "isinstance(Square(), Square)", True),
        ("from slow_library.shapes import Square", "isinstance(1, Square) or issubclass(int, Square)", False),
        ("from slow_library import twice\n@twice\ndef f(x):\n  return x", "f(2) + f(3)", 10),
        ("from slow_library import times\n@times(3)\ndef f(x):\n  return x", "f(2)", 6),
        ("from slow_library import times\n@times(3)\ndef f(x):\n  'doc'", "f.__name__ + f.__doc__", "fdoc"),
    ],
)
def test_what_was_imported_waits_until_it_is_used(text, use, value):
    names = imported(text)
    assert not names["is_loaded"]
    assert eval(use, names) == value


@pytest.mark.parametrize(
    ("text", "use", "value"),
    [
        ("from slow_library.shapes import Square\nclass Big(Square):\n  pass", "Big(2).side", 2),
        ("from slow_library.shapes import Square\nMaybe = Square | None", "isinstance(None, Maybe)", True),
        ("from slow_library.shapes import Square\nMaybe = int | Square", "isinstance(1, Maybe)", True),
        ("from slow_library import *", "(twice(int)('4'), loads, 'times' in globals())", (8, 1, False)),
        ("from slow_library.shapes import *", "(Square.sides, '_hidden' in globals())", (4, False)),
        ("from slow_library import shapes\nsides = shapes.Square.sides", "sides", 4),
        ("from slow_library import shapes\nshapes.Square.sides = 5", "shapes.Square().sides", 5),
    ],
)
def test_what_needs_the_real_thing_ends_the_waiting(text, use, value):
    names = imported(text)
    assert names["is_loaded"]
    assert eval(use, names) == value


def test_afterwards_modules_are_imported_as_always():
    names = imported("import slow_library.shapes\nfrom slow_library.shapes import Square")
    import slow_library
    from slow_library.shapes import Square

    assert isinstance(Square, type) and Square is not names["Square"]
    assert slow_library.shapes.Square is Square and slow_library.__file__
    assert isinstance(Square(), names["Square"]) and issubclass(Square, names["Square"])
    assert not any(type(finder).__module__ == "lvqa.deferred" for finder in sys.meta_path)


def test_a_module_that_is_loaded_stays_and_one_that_is_missing_is_missed():
    import slow_library

    with deferred_imports(("slow_library", "no_library")):
        import slow_library as again

        assert importlib.util.find_spec("no_library") is None
        with pytest.raises(ModuleNotFoundError, match="no_library"):
            import no_library  # noqa: F401
    assert again is slow_library


def test_below_a_stand_in_only_what_exists_is_found():
    with deferred_imports(("slow_library",)):
        assert importlib.util.find_spec("slow_library.shapes") is not None
        assert importlib.util.find_spec("slow_library.none") is None
        with pytest.raises(ModuleNotFoundError, match=r"slow_library\.none"):
            importlib.import_module("slow_library.none")


def test_calls_need_not_wait():
    with deferred_imports(("slow_library",), calls=False):
        from slow_library.shapes import Square

        assert not isinstance(1, Square) and not hasattr(sys.modules["slow_library"], "__file__")
        assert vars(Square(7)) == {"side": 7}


# --- models ----------------------------------------------------------------------------------------------------------

FAMILIES = sorted(small_models.SMALL, key=lambda family: not family.startswith("qwen"))
"""InternVL and LLaVA come last: they compute with tensors as they are made, for which torch imports its compiler."""
LOAD = """
import json, sys
from lvqa.models import load_model
from lvqa.startup import quick_start
for folder in sys.argv[1:]:
    with quick_start():
        library = load_model(folder, device="cpu", dtype="float32").library
    tensors = [*library.named_parameters(), *library.named_buffers()]
    print(json.dumps([[[name, float(tensor.double().abs().sum())] for name, tensor in tensors], [*sys.modules]]))
"""
"""Loads models as a command does, and prints what tells their weights and buffers from others, and the modules."""


def sums(folder: Path) -> list[list]:
    library = load_model(str(folder), device="cpu", dtype="float32").library
    tensors = [*library.named_parameters(), *library.named_buffers()]
    return [[name, float(tensor.double().abs().sum())] for name, tensor in tensors]


@pytest.mark.slow
def test_models_of_all_families_are_the_same(tmp_path):
    folders = [small_models.save(family, tmp_path / family) for family in FAMILIES]
    command = [sys.executable, "-c", LOAD, *map(str, folders)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for family, line, folder in zip(FAMILIES, result.stdout.splitlines(), folders, strict=True):
        there, modules = json.loads(line)
        assert there == sums(folder), family
        if family.startswith("qwen"):
            assert {"accelerate", "sympy", "torch._dynamo", "torchao"}.isdisjoint(modules), family
