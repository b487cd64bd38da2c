"""Pages: the workbench, runs and answers in a browser. They show what the records hold, and decide nothing."""

from lvqa.web.bundle import write_bundle
from lvqa.web.notes import read_notes, write_note
from lvqa.web.pages import STATIC, answer_page, page, write_page
from lvqa.web.views import RunView, answer_view

__all__ = [
    "STATIC",
    "RunView",
    "answer_page",
    "answer_view",
    "page",
    "read_notes",
    "write_bundle",
    "write_note",
    "write_page",
]
