"""Small annotation files of each benchmark, in its published form, for tests.

`**changes` replaces fields of the first question; None takes a field away.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvqa.datasets.mlvu import TASKS

ABILITIES = ["entity recognition", "reasoning"]


def changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def lvbench_row(uid: str, /, **changes: Any) -> dict[str, Any]:
    fields = {
        "uid": uid,
        "question": "What does the cook hold?\n(A) a pan\n(B) a knife\n(C) a fish\n(D) nothing",
        "answer": "C",
        "question_type": ABILITIES,
        "time_reference": "08:17-12:05",
    }
    return changed(fields, changes)


def lvbench_line(key: str, *rows: dict[str, Any]) -> str:
    return json.dumps({"key": key, "type": "tv", "qa": rows, "video_info": {}}) + "\n"


def write_lvbench(folder: Path, **changes: Any) -> None:
    lines = [lvbench_line("Cm73ma6Ibcs", lvbench_row("0", **changes), lvbench_row("1"))]
    (folder / "video_info.meta.jsonl").write_text("".join([*lines, lvbench_line("--_a1b2c3d4", lvbench_row("2"))]))


def videomme_rows(**changes: Any) -> list[dict[str, Any]]:
    fields = {
        "video_id": "601",
        "duration": "long",
        "domain": "Knowledge",
        "sub_category": "Geography",
        "url": "https://www.youtube.com/watch?v=Cm73ma6Ibcs",
        "videoID": "Cm73ma6Ibcs",
        "question_id": "601-1",
        "task_type": "Action Reasoning",
        "question": "Why does the guide turn back?",
        "options": ["A. A. Lincoln calls.", "B. Rain.", "C. Snow.", "D. No reason."],
        "answer": "D",
    }
    short = {**fields, "duration": "short", "videoID": "tooshort-12", "question_id": "001-1"}
    other = {**fields, "videoID": "--_a1b2c3d4", "question_id": "602-1"}
    return [changed(fields, changes), short, {**fields, "question_id": "601-2"}, other]


def write_videomme(folder: Path, **changes: Any) -> None:
    (folder / "videomme.json").write_text(json.dumps(videomme_rows(**changes)))


def write_longvideobench(folder: Path, **changes: Any) -> None:
    fields = {
        "video_id": "Cm73ma6Ibcs",
        "question": "In a kitchen, which object is red?",
        "question_wo_referring_query": "Which object is red?",
        "candidates": ["pan", "cup", "door"],
        "correct_choice": 2,
        "position": [3, 40],
        "topic_category": "LC-Lifestyle-Cooking-Recipes",
        "question_category": "S2O",
        "level": "L1-Perception",
        "id": "Cm73ma6Ibcs_0",
        "video_path": "Cm73ma6Ibcs.mp4",
        "subtitle_path": "Cm73ma6Ibcs_en.json",
        "duration_group": 3600,
        "starting_timestamp_for_subtitles": 0,
        "duration": 1800.5,
        "view_count": 12,
    }
    five = {**fields, "id": "Cm73ma6Ibcs_1", "candidates": ["1", 2, 3.5, "4", "5"], "correct_choice": 1}
    other = {**fields, "id": "@a.cook-77_0", "video_path": "@a.cook-77.mp4"}
    (folder / "lvb_val.json").write_text(json.dumps([changed(fields, changes), five, other]))


def write_mlvu(folder: Path, **changes: Any) -> None:
    (folder / "json").mkdir(exist_ok=True)
    for task in TASKS:
        fields = {
            "video": "film_1.mp4",
            "duration": 480.0,
            "question": "How many boats pass?",
            "candidates": ["Six", "Three", "Three", "Eight"],
            "answer": "Three",
            "question_type": task.partition("_")[2],
        }
        rows = [fields, {**fields, "answer": "Eight"}]
        if task == TASKS[0]:
            rows[0] = changed(fields, changes)
        (folder / "json" / f"{task}.json").write_text(json.dumps(rows))


def write_rows(folder: Path, name: str, rows: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(rows))


def write_mlvu_test(folder: Path, **changes: Any) -> None:
    fields = {
        "video": "sports_1.mp4",
        "duration": 480.0,
        "question": "Which team scores first?",
        "candidates": ["Red", "Blue", "Green", "White", "Black", "None"],
        "answer": "Blue",
        "question_type": "sportsQA",
        "question_id": "SQA_0",
    }
    rows = [changed(fields, changes), {**fields, "question_id": "SQA_1"}, {**fields, "question_id": "SQA_2"}]
    write_rows(folder, "test-ground-truth/test_mcq_gt.json", [*rows[:2], {**rows[2], "video": "sports_2.mp4"}])


def videomme_v2_rows(**changes: Any) -> list[dict[str, Any]]:
    fields = {
        "video_id": "001",
        "url": "https://www.youtube.com/watch?v=Cm73ma6Ibcs",
        "group_type": "logic",
        "group_structure": "[1,[2,3],4]",
        "question_id": "001-1",
        "question": "Who opens the door?",
        "options": "A. Anna.\nB. Ben,\nwith a key.\nC. Nobody.",
        "answer": "B",
        "level": 3,
        "second_head": "Causal reasoning",
        "third_head": None,
    }
    second = [{**fields, "video_id": "002", "question_id": f"002-{i}"} for i in (1, 2)]
    return [changed(fields, changes), *second, {**fields, "question_id": "001-2"}]


def write_videomme_v2(folder: Path, **changes: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(videomme_v2_rows(**changes)), folder / "test.parquet")


def write_cgbench(folder: Path, file: str = "cgbench.json", **changes: Any) -> None:
    fields = {
        "qid": 14,
        "video_uid": "3ZpmN3-2-Zo",
        "question": "What colour is the car?",
        "answer": "White",
        "choices": ["Grey", "Blue", "White", "Silver", "Ivory"],
        "right_answer": "C",
        "clue_intervals": [[8, 11.5]],
        "domain": "Art & Culture",
        "sub_category": "Entity Perception",
        "duration": 2741,
    }
    several = {**fields, "qid": 15, "clue_intervals": [[8, 11], [40, 50]]}
    write_rows(folder, file, [changed(fields, changes), several, {**fields, "qid": 16, "video_uid": "other-video"}])


def write_hourvideo(folder: Path, **changes: Any) -> None:
    fields = {
        "qid": "v1_q1",
        "task": "perception/information_retrieval/factual_recall",
        "question": "Which tool was used first?",
        "mcq_test": "A. Saw\nB. Drill\nC. Hammer\nD. File\nE. Knife",
        **{f"answer_{i}": text for i, text in enumerate(("Saw", "Drill", "Hammer", "File", "Knife"), start=1)},
        "correct_answer_label": "E",
    }
    pictures = {f"answer_{i}": f"images/v1_{i}.jpg" for i in range(1, 6)}
    first = [changed(fields, changes), {**fields, "qid": "v1_q2"}, {**fields, "qid": "v1_q3", **pictures}]
    videos = {"0a1b": first, "2c3d": [{**fields, "qid": "v2_q1"}]}
    by_video = {key: {"video_metadata": {}, "benchmark_dataset": rows} for key, rows in videos.items()}
    write_rows(folder, "dev_v1.0_annotations.json", by_video)


def write_lsdbench(folder: Path, **changes: Any) -> None:
    fields = {
        "question": "How was the board measured?",
        "options": {"A": "With a tape.", "B": "With a ruler.", "C": "By eye.", "D": "Not at all."},
        "correct_answer": "A",
        "time_range": {"start": "00:59:00", "end": "00:62:00"},
        "video_id": "71fbc5bf-7e2a",
    }
    write_rows(folder, "mc_qa_annotations_1300.json", [changed(fields, changes), fields, {**fields, "video_id": "b"}])


def write_timescope(folder: Path, file: str = "timescope.json", **changes: Any) -> None:
    prompt = (
        "Answer the question. Give the letter alone.\n\nQuestion: What does the cat do?\n\nA: sleeps\nB: eats: fish\n"
    )
    fields = {"id": 7, "video": "cat.mp4", "length": 3600, "type": "QA", "input": prompt + "C: jumps", "answer": "B"}
    others = [{**fields, "id": 8, "type": "OCR"}, {**fields, "id": 9, "video": "long/cat.mp4"}]
    write_rows(folder, file, [changed(fields, changes), *others])


def write_egoschema(folder: Path, **changes: Any) -> None:
    rows = [
        {"q_uid": f"0074f737-{i}", "question": "What is C doing?", **{f"option {k}": f"C does {k}." for k in range(5)}}
        for i in range(4)
    ]
    write_rows(folder, "questions.json", [changed(rows[0], changes), *rows[1:]])
    write_rows(folder, "subset_answers.json", {f"0074f737-{i}": i for i in range(3)})


def write_nextqa(folder: Path, file: str = "test.csv", **changes: Any) -> None:
    fields = {
        **{"video": "2574374895", "frame_count": "719", "width": "320", "height": "240"},
        **{"question": "what did the baby do after throwing the cup", "answer": "2", "qid": "8", "type": "TP"},
        **{"a0": "clap, proudly", "a1": "run", "a2": "lay on floor", "a3": "jump", "a4": "crawl"},
    }
    with (folder / file).open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(fields))
        writer.writeheader()
        writer.writerows([changed(fields, changes), {**fields, "qid": "9"}, {**fields, "video": "31", "type": "DL"}])


def own_rows(**changes: Any) -> list[dict[str, Any]]:
    fields = {
        "video": "garden",
        "question": "What colour is the car?",
        "options": ["red", "blue", "green"],
        "answer": "blue",
        "id": "g1",
        "tags": ["colour", "car"],
        "evidence": [83, 97.5],
    }
    other = {"video": "gate", "question": "Who comes?", "options": ["a man", "a dog"], "answer": "A"}
    return [changed(fields, changes), {**fields, "id": 2}, other]


def write_own(folder: Path, **changes: Any) -> None:
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own_rows(**changes)))


WRITERS: dict[str, Callable[..., None]] = {
    "own": write_own,
    "lvbench": write_lvbench,
    "videomme": write_videomme,
    "videomme_long": write_videomme,
    "videomme_v2": write_videomme_v2,
    "longvideobench": write_longvideobench,
    "mlvu": write_mlvu,
    "mlvu_test": write_mlvu_test,
    "cgbench": write_cgbench,
    "cgbench_mini": functools.partial(write_cgbench, file="cgbench_mini.json"),
    "hourvideo": write_hourvideo,
    "lsdbench": write_lsdbench,
    "timescope": write_timescope,
    "longtimescope": functools.partial(write_timescope, file="longtimescope.json"),
    "egoschema": write_egoschema,
    "nextqa": write_nextqa,
    "nextqa_val": functools.partial(write_nextqa, file="val.csv"),
}
