"""The documentation: generated pages are current, links lead somewhere, commands exist, marked blocks are run."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

import check_docs
from lvqa.cli.main import lvqa_command

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


# --- generated pages ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_generated_pages_are_current():
    assert generate.stale_pages() == [], "run python docs/generate.py"


@pytest.mark.slow
def test_a_page_that_is_not_current_is_named(tmp_path):
    for name in generate.PAGES:
        (tmp_path / name).write_text(generate.PAGES[name](), encoding="utf-8")
    (tmp_path / "settings.md").write_text("old", encoding="utf-8")
    (tmp_path / "methods.md").unlink()
    assert generate.stale_pages(tmp_path) == ["settings.md", "methods.md"]


def test_every_setting_has_a_row_with_a_meaning():
    from lvqa.config import Config, to_dict
    from lvqa.settings_tree import flat

    tables = generate.settings_page().partition("## Names")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .* \| (.*) \|$", tables, re.MULTILINE))
    tree = flat(to_dict(Config()))
    options = {"rerank.options", "selection.options"}  # empty mappings, which `flat` passes over
    assert {*tree, *options} <= {*rows}
    assert [key for key, meaning in rows.items() if not meaning.strip()] == []


@pytest.mark.slow
def test_every_method_has_a_section():
    from lvqa.rerank import RERANKERS
    from lvqa.selection import SELECTORS

    page = generate.methods_page()
    assert [name for name in [*SELECTORS, *RERANKERS] if f"\n### {name}\n" not in page] == []


@pytest.mark.slow
def test_the_drawing_has_every_module_once():
    drawing = generate.architecture_svg()
    modules = re.findall(r">([a-z_]+)</text>", drawing)
    assert sorted(modules) == sorted(generate.module_graph())
    assert "pipeline" in modules


@pytest.mark.slow
def test_the_file_map_has_every_module():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^lvqa/(\w+)(?:\.py|/) ", text, re.MULTILINE)
    assert sorted(listed) == sorted(generate.module_graph())


def test_the_drawing_stands_above_what_it_imports():
    layers = generate.layers_of({"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": set()})
    assert layers == [["c", "d"], ["b"], ["a"]]
    assert generate.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


# --- what pages say -------------------------------------------------------------------------------------------------


def fences(path):
    """Yield (line, language, text) of every block of code on a page."""
    fence = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    text = path.read_text(encoding="utf-8")
    for match in fence.finditer(text):
        yield text[: match.start()].count("\n") + 1, match[1], match[2]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in files if link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_of_lvqa_exists_with_its_options(path):
    unknown = []
    for line, language, text in fences(path):
        if language == "python":
            continue
        for command in re.findall(r"^\s*\$?\s*(?:\S*/)?lvqa ([^\n]*)", text.replace("\\\n", " "), re.MULTILINE):
            words = shlex.split(re.split(r"\s#|[|>&]", command)[0])
            unknown += [f"{name_of(path)}:{line}: {fault}" for fault in unknown_words(words)]
    assert unknown == []


def test_every_measurement_names_the_type_of_the_weights():
    """Its default is the processor's fastest, so a figure could not be had again from the command that stands by it."""
    text = (DOCS / "performance.md").read_text(encoding="utf-8").replace("\n", " ")
    commands = re.findall(r"lvqa bench (?:video|--)[^`;#]*", text)
    assert len(commands) >= 5 and [command for command in commands if "--dtype " not in command] == []


def unknown_words(words):
    """Return what of a command line lvqa does not know."""
    if words[0].startswith("-"):
        return []
    command = lvqa_command.get_command(click.Context(lvqa_command), words[0])
    if command is None:
        return [f"no command {words[0]}"]
    if isinstance(command, click.Group):
        subcommand = command.commands.get(words[1]) if len(words) > 1 else None
        if subcommand is None:
            return [f"lvqa {words[0]} has no command {' '.join(words[1:2])}"]
        command, words = subcommand, [" ".join(words[:2]), *words[2:]]
    if isinstance(command, click.Group):
        subcommand = command.commands.get(words[1]) if len(words) > 1 else None
        if subcommand is None:
            return [f"lvqa {words[0]} has no command {' '.join(words[1:2])}"]
        command, words = subcommand, [" ".join(words[:2]), *words[2:]]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"-h", "--help"}
    used = [word.partition("=")[0] for word in words[1:] if re.match(r"-{1,2}[a-z]", word)]
    return [f"lvqa {words[0]} has no {option}" for option in used if option not in options]


def test_an_unknown_option_is_noticed():
    assert unknown_words(["ask", "v.mp4", "Who?", "--frames", "16", "-s", "seed=1"]) == []
    assert unknown_words(["ask", "--films", "3"]) == ["lvqa ask has no --films"]
    assert unknown_words(["tell"]) == ["no command tell"]
    assert unknown_words(["library", "prune", "--dry-run"]) == []
    assert unknown_words(["library", "list", "--dry-run"]) == ["lvqa library list has no --dry-run"]
    assert unknown_words(["library", "burn"]) == ["lvqa library has no command burn"]
    assert unknown_words(["library", "prune", "--dry-run"]) == []
    assert unknown_words(["library", "list", "--dry-run"]) == ["lvqa library list has no --dry-run"]
    assert unknown_words(["library", "burn"]) == ["lvqa library has no command burn"]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_python_block_is_python(path):
    for _, language, text in fences(path):
        if language == "python":
            ast.parse(text)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_that_is_marked_can_be_read(path):
    check_docs.read_blocks(path)


def test_pages_have_blocks_that_are_run():
    blocks = [block for path in PAGES for block in check_docs.read_blocks(path)]
    assert len([block for block in blocks if block.file is None]) >= 8


def test_the_questions_of_a_stranger_are_headings():
    headings = {line.lstrip("# ") for path in PAGES for line in path.read_text().splitlines() if line.startswith("#")}
    assert {
        "Which GPU do I need?",
        "What do 16, 32 and 64 mean?",
        "How do I use my own videos and questions?",
        "How do I add a selector?",
        "Why is uniform here not my uniform?",
    } <= headings


# --- scripts/check_docs.py ------------------------------------------------------------------------------------------


def page(tmp_path, text):
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_marked_blocks_run_in_order_in_one_folder(tmp_path):
    path = page(
        tmp_path,
        "# Title\n\n<!-- file: own.py -->\n```python\nX = 3\n```\n\n```console\nexit 9\n```\n\n"
        "<!-- run -->\n```console\necho one > out.txt   # a comment\ntest -d configs\n```\n\n"
        "<!-- run -->\n```python\nimport own\nassert own.X == 3\nassert open('out.txt').read() == 'one\\n'\n```\n",
    )
    blocks = check_docs.read_blocks(path)
    assert [(block.line, block.language, block.file) for block in blocks] == [
        (4, "python", "own.py"),
        (13, "console", None),
        (19, "python", None),
    ]
    assert check_docs.run_page(path) is None


@pytest.mark.parametrize(
    ("block", "code", "output"),
    [
        ("```console\necho before\nfalse\necho after\n```", 1, "before"),
        ("```sh\nexit 4\n```", 4, ""),
        ("```bash\nfalse | true\n```", 1, ""),
        ("```python\nprint('seen')\nraise SystemExit(7)\n```", 7, "seen"),
        ("```python\n1 / 0\n```", 1, "ZeroDivisionError"),
    ],
)
def test_a_block_that_fails_is_reported_with_page_and_line(tmp_path, block, code, output, capsys):
    path = page(
        tmp_path, f"# Title\n\nText.\n\n<!-- run -->\n{block}\n\n<!-- run -->\n```sh\ntouch {tmp_path}/ran\n```\n"
    )
    assert check_docs.main([str(path)]) == 1
    message = capsys.readouterr().out
    assert f"page.md:6: the block ended with code {code}\n" in message
    assert output in message and "after" not in message.partition("output:")[2]
    assert not (tmp_path / "ran").exists()


def test_pages_run_beside_each_other_and_after_one_that_fails_none_is_begun(tmp_path, capsys):
    def waiting(name: str, other: str) -> str:
        wait = f"for i in $(seq 500); do test -e {tmp_path}/{other} && exit 0; sleep 0.02; done; exit 8"
        return f"<!-- run -->\n```sh\ntouch {tmp_path}/{name}\n{wait}\n```\n"

    texts = {"a": waiting("one", "two"), "b": waiting("two", "one")}
    texts |= {"c": "<!-- run -->\n```sh\nexit 3\n```\n", "d": f"<!-- run -->\n```sh\ntouch {tmp_path}/ran\n```\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.md").write_text(text)
    paths = [tmp_path / f"{name}.md" for name in texts]
    assert check_docs.main([*map(str, paths[:2]), "--jobs", "2"]) == 0
    assert check_docs.main([*map(str, paths[2:]), "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "ok      a.md:2 (" in out and "ok      b.md:2 (" in out
    assert "FAILED  c.md:2: the block ended with code 3\n" in out and not (tmp_path / "ran").exists()


def test_a_block_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(check_docs, "TIMEOUT_SECONDS", 0.2)
    assert "page.md:2: the block ran longer than 0.2 s" in check_docs.run_page(
        page(tmp_path, "<!-- run -->\n```python\nimport time\ntime.sleep(30)\n```\n")
    )


def test_blocks_see_a_store_of_their_own_and_no_hub(tmp_path):
    script = (
        "import os\nassert os.environ['LVQA_HOME'].startswith(os.getcwd())\nassert os.environ['HF_HUB_OFFLINE'] == '1'"
    )
    assert check_docs.run_page(page(tmp_path, f"<!-- run -->\n```python\n{script}\n```\n")) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Text\n<!-- run -->\n\n```sh\ntrue\n```\n", "page.md:2: no block of code stands below the marker"),
        (
            "<!-- run -->\n```yaml\na: 1\n```\n",
            "page.md:2: a block that is run is console, bash, sh, python, not 'yaml'",
        ),
        ("<!-- run -->", "page.md:1: no block of code stands below the marker"),
    ],
)
def test_a_marker_before_nothing_that_runs_is_refused(tmp_path, text, fault, capsys):
    assert check_docs.main([str(page(tmp_path, text))]) == 1
    assert capsys.readouterr().out == f"FAILED  {fault}\n"


def test_markers_inside_a_block_are_text(tmp_path):
    path = page(tmp_path, "````markdown\n<!-- run -->\n```sh\nfalse\n```\n````\n")
    assert check_docs.read_blocks(path) == []


def test_blocks_are_listed(tmp_path, capsys):
    path = page(tmp_path, "<!-- file: a.py -->\n```python\n1\n```\n<!-- run -->\n```sh\nfalse\n```\n")
    assert check_docs.main([str(path), "--list"]) == 0
    assert capsys.readouterr().out == "page.md:2: written to a.py\npage.md:6: sh\n"


def test_dead_links_of_a_site_are_named(tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="sub/other.html#here">1</a><a href="sub/">2</a><a href="https://x.org/none">3</a>\n'
        '<a href="#top" id="top">4</a><img src="a%20b.png">\n'
        '<a href="gone.html">5</a>\n<a href="sub/other.html#no">6</a>'
    )
    (tmp_path / "sub" / "other.html").write_text('<h1 id="here">x</h1>')
    (tmp_path / "sub" / "index.html").write_text('<a href="../index.html">x</a>')
    (tmp_path / "a b.png").write_bytes(b"")
    assert check_docs.main(["--site", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "index.html:3: gone.html leads nowhere",
        "index.html:4: sub/other.html#no leads nowhere",
    ]
    (tmp_path / "index.html").write_text("fine")
    assert check_docs.main(["--site", str(tmp_path)]) == 0
