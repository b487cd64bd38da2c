"""VLMEvalKit (open-compass/VLMEvalKit e8e78f0, vlmeval/dataset): its prompts, and its reading without a judge.

The prompts are those for a model that takes a video. Where its judge, a model behind an API, would be called, a reply
is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall
from lvqa.protocols.answer_format import AnswerFormat, all_words, lettered, on_lines, one_for_each_frame
from lvqa.protocols.lmms_eval import DIRECTLY, OVER_ALL, videomme_figures
from lvqa.protocols.official import MLVU_SYSTEM, SELECT, VIDEO_MME_V2_PHRASES, mlvu, videomme_v2
from lvqa.protocols.replies import bracket_or_inferred, first_letter
from lvqa.records import Question

MAX_NEW_TOKENS = 2048
"""Its bound for Qwen's models."""


def _videomme(question: Question, subtitles: str | None) -> str:
    listed = "" if subtitles is None else f"This video's subtitles are listed below:\n{subtitles}\n"
    question_lines = f"Question: {question.text}\n{lettered(question)}\nAnswer: "
    return f"\nThese are the frames of a video. {listed}{SELECT}\n{question_lines}"


def _longvideobench(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question)}\n{DIRECTLY}"


def _mlvu_figures(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
    return {"M-Avg": overall(rows), **by_tag(rows)}


_VIDEO_MME = AnswerFormat(
    text=_videomme,
    read=first_letter("ABCD", without=("Best answer:Best option:", "Answer:")),
    subtitles=one_for_each_frame,
    max_new_tokens=MAX_NEW_TOKENS,
    headline=videomme_figures,
    counting=OVER_ALL,
)

FORMATS: Mapping[str, AnswerFormat] = {
    "videomme": _VIDEO_MME,
    "videomme_long": _VIDEO_MME,
    "videomme_v2": AnswerFormat(
        text=videomme_v2,
        read=first_letter("ABCDEFGH", without=VIDEO_MME_V2_PHRASES),
        subtitles=all_words,
        max_new_tokens=MAX_NEW_TOKENS,
    ),
    "longvideobench": AnswerFormat(
        text=_longvideobench,
        read=first_letter("ABCDE", without=("Best answer:Best option:", "Answer:")),
        interleave=on_lines,
        max_new_tokens=MAX_NEW_TOKENS,
    ),
    "mlvu": AnswerFormat(
        text=mlvu,
        read=bracket_or_inferred,
        system=MLVU_SYSTEM,
        max_new_tokens=MAX_NEW_TOKENS,
        headline=_mlvu_figures,
        counting="M-Avg is the accuracy over all questions, not the mean of the tasks. No letter is wrong.",
    ),
}
