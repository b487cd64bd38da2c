"""Offer lvqa as a model of lmms-eval: `lmms-eval --model lvqa --model_args model.name=tiny --tasks lvbench`.

lmms-eval finds this module by the entry point in pyproject.toml, and nothing else imports it. It was written against
lmms-eval 0.7.3.
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
    """Answers the requests of a task about videos, in one process.

    Its arguments are lvqa's settings, and `config`, which names a YAML file with more of them:
    `--model_args config=own.yaml,selection.frames=32,method=freeret`.
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
        """Load the model.

        Args:
            config: A YAML file of lvqa's settings.
            device: lmms-eval's `--device`; it stands for `model.device`.
            batch_size: lmms-eval's `--batch_size`. It is not used: lvqa batches by tokens.
            max_batch_size: It is not used either.
            **settings: lvqa's settings by key; they come before `device` and the file.

        Raises:
            LvqaError: A setting is not known, or the model can't be loaded.
        """
        super().__init__()
        settings = ({} if device is None else {"model.device": device}) | settings
        overrides = [f"{key}={value}" for key, value in settings.items()]
        self._qa = LongVideoQA.load(config=load_config(None if config is None else Path(config), overrides))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer each request.

        The questions on a video are answered together, so that it is indexed and read once.

        Args:
            requests: lmms-eval's instances of the type generate_until.

        Returns:
            For each request the letter of the predicted option if its text has options, else the text of the answer.
            A question that fails is logged, and its reply is empty, which counts as wrong.
        """
        from tqdm import tqdm

        questions = [self._video_and_question(*request.args) for request in requests]
        replies = [""] * len(questions)
        by_video: dict[str, list[int]] = {}
        for i, (path, _) in enumerate(questions):
            by_video.setdefault(path, []).append(i)
        with tqdm(total=len(questions), desc="lvqa", disable=self.rank != 0) as progress:
            for path, indices in by_video.items():
                of_video = self._replies(path, [questions[i][1] for i in indices])
                for i, reply in zip(indices, of_video, strict=True):
                    replies[i] = reply
                progress.update(len(indices))
        return replies

    def _replies(self, path: str, questions: Sequence[Question]) -> list[str]:
        """Return the reply to each question on a video; if one fails, each is answered alone."""
        try:
            answers = self._qa.answers(path, questions)
        except LvqaError as error:
            if len(questions) > 1:  # one of them may be at fault
                return [reply for question in questions for reply in self._replies(path, [question])]
            _log.error("no answer to %s: %s", shorten(questions[0].text), error)
            return [""]
        for warning in dict.fromkeys(warning for answer in answers for warning in answer.caveats.warnings):
            _log.warning("%s: %s", path, warning)
        return [answer.option or answer.text for answer in answers]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: the model chooses its frames by the question, so it can't score a given text."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: the model answers each question on its own."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def _video_and_question(
        self, context: str, _: object, doc_to_visual: Callable[[Any], object], doc_id: Any, task: str, split: str
    ) -> tuple[str, Question]:
        """Return the path of a request's video, and its question."""
        doc = self.task_dict[task][split][doc_id]
        visuals = doc_to_visual(doc)
        if not isinstance(visuals, list) or len(visuals) != 1 or not isinstance(visuals[0], str | Path):
            raise LvqaError(
                f"task {shorten(task)}: lvqa needs the path of one video a question, got {shorten(visuals)}"
            )
        return str(visuals[0]), parse_question(_from_question_on(context, doc))


def _from_question_on(context: str, doc: Any) -> str:
    """Return the prompt without the instruction that some tasks put before the question: it is not searched for."""
    question = doc.get("question") if isinstance(doc, Mapping) else None
    start = context.find(question.strip()) if isinstance(question, str) else 0
    return context[max(0, start) :]


def parse_question(context: str) -> Question:
    """Parse a task's prompt.

    Args:
        context: The question. Its options are lines that begin with "(A)", "A." or "A)", then B, ... in this order.
            What follows the last option on lines of its own is the task's instruction how to answer; it is left out,
            since lvqa has its own for questions with options.

    Returns:
        The question with its options; a text without options is the question as it is.
    """
    bracketed = re.sub(r"^[ \t]*([A-Z])[.):][ \t]", r"(\1) ", context, flags=re.MULTILINE)
    stem, options = split_options(bracketed) or (context, ())
    if not stem or len(options) < 2:
        return Question(context.strip())
    last = options[-1].partition("\n")[0].strip()
    return Question(stem, (*options[:-1], last))
