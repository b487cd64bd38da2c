"""Reports of answers and runs: contact sheets, tables, plots, and pages that need no other file."""

from lvqa.report.answers import clock, span_text, write_contact_sheet, write_page
from lvqa.report.diagnostics import write_diagnostics
from lvqa.report.runs import write_report

__all__ = ["clock", "span_text", "write_contact_sheet", "write_diagnostics", "write_page", "write_report"]
