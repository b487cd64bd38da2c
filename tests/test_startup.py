"""What a process of lvqa imports as it starts, and what importing lvqa sets for the libraries that it loads later."""

import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch
import worker_tasks
from control_groups import write_group
from processes import LVQA_AND_MODULES, PATIENCE_SECONDS, needs_proc

from lvqa.models import devices
from lvqa.startup import num_cores, num_threads

SETTINGS = {"MKL_CBWR": "AUTO,STRICT", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("own", [None, "user's own"])
def test_a_setting_of_the_libraries_is_made_where_the_user_has_none(name, own):
    environment = {key: value for key, value in os.environ.items() if key != name}
    if own is not None:
        environment[name] = own
    script = f"import os, lvqa; print(os.environ[{name!r}])"
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == (own or SETTINGS[name])


PRODUCTS = """
import hashlib
import lvqa, numpy as np
rows = np.random.default_rng(0).standard_normal((225, 3584), np.float32)
print(hashlib.sha256((rows @ rows.T).tobytes() + (rows @ rows[0]).tobytes()).hexdigest())
"""


def test_numpy_multiplies_alike_in_a_worker_with_fewer_threads():
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    command, options = [sys.executable, "-c", PRODUCTS], {"capture_output": True, "text": True, "check": True}
    outputs = [subprocess.run(command, env={**environment, "OMP_NUM_THREADS": n}, **options).stdout for n in "12"]
    assert outputs[0] == outputs[1]


# --- cores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {}, 16),
        ("0::/", {"cpu.max": "max 100000\n"}, 16),
        ("0::/", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/of/the/host", {"cpu.max": "200000 100000"}, 2),
        ("1:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "0"}, 16),
        ("nonsense", {"cpu.max": "200000 100000"}, 16),
    ],
)
def test_a_container_has_the_cores_of_its_quota(tmp_path, monkeypatch, membership, files, cores):
    write_group(tmp_path, monkeypatch, membership, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)}, raising=False)
    assert num_cores() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert num_cores() == 1


@pytest.mark.parametrize(
    ("cores", "quota", "own", "threads"),
    [
        *((1, "max", None, 1), (2, "max", None, 2), (16, "max", None, 16)),
        *((1, "200000", None, 1), (2, "50000", None, 1), (16, "150000", None, 2), (16, "400000", None, 4)),
        *((16, "400000", "3", 3), (2, "max", "16", 16), (2, "max", "2,1", 2), (2, "max", "0", 1)),
    ],
)
def test_work_has_as_many_threads_as_cores_or_as_the_user_says(tmp_path, monkeypatch, cores, quota, own, threads):
    write_group(tmp_path, monkeypatch, "0::/", {"cpu.max": f"{quota} 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(cores)}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    assert num_threads() == threads
    if own is None:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(64)  # what a machine of 64 cores has
            devices.keep_to_cores()
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize(("own", "cores", "threads"), [(None, 1, 1), (None, 8, 3), ("2", 1, 3)])
def test_torch_keeps_to_the_cores_unless_the_user_says_otherwise(monkeypatch, own, cores, threads):
    before = torch.get_num_threads()
    monkeypatch.setattr(devices, "num_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    try:
        torch.set_num_threads(3)
        devices.keep_to_cores()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# --- what a question imports -----------------------------------------------------------------------------------------

UNUSED = [*("IPython", "aiohttp", "cv2", "decord", "fastapi", "matplotlib", "pandas", "ray", "sklearn")]
UNUSED += ["accelerate", "scipy.optimize", "sympy", "torch._dynamo", "torch._inductor", "torch.distributed.fsdp"]
UNUSED += ["torch.distributed.tensor", "torchao", "torchvision", "uvicorn"]
"""Libraries that are large, and that a question about an indexed video does not need."""


@pytest.mark.slow
def test_a_question_loads_no_library_that_it_does_not_use(make, store, video):
    make().index(video)
    words = ["ask", str(video), "What is seen?", "--model", "tiny", "--store", str(store), "--quiet"]
    result = subprocess.run(
        [sys.executable, "-c", LVQA_AND_MODULES, *words], capture_output=True, text=True, check=True
    )
    modules = {*result.stderr.splitlines()[-1].split()}
    assert result.stdout and {"torch", "transformers"} <= modules
    assert modules.isdisjoint(UNUSED), modules.intersection(UNUSED)


@pytest.mark.slow
def test_processes_of_tests_are_forked_with_the_libraries(tmp_path):
    """multiprocessing says nothing where what it should import first can't be imported; all would be slower."""
    process = forked.start(worker_tasks.write_modules, tmp_path / "modules")
    process.join(PATIENCE_SECONDS)
    modules = (tmp_path / "modules").read_text().split()
    assert {"lvqa.evaluation.retrieval.run", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"} <= {*modules}


# --- weights ---------------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize(("dtype", "is_mapped"), [("bfloat16", True), ("float32", False)])
def test_weights_in_the_precision_of_the_checkpoint_are_mapped(dtype, is_mapped):
    """They are pages of the file, which processes share; in another precision they are converted, which copies them."""
    from transformers import AutoModelForImageTextToText

    from lvqa.models.loading import load_pretrained

    options = {"model_type": "qwen2_5_vl", "library_class": AutoModelForImageTextToText, "device": "cpu"}
    model = load_pretrained("tiny", dtype=dtype, **options).model
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".safetensors")]
    ranges = [[int(address, 16) for address in line[0].split("-")] for line in lines]
    weights = list(model.parameters())
    mapped = [any(start <= weight.data_ptr() < end for start, end in ranges) for weight in weights]
    assert len(weights) > 100 and mapped == [is_mapped] * len(weights)
