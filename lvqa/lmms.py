"""Offer lvqa as a model of lmms-eval: `lmms-eval --model lvqa --model_args model.name=tiny --tasks lvbench`.

lmms-eval finds this module by the entry point in pyproject.toml, and nothing else imports it. It was written against
lmms-eval 0.7.3.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from lvqa.config import load_config
from lvqa.datasets.lvbench import split_options
from lvqa.image import is_picture, is_picture_file, on_one_canvas
from lvqa.models.devices import device_of_process
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question, shorten
from lvqa.video import inspect_video, write_frames

_log = logging.getLogger(__name__)

manifest = ModelManifest(model_id="lvqa", simple_class_path="lvqa.lmms.Lvqa")


class Lvqa(lmms):  # type: ignore[misc]
    """Answers the requests of a task about videos or pictures, in one process or in each of several.

    Its arguments are lvqa's settings, and `config`, which names a YAML file with more of them:
    `--model_args config=own.yaml,selection.frames=32,method=freeret`.

    lmms-eval shares the requests among the processes that `torchrun` or `accelerate launch` started, and gathers the
    replies. `rank` and `world_size` are lmms-eval's own.
    """

    def __init__(
        self,
        *,
        config: str | None = None,
        device: str | None = None,
        batch_size: str | int | None = None,
        max_batch_size: int | None = None,
        **settings: object,
    ) -> None:
        """Load the model.

        Args:
            config: A YAML file of lvqa's settings.
            device: lmms-eval's `--device`; it stands for `model.device`. Of several processes each takes a GPU.
            batch_size: lmms-eval's `--batch_size`: so many questions on a video are asked together at most. "auto"
                stands for all of them; lvqa batches by tokens, and takes fewer at once where memory runs out.
            max_batch_size: lmms-eval's `--max_batch_size`, which bounds "auto".
            **settings: lvqa's settings by key; they come before `device` and the file.

        Raises:
            LvqaError: A setting is not known, or the model can't be loaded.
        """
        super().__init__()
        self._batch_size = parse_batch_size(batch_size, max_batch_size)
        settings = ({} if device is None else {"model.device": device}) | settings
        loaded = load_config(
            None if config is None else Path(config), [f"{key}={value}" for key, value in settings.items()]
        )
        own_device = dataclasses.replace(loaded.model, device=device_of_process(loaded.model.device))
        self._qa = LongVideoQA.load(config=dataclasses.replace(loaded, model=own_device))
        # Of pictures nobody knows the times.
        untimed = dataclasses.replace(self._qa.config.answer, time_encoding="index")
        self._picture_qa = self._qa.with_config(dataclasses.replace(self._qa.config, answer=untimed))

    @property
    def device(self) -> Any:
        """The torch.device of the model, where lmms-eval puts what it gathers from the processes."""
        return self._qa.model.device

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

        replies = [""] * len(requests)
        by_video: dict[str, dict[int, Question]] = {}
        with tqdm(total=len(requests), desc="lvqa", disable=self.rank != 0) as progress:
            for i, request in enumerate(requests):
                visuals, question = self._visuals_and_question(*request.args)
                if _is_video(visuals):
                    by_video.setdefault(str(visuals[0]), {})[i] = question
                else:  # at once, since all pictures of a task would not fit into memory
                    replies[i] = self._reply_to_pictures(visuals, question)
                    progress.update()
            for path in self._in_turn(list(by_video)):
                for batch in _batches(by_video[path], self._batch_size):
                    of_video = self._replies(path, list(batch.values()))
                    for i, reply in zip(batch, of_video, strict=True):
                        replies[i] = reply
                    progress.update(len(batch))
        return replies

    def _in_turn(self, paths: list[str]) -> list[str]:
        """Return the videos in the order of this process.

        Questions are dealt out singly, so that all processes have the same videos. Each begins with another, and finds
        most of the others' indexes made when it comes to them.
        """
        first = self.rank * len(paths) // self.world_size
        return paths[first:] + paths[:first]

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

    def _reply_to_pictures(self, pictures: Sequence[Any], question: Question) -> str:
        """Return the reply to a question about pictures: they are read as the frames of a video, in their order.

        All are shown if the budget allows it. Of more the method chooses, as of a video.
        """
        config = self._picture_qa.config
        method = "uniform" if len(pictures) <= config.selection.frames else config.method
        with tempfile.TemporaryDirectory(prefix="lvqa-") as folder:
            path = Path(folder) / "pictures.mkv"
            try:
                write_frames(path, on_one_canvas(pictures), frames_per_second=config.video.frames_per_second)
                # The file is no video of the library, so its record is not kept.
                (answer,) = self._picture_qa.answers(inspect_video(path), [question], method=method)
            except LvqaError as error:
                _log.error("no answer to %s: %s", shorten(question.text), error)
                return ""
        return answer.option or answer.text

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: the model chooses its frames by the question, so it can't score a given text."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: the model answers each question on its own."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def _visuals_and_question(
        self, context: str, _: object, doc_to_visual: Callable[[Any], object], doc_id: Any, task: str, split: str
    ) -> tuple[list[Any], Question]:
        """Return what a request shows: the path of a video, or pictures; and its question."""
        doc = self.task_dict[task][split][doc_id]
        visuals = doc_to_visual(doc)
        if not (isinstance(visuals, list) and (_is_video(visuals) or (visuals and all(map(is_picture, visuals))))):
            raise LvqaError(
                f"task {shorten(task)}: lvqa needs the path of one video a question, or pictures, got "
                f"{shorten(visuals)}"
            )
        return visuals, parse_question(_from_question_on(context, doc))


def _is_video(visuals: list[Any]) -> bool:
    return len(visuals) == 1 and isinstance(visuals[0], str | Path) and not is_picture_file(visuals[0])


def parse_batch_size(batch_size: str | int | None, max_batch_size: int | None) -> int | None:
    """Return how many questions are asked together at most; None: all on a video."""
    is_auto = batch_size is None or str(batch_size).partition(":")[0] == "auto"
    size = max_batch_size if is_auto else batch_size
    if size is None:
        return None
    if not str(size).isdecimal() or int(size) < 1:
        raise LvqaError(f"--batch_size must be a whole number, 1 or more, or auto, got {shorten(size)}")
    return int(size)


def _batches(questions: Mapping[int, Question], size: int | None) -> list[dict[int, Question]]:
    """Return the questions by their numbers, so many at once at most."""
    items = list(questions.items())
    size = size or len(items)
    return [dict(items[start : start + size]) for start in range(0, len(items), size)]


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
