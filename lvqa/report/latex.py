"""The tables of a report in LaTeX, for the packages booktabs and graphicx."""

from __future__ import annotations

from collections.abc import Iterable

from lvqa.report.tables import Entry, Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
"""What LaTeX would read as a command, and how it is written."""


def to_latex(table: Table, *, caption: str, label: str) -> str:
    """Return a table as a `table` environment; one that is wider than the line is made smaller.

    Args:
        table: Its texts come first, its figures are aligned at the right.
        caption: The text above it, as it is read.
        label: What `\\ref` calls it.
    """
    columns = "".join("l" if i < table.num_names else "r" for i in range(len(table.head)))
    lines = [
        r"\begin{table}[tb]",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line(map(escape_latex, table.head)),
        r"\midrule",
        *(_line(map(_field, line)) for line in table.lines),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Return the text as LaTeX prints it."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _field(entry: Entry) -> str:
    main = escape_latex(entry.main)
    if entry.main.startswith(("-", "+")) and entry.main[1:]:
        main = f"${main}$"  # a minus sign, and not a hyphen
    return f"{main} {{\\scriptsize ({escape_latex(entry.detail)})}}" if entry.detail else main


def _line(fields: Iterable[str]) -> str:
    return " & ".join(fields) + r" \\"
