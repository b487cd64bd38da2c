"""The files that VLM2Vec's evaluation writes of a set, so that its own programs count and report our rankings.

`vlm2vec/ARM/image/SET_score.json`, `SET_pred.jsonl` and `SET_info.jsonl` (and `video/`): its report
(`experiments/report_score_v2.py`) reads the first, its metrics (`RankingMetrics.evaluate`) take the lines of the
second, and the third says which candidates a query had, and which are right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvqa.datasets.retrieval import Query, RetrievalSet
from lvqa.evaluation.retrieval.metrics import RankedQuery, mean_metrics
from lvqa.evaluation.retrieval.rows import RankingRow
from lvqa.files import write_atomically
from lvqa.records import LvqaError

FOLDER = "vlm2vec"


def write_vlm2vec_files(
    folder: Path, sets: Sequence[RetrievalSet], arms: Sequence[str], rows: Sequence[RankingRow]
) -> None:
    """Write the three files of each set and arm whose queries all have a row; a failed one has no prediction.

    Args:
        folder: The run folder.
        sets: The sets of the run.
        arms: The names of its arms.
        rows: Its rows.
    """
    by_key = {(row["set"], row["arm"], row["query_id"]): row for row in rows}
    for arm, one in ((arm, one) for arm in arms for one in sets):
        of_set = [by_key.get((one.name, arm, query.id)) for query in one.queries]
        known = [row for row in of_set if row is not None]
        if len(known) == len(of_set):
            write_set(folder / FOLDER / _file_name(arm) / one.modality, one, known)


def write_set(folder: Path, one: RetrievalSet, rows: Sequence[RankingRow]) -> None:
    """Write the files of a set, given the row of each of its queries."""
    predictions, infos = list[dict[str, Any]](), list[dict[str, Any]]()
    for query, row in zip(one.queries, rows, strict=True):
        names = one.names_of(query)
        predictions.append(
            {"prediction": [names[i] for i in row["ranking"]], "label": list(query.targets), "rel_scores": None}
        )
        infos.append(_info(one, query))
    ranked = [RankedQuery(prediction["prediction"], prediction["label"]) for prediction in predictions]
    scores: Mapping[str, float] = {**mean_metrics(ranked), "num_pred": len(ranked), "num_data": len(infos)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{one.name}_score.json", json.dumps(scores, indent=4))
        write_atomically(folder / f"{one.name}_pred.jsonl", _lines(predictions))
        write_atomically(folder / f"{one.name}_info.jsonl", _lines(infos))
    except OSError as error:
        raise LvqaError(f"cannot write {folder}: {error.strerror or error}") from error


def _info(one: RetrievalSet, query: Query) -> dict[str, Any]:
    """Return what VLM2Vec notes of a query: its candidates, those of the others left out where all are searched."""
    names = one.names_of(query) if query.candidates is not None else query.targets
    targets = list(query.targets)
    return {"cand_names": list(names), "label_name": targets[0] if len(targets) == 1 else targets}


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _file_name(arm: str) -> str:
    """Return the name of an arm as that of a folder."""
    return re.sub(r"[^\w.+=-]+", "_", arm).strip("._") or "arm"
