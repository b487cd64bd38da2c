"""A script that calls lvqa with workers: with a main guard, and without."""

import subprocess
import sys

import pytest

SCRIPT = """
from tqdm import tqdm
from lvqa.workers import Pool

print("imported")

def make():
    return lambda item: sum(tqdm([item, item]))

def main():
    with Pool(make, workers=0) as pool:
        print([outcome.value for outcome in pool.run([1, 2])])

{call}
"""


def run_script(tmp_path, call: str) -> subprocess.CompletedProcess:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(call=call))
    return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_what_it_lacks(tmp_path):
    result = run_script(tmp_path, "main()")
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1, "that of the script itself"
    *_, line = result.stderr.splitlines()
    assert line.startswith("lvqa.records.LvqaError: ") and 'if __name__ == "__main__":' in line
    assert str(tmp_path / "script.py") in line


@pytest.mark.slow
def test_a_script_with_a_main_guard_leaves_no_semaphore_behind(tmp_path):
    result = run_script(tmp_path, 'if __name__ == "__main__":\n    main()')
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[2, 4]"
    assert "resource_tracker" not in result.stderr and "Traceback" not in result.stderr
