"""lvqa as a model of lmms-eval: `lmms-eval --model lvqa --model_args model.name=tiny --tasks lvbench`.

lmms-eval finds it by the entry point in pyproject.toml and is the only one to import it. Read against lmms-eval 0.7.3.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from lvqa.config import load_config
from lvqa.datasets.lvbench import split_options
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question, shorten

_log = logging.getLogger(__name__)

manifest = ModelManifest(model_id="lvqa", simple_class_path="lvqa.lmms.Lvqa")


class Lvqa(lmms):  # type: ignore[misc]
    """Answers the requests of a task about videos. Its arguments are lvqa's settings, and `config`, their YAML file.

    `--model_args config=own.yaml,selection.frames=32,method=freeret`. Raises LvqaError for an unknown setting.
    `--device` stands for `model.device`; `--batch_size` is not used, for lvqa batches by tokens. One process.
    """

    def __init__(
        self,
        *,
        config: str | None = None,
        device: str | None = None,
        batch_size: object = None,
        max_batch_size: object = None,
        **settings: object,
    ) -> None:
        super().__init__()
        given = ({} if device is None else {"model.device": device}) | settings
        overrides = [f"{key}={value}" for key, value in given.items()]
        self._qa = LongVideoQA.load(config=load_config(None if config is None else Path(config), overrides))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """A reply to each request: the letter where its text holds options, else the text of the answer.

        The questions on a video are asked together, so that it is indexed and read once. One that fails is logged, and
        its reply is empty, which is a wrong answer.
        """
        from tqdm import tqdm

        asked = [self._asked(*request.args) for request in requests]
        replies = [""] * len(asked)
        by_video: dict[str, list[int]] = {}
        for number, (path, _) in enumerate(asked):
            by_video.setdefault(path, []).append(number)
        with tqdm(total=len(asked), desc="lvqa", disable=self.rank != 0) as progress:
            for path, numbers in by_video.items():
                of_video = self._replies(path, [asked[number][1] for number in numbers])
                for number, reply in zip(numbers, of_video, strict=True):
                    replies[number] = reply
                progress.update(len(numbers))
        return replies

    def _replies(self, path: str, questions: Sequence[Question]) -> list[str]:
        try:
            answers = self._qa.answers(path, questions)
        except LvqaError as error:
            if len(questions) > 1:  # perhaps one of them is at fault
                return [reply for question in questions for reply in self._replies(path, [question])]
            _log.error("no answer to %s: %s", shorten(questions[0].text), error)
            return [""]
        return [answer.option or answer.text for answer in answers]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not for a model that chooses its frames by the question."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not for a model that answers one question at a time."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def _asked(
        self, context: str, _: object, doc_to_visual: Callable[[Any], object], doc_id: Any, task: str, split: str
    ) -> tuple[str, Question]:
        """The video's path and the question of a request."""
        doc = self.task_dict[task][split][doc_id]
        visuals = doc_to_visual(doc)
        if not isinstance(visuals, list) or len(visuals) != 1 or not isinstance(visuals[0], str | Path):
            raise LvqaError(
                f"task {shorten(task)}: lvqa needs the path of one video a question, got {shorten(visuals)}"
            )
        return str(visuals[0]), parse_question(_from_question_on(context, doc))


def _from_question_on(context: str, doc: Any) -> str:
    """The prompt without the instruction that some tasks put before the question, which is not to be searched for."""
    question = doc.get("question") if isinstance(doc, Mapping) else None
    start = context.find(question.strip()) if isinstance(question, str) else 0
    return context[max(0, start) :]


def parse_question(context: str) -> Question:
    """The question and its options, if the text has lines that begin "(A)", "A." or "A)", B, ... in this order.

    What follows the last option on lines of its own is the task's instruction how to answer; lvqa has its own for
    questions with options. A text without options is the question as it stands.
    """
    bracketed = re.sub(r"^[ \t]*([A-Z])[.):][ \t]", r"(\1) ", context, flags=re.MULTILINE)
    stem, options = split_options(bracketed) or (context, ())
    if not stem or len(options) < 2:
        return Question(context.strip())
    last = options[-1].partition("\n")[0].strip()
    return Question(stem, (*options[:-1], last))
