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
from functools import partial
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from lvqa.batches import answer_batch
from lvqa.config import load_config
from lvqa.datasets.lvbench import split_options
from lvqa.image import is_picture, is_picture_file, on_one_canvas
from lvqa.models.devices import device_of_process
from lvqa.pipeline import LongVideoQA
from lvqa.protocols import AnswerFormat
from lvqa.records import Answer, LvqaError, Question, shorten
from lvqa.video import inspect_video, write_frames

_log = logging.getLogger(__name__)

manifest = ModelManifest(model_id="lvqa", simple_class_path="lvqa.lmms.Lvqa")

PROMPTS = ("lvqa", "task")
PICTURE_MARK = "<image>"
"""What tasks write into a prompt where a picture belongs; here the pictures come before the text."""
PARAGRAPH = "\n\n"
"""lmms-eval's default stop, at which its own models do not stop either: it would cut replies short."""


class TaskPrompt:
    """The prompts of a task as they are. Frames are chosen by the bare questions in them."""

    def __init__(self, max_new_tokens: int, stops: Sequence[str]) -> None:
        self._contexts: dict[Question, str] = {}
        self._stops = [stop for stop in stops if stop not in ("", PARAGRAPH)]
        self.format = AnswerFormat(
            text=lambda question, _: self._contexts[question],
            read=lambda *_: None,  # the task reads the reply
            max_new_tokens=max_new_tokens,
        )

    def keep(self, question: Question, context: str) -> None:
        """Keep the prompt of a question."""
        self._contexts[question] = context

    def cut(self, text: str) -> str:
        """Return a generated text up to the first stop."""
        for stop in self._stops:
            text = text.partition(stop)[0]
        return text


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
        prompt: str = "lvqa",
        device: str | None = None,
        batch_size: str | int | None = None,
        max_batch_size: int | None = None,
        **settings: object,
    ) -> None:
        """Load the model.

        Args:
            config: A YAML file of lvqa's settings.
            prompt: "lvqa": questions are asked and answered as `lvqa ask` does; "task": with the task's own prompt, and
                the generated text is the reply. lvqa generates greedily.
            device: lmms-eval's `--device`; it stands for `model.device`. Of several processes each takes a GPU.
            batch_size: lmms-eval's `--batch_size`: so many questions on a video are asked together at most. "auto"
                stands for all of them; lvqa batches by tokens, and takes fewer at once where memory runs out.
            max_batch_size: lmms-eval's `--max_batch_size`, which bounds "auto".
            **settings: lvqa's settings by key; they come before `device` and the file.

        Raises:
            LvqaError: A setting is not known, or the model can't be loaded.
        """
        super().__init__()
        if prompt not in PROMPTS:
            raise LvqaError(f"prompt must be one of {', '.join(PROMPTS)}, got {shorten(prompt)}")
        self._asks_as_task = prompt == "task"
        self._batch_size = parse_batch_size(batch_size, max_batch_size)
        settings = ({} if device is None else {"model.device": device}) | settings
        loaded = load_config(
            None if config is None else Path(config), [f"{key}={value}" for key, value in settings.items()]
        )
        own_device = dataclasses.replace(loaded.model, device=device_of_process(loaded.model.device))
        self._qa = LongVideoQA.load(config=dataclasses.replace(loaded, model=own_device))
        self._prompts: dict[tuple[object, ...], TaskPrompt] = {}
        self._pipelines: dict[tuple[TaskPrompt | None, bool], LongVideoQA] = {(None, False): self._qa}

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
        by_video: dict[tuple[str, TaskPrompt | None], dict[int, Question]] = {}
        with tqdm(total=len(requests), desc="lvqa", disable=self.rank != 0) as progress:
            for i, request in enumerate(requests):
                visuals, question, prompt = self._parse(*request.args)
                if _is_video(visuals):
                    by_video.setdefault((str(visuals[0]), prompt), {})[i] = question
                else:  # at once, since all pictures of a task would not fit into memory
                    replies[i] = self._reply_to_pictures(visuals, question, prompt)
                    progress.update()
            for path, prompt in self._in_turn(list(by_video)):
                for batch in _batches(by_video[path, prompt], self._batch_size):
                    of_video = self._replies(path, list(batch.values()), prompt)
                    for i, reply in zip(batch, of_video, strict=True):
                        replies[i] = reply
                    progress.update(len(batch))
        return replies

    def _in_turn(self, videos: list[tuple[str, TaskPrompt | None]]) -> list[tuple[str, TaskPrompt | None]]:
        """Return the videos in the order of this process.

        Questions are dealt out singly, so that all processes have the same videos. Each begins with another, and finds
        most of the others' indexes made when it comes to them.
        """
        first = self.rank * len(videos) // self.world_size
        return videos[first:] + videos[:first]

    def _pipeline(self, prompt: TaskPrompt | None, *, has_times: bool = True) -> LongVideoQA:
        """Return the pipeline that asks with a prompt; of pictures nobody knows the times."""
        key = prompt, not has_times
        if key not in self._pipelines:
            config = self._qa.config
            if not has_times:
                untimed = dataclasses.replace(config.answer, time_encoding="index")
                config = dataclasses.replace(config, answer=untimed)
            self._pipelines[key] = self._qa.with_config(config, answer_format=prompt.format if prompt else None)
        return self._pipelines[key]

    def _replies(self, path: str, questions: Sequence[Question], prompt: TaskPrompt | None) -> list[str]:
        """Return the reply to each question on a video; it is empty where that fails."""
        results = answer_batch(partial(self._pipeline(prompt).answers, path), questions)
        for question, result in zip(questions, results, strict=True):
            if isinstance(result, LvqaError):
                _log.error("no answer to %s: %s", shorten(question.text), result)
        answers = [result for result in results if isinstance(result, Answer)]
        for warning in dict.fromkeys(warning for answer in answers for warning in answer.caveats.warnings):
            _log.warning("%s: %s", path, warning)
        return ["" if isinstance(result, LvqaError) else _reply(result, prompt) for result in results]

    def _reply_to_pictures(self, pictures: Sequence[Any], question: Question, prompt: TaskPrompt | None) -> str:
        """Return the reply to a question about pictures: they are read as the frames of a video, in their order.

        All are shown if the budget allows it. Of more the method chooses, as of a video.
        """
        qa = self._pipeline(prompt, has_times=False)
        method = "uniform" if len(pictures) <= qa.config.selection.frames else qa.config.method
        with tempfile.TemporaryDirectory(prefix="lvqa-") as folder:
            path = Path(folder) / "pictures.mkv"
            try:
                write_frames(path, on_one_canvas(pictures), frames_per_second=qa.config.video.frames_per_second)
                # The file is no video of the library, so its record is not kept.
                (answer,) = qa.answers(inspect_video(path), [question], method=method)
            except LvqaError as error:
                _log.error("no answer to %s: %s", shorten(question.text), error)
                return ""
        return _reply(answer, prompt)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: the model chooses its frames by the question, so it can't score a given text."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: the model answers each question on its own."""
        raise NotImplementedError("lvqa answers tasks of the type generate_until alone")

    def _parse(
        self, context: str, options: Any, doc_to_visual: Callable[[Any], object], doc_id: Any, task: str, split: str
    ) -> tuple[list[Any], Question, TaskPrompt | None]:
        """Return what a request shows, the path of a video or pictures; its question; the task's prompt, if asked for.

        `options` are the task's for generation.
        """
        doc = self.task_dict[task][split][doc_id]
        visuals = doc_to_visual(doc)
        if not (isinstance(visuals, list) and (_is_video(visuals) or (visuals and all(map(is_picture, visuals))))):
            raise LvqaError(
                f"task {shorten(task)}: lvqa needs the path of one video a question, or pictures, got "
                f"{shorten(visuals)}"
            )
        context = context.replace(PICTURE_MARK, "").strip()
        question = parse_question(_from_question_on(context, doc))
        if not self._asks_as_task:
            return visuals, question, None
        question = dataclasses.replace(question, id=str(doc_id))
        until = options.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        max_new_tokens = options.get("max_new_tokens", self._qa.config.answer.max_new_tokens)
        prompt = self._prompts.setdefault((task, max_new_tokens, stops), TaskPrompt(max_new_tokens, stops))
        prompt.keep(question, context)
        return visuals, question, prompt


def _reply(answer: Answer, prompt: TaskPrompt | None) -> str:
    return prompt.cut(answer.text) if prompt else answer.option or answer.text


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
