"""Measure what indexing and answering cost against the length of a video: `python scripts/measure_length.py`.

For each synthetic video, a fresh process indexes it with the embedded model and answers one question. The peak is that
of the process's resident memory. The script plots seconds and peak over minutes into --plot.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lvqa.synthetic.videos import make_videos

CHILD = "--index-this-file"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/measure_length"), help="the folder of the videos")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 20, 60, 120, 240])
    parser.add_argument("--plot", type=Path, default=Path("runs/measure_length/length.png"))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    costs = []
    for minutes in arguments.minutes:
        (path,) = make_videos(arguments.folder, num_videos=1, minutes=minutes, num_questions=1, seed=arguments.seed)
        cost = measure_in_child(path)
        costs.append(cost)
        print(
            f"{minutes:g} minutes: indexed in {cost['index']:.1f} s, answered in {cost['answer']:.2f} s, "
            f"peak {cost['peak']:.0f} MB ({cost['loaded']:.0f} MB with the model loaded), "
            f"{cost['clips']:.0f} clips",
            flush=True,
        )
    length_ratio = arguments.minutes[-1] / arguments.minutes[0]
    ratios = {key: costs[-1][key] / costs[0][key] for key in ("index", "answer", "peak")}
    print(
        f"{length_ratio:g} times the length: " + ", ".join(f"{key} {ratio:.2f} times" for key, ratio in ratios.items())
    )
    plot(arguments.minutes, costs, arguments.plot)


def plot(minutes: Sequence[float], costs: Sequence[dict[str, float]], path: Path) -> None:
    """Plot seconds and peak memory in two panels."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for key, label in (("index", "index"), ("answer", "one question, indexed")):
        time_axes.plot(minutes, [cost[key] for cost in costs], marker="o", label=label)
    time_axes.set(xlabel="minutes of video", ylabel="seconds", title="Time", ylim=(0, None), xlim=(0, None))
    time_axes.legend(frameon=False)
    memory_axes.plot(minutes, [cost["peak"] for cost in costs], marker="o", label="peak")
    memory_axes.plot(minutes, [cost["loaded"] for cost in costs], linestyle="--", color="grey", label="model loaded")
    memory_axes.set(xlabel="minutes of video", ylabel="MB", title="Memory", ylim=(0, None), xlim=(0, None))
    memory_axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


def measure_in_child(path: Path) -> dict[str, float]:
    """Return what `index_and_answer` prints in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), CHILD, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cost: dict[str, float] = json.loads(output.splitlines()[-1])
    return cost


def index_and_answer(path: Path) -> None:
    """Index the video into a temporary store, answer a question about it, and print seconds and peaks as JSON."""
    from lvqa import LongVideoQA

    with tempfile.TemporaryDirectory() as store:
        qa = LongVideoQA.load("tiny", overrides=[f"store.folder={store}"])
        loaded = peak_megabytes()
        started_at = time.perf_counter()
        use = qa.index(path)
        indexed_at = time.perf_counter()
        qa.ask(path, "What colour is the small car at sea?", options=["red", "green", "blue", "white"])
        answered_at = time.perf_counter()
    memory = {"loaded": loaded, "peak": peak_megabytes()}
    seconds = {"index": indexed_at - started_at, "answer": answered_at - indexed_at}
    print(json.dumps({**memory, **seconds, "clips": use.clips}))


def peak_megabytes() -> float:
    """Return the largest resident memory of this process so far, in units of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    if CHILD in sys.argv:
        index_and_answer(Path(sys.argv[-1]))
    else:
        main()
