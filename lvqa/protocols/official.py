"""The benchmarks' authors: the prompts of their papers and repositories, and their own scripts' reading."""

from __future__ import annotations

from collections.abc import Mapping

from lvqa.protocols.answer_format import (
    AnswerFormat,
    all_words,
    lettered,
    on_lines,
    one_for_each_frame,
)
from lvqa.protocols.replies import first_character, first_letter, last_letter_alone, letter_before_bracket
from lvqa.records import Question

MLVU_SYSTEM = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    "that accurately addresses the question."
)
SELECT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)
SELECT_OF_EIGHT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, D, E, F, G, or H) of the correct option."
)
VIDEO_MME_V2_PHRASES = ("Final Answer:", "Best answer:", "Best option:", "Answer:")


def _lvbench(question: Question, _: str | None) -> str:
    return (
        f"{question.text}\n{lettered(question, '({}) {}')}\nPlease select the best answer from the options above and "
        "directly provide the letter representing your choice without giving any explanation."
    )


def _videomme(question: Question, subtitles: str | None) -> str:
    before = "" if subtitles is None else f"This video's subtitles are listed below:\n{subtitles}\n"
    return f"{before}{SELECT}\n{question.text}\n{lettered(question)}\nThe best answer is:"


def videomme_v2(question: Question, subtitles: str | None) -> str:
    """Return the text of Video-MME-v2, which VLMEvalKit shares."""
    listed = "" if subtitles is None else f" This video's subtitles are listed below:\n{subtitles}\n"
    question_lines = f"Question: {question.text}\n{lettered(question)}\n{SELECT_OF_EIGHT}"
    return f"These are the frames of a video.{listed}{question_lines}"


def _longvideobench(question: Question, _: str | None) -> str:
    return (
        f"Question: {question.text}\n{lettered(question)}\n"
        "Answer with the option's letter from the given choices directly."
    )


def mlvu(question: Question, _: str | None) -> str:
    """Return the text of MLVU, which VLMEvalKit shares."""
    listed = f"Question: {question.text}\nOptions:\n{lettered(question, '({}) {}')}".rstrip()
    return f"{listed}\nOnly give the best option."


def _lsdbench(question: Question, _: str | None) -> str:
    return f"{question.text}\n{lettered(question)}\n"


_VIDEO_MME = AnswerFormat(
    text=_videomme,
    read=first_letter("ABCD", without=("Best answer:Best option:", "Answer:")),
    subtitles=one_for_each_frame,
    max_new_tokens=16,
)
_MLVU = AnswerFormat(
    text=mlvu, read=letter_before_bracket, system=MLVU_SYSTEM, reply_start="Best Option: (", max_new_tokens=16
)

FORMATS: Mapping[str, AnswerFormat] = {
    # THUDM/LVBench, answer_util.py; the repository has no prompt: this is the one that is mostly used with it
    "lvbench": AnswerFormat(text=_lvbench, read=first_character, max_new_tokens=16),
    # MME-Benchmarks/Video-MME, README.md; thanku-all/parse_answer, eval_your_results.py
    "videomme": _VIDEO_MME,
    "videomme_long": _VIDEO_MME,
    # MME-Benchmarks/Video-MME-v2, test_video_mme_v2.py
    "videomme_v2": AnswerFormat(
        text=videomme_v2,
        read=first_letter("ABCDEFGH", without=VIDEO_MME_V2_PHRASES),
        subtitles=all_words,
        max_new_tokens=64,
    ),
    # longvideobench/LongVideoBench, longvideobench_dataset.py; its README leaves the reading to lmms-eval
    "longvideobench": AnswerFormat(
        text=_longvideobench,
        read=first_letter("ABCDE", without=("Best answer:", "Best option:")),
        interleave=on_lines,
        wants_subtitles=True,
        max_new_tokens=32,
    ),
    # JUNJIE99/MLVU, choice_bench.py and test_bench.py
    "mlvu": _MLVU,
    "mlvu_test": _MLVU,
    # dvlab-research/LSDBench, dataset.py and utils.py
    "lsdbench": AnswerFormat(text=_lsdbench, read=last_letter_alone("ABCD"), max_new_tokens=2048),
}
