"""The report of runs, on rows written by hand, so that every figure below can be checked by counting."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lvqa.config import to_yaml
from lvqa.evaluation import load_run_config, settings_of
from lvqa.evaluation.rows import NEW_KEYS, to_line
from lvqa.records import LvqaError
from lvqa.report import write_report
from lvqa.report.conditions import conditions_of, read_runs
from lvqa.report.drawing import styles_of
from lvqa.report.tables import Entry, Table, amount, p_text, to_markdown

UNIFORM, FREERET, BLIND = {"method": "uniform"}, {"method": "freeret"}, {"method": "blind"}


def row(arm: str, budget: int, question: int, *, is_correct: bool = False, video: str = "v1", **changes) -> dict:
    """Return the row of an answer. All questions are about 100 s to 110 s of their video; the target is A."""
    return {
        "video_id": video,
        "question_id": f"{video}-{question}",
        "question": "What is red?",
        "options": ["a car", "a dog"],
        "arm": arm,
        "budget": budget,
        "tags": ["reasoning"],
        "target": "A",
        "evidence_seconds": [100.0, 110.0],
        "prediction": "A" if is_correct else "B",
        "text": "a car",
        "option_scores": [0.5, 0.5],
        "times_seconds": [] if budget == 0 else [105.0] if is_correct else [5.0],
        "embedded": [],
        "reranked": [],
        "num_clips": 0,
        "counts": {"frames_decoded": 2 * budget, "pairs_encoded": budget, "tokens_prefilled": 1000 + 10 * budget},
        "index": None,
        "seconds": {"decode": 0.25, "answer": 1.0},
        **NEW_KEYS,
        "answer_tokens": 20 + 10 * budget,
        "answer_visual_tokens": 10 * budget,
        "error": None,
    } | changes


def failed(arm: str, budget: int, question: int, error: str, **changes) -> dict:
    no_answer = {
        "prediction": None,
        "text": "",
        "option_scores": [],
        "times_seconds": [],
        "seconds": {},
        "error": error,
    }
    return row(arm, budget, question, **(no_answer | changes))


@pytest.fixture
def write_run(tmp_path):
    """Write a run folder as `lvqa eval` leaves it behind."""

    def write(name: str, rows: list[dict], arms: list[dict], *settings: str, frames=(16,), **about) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        overrides = [f"arms={json.dumps(arms)}", f"frames={json.dumps(frames)}", *settings]
        (folder / "config.yaml").write_text(to_yaml(load_run_config(None, overrides)), encoding="utf-8")
        run_json = {"started": "2030-01-02T03:04:05+00:00", "versions": {"lvqa": "0.1.0"}, "resumed": []} | about
        (folder / "run.json").write_text(json.dumps(run_json))
        (folder / "answers.jsonl").write_text("".join(map(to_line, rows)), encoding="utf-8")
        return folder

    return write


def two_arms() -> list[dict]:
    """Return rows of 12 questions on 6 videos at 16 frames. uniform: 3 correct; freeret: 9, 7 gained and 1 lost."""
    rows = []
    for i in range(12):
        video = f"v{i // 2}"
        rows.append(row("uniform", 16, i, is_correct=i < 3, video=video))
        rows.append(row("freeret", 16, i, is_correct=0 < i < 10, video=video))
    return rows


def section(markdown: str, title: str) -> str:
    """Return the text of the section with this title."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", markdown, re.DOTALL | re.MULTILINE)[1]


def lines_of(text: str) -> list[list[str]]:
    """Return the fields of all lines of all tables."""
    return [[field.strip() for field in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def fields_of(markdown: str, title: str, *names: str) -> list[str]:
    """Return the fields after these names, of the only line of a section that begins with them."""
    (fields,) = (line for line in lines_of(section(markdown, title)) if line[: len(names)] == list(names))
    return fields[len(names) :]


def test_accuracy_is_of_all_questions_and_the_official_figure_of_those_answered(write_run):
    rows = [row("uniform", 16, i, is_correct=i < 5) for i in range(8)]
    rows += [failed("uniform", 16, i, "out of memory") for i in (8, 9)]
    markdown = write_report([write_run("r", rows, [UNIFORM])])
    assert fields_of(markdown, "Accuracy", "uniform") == ["50.0 (1 video; n 10)"]
    assert fields_of(markdown, "Figures as LVBench counts them", "overall") == ["62.5 (n 8)"]
    assert "answers 10, failed 2" in markdown


def test_an_accuracys_interval_has_videos_for_samples(write_run):
    """Five videos with 1 to 5 of 5 correct: Wilson's interval of 12 answers, at t of 4 degrees.

    Their variance is 0.1 / 5, as that of 0.6 x 0.4 / 0.02 = 12 independent answers.
    """
    rows = [row("uniform", 16, i, is_correct=i % 5 <= i // 5, video=f"v{i // 5}") for i in range(25)]
    markdown = write_report([write_run("r", rows, [UNIFORM])])
    assert fields_of(markdown, "Accuracy", "uniform") == ["60.0 (25.2-87.0; n 25)"]
    assert "with videos as samples; fewer than 5 videos have none" in markdown


def test_arms_stand_in_the_order_of_the_configuration_and_budgets_ascend(write_run):
    rows = [row(arm, budget, 0) for budget in (64, 16) for arm in ("freeret", "uniform")] + [row("blind", 0, 0)]
    markdown = write_report([write_run("r", rows, [UNIFORM, BLIND, FREERET], frames=(64, 16))])
    head, _, *lines = lines_of(section(markdown, "Accuracy"))
    assert head == ["arm", "no frames", "16 frames", "64 frames"]
    assert [line[0] for line in lines] == ["uniform", "blind", "freeret"]


def test_a_question_counts_in_each_of_its_abilities(write_run):
    rows = [
        row("uniform", 16, 0, is_correct=True, tags=["reasoning", "summarization"]),
        row("uniform", 16, 1, tags=["reasoning"]),
    ]
    markdown = write_report([write_run("r", rows, [UNIFORM])])
    assert fields_of(markdown, "Accuracy by ability", "reasoning")[0].startswith("50.0 (")
    assert fields_of(markdown, "Accuracy by ability", "summarization")[0].startswith("100.0 (")
    assert "\n16 frames\n" in section(markdown, "Accuracy by ability")


def test_evidence_is_recalled_by_stage(write_run):
    def clips(index: int) -> list[list[float]]:
        """Return 20 clips. The one with this index overlaps the annotated time."""
        return [[96.0, 112.0, 0.9] if i == index else [1000.0 + 16 * i, 1016.0 + 16 * i, 0.1] for i in range(20)]

    ranked = [(7, 0), (15, 4)]
    rows = [
        row("freeret", budget, i, is_correct=budget == 64, embedded=clips(before), reranked=clips(after), num_clips=99)
        for i, (before, after) in enumerate(ranked)
        for budget in (16, 64)
    ]
    markdown = write_report([write_run("r", rows, [FREERET], frames=(16, 64))])
    text = section(markdown, "Evidence recall by stage")
    clip_lines, frame_lines = map(lines_of, text.split("Among the selected frames"))
    recall = dict(zip(clip_lines[0], clip_lines[2], strict=True))
    # Two questions, though there are four rows: the budgets of an arm share one ranking.
    assert recall["embedding top 1"] == "0.0 (1 video; n 2)"
    assert [recall[f"embedding top {k}"].split()[0] for k in (10, 50)] == ["50.0", "100.0"]
    assert [recall[f"reranked top {k}"].split()[0] for k in (1, 10)] == ["50.0", "100.0"]
    assert [field.split()[0] for field in frame_lines[2]] == ["freeret", "0.0", "100.0"]


def test_a_ranking_is_counted_where_only_the_first_budget_failed(write_run):
    clips = [[96.0, 112.0, 0.9]]
    rows = [failed("freeret", 16, 0, "out of memory"), row("freeret", 64, 0, embedded=clips)]
    markdown = write_report([write_run("r", rows, [FREERET], frames=(16, 64))])
    assert fields_of(markdown, "Evidence recall by stage", "freeret", "100.0 (1 video; n 1)")


def test_arms_are_paired_with_uniform_frames_at_the_same_budget(write_run):
    markdown = write_report([write_run("r", two_arms(), [UNIFORM, FREERET])])
    difference, gained, lost, p, by_holm, mcnemar, n = fields_of(
        markdown, "Paired difference to uniform frames", "freeret", "16"
    )
    assert difference.startswith("+50.0 (") and (gained, lost, n) == ("7", "1", "12")
    assert mcnemar == "0.07"  # 2 (1 + 8) / 2^8
    assert p == by_holm == "0.11"  # the t test of the videos' differences: 0, 1, 1, 1, 0.5, -0.5
    assert "With 6 videos a difference of 90.1 points is found in 80% of runs." in markdown
    assert (
        len(lines_of(section(markdown, "Paired difference to uniform frames"))) == 3
    )  # uniform is not set against itself


def test_arms_are_paired_with_the_arm_that_the_run_names(write_run):
    rows = [*two_arms(), *(row("blind", 0, i) for i in range(12))]
    markdown = write_report([write_run("r", rows, [UNIFORM, FREERET, BLIND], "baseline=freeret")])
    assert "Gained: correct here and wrong with freeret; lost: wrong here and correct with freeret." in markdown
    (line,) = lines_of(section(markdown, "Paired difference to freeret"))[2:]
    assert line[:2] == ["uniform", "16"] and line[2].startswith("-50.0 (") and line[3:5] == ["1", "7"]


def test_an_arm_may_name_its_own_baseline(write_run):
    rows = [*two_arms(), *(row("oracle", 16, i, is_correct=True, video=f"v{i // 2}") for i in range(12))]
    arms = [UNIFORM, FREERET, {"method": "oracle", "baseline": "freeret"}]
    markdown = write_report([write_run("r", rows, arms)])
    assert [(line[0], line[6].partition(" ")[0], line[7]) for line in lines_of(section(markdown, "Overview"))[2:]] == [
        ("uniform", "", ""),
        ("freeret", "+50.0", "uniform frames"),
        ("oracle", "+25.0", "freeret"),
    ]


def test_the_overview_has_a_line_for_each_condition(write_run):
    rows = [row("uniform", 16, 0, is_correct=True), row("uniform", 16, 1), row("blind", 0, 0)]
    markdown = write_report([write_run("r", rows, [UNIFORM, BLIND])])
    accuracy, evidence, tokens, of_answer, difference, to = fields_of(markdown, "Overview", "uniform", "16")
    assert (accuracy, difference, to) == ("50.0 (1 video; n 2)", "", "")
    assert evidence.endswith("n 2)") and (tokens, of_answer) == ("1,160", "180 (visual 160)")
    assert fields_of(markdown, "Overview", "blind", "none")[1] == "-"


def test_arms_are_measured_against_uniform_frames_that_are_packed_as_their_own(write_run):
    arms = [
        {"name": f"{method}, {packing}", "method": method, "settings": {"answer.packing": packing}}
        for packing in ("sampled", "aligned")
        for method in ("uniform", "topk")
    ]
    rows = [row(arm["name"], 16, i, is_correct=arm["name"][-7:] == "sampled") for arm in arms for i in range(2)]
    markdown = write_report([write_run("r", rows, arms)])
    fields = {name: fields_of(markdown, "Overview", name, "16") for name in ("topk, sampled", "topk, aligned")}
    assert {name: field[4:] for name, field in fields.items()} == {
        name: ["+0.0 (1 video)", "uniform frames"] for name in fields
    }
    markdown = write_report([write_run("s", rows, [*arms[:1], arms[3]])])
    assert fields_of(markdown, "Overview", "topk, aligned", "16")[4:] == ["", ""], "no uniform frames are packed so"


def test_many_baselines_are_named_in_the_overview_alone(write_run):
    arms = [{"name": name, "method": "topk", "baseline": base} for name, base in zip("abc", "bca", strict=True)]
    markdown = write_report([write_run("r", [row(name, 16, 0) for name in "abc"], arms)])
    assert [line[7] for line in lines_of(section(markdown, "Overview"))[2:]] == ["b", "c", "a"]
    assert "## Paired difference to the arm's baseline\n" in markdown


@pytest.mark.parametrize("rows", [[row("freeret", 16, 0)], [row("freeret", 16, 0), row("uniform", 32, 0)]])
def test_nothing_is_compared_without_a_uniform_arm_at_the_budget(write_run, rows):
    markdown = write_report([write_run("r", rows, [UNIFORM, FREERET], frames=(16, 32))])
    assert "Paired difference" not in markdown


@pytest.mark.slow
def test_one_video_gives_a_difference_without_an_interval(write_run, tmp_path):
    rows = [row("uniform", 16, 0), row("freeret", 16, 0, is_correct=True)]
    markdown = write_report([write_run("r", rows, [UNIFORM, FREERET])], html=tmp_path / "r.html")
    assert fields_of(markdown, "Paired difference to uniform frames", "freeret", "16")[0] == "+100.0 (1 video)"


def test_cost_is_the_mean_of_an_answered_question(write_run):
    built = {"reused": False, "seconds": 90.0, "counts": {"frames_decoded": 600, "pairs_encoded": 300}}
    built["counts"]["tokens_prefilled"] = 12345
    rows = [
        row("uniform", 16, 0, seconds={"decode": 1.0, "answer": 2.0}, index=built),
        row("uniform", 16, 1, seconds={"decode": 3.0, "answer": 2.0}, index=built | {"reused": True}),
        failed("uniform", 16, 2, "out of memory"),
        failed("freeret", 16, 2, "out of memory"),
    ]
    markdown = write_report([write_run("r", rows, [UNIFORM, FREERET])])
    assert fields_of(markdown, "Cost", "uniform", "16") == [
        *("32.0", "16.0", "1,160", "180 (visual 160)", "4.00", "2.00", "2.00")
    ]
    assert fields_of(markdown, "Cost", "freeret", "16") == ["-"] * 7
    assert fields_of(markdown, "Cost", "r") == ["1", "600", "300", "12,300", "90.0"]


def test_failures_are_listed_by_video_and_reason(write_run):
    rows = [failed(arm, 16, i, "its decoder died") for i in (0, 1) for arm in ("uniform", "freeret")]
    rows += [failed("uniform", 16, 2, "out of memory"), row("freeret", 16, 2)]
    failures = section(write_report([write_run("r", rows, [UNIFORM, FREERET])]), "Failures")
    assert "- v1, 2 questions, 4 answers: its decoder died\n" in failures
    assert "- v1, question v1-2, 1 answer: out of memory\n" in failures


def test_missing_answers_and_videos_are_reported(write_run):
    rows = [row("uniform", 16, 0)]
    markdown = write_report(
        [write_run("r", rows, [UNIFORM, FREERET], frames=(16, 32), questions=3, missing=["gone1", "gone2"])]
    )
    assert "r is not complete: 11 answers are still to come." in markdown
    assert "r left out 2 missing videos: gone1, gone2." in markdown


def test_an_empty_run_has_a_report(write_run, tmp_path):
    markdown = write_report([write_run("r", [], [UNIFORM])], html=tmp_path / "r.html", csv=tmp_path / "r.csv")
    assert "r has no answers yet." in markdown and "##" not in markdown
    assert "r has no answers yet." in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.csv").read_text() == "run,arm,budget,ability\n"


# --- methods and LaTeX -----------------------------------------------------------------------------------------------


def test_the_methods_name_every_setting(write_run):
    folder = write_run(
        "r", two_arms(), [UNIFORM, {"name": "short", "settings": {"video.clip_seconds": 8}}], model_revision="ab"
    )
    methods = section(write_report([folder]), "Methods")
    assert "Qwen/Qwen2.5-VL-7B-Instruct (ab) answered 12 questions about 6 videos of lvbench" in methods
    assert "chosen by uniform and short at 16 frames" in methods and "lvqa 0.1.0" in methods
    assert "- arm short: video.clip_seconds 8\n" in methods
    places = {"workers", "ray_address", "gpus_per_worker", "allow_missing", "arms"}
    for key in {
        key.rpartition(".")[2] for key in settings_of(load_run_config()) if not key.startswith("store.")
    } - places:
        assert key == "folder" or f"{key} " in methods, key


def test_names_with_commas_are_told_apart_in_sentences(write_run):
    arms = [UNIFORM, {"name": "topk, 5 clips", "method": "topk"}, {"name": "topk, all clips", "method": "topk"}]
    rows = [
        row(name, 16, i, is_correct=True) for i in range(12) for name in ("uniform", *(a["name"] for a in arms[1:]))
    ]
    report = write_report([write_run("r", rows, arms, missing=["a, b", "c"])])
    assert "chosen by uniform; topk, 5 clips; and topk, all clips at 16 frames" in section(report, "Methods")
    assert "left out 2 missing videos: a, b; c." in report


def test_the_methods_name_commit_and_devices(write_run):
    git = {"commit": "1a2b3c4d5e6f" + "0" * 28, "dirty": True}
    folder = write_run("r", two_arms(), [UNIFORM, FREERET], git=git, devices=["NVIDIA H200", "cpu"])
    methods = section(write_report([folder]), "Methods")
    assert "lvqa 0.1.0 (commit 1a2b3c4d5e6f, changed) on NVIDIA H200 and cpu." in methods


def test_latex_has_every_table_with_its_fields_and_no_character_that_it_would_read(write_run, tmp_path):
    arms = [UNIFORM, {"name": r"50% & a_b #1 $x {y} \\z ~^", "method": "freeret"}]
    rows = [
        row(arm.get("name", "uniform"), 16, i, is_correct=i % 2 == 0, video=f"v{i // 2}")
        for i in range(12)
        for arm in arms
    ]
    markdown = write_report([write_run("r", rows, arms)], latex=tmp_path / "r.tex")
    latex = (tmp_path / "r.tex").read_text()
    bodies = re.findall(r"\\toprule\n(.*?)\\bottomrule", latex, re.DOTALL)
    tables = [block for block in re.split(r"\n\n", markdown) if block.startswith("| ")]
    assert len(bodies) == len(tables) == latex.count(r"\begin{table}") == latex.count(r"\end{table}")
    for body, table in zip(bodies, tables, strict=True):
        lines = body.replace("\\midrule\n", "").strip().splitlines()
        assert len(lines) == len(table.splitlines()) - 1
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {table.splitlines()[1].count("|") - 2}
    assert r"50\% \& a\_b \#1 \$x \{y\} \textbackslash{}" in latex
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert r"\paragraph{Methods.}" in latex and r"\label{tab:accuracy}" in latex


@pytest.mark.slow
def test_every_plot_is_a_file_in_three_formats(write_run, tmp_path):
    write_report([write_run("r", two_arms(), [UNIFORM, FREERET])], figures=tmp_path / "figures")
    files = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    names = {name.partition(".")[0] for name in files}
    assert {"accuracy", "paired-difference-to-uniform-frames", "cost"} <= names and len(files) == 3 * len(names)
    signs = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}
    assert all(content.startswith(signs[name.partition(".")[2]]) for name, content in files.items())


# --- published figures -----------------------------------------------------------------------------------------------


def test_published_figures_stand_under_the_name_of_their_source(write_run):
    markdown = write_report([write_run("r", two_arms(), [UNIFORM, FREERET])])
    published = lines_of(section(markdown, "Published figures"))[2:]
    source, model = "FreeRet paper, Table 4 (arXiv 2509.24621)", "Qwen2.5-VL-7B"
    assert published == [
        [source, model, "uniform", "36.7", "39.0", "39.0"],
        [source, model, "freeret", "42.7", "44.2", "44.8"],
    ]
    assert "not run here" in section(markdown, "Published figures")


def test_they_are_not_compared_with_synthetic_videos_nor_with_another_benchmark(write_run):
    markdown = write_report([write_run("synthetic", two_arms(), [UNIFORM, FREERET], "benchmark.make={videos: 6}")])
    assert "synthetic videos in lvbench's layout" in markdown
    assert "cannot be compared with this report's synthetic videos" in section(markdown, "Published figures")
    assert "Hollow" not in markdown
    other = write_report([write_run("other", two_arms(), [UNIFORM, FREERET], "benchmark.name=mlvu")])
    assert "FreeRet" not in other and "LVBench" not in other


# --- several runs ----------------------------------------------------------------------------------------------------


def test_arms_of_one_name_are_told_apart_by_their_runs(write_run):
    first = write_run("first", [row("uniform", 16, 0, is_correct=True), row("freeret", 16, 0)], [UNIFORM, FREERET])
    second = write_run("second", [row("uniform", 16, 0), row("blind", 0, 0)], [UNIFORM, BLIND])
    markdown = write_report([first, second, first])
    names = [line[0] for line in lines_of(section(markdown, "Accuracy"))[2:]]
    assert names == ["first: uniform", "freeret", "second: uniform", "blind"]
    assert fields_of(markdown, "Paired difference to uniform frames", "freeret", "16")[0].startswith("-100.0")


def test_runs_of_one_name_are_told_apart_by_their_paths(write_run):
    folders = [write_run(f"{parent}/r", [row("uniform", 16, 0)], [UNIFORM]) for parent in ("a", "b")]
    names = [line[0] for line in lines_of(section(write_report(folders), "Accuracy"))[2:]]
    assert names == [f"{folder}: uniform" for folder in folders]


@pytest.mark.parametrize(("benchmark", "is_compared"), [("lvbench", True), ("mlvu", False)])
def test_a_run_without_uniform_frames_is_measured_against_another_of_its_benchmark(write_run, benchmark, is_compared):
    with_uniform = write_run("a", [row("uniform", 16, 0)], [UNIFORM])
    without = write_run("b", [row("freeret", 16, 0, is_correct=True)], [FREERET], f"benchmark.name={benchmark}")
    assert ("Paired difference" in write_report([with_uniform, without])) == is_compared


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["model.name=other/model"], "model Qwen/Qwen2.5-VL-7B-Instruct and other/model"),
        (["model.max_pixels=1000"], "model.max_pixels null and 1000"),
        (["answer.mode=text"], "answer.mode null and 'text'"),
        (["benchmark.name=mlvu"], "benchmark lvbench and mlvu"),
    ],
)
def test_runs_that_answer_in_another_way_are_not_compared_and_it_is_explained(write_run, changes, reason):
    first = write_run("a", [row("uniform", 16, 0)], [UNIFORM])
    second = write_run("b", [row("freeret", 16, 0, is_correct=True)], [FREERET], *changes)
    markdown = write_report([first, second])
    assert "Paired difference" not in markdown
    assert f"- a and b: {reason}\n" in section(markdown, "Not compared")


def test_another_revision_of_a_model_is_another_model(write_run):
    first = write_run("a", [row("uniform", 16, 0)], [UNIFORM], model_revision="1" * 40)
    second = write_run("b", [row("freeret", 16, 0)], [FREERET], model_revision="2" * 40)
    assert "Paired difference" not in (markdown := write_report([first, second]))
    assert f"({'1' * 40}) and" in section(markdown, "Not compared")


def test_questions_that_were_changed_are_not_compared(write_run):
    first = write_run("a", [row("uniform", 16, 0), row("uniform", 16, 1)], [UNIFORM])
    second = write_run("b", [row("freeret", 16, 0, target="B"), row("freeret", 16, 1)], [FREERET])
    markdown = write_report([first, second])
    assert "- a and b: 1 question with other words, options or another target\n" in section(markdown, "Not compared")
    assert "Paired difference" not in markdown


@pytest.mark.parametrize(
    ("model", "is_drawn"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("models/Qwen2.5-VL-7B/", True),
        ("tiny", False),
        ("Qwen/Qwen2.5-VL-72B-Instruct", False),
        ("Qwen/Qwen2.5-VL-7B-Instruct-AWQ", False),
        ("me/Qwen2.5-VL-7B-finetuned", False),
    ],
)
def test_published_figures_share_axes_with_their_own_model_only(write_run, model, is_drawn):
    markdown = write_report([write_run("r", two_arms(), [UNIFORM, FREERET], f"model.name={model}")])
    assert ("Hollow markers" in markdown) == is_drawn
    assert "FreeRet paper" in section(markdown, "Published figures")


def test_published_figures_share_no_axes_with_another_benchmark(write_run):
    model = "model.name=Qwen/Qwen2.5-VL-7B-Instruct"
    folders = [
        write_run(name, two_arms(), [UNIFORM, FREERET], model, f"benchmark.name={name}") for name in ("lvbench", "mlvu")
    ]
    assert "Hollow markers" in write_report(folders[:1]) and "Hollow markers" not in write_report(folders)


# --- files -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    @property
    def plots(self) -> list[str]:
        return [
            base64.b64decode(attrs["src"].removeprefix("data:image/svg+xml;base64,")).decode()
            for tag, attrs in self.tags
            if tag == "img"
        ]


def many_rows(arms: list[str], budgets: tuple[int, ...]) -> list[dict]:
    clips = [[96.0, 112.0, 0.9]]
    return [
        row(arm, budget, i, is_correct=i % 3 > 0, video=f"v{i % 2}", embedded=clips, reranked=clips)
        for arm in arms
        for budget in ((0,) if arm == "blind" else budgets)
        for i in range(4)
    ]


@pytest.mark.parametrize("budgets", [(16,), (8, 16, 32, 64)], ids=["1 budget", "4 budgets"])
@pytest.mark.parametrize("more", [0, 6, 9], ids=["2 arms", "8 arms", "11 arms"])
@pytest.mark.slow
def test_the_page_holds_the_tables_and_five_plots_and_needs_no_other_file(write_run, tmp_path, budgets, more):
    more_arms = [{"name": f"arm {i}", "method": "topk"} for i in range(more)]
    rows = many_rows(["uniform", "freeret", *(arm["name"] for arm in more_arms)], budgets)
    path = tmp_path / "new" / "r.html"
    markdown = write_report([write_run("r", rows, [UNIFORM, FREERET, *more_arms], frames=budgets)], html=path)
    page = Page(path)
    assert len(page.plots) == 5 and all("<svg" in plot for plot in page.plots)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe"} == set()
    assert [
        attrs for _, attrs in page.tags if "href" in attrs or not attrs.get("src", "data:").startswith("data:")
    ] == []
    html = path.read_text(encoding="utf-8")
    assert "http" not in html and "url(" not in html and "@import" not in html
    for line in lines_of(markdown)[2:]:
        assert line[0].startswith("--") or line[0] in page.text
    assert [file.name for file in path.parent.iterdir()] == ["r.html"]


def test_many_arms_are_told_apart(write_run):
    arms = [{"method": "topk", "name": f"arm {i}"} for i in range(30)]
    rows = [row(arm["name"], budget, 0) for arm in arms for budget in (16, 64)]
    folder = write_run("r", rows, [UNIFORM, *arms], frames=(16, 64))
    styles = styles_of(conditions_of(read_runs([folder])))
    assert len({(style.colour, style.marker) for style in styles.values()}) == 30


@pytest.mark.slow
def test_a_run_without_frames_has_a_page(write_run, tmp_path):
    write_report([write_run("r", many_rows(["blind"], ()), [BLIND])], html=tmp_path / "r.html")
    assert "no frames" in Page(tmp_path / "r.html").text


@pytest.mark.slow
def test_the_same_rows_give_the_same_page(write_run, tmp_path):
    folder = write_run("r", two_arms(), [UNIFORM, FREERET])
    for name in ("1.html", "2.html"):
        write_report([folder], html=tmp_path / name)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


@pytest.mark.slow
def test_hostile_texts_are_escaped(write_run, tmp_path):
    arm = "<script>alert(1)</script> | $\\frac{x}$ 映画 \x07--"
    rows = [
        row("uniform", 16, 0),
        row(arm, 16, 0, tags=["<b>bold</b> $a_$\n| x \ud800 |"]),
        failed(arm, 16, 1, "line 1\nline 2 \x1b[31m<img src=x>\x00", video="\ud800"),
    ]
    folder = write_run("<i>r</i>".replace("/", "|"), rows, [UNIFORM, {"name": arm, "method": "topk"}])
    markdown = write_report([folder], html=tmp_path / "r.html", csv=tmp_path / "r.csv")
    page = Page(tmp_path / "r.html")
    assert "<script>alert(1)</script> | $\\frac{x}$ 映画 --" in page.text
    assert "line 1 line 2 [31m<img src=x>" in page.text
    assert {tag for tag, _ in page.tags} & {"script", "b", "i"} == set()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", markdown)
    # In Markdown a name can neither end its field nor begin a tag.
    assert "\\<script>alert(1)\\</script> \\| $" in markdown
    assert len({line.count(" | ") for line in section(markdown, "Accuracy").splitlines() if line.startswith("|")}) == 1
    for plot in page.plots:
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", plot)


def test_the_csv_has_a_line_for_each_condition_and_ability(write_run, tmp_path):
    rows = two_arms() + [row("blind", 0, i, is_correct=True, tags=[]) for i in range(2)]
    write_report([write_run("r", rows, [UNIFORM, FREERET, BLIND])], csv=tmp_path / "r.csv")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert [(line["arm"], line["budget"], line["ability"]) for line in lines] == [
        ("uniform", "16", "all"),
        ("uniform", "16", "reasoning"),
        ("freeret", "16", "all"),
        ("freeret", "16", "reasoning"),
        ("blind", "0", "all"),
    ]
    uniform, _, freeret, same, blind = lines
    assert float(uniform["accuracy"]) == 0.25 and float(freeret["accuracy"]) == 0.75
    assert (freeret["difference"], freeret["gained"], freeret["lost"], freeret["pairs"]) == ("0.5", "7", "1", "12")
    official = {key: value for key, value in freeret.items() if key.startswith("official_")}
    assert official == {
        "official_Rea": "0.75",
        "official_Rea_n": "12",
        "official_overall": "0.75",
        "official_overall_n": "12",
    }
    assert same | {"ability": "all"} | official == freeret  # every question is of this ability
    assert uniform["difference"] == blind["difference"] == blind["recall_selection"] == ""
    assert (freeret["answer_tokens"], freeret["answer_visual_tokens"]) == ("180.0", "160.0")
    assert float(freeret["recall_selection"]) == 0.75
    assert (float(freeret["seconds_answer"]), float(freeret["tokens_prefilled"])) == (1.0, 1160.0)


@pytest.mark.parametrize(
    ("benchmark", "names"), [("mlvu", {"M-Avg", "reasoning"}), ("nextqa", {"Acc@All"}), ("own", set())]
)
def test_the_csv_has_the_figures_of_each_benchmark_under_their_names(write_run, tmp_path, benchmark, names):
    write_report(
        [write_run("r", two_arms(), [UNIFORM, FREERET], f"benchmark.name={benchmark}")], csv=tmp_path / "r.csv"
    )
    head = (tmp_path / "r.csv").read_text().splitlines()[0].split(",")
    official = {name.removeprefix("official_") for name in head if name.startswith("official_")}
    assert {name for name in official if not name.endswith("_n")} == names


def test_a_folder_that_is_no_run_folder_is_named_in_one_line_and_nothing_is_written(write_run, tmp_path):
    good = write_run("good", two_arms(), [UNIFORM, FREERET])
    (tmp_path / "empty").mkdir()
    for bad in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(LvqaError, match=f"{bad.name} is not a run folder") as raised:
            write_report([good, bad], html=tmp_path / "r.html", csv=tmp_path / "r.csv")
        assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "good"]


def test_no_run_folder_is_refused():
    with pytest.raises(LvqaError, match="one run folder or more"):
        write_report([])


def test_a_page_that_cannot_be_written_is_named(write_run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(LvqaError, match=r"cannot write .*r\.html"):
        write_report([write_run("r", [], [UNIFORM])], html=tmp_path / "taken" / "r.html")


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_markdown_tables_are_aligned():
    table = Table(("arm", "n"), ((Entry("a | b"), Entry("1")), (Entry("c"), Entry("20.5", "1-2"))), "Caption")
    assert to_markdown(table).splitlines() == [
        "Caption",
        "",
        "| arm    |          n |",
        "| ------ | ---------: |",
        "| a \\| b |          1 |",
        "| c      | 20.5 (1-2) |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,300"), (999.6, "1,000"), (160, "160"), (3.14159, "3.14"), (0.012345, "0.012"), (0, "0")],
)
def test_amounts_have_three_digits(value, text):
    assert amount(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.012"), (1.0, "1"), (0.00009, "<0.0001"), (1e-4, "0.0001")])
def test_p_values(value, text):
    assert p_text(value) == text
