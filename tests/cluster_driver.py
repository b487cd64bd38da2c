"""Run tasks of worker_tasks on a cluster, as a process of its own: `python cluster_driver.py FILE`.

FILE holds the pickled tasks, and the options of the pool. Each outcome is printed as a line of JSON.
"""

from __future__ import annotations

import json
import logging
import pickle
import sys
from pathlib import Path

from lvqa.records import LvqaError
from lvqa.workers import Pool


def main() -> int:
    tasks, options = pickle.loads(Path(sys.argv[1]).read_bytes())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with Pool(status=logging.info, **options) as pool:
            for outcome in pool.run(tasks):
                line = {"task": tasks.index(outcome.item), "value": outcome.value, "error": outcome.error}
                sys.stdout.write(json.dumps({**line, "node": outcome.node, "by_place": outcome.by_place}) + "\n")
                sys.stdout.flush()
    except LvqaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
