"""Write protocols.json: what the sources' own functions show, read and count, for tests/test_protocols.py.

    python tests/golden/make_protocols.py FOLDER

FOLDER has checkouts of lmms-eval, VLMEvalKit, LVBench, Video-MME, Video-MME-v2, LongVideoBench, MLVU, LSDBench and
parse_answer, as they are called on GitHub. It needs numpy, yaml and pysubs2, and not the packages themselves: the
functions that are named here are taken out of their files, and run by themselves.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "protocols.json"
LMMS, VLM = "lmms-eval/lmms_eval/tasks", "VLMEvalKit/vlmeval"
OPTIONS = ["red", "The dog runs", "blue", "a car", "None", "12:30", "It is A.", "no one"]
"""A question about a benchmark has the first so many of these."""
NUM_OPTIONS = {"longvideobench": 5, "egoschema": 5, "nextqa": 5, "nextqa_val": 5, "videomme_v2": 8, "cgbench_mini": 6}
"""Benchmark -> its number of options; the others have four."""
TEXT = "What is on the left?"
ANSWER = "B"
SUBTITLES = [(0.0, 4.0, "Good evening."), (14.5, 15.2, "Look!"), (20.0, 29.0, "Nobody."), (29.0, 52.0, "A long line.")]
SUBTITLES += [(59.0, 61.0, "The end.")]
FRAMES_PER_SECOND, TOTAL_FRAMES, NUM_FRAMES = 25.0, 1525, 5
TIMES = [0.0, 15.24, 30.48, 45.72, 60.96]
"""Five frames of 61 s: numpy.linspace over their numbers, as lmms-eval takes them."""
FRAME = "<image>"


def replies() -> list[str]:
    """Return 200 replies."""
    rng = random.Random(17)
    forms = [
        *("{L}", "{L}.", "({L})", "{L})", "{L}:", " {L} ", "{L}. {o}", "({L}) {o}", "{L}) {o}", "{L}: {o}", "**{L}**"),
        *("The answer is {L}", "The answer is ({L}).", "The correct answer is {L}.", "Answer: {L}", "answer: {L}"),
        *("The best answer is:{L}", "Best answer: {L}", "Best option: ({L})", "Best answer:Best option: {L}"),
        *("The best option is {L}", "The correct option is {L}, and not {M}.", "Option: {L}", "Final Answer: {L}"),
        *("{L}, because {M} is wrong", "I think it is {L}.", "I choose {L}", "Answer {L}", "Answer\n{L}", "{L}{M}"),
        *("{L} or {M}", "Not {L} but {M}.", "({L}) is wrong, so ({M})", "{L}. {o}\n{M}. {p}", "{o}", "It is {o}."),
        *("In the video there is, as far as I can see, {o}", "I can see {o} and {p} in the video, both on the left"),
        *(
            "<think>{M}</think>{L}",
            "答案是{L}",
            "正解は{L}です",
            "选{L}",
            "정답은 {L}",
            "A {o} is seen",
            "Apple",
            "Because",
        ),
        *(
            "",
            " ",
            ".",
            "none of these can be seen in it, so that nobody could ever say it",
            "Cannot determine the answer",
        ),
        *(
            "I'm sorry, but without the image provided",
            "{l}",
            "option {l}",
            "the answer is {l}",
            "{L}!",
            "'{L}'",
            '"{L}"',
        ),
        *("The answer\nis\n{L}", "{L}{l}", "Z", "The dog runs to the {L} side", "my choice is {L} as {M} is not there"),
    ]
    made = []
    for i in range(200):
        first, second = rng.sample(range(5), 2)
        fields = {"L": "ABCDE"[first], "M": "ABCDE"[second], "l": "abcde"[first]}
        made.append(forms[i % len(forms)].format(**fields, o=OPTIONS[first], p=OPTIONS[second]))
    return made


def functions(path: Path, *names: str, **known: Any) -> dict[str, Any]:
    """Return functions, classes and assignments of these names out of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = []
    for node in tree.body:
        targets = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        targets += [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
        if {*targets} & {*names}:
            wanted.append(node)
    space: dict[str, Any] = {"re": re, "os": os, "osp": os.path, "np": np, "json": json, "defaultdict": defaultdict}
    space |= {"eval_logger": types.SimpleNamespace(info=lambda *_: None, debug=lambda *_: None)}
    space |= {"random": types.SimpleNamespace(choice=lambda _: None), "logger": None, "Any": Any} | known
    imports = ast.parse("from __future__ import annotations\nfrom typing import *\nfrom collections.abc import *").body
    code = ast.Module([*imports, *wanted], [])
    exec(compile(ast.fix_missing_locations(code), str(path), "exec"), space)
    return space


def methods(path: Path, name: str, **known: Any) -> Any:
    """Return an object of a class of a file that has its texts and its methods, and none of its bases."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (node,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    node.bases = []
    helpers = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    tree.body = [*(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in helpers), node]
    space: dict[str, Any] = {"re": re, "os": os, "osp": os.path, "np": np, "json": json, "FAIL_MSG": ""} | known
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), space)
    made = object.__new__(space[name])
    made.data_root = ""
    return made


def options_of(benchmark: str) -> list[str]:
    return OPTIONS[: NUM_OPTIONS.get(benchmark, 4)]


def readers(folder: Path) -> dict[str, Any]:
    """Return "protocol benchmark" -> a function of a reply that returns a letter, or "" or None."""
    mcq = functions(folder / LMMS / "_task_utils/mcq_extract.py", *_MCQ)["extract_mcq_answer"]
    ego = functions(folder / LMMS / "egoschema/utils.py", "parse_multi_choice_response")["parse_multi_choice_response"]
    nextqa = functions(folder / LMMS / "nextqa/utils.py", "parse_multi_choice_response")["parse_multi_choice_response"]
    lvb = functions(folder / LMMS / "longvideobench/utils.py", "parse_multi_choice_response")
    by_regex = "extract_characters_regex"
    v2 = functions(folder / "Video-MME-v2/evaluation/test_video_mme_v2.py", f"{by_regex}_v2")[f"{by_regex}_v2"]
    lsd = functions(folder / "LSDBench/evaluation/utils.py", by_regex)[by_regex]
    letters = "ABCDE"
    lettered = dict(zip(letters, OPTIONS, strict=False))
    with_letters = {letter: f"{letter}. {option}" for letter, option in lettered.items()}
    of_lvb = lambda s: lvb["parse_multi_choice_response"](s, [*letters], lettered)  # noqa: E731
    polish = functions(folder / "LVBench/lvbench/utils/answer_util.py", "polish_answer")
    official_v1 = functions(folder / "parse_answer/eval_your_results.py", by_regex)[by_regex]
    return {
        "official lvbench": polish["polish_answer"],
        "official videomme": official_v1,
        "official videomme_v2": v2,
        "official longvideobench": of_lvb,
        "official mlvu": lambda s: _mlvu_letter(folder, s),
        "official lsdbench": lsd,
        "lmms-eval lvbench": lambda s: mcq(s, choices=[*"ABCD"]),
        "lmms-eval videomme": lambda s: mcq(s, choices=[*"ABCD"]),
        "lmms-eval videomme_v2": functions(folder / LMMS / "videomme_v2/utils.py", by_regex)[by_regex],
        "lmms-eval longvideobench": of_lvb,
        "lmms-eval mlvu": lambda s: mcq(s, choices=[*"ABCD"]),
        "lmms-eval mlvu_test": lambda s: mcq(s, choices=[*"ABCD"]),
        "lmms-eval egoschema": lambda s: ego(s, [*letters], with_letters)[0] if _can(ego, s, with_letters) else None,
        "lmms-eval nextqa": lambda s: nextqa(s, [*letters], lettered),
        "lmms-eval cgbench_mini": lambda s: mcq(s, choices=[chr(65 + i) for i in range(14)]),
        "lmms-eval lsdbench": functions(folder / LMMS / "lsdbench/utils.py", by_regex)[by_regex],
        "vlmevalkit videomme": functions(folder / VLM / "dataset/utils/videomme.py", by_regex)[by_regex],
        "vlmevalkit videomme_v2": functions(folder / VLM / "dataset/utils/videomme.py", f"{by_regex}_v2")[
            f"{by_regex}_v2"
        ],
        "vlmevalkit longvideobench": functions(folder / VLM / "dataset/utils/longvideobench.py", by_regex)[by_regex],
    }


_MCQ = ("extract_mcq_answer", "_DEFAULT_CHOICES", "_ANSWER_PHRASES", "_FORMAT_PRIORITY")


def _can(parse: Any, reply: str, options: dict[str, str]) -> bool:
    """Return whether a reply names a letter: where it does not, one is drawn, here None, which can't be cleaned."""
    try:
        parse(reply, [*options], options)
    except AttributeError:
        return False
    return True


def _mlvu_letter(folder: Path, reply: str) -> str | None:
    check = functions(folder / "MLVU/evaluation/multiple_choice_evaluation/choice_bench.py", "check_ans")["check_ans"]
    right = [letter for letter in "ABCDEFGHIJKLMNOPQRST" if check(reply, f"({letter}) x")]
    return right[0] if right else None


def vlm_mlvu_right(folder: Path) -> list[list[str]]:
    """Return for each reply the letters for which VLMEvalKit calls it right, without a judge."""
    import copy
    import string

    infer = functions(
        folder / VLM / "utils/matching_util.py",
        *("can_infer_option", "can_infer_text", "can_infer", "_VERBOSE_ANSWER_RE"),
        cp=copy,
        string=string,
    )["can_infer"]

    def extract(_model: None, item: dict[str, Any], _name: str) -> dict[str, Any]:
        return {"opt": infer(item["prediction"], {letter: item[letter] for letter in "ABCD"}) or "Z"}

    check = functions(folder / VLM / "dataset/utils/mlvu.py", "check_ans_with_model", extract_answer_from_item=extract)[
        "check_ans_with_model"
    ]
    items = dict(zip("ABCD", OPTIONS, strict=False))
    return [
        [
            letter
            for letter in "ABCD"
            if check(reply, f"({letter}) {items[letter]}", None, {**items, "answer": letter, "prediction": reply})
        ]
        for reply in replies()
    ]


# --- prompts ---------------------------------------------------------------------------------------------------------


def lmms_prompts(folder: Path) -> dict[str, str]:
    """Return "benchmark" and "benchmark, with subtitles" -> the text that lmms-eval's tasks make."""
    made = {}
    a_to_h = [f"{chr(65 + i)}. {option}" for i, option in enumerate(OPTIONS)]
    brackets = "\n".join(f"({chr(65 + i)}) {option}" for i, option in enumerate(OPTIONS[:4]))

    def task(name: str, function: str, doc: dict[str, Any], *more: str, **known: Any) -> str:
        kwargs = _yaml_prompts(folder / LMMS / name, doc.pop("task"))
        return functions(folder / LMMS / name / "utils.py", function, *more, **known)[function](doc, kwargs)

    made["lvbench"] = task(
        "lvbench", "lvbench_doc_to_text", {"task": "lvbench.yaml", "question": TEXT, "options": OPTIONS[:4]}
    )
    made["videomme"] = task(
        "videomme",
        "videomme_doc_to_text",
        {"task": "videomme.yaml", "question": TEXT, "options": a_to_h[:4]},
    )
    frames = [(int(a * FRAMES_PER_SECOND), int(b * FRAMES_PER_SECOND), FONT.format(text)) for a, b, text in SUBTITLES]
    fake_os = types.SimpleNamespace(path=types.SimpleNamespace(join=lambda *_: "", exists=lambda _: True))
    made["videomme, with subtitles"] = task(
        "videomme",
        "videomme_doc_to_text_subtitle",
        {"task": "videomme_w_subtitle.yaml", "question": TEXT, "options": a_to_h[:4], "videoID": "v"},
        **{"os": fake_os, "extract_subtitles": lambda *_: (frames, TOTAL_FRAMES)},
        **{"base_cache_dir": "", "cache_name": "", "open": lambda _: types.SimpleNamespace(readlines=lambda: ["x"])},
    ).replace("\r", "")
    made["videomme_v2"] = task(
        "videomme_v2",
        "videomme_v2_doc_to_text",
        {"task": "videomme_v2.yaml", "question": TEXT, "options": "\n".join(a_to_h)},
    )
    made["videomme_v2, with subtitles"] = task(
        "videomme_v2",
        "videomme_v2_doc_to_text_subtitle",
        {"task": "videomme_v2_w_subtitle.yaml", "question": TEXT, "options": "\n".join(a_to_h), "video_id": "v"},
        **{"load_subtitle_v2": lambda _: " ".join(text for _, _, text in SUBTITLES)},
        **{"base_cache_dir": "", "cache_name": ""},
    )
    lvb = {f"option{i}": option for i, option in enumerate(OPTIONS[:5])} | {"question": TEXT}
    made["longvideobench"] = task(
        "longvideobench", "longvideobench_doc_to_text", {"task": "longvideobench_val_v.yaml", **lvb}
    )
    inserted = functions(
        folder / LMMS / "longvideobench/utils.py", "insert_subtitles_into_frames", "timestamp_to_seconds"
    )["insert_subtitles_into_frames"](TIMES, _timestamps(), 0, 61.0)
    made["longvideobench, with subtitles"] = f"{inserted}\n{made['longvideobench']}"
    for name in ("mlvu", "mlvu_test"):
        doc = {"task": f"{name}.yaml" if name == "mlvu_test" else "mlvu_dev.yaml", "question": f"{TEXT}\n{brackets}"}
        made[name] = task("mlvu", "mlvu_doc_to_text", doc)
    made["egoschema"] = task(
        "egoschema",
        "egoschema_doc_to_text",
        {"task": "egoschema_subset.yaml", "question": TEXT, "option": a_to_h[:5]},
    )
    made["nextqa"] = task(
        "nextqa",
        "nextqa_doc_to_text_mc",
        {"task": "nextqa_mc_test.yaml", "question": TEXT, **{f"a{i}": x for i, x in enumerate(OPTIONS[:5])}},
        "OPTIONS",
    )
    cg = {"question": TEXT, "choices": OPTIONS[:6]}
    made["cgbench_mini"] = task(
        "cgbench", "cgbench_doc_to_text", {"task": "_default_template_yaml", **cg}, "_format_question"
    )
    capture = types.SimpleNamespace(get=lambda key: {0: FRAMES_PER_SECOND, 1: TOTAL_FRAMES}[key], release=lambda: None)
    cv2 = types.SimpleNamespace(VideoCapture=lambda _: capture, CAP_PROP_FPS=0, CAP_PROP_FRAME_COUNT=1)
    made["cgbench_mini, with subtitles"] = functions(
        folder / LMMS / "cgbench/utils.py",
        *("cgbench_doc_to_text_subtitle", "_format_question", "_sampled_subtitles"),
        **{"_resolve_subtitle": lambda _: __file__, "_resolve_video": lambda _: "", "cv2": cv2},
        **{"_read_srt": lambda _: SUBTITLES},
    )["cgbench_doc_to_text_subtitle"](cg, {"post_prompt": "\nAnswer with the option letter only.", "frame_num": 5})
    made["lsdbench"] = task(
        "lsdbench",
        "lsdbench_doc_to_text",
        {"task": "lsdbench.yaml", "question": TEXT, "options": dict(zip("ABCD", OPTIONS, strict=False))},
    )
    return made


FONT = '<font color="white" size=".72c">{}</font>'


def _yaml_prompts(folder: Path, name: str) -> dict[str, Any]:
    """Return a task's lmms_eval_specific_kwargs for a model without ones of its own, with five frames."""
    import yaml

    def load(file: str) -> dict[str, Any]:
        text = (folder / file).read_text(encoding="utf-8")
        return yaml.safe_load("\n".join(line for line in text.splitlines() if "!function" not in line)) or {}

    task = load(name)
    for key in ("include",):
        if key in task:
            task = load(task[key]) | task
    prompts = (task.get("lmms_eval_specific_kwargs") or {}).get("default") or {}
    return {key: NUM_FRAMES if key == "frame_num" else value for key, value in prompts.items()}


def _timestamps() -> list[dict[str, Any]]:
    return [{"timestamp": [start, end], "text": text} for start, end, text in SUBTITLES]


def vlm_prompts(folder: Path) -> dict[str, str]:
    """Return the same of VLMEvalKit: for a model that takes videos, and with subtitles for one that takes frames."""
    made = {}
    indices = [round(seconds * FRAMES_PER_SECOND) for seconds in TIMES]
    frames = ([FRAME] * NUM_FRAMES, indices, {"fps": FRAMES_PER_SECOND, "n_frames": TOTAL_FRAMES})
    a_to_h = [f"{chr(65 + i)}. {option}" for i, option in enumerate(OPTIONS)]
    srt = folder / "lvqa-subtitles.srt"
    srt.write_text(
        "\n\n".join(f"{i}\n{_clock(a)} --> {_clock(b)}\n{text}" for i, (a, b, text) in enumerate(SUBTITLES, 1))
    )
    for subtitled in (False, True):
        name = ", with subtitles" if subtitled else ""
        videomme = methods(folder / VLM / "dataset/videomme.py", "VideoMME", portalocker=None, Image=None)
        videomme.use_subtitle, videomme.save_video_frames = subtitled, lambda *_: frames
        line = {"video": "v", "question": TEXT, "candidates": str(a_to_h[:4]), "subtitle_path": str(srt)}
        made[f"videomme{name}"] = _joined(videomme.build_prompt(line, True))
        v2 = methods(folder / VLM / "dataset/videommev2.py", "VideoMMEv2")
        v2.with_subtitle, v2.reasoning, v2.nframe, v2.fps = subtitled, False, 5, -1
        v2.response_prompt = v2.INSTRUCT_PROMPT
        text = " ".join(text for _, _, text in SUBTITLES)
        before = v2.WITH_SUB_PROMPT.format(text) if subtitled else v2.WO_SUB_PROMPT
        # The rest of build_prompt reads the video's file: its last two lines
        made[f"videomme_v2{name}"] = (
            before + "Question: {}\n".format(TEXT + "\n" + "\n".join(a_to_h)) + v2.response_prompt
        )
    lvb = methods(folder / VLM / "dataset/longvideobench.py", "LongVideoBench", portalocker=None)
    lvb.use_subtitle, lvb.save_video_frames = False, lambda *_: frames
    line = {"video_path": "v", "question": TEXT, "candidates": str(OPTIONS[:5])}
    made["longvideobench"] = _joined(lvb.build_prompt(dict(line), True))
    inserted = functions(
        folder / VLM / "dataset/longvideobench.py", "insert_subtitles_into_frames", "timestamp_to_seconds"
    )["insert_subtitles_into_frames"](frames[0], TIMES, _timestamps(), 0, 61.0)
    made["longvideobench, with subtitles"] = _joined(inserted) + made["longvideobench"]
    mlvu = methods(folder / VLM / "dataset/mlvu.py", "MLVU_MCQ")
    line = {"prefix": "", "video": "v", "question": TEXT, "candidates": str(OPTIONS[:4]), "answer": OPTIONS[1]}
    system, *rest = mlvu.build_prompt(line, True)
    made["mlvu"], made["mlvu, system"] = _joined(rest), system["value"]
    return made


def _clock(seconds: float) -> str:
    return f"00:{int(seconds // 60):02d}:{int(seconds % 60):02d},{round(seconds % 1 * 1000):03d}"


def _joined(message: list[dict[str, str]]) -> str:
    """Return the texts of a message, and each image; a video stands before all of them, and is left out."""
    return "".join({"text": part["value"], "image": FRAME, "video": ""}[part["type"]] for part in message)


def official_prompts(folder: Path) -> dict[str, str]:
    """Return the same of the authors, where a program makes them."""
    made = {}
    mlvu = methods(folder / "MLVU/evaluation/multiple_choice_evaluation/choice_bench.py", "MLVU", Dataset=object)
    question, _ = mlvu.qa_template({"question": TEXT, "candidates": OPTIONS[:4], "answer": OPTIONS[1]})
    made["mlvu"] = question + "\nOnly give the best option."  # as test_bench.py joins them
    lvb = folder / "LongVideoBench/longvideobench/longvideobench_dataset.py"
    inserted = functions(lvb, "insert_subtitles_into_frames", "timestamp_to_seconds")["insert_subtitles_into_frames"](
        [FRAME] * NUM_FRAMES, TIMES, _timestamps(), 0, 61.0
    )
    made["longvideobench, inserted"] = json.dumps(inserted)
    space = functions(folder / "Video-MME-v2/evaluation/test_video_mme_v2.py", *_V2_TEXTS)
    question_lines = f"Question: {TEXT}\n" + "\n".join(f"{chr(65 + i)}. {x}" for i, x in enumerate(OPTIONS))
    made["videomme_v2"] = f"{space['WO_SUB_PROMPT']}{question_lines}\n{space['INSTRUCT_PROMPT']}"
    text = " ".join(text for _, _, text in SUBTITLES)
    readme = (folder / "Video-MME/README.md").read_text(encoding="utf-8")
    for name, kind in (("videomme", "Without"), ("videomme, with subtitles", "With")):
        made[name] = re.search(rf"\* {kind} subtitles:\s*```\n(.*?)\n```", readme, re.DOTALL)[1]
    made["videomme_v2, with subtitles"] = (
        f"{space['WITH_SUB_PROMPT'].format(text)}{question_lines}\n{space['INSTRUCT_PROMPT']}"
    )
    return made


_V2_TEXTS = ("WO_SUB_PROMPT", "WITH_SUB_PROMPT", "INSTRUCT_PROMPT")


def figures(folder: Path) -> dict[str, float]:
    """Return the overall figures on the 200 answers of tests/test_datasets_headline.py."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from test_datasets_headline import TAGS, made_rows

    names = ("videomme_aggregate_results", "VIDEO_TYPE", "CATEGORIES", "SUB_CATEGORIES", "TASK_CATEGORIES")
    videomme = functions(folder / LMMS / "videomme/utils.py", *names)
    records = [
        {
            "duration": next(tag for tag in row["tags"] if tag.startswith("duration")).removeprefix("duration: "),
            "category": next(tag for tag in row["tags"] if tag.startswith("domain")).removeprefix("domain: "),
            "sub_category": "Law",
            "task_category": "OCR Problems",
            "pred_answer": row["prediction"] or "",
            "answer": row["target"] or "no option",
        }
        for row in made_rows(TAGS["videomme"])
    ]
    rows = made_rows(TAGS["mlvu"])
    success = sum(row["prediction"] == row["target"] != "" for row in rows)
    return {
        "lmms-eval videomme": videomme["videomme_aggregate_results"](records),
        "vlmevalkit mlvu": success / len(rows) * 100,  # MLVU.evaluate: success / overall
    }


def main(folder: Path) -> None:
    texts = replies()
    letters = {name: [read(text) or None for text in texts] for name, read in readers(folder).items()}
    golden = {
        "replies": texts,
        "letters": {name: "".join(letter or "-" for letter in of_source) for name, of_source in letters.items()},
        "right": {"vlmevalkit mlvu": vlm_mlvu_right(folder)},
        "prompts": {
            "official": official_prompts(folder),
            "lmms-eval": lmms_prompts(folder),
            "vlmevalkit": vlm_prompts(folder),
        },
        "figures": figures(folder),
    }
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
