"""What a stranger gets: the metadata, the licence, the changelog, the workflow, and one line on Windows."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import lvqa
from lvqa.cli.main import lvqa_command
from lvqa.platforms import require_unix

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_licence_is_apache_2_in_full():
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    text = read("LICENSE")
    assert "Apache License\n" in text and "Version 2.0, January 2004" in text
    sections = [int(number) for number in re.findall(r"^   (\d)\. ", text, flags=re.MULTILINE)]
    assert sections == [1, 2, 3, 4, 5, 6, 7, 8, 9] and "END OF TERMS AND CONDITIONS" in text


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert f'__version__ = "{lvqa.__version__}"' in read(PYPROJECT["tool"]["hatch"]["version"]["path"])
    places = [path.relative_to(ROOT) for path in (ROOT / "lvqa").rglob("*.py") if lvqa.__version__ in path.read_text()]
    assert places == [Path("lvqa/__init__.py")]


def test_the_metadata_name_authors_addresses_and_supported_pythons():
    assert PROJECT["authors"] == [{"name": "The lvqa authors"}]
    assert PROJECT["keywords"]
    assert {"Homepage", "Source", "Issues", "Changelog"} <= PROJECT["urls"].keys()
    pythons = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert pythons == {"3.11", "3.12", "3.13"} and PROJECT["requires-python"] == ">=3.11"
    assert not [line for line in PROJECT["classifiers"] if line.startswith("License")]  # `license` is in its place


def test_the_entry_points_lead_somewhere():
    entry_points = {**PROJECT["scripts"]}
    for group in PROJECT["entry-points"].values():
        entry_points |= group
    assert entry_points
    for target in entry_points.values():
        module, _, name = target.partition(":")
        spec = importlib.util.find_spec(module)  # lmms-eval, which one of them imports, may be missing
        assert spec is not None and spec.origin is not None, target
        assert re.search(rf"^(def {name}\(|{name} = )", Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_citation_names_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == lvqa.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[(.+)\] - (\S+)$", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert versions[0][0] == lvqa.__version__
    assert all(date == "unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in versions)


def test_the_changelog_has_all_names_that_are_refused():
    from lvqa.cli.main import RENAMED_COMMANDS
    from lvqa.evaluation.rows import OLD_KEYS
    from lvqa.old_settings import RENAMED_SETTINGS

    changelog = read("CHANGELOG.md")
    for old, new in (RENAMED_SETTINGS | OLD_KEYS).items():
        assert f"| `{old}` | `{new}` |" in changelog
    for old, new in RENAMED_COMMANDS.items():
        assert re.search(rf"\| `lvqa {old}\b.*\| `lvqa {new}\b", changelog)


TARGETS = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), flags=re.MULTILINE))
WORKFLOW = yaml.safe_load(read(".github/workflows/ci.yml"))


def test_the_workflow_calls_the_makefile_on_all_supported_pythons():
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert all(command.startswith("make ") for command in commands)
    matrix = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    from_matrix = {*matrix["target"], *(entry["target"] for entry in matrix["include"])}
    called = {command.removeprefix("make ") for command in commands} - {"${{ matrix.target }}"} | from_matrix
    assert called <= TARGETS and {"docs", "lint", "lint-docker", "test", "wheel"} <= called


@pytest.mark.parametrize("name", [".ci/run", ".pre-commit-config.yaml", "CONTRIBUTING.md"])
def test_every_named_make_target_exists(name):
    called = set(re.findall(r"(?:^ *|: |\(|`)make ([a-z-]+)", read(name), flags=re.MULTILINE))
    assert called and called <= TARGETS


def test_the_tests_are_the_last_that_ci_runs():
    assert read(".ci/run").splitlines()[-1] == "make test"


def test_contributing_names_files_that_exist():
    names = re.findall(r"`((?:lvqa|tests|configs)/[\w/.]+)`", read("CONTRIBUTING.md"))
    assert names and [name for name in names if not (ROOT / name).exists()] == []


def test_the_image_is_made_of_files_that_exist_and_are_not_ignored():
    lines = re.findall(r"^COPY (.+) \S+$", read("Dockerfile"), flags=re.MULTILINE)
    sources = {source for line in lines for source in line.split()}
    sent = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert sources == sent and all((ROOT / source).exists() for source in sources)
    assert {*PROJECT["license-files"], PROJECT["readme"], "pyproject.toml"} <= sources


@pytest.mark.parametrize("name", [".ci/run", "scripts/check_wheel.sh", "scripts/test_bounds.sh"])
def test_shell_scripts_can_be_run(name):
    assert (ROOT / name).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / name], check=True)


WINDOWS_MESSAGE = "lvqa runs on Linux and macOS, not on Windows; on Windows, install it in WSL 2"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_unix_is_supported(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    require_unix()


def test_a_command_says_in_one_line_that_windows_is_not_supported(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    result = CliRunner().invoke(lvqa_command, ["doctor"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"lvqa: {WINDOWS_MESSAGE}\n"


def test_help_is_there_on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert CliRunner().invoke(lvqa_command, ["--help"]).exit_code == 0


def test_the_pipeline_says_in_one_line_that_windows_is_not_supported(monkeypatch):
    spec = importlib.util.find_spec("lvqa.pipeline")
    importlib.import_module("lvqa.pipeline")  # what it imports is imported on this system
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(lvqa.LvqaError) as raised:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert str(raised.value) == WINDOWS_MESSAGE
