"""lmms-eval 0.7.3 (EvolvingLMMs-Lab/lmms-eval 75571cf, lmms_eval/tasks): its tasks' prompts and their reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall
from lvqa.datasets.videomme import DURATIONS
from lvqa.protocols.answer_format import AnswerFormat, all_on_lines, all_words, lettered, shown_with_frames
from lvqa.protocols.official import FORMATS as OFFICIAL
from lvqa.protocols.official import SELECT_OF_EIGHT, VIDEO_MME_V2_PHRASES
from lvqa.protocols.replies import first_letter, first_of_several, last_of_several, ranked_letter
from lvqa.records import Question, Subtitle

OVER_ALL = "Accuracy over all questions: one without a letter, or without an answer, is wrong."
"""How lmms-eval and VLMEvalKit count where the benchmark's own script leaves out questions."""
DIRECTLY = "Answer with the option's letter from the given choices directly."


def with_frames(otherwise: str) -> Callable[[Sequence[Subtitle], Sequence[float]], str]:
    """Return what chooses the lines on screen at a frame; a video without subtitles gets a text instead."""

    def choose(subtitles: Sequence[Subtitle], times: Sequence[float]) -> str:
        return "\n".join(shown_with_frames(subtitles, times)) if subtitles else otherwise

    return choose


def _lvbench(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question, '({}) {}')}\nAnswer the question with the option letter"


def _videomme(question: Question, subtitles: str | None) -> str:
    """Return the text of `videomme` or, with subtitles, `videomme_w_subtitle`."""
    before = "" if subtitles is None else f"This video's subtitles are listed below: \n{subtitles}\n"
    after = f"\n\n{DIRECTLY}" if subtitles is None else "\nThe best answer is:"
    return (
        f"{before}Select the best answer to the following multiple-choice question based on the video and the "
        "subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n"
        f"{question.text}\n{lettered(question)}{after}"
    )


def _videomme_v2(question: Question, subtitles: str | None) -> str:
    before = f"This video's subtitles are listed below:\n{subtitles}\n\n" if subtitles else ""
    return f"{before}Question: {question.text}\n{lettered(question)}\n{SELECT_OF_EIGHT}"


def _longvideobench(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question)}\n{DIRECTLY}\n"


def _mlvu(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question, '({}) {}')}\nOnly give the best option.\nBest option: ("


def _mlvu_test(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question, '({}) {}')}"


def _egoschema(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question)}\n{DIRECTLY}"


def _nextqa(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question)}"


def _cgbench(question: Question, subtitles: str | None) -> str:
    what = "the video" if subtitles is None else "the video and subtitles"
    before = "" if subtitles is None else f"This video's subtitles are listed below:\n{subtitles}\n"
    return (
        f"{before}Select the best answer to the following multiple-choice question based on {what}.\n"
        f"{question.text}\n{lettered(question)}\nAnswer with the option letter only."
    )


def _cgbench_subtitles(subtitles: Sequence[Subtitle], times: Sequence[float]) -> str:
    return "\n".join(shown_with_frames(subtitles, times)) or "No subtitles available."


def videomme_figures(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
    """Return Video-MME's figures over all questions."""
    by_duration = by_tag(rows, "duration", {name: name for name in DURATIONS})
    return {"overall": overall(rows), **by_duration, **by_tag(rows, "domain")}


def _accuracy(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
    return {"overall": overall(rows)}


_VIDEO_MME = AnswerFormat(
    text=_videomme,
    read=ranked_letter("ABCD"),
    subtitles=with_frames("No subtitles available"),
    max_new_tokens=16,
    headline=videomme_figures,
    counting=OVER_ALL,
)
_NEXT_QA = AnswerFormat(text=_nextqa, read=last_of_several, max_new_tokens=128)

FORMATS: Mapping[str, AnswerFormat] = {
    "lvbench": AnswerFormat(
        text=_lvbench, read=ranked_letter("ABCD"), max_new_tokens=16, headline=_accuracy, counting=OVER_ALL
    ),
    "videomme": _VIDEO_MME,
    "videomme_long": _VIDEO_MME,
    "videomme_v2": AnswerFormat(
        text=_videomme_v2,
        read=first_letter("ABCDEFGH", without=VIDEO_MME_V2_PHRASES),
        subtitles=all_words,
        max_new_tokens=64,
    ),
    # longvideobench_val_v; with subtitles longvideobench_val_i
    "longvideobench": AnswerFormat(
        text=_longvideobench,
        read=first_letter("ABCDE", without=("Best answer:", "Best option:")),
        interleave=all_on_lines,
        max_new_tokens=32,
    ),
    "mlvu": AnswerFormat(text=_mlvu, read=ranked_letter("ABCD"), max_new_tokens=16),
    "mlvu_test": AnswerFormat(text=_mlvu_test, read=ranked_letter("ABCD"), max_new_tokens=16),
    "egoschema": AnswerFormat(text=_egoschema, read=first_of_several, max_new_tokens=16),
    "nextqa": _NEXT_QA,
    "nextqa_val": _NEXT_QA,
    "cgbench_mini": AnswerFormat(
        text=_cgbench, read=ranked_letter("ABCDEFGHIJKLMN"), subtitles=_cgbench_subtitles, max_new_tokens=16
    ),
    "lsdbench": OFFICIAL["lsdbench"],  # the same in lmms-eval
}
