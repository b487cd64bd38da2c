"""lvqa as a model of lmms-eval, on requests as lmms-eval makes them.

Where lmms-eval is not installed, the two of its classes that lvqa uses are defined here, as in 0.7.3.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lvqa.datasets.lvbench import split_options
from lvqa.models.devices import device_of_process
from lvqa.pipeline import LongVideoQA
from lvqa.protocols import AnswerFormat
from lvqa.records import Answer, LvqaError, Question
from lvqa.synthetic.videos import make_videos
from lvqa.video import inspect_video, read_frames, write_frames

TASK = {"task": "lvbench", "split": "train"}


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None


class Lmms:
    is_simple = True
    rank = 0
    world_size = 1

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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The videos of the calls that the plug-in makes, and the number of questions of each."""
    calls: list[tuple[str, int]] = []
    answers = LongVideoQA.answers

    def note_call(qa: LongVideoQA, path: str, questions: list[Question], **more: object) -> list[Answer]:
        calls.append((path, len(questions)))
        return answers(qa, path, questions, **more)

    monkeypatch.setattr(LongVideoQA, "answers", note_call)
    return calls


@pytest.mark.slow
def test_replies_come_in_the_order_of_the_requests(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls, caplog
) -> None:
    monkeypatch.setenv("LVQA_HOME", str(tmp_path))
    settings = {"model.name": "tiny", "selection.frames": 4, "video.clip_seconds": 8.0}
    model = lmms_module.Lvqa(device="cpu", batch_size="auto", max_batch_size=None, **settings)
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


@pytest.mark.slow
def test_each_process_begins_with_another_video_and_asks_as_many_questions_as_it_may(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls
) -> None:
    monkeypatch.setenv("LVQA_HOME", str(tmp_path))
    model = lmms_module.Lvqa(device="cpu", batch_size="2", **{"model.name": "tiny", "method": "uniform"})
    monkeypatch.setattr(lmms_module.Lvqa, "world_size", 2)
    one, two = videos
    docs = [(one, CHOICE), (two, CHOICE), (one, "Who?"), (one, "What?")]
    replies = []
    for rank, order in ((0, [(one, 2), (one, 1), (two, 1)]), (1, [(two, 1), (one, 2), (one, 1)])):
        calls.clear()
        monkeypatch.setattr(lmms_module.Lvqa, "rank", rank)
        replies.append(model.generate_until(requests(docs, model)))
        assert calls == [(str(path), number) for path, number in order]
    assert replies[0] == replies[1]


@pytest.mark.slow
def test_with_the_prompt_of_the_task_its_text_is_shown_and_the_generated_text_is_the_reply(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LVQA_HOME", str(tmp_path))
    settings = {"model.name": "tiny", "selection.frames": 4, "method": "topk"}
    model = lmms_module.Lvqa(device="cpu", prompt="task", **settings)
    context = f"<image>\nLook at it.\n{CHOICE}"
    docs = [(videos[0], context), (videos[1], context), (videos[0], "Watch it.\nWhat is seen?")]

    def replies(**options: object) -> list[str]:
        of_docs = requests(docs, model)
        for request in of_docs:
            request.args = (request.args[0], options, *request.args[2:])
        return model.generate_until(of_docs)

    qa = LongVideoQA.load(overrides=[f"{key}={value}" for key, value in settings.items()])

    def expected(context: str, path: Path, max_new_tokens: int) -> str:
        verbatim = AnswerFormat(text=lambda *_: context, read=lambda *_: None, max_new_tokens=max_new_tokens)
        asking = qa.with_config(qa.config, answer_format=verbatim)
        return asking.answer(path, lmms_module.parse_question(context)).text

    texts = [context.removeprefix("<image>\n"), context.removeprefix("<image>\n"), docs[2][1]]
    longer = [expected(text, path, 16) for text, (path, _) in zip(texts, docs, strict=True)]
    assert all(longer) and replies(max_new_tokens=16, until=["\n\n"]) == longer
    stop = longer[2][4:7]
    assert replies(max_new_tokens=16, until=stop) == [text.partition(stop)[0] for text in longer]
    shorter = replies(max_new_tokens=1)
    assert shorter == [expected(text, path, 1) for text, (path, _) in zip(texts, docs, strict=True)] != longer
    with pytest.raises(LvqaError, match="prompt must be one of lvqa, task, got 'own'"):
        lmms_module.Lvqa(prompt="own", **settings)


@pytest.mark.parametrize(
    ("batch_size", "max_batch_size", "expected"),
    [(1, None, 1), ("8", 2, 8), ("auto", None, None), ("auto:4", 16, 16), (None, None, None)],
)
def test_batch_sizes_are_those_of_lmms_eval(lmms_module: ModuleType, batch_size, max_batch_size, expected) -> None:
    assert lmms_module.parse_batch_size(batch_size, max_batch_size) == expected


@pytest.mark.parametrize("batch_size", [0, "-1", "many", "1.5"])
def test_a_bad_batch_size_is_one_line(lmms_module: ModuleType, batch_size) -> None:
    with pytest.raises(LvqaError, match="--batch_size must be a whole number"):
        lmms_module.Lvqa(batch_size=batch_size, **{"model.name": "tiny"})


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert device_of_process("cuda:0") == "cuda:0"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert device_of_process(None) == device_of_process("cuda") == "cuda:1"
    assert device_of_process("cpu") == "cpu"
    with pytest.raises(LvqaError, match="'cuda:0' can't be that of several processes"):
        device_of_process("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(LvqaError, match="process 2 has no GPU: this machine has 2 GPUs"):
        device_of_process(None)


@pytest.mark.slow
def test_pictures_are_answered_as_the_frames_of_a_video(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "home"))
    settings = {"model.name": "tiny", "selection.frames": 4}
    model = lmms_module.Lvqa(device="cpu", **settings)
    video = inspect_video(videos[0])
    (frames,) = read_frames(video, np.arange(6) * 10.0, height=video.height, width=video.width)
    pictures = [Image.fromarray(pixels) for pixels in frames.pixels]
    files = [str(tmp_path / f"{i}.png") for i in range(6)]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    text = "What is seen?"
    qa = LongVideoQA.load(overrides=[f"{k}={v}" for k, v in settings.items()] + ["answer.time_encoding=index"])

    def expected(num_pictures: int, method: str | None = None) -> str:
        write_frames(tmp_path / "frames.mkv", frames.pixels[:num_pictures], frames_per_second=1.0)
        return qa.answer(tmp_path / "frames.mkv", Question(text), method=method).text

    def replies(*visuals: object) -> list[str]:
        doc_requests = requests([(videos[0], text)] * len(visuals), model)
        for request, of_doc in zip(doc_requests, visuals, strict=True):
            request.args = (*request.args[:2], lambda _, of_doc=of_doc: of_doc, *request.args[3:])
        return model.generate_until(doc_requests)

    few = [pictures[0]], files[:4], pictures[:4]
    assert replies(*few) == [expected(1, "uniform"), *[expected(4, "uniform")] * 2]
    assert replies(files) == [expected(6)], "the method chooses among more pictures than the budget"
    assert replies([str(tmp_path / "none.png")], pictures[:1]) == ["", expected(1, "uniform")]
    assert "none.png" in caplog.text
    with pytest.raises(LvqaError, match="one video a question, or pictures"):
        replies([files[0], str(videos[0])])


TASK_FILE = """
task: local_videos
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.video
doc_to_text: "{{{{question}}}}\\nAnswer with the letter."
doc_to_target: answer
process_results: !function utils.score
metric_list:
  - metric: accuracy
    aggregation: mean
    higher_is_better: true
"""
UTILS = """
def video(doc):
    return [doc["video"]]


def score(doc, results):
    return {"accuracy": float(results[0] == doc["answer"])}
"""
LAUNCHERS = {
    "one process": "-m lmms_eval",
    "torchrun": "-m torch.distributed.run --nproc_per_node 2 --master_port {port} -m lmms_eval",
    # The command `accelerate` itself imports torchvision, by way of timm.
    "accelerate launch": "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 "
    "--mixed_precision no --dynamo_backend no --main_process_port {port} --module lmms_eval",
}


@pytest.mark.slow
def test_lmms_eval_has_the_same_letters_from_one_process_and_from_two(tmp_path: Path) -> None:
    """The real lmms-eval, with a task of its own kind and the launchers that its documentation names."""
    pytest.importorskip("lmms_eval", reason="needs lmms-eval, as in constraints-lmms.txt")
    make_videos(tmp_path / "videos", num_videos=3, minutes=1, num_questions=2, seed=700)
    lines = (tmp_path / "videos" / "video_info.meta.jsonl").read_text(encoding="utf-8").splitlines()
    docs = [
        {"video": f"{tmp_path}/videos/videos/{row['key']}.mp4", "question": qa["question"], "answer": qa["answer"]}
        for row in map(json.loads, lines)
        for qa in row["qa"]
    ][:5]  # an odd number: one process has a request less, which lmms-eval fills up
    task = tmp_path / "task"
    task.mkdir()
    (task / "questions.jsonl").write_text("".join(f"{json.dumps(doc)}\n" for doc in docs), encoding="utf-8")
    (task / "local.yaml").write_text(TASK_FILE.format(questions=task / "questions.jsonl"), encoding="utf-8")
    (task / "utils.py").write_text(UTILS, encoding="utf-8")
    offline = {
        "HF_HOME": str(tmp_path / "hf"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    letters = {}
    for name, launcher in LAUNCHERS.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            command = launcher.format(port=free.getsockname()[1]).split()
        arguments = ["--model", "lvqa", "--model_args", "model.name=tiny,selection.frames=8", "--batch_size", "2"]
        arguments += ["--include_path", str(task), "--tasks", "local_videos", "--log_samples", "--device", "cpu"]
        output = tmp_path / name
        run = subprocess.run(
            [sys.executable, *command, *arguments, "--output_path", str(output)],
            env={**os.environ, **offline, "LVQA_HOME": str(output / "home")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert run.returncode == 0, run.stderr
        (samples,) = output.rglob("*samples_local_videos.jsonl")
        rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: row["doc_id"])
        letters[name] = [row["filtered_resps"] for row in rows]
        assert [row["doc_id"] for row in rows] == [*range(5)]
    qa = LongVideoQA.load("tiny", overrides=["selection.frames=8"])
    own = []
    for doc in docs:
        stem, options = split_options(doc["question"])
        own.append(qa.ask(doc["video"], stem, options=options).option)
    assert all(of_launcher == own for of_launcher in letters.values()), letters


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_lvqa_does_not_do_is_refused(
    lmms_module: ModuleType, videos: list[Path], tmp_path: Path, monkeypatch
) -> None:
    with pytest.raises(LvqaError, match="unknown key"):
        lmms_module.Lvqa(**{"model.name": "tiny", "selection.frame": 4})
    model = lmms_module.Lvqa(device="cpu", **{"model.name": "tiny"})
    (request,) = requests([(videos[0], CHOICE)], model)
    request.args = (CHOICE, {}, lambda doc: [doc["video_path"], "picture.png"], *request.args[3:])
    with pytest.raises(LvqaError, match="one video a question, or pictures"):
        model.generate_until([request])
    for kind in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="generate_until"):
            kind([])
