"""lvqa as a model of lmms-eval, on requests as lmms-eval makes them.

Where lmms-eval is not installed, the two of its classes that lvqa uses are defined here, as in 0.7.3.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lvqa.pipeline import LongVideoQA
from lvqa.records import Answer, LvqaError, Question

TASK = {"task": "lvbench", "split": "train"}


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None


class Lmms:
    is_simple = True
    rank = 0

    def __init__(self) -> None:
        self.task_dict: dict[str, dict[str, list[dict[str, object]]]] = {}


@pytest.fixture
def lmms_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """lvqa.lmms, imported anew."""
    if find_spec("lmms_eval") is None:
        for name, content in {
            "lmms_eval": {},
            "lmms_eval.api": {},
            "lmms_eval.api.model": {"lmms": Lmms},
            "lmms_eval.models": {},
            "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
        }.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "lvqa.lmms", raising=False)
    return importlib.import_module("lvqa.lmms")


@pytest.fixture(scope="module")
def videos(synthetic_video) -> list[Path]:
    return [synthetic_video(minutes=1, seed=seed) for seed in (3, 4)]


CHOICE = "What colour is the ball?\n(A) red\n(B) blue\n(C) green\nAnswer the question with the option letter"


def requests(docs: list[tuple[Path, str]], model: object) -> list[SimpleNamespace]:
    """Return requests as `lmms_eval.api.task` makes them for a model that is simple."""
    model.task_dict["lvbench"] = {"train": [{"video_path": str(path)} for path, _ in docs]}
    return [
        SimpleNamespace(args=(text, {"max_new_tokens": 16}, lambda doc: [doc["video_path"]], i, *TASK.values()))
        for i, (_, text) in enumerate(docs)
    ]


def test_lmms_eval_finds_the_model(lmms_module: ModuleType) -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    module, name = project["project"]["entry-points"]["lmms_eval.models"]["lvqa"].split(":")
    manifest = getattr(importlib.import_module(module), name)
    module, _, name = manifest.simple_class_path.rpartition(".")
    assert manifest.model_id == "lvqa" and getattr(importlib.import_module(module), name) is lmms_module.Lvqa
    assert lmms_module.Lvqa.is_simple


@pytest.mark.parametrize(
    ("context", "text", "options"),
    [
        (CHOICE, "What colour is the ball?", ("red", "blue", "green")),
        ("Who?\n(A) he\n(B) she\nBoth\n(C) they", "Who?", ("he", "she\nBoth", "they")),
        ("Watch.\nWho?\nA. he\nB. she\n", "Watch.\nWho?", ("he", "she")),
        ("Who?\n A) he\n B) she\n\nThe best answer is:", "Who?", ("he", "she")),
        ("Describe (A) or B. \n", "Describe (A) or B.", ()),
        ("Who?\n(B) he\n(A) she", "Who?\n(B) he\n(A) she", ()),
        ("(A) he\n(B) she", "(A) he\n(B) she", ()),
        ("Who?\nA. he", "Who?\nA. he", ()),
    ],
)
def test_options_are_read_from_the_text(
    lmms_module: ModuleType, context: str, text: str, options: tuple[str, ...]
) -> None:
    question = lmms_module.parse_question(context)
    assert (question.text, question.options) == (text, options)


@pytest.mark.slow
def test_replies_come_in_the_order_of_the_requests(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("LVQA_HOME", str(tmp_path))
    settings = {"model.name": "tiny", "selection.frames": 4, "video.clip_seconds": 8.0}
    model = lmms_module.Lvqa(device="cpu", batch_size=1, max_batch_size=None, **settings)
    calls: list[tuple[str, int]] = []
    answers = LongVideoQA.answers

    def note_call(qa: LongVideoQA, path: str, questions: list[Question], **more: object) -> list[Answer]:
        calls.append((path, len(questions)))
        return answers(qa, path, questions, **more)

    monkeypatch.setattr(LongVideoQA, "answers", note_call)
    one, two = videos
    nowhere = tmp_path / "nowhere.mp4"
    endless = "Why? " * 2000
    docs = [(one, CHOICE), (two, CHOICE), (nowhere, CHOICE), (one, "What is seen?"), (two, endless), (two, CHOICE)]
    replies = model.generate_until(requests(docs, model))
    expected = [(str(one), 2), (str(two), 3), *[(str(two), 1)] * 3, (str(nowhere), 1)]
    assert calls == expected, "a video's questions are answered together, and each alone if one of them fails"
    overrides = [f"{key}={value}" for key, value in {**settings, "model.device": "cpu"}.items()]
    qa = LongVideoQA.load(overrides=overrides)
    for i in (0, 1, 3, 5):
        answer = qa.answer(docs[i][0], lmms_module.parse_question(docs[i][1]))
        assert replies[i] == (answer.option or answer.text)
    assert replies[2] == replies[4] == "" and "nowhere.mp4" in caplog.text and "Why? Why?" in caplog.text
    assert {replies[0], replies[1], replies[5]} <= {"A", "B", "C"}


def test_what_a_task_puts_before_the_question_is_not_searched_for(
    lmms_module: ModuleType, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lmms_module.Lvqa(device="cpu", **{"model.name": "tiny"})
    (request,) = requests([(videos[0], f"Select the best answer.\n{CHOICE}")], model)
    (doc,) = model.task_dict["lvbench"]["train"]
    questions: list[Question] = []

    def note_question(qa: LongVideoQA, path: str, of_video: list[Question]) -> list[Answer]:
        questions.extend(of_video)
        raise LvqaError("it was noted")

    monkeypatch.setattr(LongVideoQA, "answers", note_question)

    def question_of_request() -> Question:
        assert model.generate_until([request]) == [""]
        return questions.pop()

    assert question_of_request().text == "Select the best answer.\nWhat colour is the ball?"
    for question in ("What colour is the ball?", CHOICE.rpartition("\n")[0] + "\n"):
        doc["question"] = question
        assert question_of_request() == lmms_module.parse_question(CHOICE)
    doc["question"] = "Another one?"
    assert question_of_request().text.startswith("Select")


def test_what_lvqa_does_not_do_is_refused(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch
) -> None:
    with pytest.raises(LvqaError, match="unknown key"):
        lmms_module.Lvqa(**{"model.name": "tiny", "selection.frame": 4})
    model = lmms_module.Lvqa(device="cpu", **{"model.name": "tiny"})
    (request,) = requests([(videos[0], CHOICE)], model)
    request.args = (CHOICE, {}, lambda doc: [doc["video_path"], "picture.png"], *request.args[3:])
    with pytest.raises(LvqaError, match="one video a question"):
        model.generate_until([request])
    for kind in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="generate_until"):
            kind([])
