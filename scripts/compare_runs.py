"""Compare two run folders row by row: `python scripts/compare_runs.py runs/before runs/after`.

Rows of lvqa 0.1 are read too. What a row cost is left out, since time and memory differ from run to run. The exit code
is 1 if a row is lacking or differs.
"""

import argparse
import sys
from pathlib import Path

from lvqa.evaluation import read_run
from lvqa.evaluation.rows import key_of

COSTS = {"counts", "seconds", "index", "node", "session", "video_path"}
LATER = {"question", "options"}
"""Fields that rows of lvqa 0.1 do not have."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs=2, type=Path)
    before, after = ({key_of(row): row for row in read_run(path).rows} for path in parser.parse_args().folders)
    differing = []
    for key in before.keys() & after.keys():
        fields = before[key].keys() & after[key].keys() - COSTS
        if not before[key]["question"]:
            fields -= LATER
        differing += [(key, field) for field in sorted(fields) if before[key][field] != after[key][field]]
    for key, field in sorted(differing)[:20]:
        print(f"{key}: {field} is {before[key][field]!r} and {after[key][field]!r}")
    lacking = len(before.keys() ^ after.keys())
    print(f"{len(before.keys() & after.keys())} rows compared, {len(differing)} fields differ, {lacking} rows lacking")
    return 1 if differing or lacking else 0


if __name__ == "__main__":
    sys.exit(main())
