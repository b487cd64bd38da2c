"""Check Qwen2.5-VL-3B's or 7B's real widths in the hub's layout, with random weights and two layers each.

    python scripts/check_real_widths.py 3b

A cache of the hub is made in a temporary folder (3b: 1.2 GB, 7b: 4 GB), the checkpoint is loaded from it by its hub id
without a network, and `lvqa doctor --model` prints what it finds: it compares lvqa with the library's class. Random
weights lack what FreeRet finds in trained ones, so its probes are warnings.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import hub_bench

TOWER = (1280, 3420, 16)
MODELS = {
    "3b": ("Qwen/Qwen2.5-VL-3B-Instruct", (2048, 11008, 16, 2), {"vocabulary": 151936, "tied": True}),
    "7b": ("Qwen/Qwen2.5-VL-7B-Instruct", (3584, 18944, 28, 4), {"vocabulary": 152064, "tied": False}),
}


def main() -> None:
    """Make the cache, and have the doctor look at the model in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=MODELS)
    name, widths, options = MODELS[parser.parse_args().size]
    with tempfile.TemporaryDirectory() as temporary:
        hub = Path(temporary) / "hub"
        hub_bench.write_checkpoint(hub, name, hub_bench.qwen2_5_vl(*widths, tower=TOWER, **options))
        command = [
            sys.executable,
            "-m",
            "lvqa.cli",
            "doctor",
            "--model",
            name,
            "--store",
            str(Path(temporary) / "store"),
        ]
        environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
