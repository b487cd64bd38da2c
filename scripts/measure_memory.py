"""Measure the peak memory of indexing a short and a long made film: `python scripts/measure_memory.py`.

Each film is indexed by a fresh process on the embedded model. The peak is that of its resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lvqa.tiny.films import make_films

CHILD = "--index-this-file"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/measure_memory"), help="where the films go")
    parser.add_argument("--minutes", type=float, nargs=2, default=[20, 120], metavar=("SHORT", "LONG"))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    peaks = []
    for minutes in arguments.minutes:
        (film,) = make_films(arguments.folder, num_films=1, minutes=minutes, num_questions=1, seed=arguments.seed)
        measured = measured_in_a_child(film)
        peaks.append(measured["peak"])
        print(
            f"{minutes:g} minutes: peak {measured['peak']:.0f} MB ({measured['loaded']:.0f} MB with the model loaded), "
            f"{measured['clips']:.0f} clips in {measured['seconds']:.1f} s",
            flush=True,
        )
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def measured_in_a_child(film: Path) -> dict[str, float]:
    """What `index_and_tell` prints in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), CHILD, str(film)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: dict[str, float] = json.loads(printed.splitlines()[-1])
    return measured


def index_and_tell(film: Path) -> None:
    """Index the film into a store that is thrown away, and print the peaks as JSON."""
    from lvqa import LongVideoQA

    with tempfile.TemporaryDirectory() as store:
        qa = LongVideoQA.load("tiny", overrides=[f"store.folder={store}"])
        loaded = peak_megabytes()
        started = time.perf_counter()
        use = qa.index(film)
        seconds = time.perf_counter() - started
    print(json.dumps({"loaded": loaded, "peak": peak_megabytes(), "clips": use.clips, "seconds": seconds}))


def peak_megabytes() -> float:
    """The largest resident memory of this process so far, in units of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    if CHILD in sys.argv:
        index_and_tell(Path(sys.argv[-1]))
    else:
        main()
