"""The notebooks run from their first cell to their last, on the embedded model, and print what is stored in them.

`python scripts/run_notebooks.py` stores the outputs anew.
"""

import difflib
import math
import re
from itertools import zip_longest
from pathlib import Path

import nbformat
import pytest

from run_notebooks import execute

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MAX_BYTES = 300_000
NUMBER = re.compile(r"\d+\.\d+")
NEARLY_EQUAL = re.compile(r"^((?:qframe|focus) +)\d+ of", re.MULTILINE)
"""The counts of methods that compare frames whose scores differ by rounding alone: other processors take others."""


def texts_of(cell):
    """(kind, text) of each output of a cell; of a picture the text that stands for it."""
    return [
        (output.get("name", output.output_type), output.get("text") or output.get("data", {}).get("text/plain", ""))
        for output in cell.get("outputs", [])
    ]


def kinds_of(cell):
    """The kinds of data of each output: that a picture is there, not how it looks."""
    return [sorted(output.get("data", {})) for output in cell.get("outputs", [])]


def is_same(stored, new):
    """Whether two texts are the same but for the last digit of a decimal number: other processors round otherwise."""
    stored, new = (NEARLY_EQUAL.sub(r"\1# of", text) for text in (stored, new))
    if NUMBER.sub("#", stored) != NUMBER.sub("#", new):
        return False
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(new), strict=True)
    return all(
        len(a.partition(".")[2]) == len(b.partition(".")[2])
        and math.isclose(float(a), float(b), rel_tol=0, abs_tol=1.001 * 10.0 ** -len(a.partition(".")[2]))
        for a, b in pairs
    )


def differences(stored, new):
    """A line for each output that differs, with the cell and a diff."""
    lines = []
    for i, (stored_cell, new_cell) in enumerate(zip(stored.cells, new.cells, strict=True)):
        pairs = zip_longest(texts_of(stored_cell), texts_of(new_cell), fillvalue=("no output", ""))
        for (kind, text), (new_kind, new_text) in pairs:
            if kind != new_kind or not is_same(text, new_text):
                diff = difflib.unified_diff(
                    text.splitlines(), new_text.splitlines(), f"stored {kind}", f"new {new_kind}", lineterm=""
                )
                lines += [f"cell {i}: {stored_cell.source.splitlines()[0]}", *diff]
        if kinds_of(stored_cell) != kinds_of(new_cell):
            lines.append(f"cell {i}: stored {kinds_of(stored_cell)}, new {kinds_of(new_cell)}")
    return lines


def test_there_are_five_notebooks():
    assert [path.stem.partition("_")[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_what_it_shows_and_how_to_run_it(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ") and "This notebook shows" in first.source
    assert "pip install" in first.source and f"jupyter lab notebooks/{path.name}" in first.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stored_outputs_are_small_and_of_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    outputs = [text for cell in nbformat.read(path, as_version=4).cells for _, text in texts_of(cell)]
    assert any(outputs) and "stderr" not in text
    assert not re.search(r"/(?:home|root|tmp|work|usr)/|\d\d:\d\d:\d\d|\d%\|", "\n".join(outputs))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_is_stored_in_it(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    lines = differences(stored, execute(path, tmp_path))
    assert not lines, "\n".join(["the stored outputs differ; see scripts/run_notebooks.py", *lines])


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        ("rerank 0.98", "rerank 0.99", True),
        ("rerank 0.98", "rerank 0.96", False),
        ("rerank 0.98", "rerank 0.985", False),
        ("2 of 16", "3 of 16", False),
        ("B. red 0.50", "C. red 0.50", False),
        ("65.0 (43.3-81.9)", "65.0 (43.3-81.9)", True),
    ],
)
def test_only_the_last_digit_of_a_decimal_may_differ(stored, new, same):
    assert is_same(stored, new) is same


def test_a_difference_names_its_cell_and_shows_both_texts():
    def notebook(text):
        output = nbformat.v4.new_output("stream", name="stdout", text=text)
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("ask()", outputs=[output])])

    lines = differences(notebook("B. red\n"), notebook("C. blue\n"))
    assert lines[0] == "cell 0: ask()" and "-B. red" in lines and "+C. blue" in lines
    assert differences(notebook("B. red\n"), notebook("B. red\n")) == []
