"""Selected frames as pictures, in the files that lmms-eval and VLMEvalKit read."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.datasets import VideoTask
from lvqa.harness_files import export_frames
from lvqa.image import read_image
from lvqa.records import LvqaError, Question
from lvqa.synthetic.videos import make_videos
from lvqa.video import inspect_video, read_frames

HARNESSES = ("lmms-eval", "vlmevalkit")
SELECTED = {("a", "1"): (0.0, 2.5), ("a", "2"): (2.5,), ("a", "open"): (1.0,)}
QUESTIONS = (
    Question('What is "it"?', ("a ball", "None"), id="1", answer="A"),
    Question("How many?\nCount.", ("3", "4.50", "nan"), id="2"),
    Question("Who?", id="open", answer="he"),
    Question("Never asked?", ("yes", "no"), id="3", answer="B"),
)


@pytest.fixture(scope="module")
def tasks(synthetic_video) -> list[VideoTask]:
    return [VideoTask("a", synthetic_video(), QUESTIONS), VideoTask("none", Path("nowhere.mp4"), ())]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("format", HARNESSES)
def test_each_frame_is_written_once_as_it_is_decoded(tmp_path, tasks, format):
    folder = tmp_path / "own frames"
    assert export_frames(folder, tasks, SELECTED, format=format) == 2
    video = inspect_video(tasks[0].path)
    (frames,) = read_frames(video, [0.0, 2.5], height=video.height, width=video.width)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 2, "an open question is left out, and two questions share a frame"
    for file, pixels in zip(files, frames.pixels, strict=True):
        assert np.abs(read_image(file).astype(int) - pixels).mean() < 3


def test_a_task_of_lmms_eval(tmp_path, tasks):
    export_frames(tmp_path / "own-frames", tasks, SELECTED, format="lmms-eval")
    folder = tmp_path / "own-frames"
    first, second = (str(folder / "frames" / "0000" / name) for name in ("000000.000.jpg", "000002.500.jpg"))
    rows = lines_of(folder / "questions.jsonl")
    assert rows[0] == {
        **{"video_id": "a", "question_id": "1", "question": 'What is "it"?', "options": ["a ball", "None"]},
        **{"answer": "A", "times_seconds": [0.0, 2.5], "frames": [first, second]},
    }
    assert [row["answer"] for row in rows] == ["A", ""] and rows[1]["frames"] == [second]
    text = (folder / "lvqa_own_frames.yaml").read_text().replace("!function ", "")
    task = yaml.safe_load(text)
    assert task["task"] == "lvqa_own_frames"
    assert task["dataset_kwargs"]["data_files"] == {"test": str(folder / "questions.jsonl")}


def test_a_table_for_vlmevalkit(tmp_path, tasks):
    """pandas, by which VLMEvalKit reads it, would take the marked texts for numbers or for nothing."""
    folder = tmp_path / "frames16"
    export_frames(folder, tasks, SELECTED, format="vlmevalkit")
    with (folder / "lvqa_frames16.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    second = str(folder / "frames" / "0000" / "000002.500.jpg")
    assert rows[0]["question"] == 'What is "it"?' and rows[1]["question"] == "How many?\nCount."
    assert [rows[0][column] for column in ("index", "A", "B", "C", "answer")] == ["0", "a ball", "None\u00a0", "", "A"]
    assert [rows[1][column] for column in "ABC"] == ["3\u00a0", "4.50\u00a0", "nan\u00a0"]
    assert json.loads(rows[1]["image_path"]) == [second]


def test_what_cannot_be_written_is_one_line(tmp_path, tasks):
    (tmp_path / "file").touch()
    with pytest.raises(LvqaError, match=r"cannot write .*file"):
        export_frames(tmp_path / "file", tasks, SELECTED, format="lmms-eval")
    with pytest.raises(LvqaError, match="no question with options that has frames"):
        export_frames(tmp_path / "out", tasks, {("a", "open"): (1.0,)}, format="lmms-eval")


READ_BY_LMMS_EVAL = """
import json, sys
from lmms_eval.tasks import TaskManager, get_task_dict

(task,) = get_task_dict(["lvqa_chosen"], TaskManager(include_path=sys.argv[1]), "simple").values()
task.build_all_requests(rank=0, world_size=1)
for request in task.instances:
    context, _, doc_to_visual, doc_id, _, split = request.args
    doc = task.dataset[split][doc_id]
    scores = [task.process_results(doc, [reply]) for reply in (f"({doc['answer']})", "none")]
    print(json.dumps([context, [picture.size for picture in doc_to_visual(doc)], scores]))
"""


@pytest.mark.slow
def test_lmms_eval_reads_what_the_command_writes(tmp_path):
    """With the harness's own functions: its task's prompts, pictures and scores."""
    folder, target = tmp_path / "videos", tmp_path / "chosen"
    (video_file,) = make_videos(folder, num_videos=1, minutes=1, num_questions=2, seed=700)
    (row,) = lines_of(folder / "video_info.meta.jsonl")
    frames = [{"question_id": qa["uid"], "frames": [1.0, 30.0]} for qa in row["qa"]]
    (tmp_path / "chosen.json").write_text(json.dumps({row["key"]: frames}))
    arguments = [str(tmp_path / "chosen.json"), str(target), "--folder", str(folder), "--format", "lmms-eval"]
    result = CliRunner().invoke(lvqa_command, ["selections", *arguments])
    assert result.exit_code == 0 and "2 of 2 questions" in result.stdout, result.stderr
    pytest.importorskip("lmms_eval", reason="needs lmms-eval, as in constraints-lmms.txt")
    command = [sys.executable, "-c", READ_BY_LMMS_EVAL, str(target)]
    run = subprocess.run(
        command, env={**os.environ, "HF_HOME": str(tmp_path / "hf")}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    read = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    video = inspect_video(video_file)
    sizes, scores = [[video.width, video.height]] * 2, [{"accuracy": 1.0}, {"accuracy": 0.0}]
    assert [reading[1:] for reading in read] == [[sizes, scores]] * 2
    assert all("\nA. " in context and context.endswith("directly.") for context, *_ in read)
