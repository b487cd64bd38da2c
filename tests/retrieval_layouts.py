"""Small copies of the published layouts of retrieval datasets, made by their rules."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lvqa.datasets.retrieval.mmeb import SETS as IMAGE_SETS
from lvqa.datasets.retrieval.mmeb_video import MVBENCH_PARTS
from lvqa.image import save_picture


def picture(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(path, np.full((24, 32, 3), shade % 256, np.uint8))
    return path


def frames(folder: Path, number: int = 10) -> None:
    """Frames as VLM2Vec saves them, numbered without leading zeros here so that their order is by number."""
    for i in range(number):
        picture(folder / f"frame_{i}.jpg", i * 20)


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_mmeb(folder: Path, names=tuple(IMAGE_SETS)) -> None:
    """Each of the sets with two queries, each with three candidates, the first of which is right."""
    for name in names:
        kind, _ = IMAGE_SETS[name]
        rows = []
        for i in range(2):
            row = {
                "qry_inst": "<|image_1|> Represent the given image",
                "qry_text": f"query {i}\n",
                "qry_img_path": f"{name}/q{i}.jpg",
                "tgt_inst": "<|image_1|> Represent the candidate" if kind.candidates != "text" else "",
                "tgt_text": [f"target {i}", "b", "c"] if kind.candidates != "image" else [" ", " ", " "],
                "tgt_img_path": [""] * 3
                if kind.candidates == "text"
                else [f"{name}/t{i}.jpg", f"{name}/b.jpg", f"{name}/c.jpg"],
            }
            if kind.candidates == "image":
                row["qry_img_path"], row["qry_inst"] = None, "Find an image"
            rows.append(row)
            for path in (row["qry_img_path"], *row["tgt_img_path"]):
                if path:
                    picture(folder / "image-tasks" / path)
        # Two shards, as the large sets have.
        table(folder / "annotations" / "MMEB_Test_Instruct" / name / "test-00000-of-00002.parquet", rows[:1])
        table(folder / "annotations" / "MMEB_Test_Instruct" / name / "test-00001-of-00002.parquet", rows[1:])


def write_mmeb_video(folder: Path) -> None:
    """Each of the 18 sets with two queries, in Parquet or in JSON."""
    annotations, root = folder / "annotations", folder / "video-tasks" / "frames"
    for write in (_write_classes, _write_captions, _write_moments, _write_seeker, _write_questions):
        write(annotations, root)


def _write_classes(annotations: Path, root: Path) -> None:
    for repository, place, labels in (
        ("Kinetics-700", "K700", ["archery", "luge"]),
        ("HMDB51", "HMDB51", ["wave", "dive"]),
        ("UCF101", "UCF101", ["Biking", "Diving"]),
        ("Breakfast", "Breakfast", ["tea", "milk"]),
    ):
        table(
            annotations / repository / "data" / "test-00000-of-00001.parquet",
            [{"video_id": f"v{i}", "pos_text": label} for i, label in enumerate(labels)],
        )
        for i in range(2):
            frames(root / "video_cls" / place / f"v{i}")
    table(
        annotations / "SmthSmthV2" / "test.parquet",
        [{"video_id": 7 + i, "pos_text": "Closing it", "neg_text": ["Closing it", f"Opening {i}"]} for i in range(2)],
    )
    for i in range(2):
        frames(root / "video_cls" / "SSv2" / str(7 + i))


def _write_captions(annotations: Path, root: Path) -> None:
    for name, key, video_key, value, subset in (
        ("MSR-VTT", "caption", "video_id", "video7{}", "test_1k/test"),
        ("MSVD", "caption", "video_id", "clip_{}", "data/test"),
        ("DiDeMo", "caption", "video", "videos/did{}.mp4", "data/test"),
        ("VATEX", "enCap", "videoID", "vx{}", "data/test"),
        ("YouCook2", "sentence", "id", "yc{}", "data/val"),
    ):
        many = name in ("MSVD", "VATEX")
        rows = [
            {video_key: value.format(i), key: [f"caption {i}", "other"] if many else f"caption {i}"} for i in range(2)
        ]
        table(annotations / name / f"{subset}-00000-of-00001.parquet", rows)
        for row in rows:
            frames(root / "video_ret" / name / Path(row[video_key]).stem)


def _write_moments(annotations: Path, root: Path) -> None:
    for name, place in (("QVHighlight", "QVHighlight"), ("Charades-STA", "Charades_STA")):
        lines(
            annotations / name / "test.jsonl",
            [{"query": f"sentence {i}", "video_path": f"any/where/m{i}.mp4"} for i in range(2)],
        )
        for i in range(2):
            for clip in ("query", "positive_clip", "negative_0", "negative_1"):
                frames(root / "video_mret" / place / f"m{i}" / clip, 8 if clip != "negative_1" else 3)


def _write_seeker(annotations: Path, root: Path) -> None:
    seeker = root / "video_mret" / "MomentSeeker"
    lines(
        annotations / "MomentSeeker" / "test.jsonl",
        [
            {
                "query": text,
                "input_frames": given,
                "positive_frames": [{"output_path": f"a/p{i}.mp4"}],
                "negative_frames": [{"output_path": f"a/n{i}.mp4"}],
            }
            for i, (text, given) in enumerate([("plain", ""), ("with a picture", "x.jpg"), ("with a clip", "b/q.mp4")])
        ],
    )
    for name in ("a_p0", "a_n0", "a_p1", "a_n1", "a_p2", "a_n2", "b_q"):
        frames(seeker / "video_frames" / name)
    picture(seeker / "query_x.jpg")


def _write_questions(annotations: Path, root: Path) -> None:
    qa = root / "video_qa"
    for part in MVBENCH_PARTS:
        path = annotations / "MVBench" / "json" / f"{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y"}]))
        frames(qa / "MVBench" / part / "a.mp4")
    table(
        annotations / "NExTQA" / "MC" / "test-00000-of-00001.parquet",
        [
            {
                "video": 41 + i,
                "question": "why",
                "answer": 2,
                "qid": i,
                "type": "CW",
                **{f"a{k}": f"o{k}" for k in range(5)},
            }
            for i in range(2)
        ],
    )
    table(
        annotations / "EgoSchema" / "Subset" / "test.parquet",
        [
            {
                "video_idx": f"e{i}",
                "question": "What is C doing?",
                "answer": "1",
                "question_idx": str(i),
                "option": ["A. cooking.", "B. reading."],
            }
            for i in range(2)
        ],
    )
    table(
        annotations / "Video-MME" / "videomme" / "test.parquet",
        [
            {
                "videoID": f"m{i}",
                "question": "Who?",
                "answer": "B",
                "question_id": f"00{i}",
                "domain": "d",
                "sub_category": "s",
                "options": ["A. he.", "B. she."],
            }
            for i in range(2)
        ],
    )
    table(
        annotations / "ActivityNetQA" / "test.parquet",
        [{"video_name": f"an{i}", "question": "is it day", "answer": "no", "question_id": f"q{i}"} for i in range(2)],
    )
    for i in range(2):
        for place in (f"NExTQA/{41 + i}", f"EgoSchema/e{i}", f"Video-MME/m{i}", f"ActivityNetQA/v_an{i}"):
            frames(qa / place)


def write_karpathy(folder: Path, file: str, *, has_folders: bool) -> None:
    images = []
    for i, split in enumerate(["train", "test", "val", "test"]):
        image = {
            "filename": f"{i}.jpg",
            "split": split,
            "imgid": i,
            "sentids": [5 * i + k for k in range(5)],
            "sentences": [{"raw": f"caption {i} {k}", "tokens": [], "imgid": i, "sentid": 5 * i + k} for k in range(5)],
        }
        place = "val2014/" if has_folders else ""
        images.append({**image, "filepath": "val2014", "cocoid": i} if has_folders else image)
        picture(folder / "images" / f"{place}{i}.jpg")
    (folder / file).write_text(json.dumps({"images": images, "dataset": "x"}))


def write_sharegpt4v(folder: Path) -> None:
    items = [
        {
            "id": str(i),
            "image": f"coco/train2017/{i}.jpg",
            "conversations": [
                {"from": "human", "value": "What?\n<image>"},
                {"from": "gpt", "value": f"A long\ncaption {i}"},
            ],
        }
        for i in range(1005)
    ]
    for i in range(3):
        picture(folder / f"coco/train2017/{i}.jpg")
    text = json.dumps(items, indent=1)
    (folder / "share-captioner_coco_lcs_sam_1246k_1107.json").write_text(text[:-1] + ', {"cut": "in the mi')


def write_urban1k(folder: Path) -> None:
    for i in (1, 2, 10):
        picture(folder / "image" / f"{i}.jpg")
        (folder / "caption").mkdir(exist_ok=True)
        (folder / "caption" / f"{i}.txt").write_text(f"street {i},\nseen from above\n")


def write_sugarcrepe(folder: Path) -> None:
    for part in ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att"):
        rows = {
            str(i): {"filename": f"{i:012}.jpg", "caption": f"a cat {i}", "negative_caption": f"a dog {i}"}
            for i in (0, 2)
        }
        (folder / f"{part}.json").write_text(json.dumps(rows))
    for i in (0, 2):
        picture(folder / "val2017" / f"{i:012}.jpg")


def write_own(folder: Path) -> None:
    lines(
        folder / "queries.jsonl",
        [
            {"id": "q0", "text": "the left one", "positives": ["a"]},
            {
                "id": "q1",
                "image": "x.png",
                "text": "this but blue",
                "positives": ["a", "b"],
                "candidates": ["a", "b", "c"],
            },
        ],
    )
    lines(
        folder / "candidates.jsonl",
        [
            {"id": "a", "text": "left"},
            {"id": "b", "image": "x.png"},
            {"id": "c", "video": "y.mp4", "start": 1, "end": 2.5},
        ],
    )
    (folder / "set.json").write_text(json.dumps({"query": "phrase", "candidate": "thing", "category": "grounding"}))
    picture(folder / "x.png")
