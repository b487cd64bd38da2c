"""Measure what indexing and asking cost against a film's length: `python scripts/measure_length.py`.

Each made film is indexed by a fresh process on the embedded model, and asked one question. The peak is that of the
process's resident memory. Draws seconds and peak over minutes into --plot.
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
    parser.add_argument("--folder", type=Path, default=Path("runs/measure_length"), help="where the films go")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 20, 60, 120, 240])
    parser.add_argument("--plot", type=Path, default=Path("runs/measure_length/length.png"))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    found = []
    for minutes in arguments.minutes:
        (film,) = make_videos(arguments.folder, num_videos=1, minutes=minutes, num_questions=1, seed=arguments.seed)
        measured = measured_in_a_child(film)
        found.append(measured)
        print(
            f"{minutes:g} minutes: indexed in {measured['index']:.1f} s, asked in {measured['ask']:.2f} s, "
            f"peak {measured['peak']:.0f} MB ({measured['loaded']:.0f} MB with the model loaded), "
            f"{measured['clips']:.0f} clips",
            flush=True,
        )
    times = arguments.minutes[-1] / arguments.minutes[0]
    ratios = {key: found[-1][key] / found[0][key] for key in ("index", "ask", "peak")}
    print(f"{times:g} times the length: " + ", ".join(f"{key} {ratio:.2f} times" for key, ratio in ratios.items()))
    draw(arguments.minutes, found, arguments.plot)


def draw(minutes: Sequence[float], found: Sequence[dict[str, float]], path: Path) -> None:
    """Two panels: seconds, and peak memory."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for key, label in (("index", "index"), ("ask", "one question, indexed")):
        time_axes.plot(minutes, [measured[key] for measured in found], marker="o", label=label)
    time_axes.set(xlabel="minutes of film", ylabel="seconds", title="Time", ylim=(0, None), xlim=(0, None))
    time_axes.legend(frameon=False)
    memory_axes.plot(minutes, [measured["peak"] for measured in found], marker="o", label="peak")
    memory_axes.plot(
        minutes, [measured["loaded"] for measured in found], linestyle="--", color="grey", label="model loaded"
    )
    memory_axes.set(xlabel="minutes of film", ylabel="MB", title="Memory", ylim=(0, None), xlim=(0, None))
    memory_axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


def measured_in_a_child(film: Path) -> dict[str, float]:
    """What `index_and_tell` prints in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), CHILD, str(film)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: dict[str, float] = json.loads(printed.splitlines()[-1])
    return measured


def index_and_tell(film: Path) -> None:
    """Index the film into a store that is thrown away, ask about it, and print seconds and peaks as JSON."""
    from lvqa import LongVideoQA

    with tempfile.TemporaryDirectory() as store:
        qa = LongVideoQA.load("tiny", overrides=[f"store.folder={store}"])
        loaded = peak_megabytes()
        started = time.perf_counter()
        use = qa.index(film)
        indexed = time.perf_counter()
        qa.ask(film, "What colour is the small car at sea?", options=["red", "green", "blue", "white"])
        asked = time.perf_counter()
    told = {"loaded": loaded, "peak": peak_megabytes(), "clips": use.clips}
    print(json.dumps({**told, "index": indexed - started, "ask": asked - indexed}))


def peak_megabytes() -> float:
    """The largest resident memory of this process so far, in units of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    if CHILD in sys.argv:
        index_and_tell(Path(sys.argv[-1]))
    else:
        main()
