"""Reports of answers and runs: contact sheets, tables, plots, and pages that need no other file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvqa.lazy import lazy

if TYPE_CHECKING:
    from lvqa.report.answers import clock, is_correct, num_inside, span_text
    from lvqa.report.contact_sheet import write_contact_sheet
    from lvqa.report.diagnostics import write_diagnostics
    from lvqa.report.runs import Report, write_report

__all__ = [
    "Report",
    "clock",
    "is_correct",
    "num_inside",
    "span_text",
    "write_contact_sheet",
    "write_diagnostics",
    "write_report",
]

__getattr__ = lazy(
    "lvqa.report",
    {
        **{name: "answers" for name in ("clock", "is_correct", "num_inside", "span_text")},
        **{"write_contact_sheet": "contact_sheet", "write_diagnostics": "diagnostics"},
        **{name: "runs" for name in ("Report", "write_report")},
    },
)  # a time of an answer loads nothing of runs
