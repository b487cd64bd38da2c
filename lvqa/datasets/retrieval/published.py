"""The figures that papers print of retrieval datasets, in percent: they stand beside ours, under their own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FREERET_1 = "FreeRet, Table 1 (arXiv 2509.24621)"
FREERET_2 = "FreeRet, Table 2 (arXiv 2509.24621)"
FREERET_3A, FREERET_3B, FREERET_3C = (f"FreeRet, Table 3{part} (arXiv 2509.24621)" for part in "abc")
FREERET_5 = "FreeRet, Figure 5 (arXiv 2509.24621), by a note on it"
RETLLM = "RetLLM (arXiv 2602.22278), by a note on it"

AVERAGE = "average"
"""The column of the mean over all sets."""


@dataclass(frozen=True, slots=True)
class PublishedRanking:
    """What a paper prints of one method with one model."""

    dataset: str
    source: str
    method: str
    model: str
    figures: dict[str, float]
    """A kind of task, a set, or "average" -> hit@1 (Precision@1, R@1) in percent."""


def _table_1(model: str, method: str, *figures: float) -> PublishedRanking:
    columns = ("classification", "question answering", "retrieval", "grounding", AVERAGE)
    return PublishedRanking("mmeb", FREERET_1, method, model, dict(zip(columns, figures, strict=True)))


def _average(source: str, method: str, small: float, large: float) -> list[PublishedRanking]:
    models = {"Qwen2.5-VL-3B": small, "Qwen2.5-VL-7B": large}
    return [PublishedRanking("mmeb", source, method, model, {AVERAGE: value}) for model, value in models.items()]


def _video(model: str, classification: float, retrieval: float, method: str = "FreeRet") -> PublishedRanking:
    figures = {"classification": classification, "retrieval": retrieval}
    return PublishedRanking("mmeb_v2_video", FREERET_2, method, model, figures)


def _captions(dataset: str, name: str, to_text: float, to_image: float) -> PublishedRanking:
    figures = {f"{name}_i2t": to_text, f"{name}_t2i": to_image}
    return PublishedRanking(dataset, RETLLM, "RetLLM", "Qwen2.5-VL-7B after CLIP ViT-L", figures)


def _parts(method: str, *figures: float) -> list[PublishedRanking]:
    """Return a line of RetLLM's ablation, on Flickr30K and on COCO."""
    model = "Qwen2.5-VL-7B after CLIP ViT-L"
    columns = {"flickr30k": ("Flickr30K_i2t", "Flickr30K_t2i"), "coco": ("COCO_i2t", "COCO_t2i")}
    pairs = zip(columns.items(), (figures[:2], figures[2:]), strict=True)
    return [
        PublishedRanking(dataset, RETLLM, f"RetLLM, {method}", model, dict(zip(names, values, strict=True)))
        for (dataset, names), values in pairs
    ]


def _known(*rows: Any) -> tuple[PublishedRanking, ...]:
    return tuple(row for group in rows for row in (group if isinstance(group, list) else [group]))


PUBLISHED_RANKINGS = _known(
    _table_1("Qwen2.5-VL-3B", "E5-V, training-free", 39.9, 30.4, 36.6, 41.3, 36.3),
    _table_1("Qwen2.5-VL-7B", "E5-V, training-free", 41.2, 37.2, 37.9, 48.4, 39.8),
    _table_1("LLaVA-OV-7B", "FreeRet", 59.6, 58.7, 62.4, 65.9, 61.0),
    _table_1("LLaVA-OV-1.5-8B", "FreeRet", 62.8, 69.2, 65.9, 65.3, 65.9),
    _table_1("InternVL3-2B", "FreeRet", 59.1, 58.2, 56.2, 65.1, 58.5),
    _table_1("InternVL3-8B", "FreeRet", 62.3, 68.9, 64.1, 79.9, 66.7),
    _table_1("InternVL3-14B", "FreeRet", 61.1, 71.2, 67.9, 85.1, 68.9),
    _table_1("Qwen2-VL-7B", "FreeRet", 65.6, 64.1, 68.7, 75.2, 67.2),
    _table_1("Qwen2.5-VL-3B", "FreeRet", 57.5, 61.2, 62.8, 57.8, 60.3),
    _table_1("Qwen2.5-VL-7B", "FreeRet", 69.4, 70.0, 69.9, 78.2, 70.7),
    _table_1("Qwen2.5-VL-32B", "FreeRet", 70.8, 75.4, 72.4, 77.0, 73.3),
    _table_1("Qwen2-VL-7B, trained", "GME", 57.7, 34.7, 71.2, 59.3, 56.0),
    _table_1("LLaVA-OV-7B, trained on MMEB", "UniME", 66.8, 66.6, 70.6, 90.9, 70.7),
    _average(FREERET_3A, "state mlp", 45.34, 47.97),
    _average(FREERET_3A, "state attention", 50.67, 53.68),
    _average(FREERET_3A, "state mlp-1", 51.04, 51.03),
    _average(FREERET_3A, "state mlp-2", 50.64, 48.78),
    _average(FREERET_3B, "base instruction", 42.42, 45.53),
    _average(FREERET_3B, "+ semantics", 46.71, 50.60),
    _average(FREERET_3B, "+ noise", 48.20, 51.50),
    _average(FREERET_3B, "+ task", 50.67, 53.68),
    _average(FREERET_3C, "Right or Wrong", 59.46, 64.71),
    _average(FREERET_3C, "Yes or No", 58.39, 65.28),
    _average(FREERET_3C, "True or False", 60.06, 66.71),
    _average(FREERET_3C, "multiple choice", 60.31, 70.72),
    PublishedRanking("mmeb", FREERET_5, "pool of 10", "Qwen2.5-VL-7B", {AVERAGE: 67.8}),
    _video("Qwen2-VL-2B", 58.3, 33.6),
    _video("Qwen2-VL-7B", 63.2, 39.3),
    _video("Qwen2-VL-2B, trained", 39.3, 28.8, "VLM2Vec-V2"),
    _video("Qwen2-VL-7B, trained", 37.4, 28.4, "GME"),
    _captions("flickr30k", "Flickr30K", 94.5, 82.0),
    _captions("coco", "COCO", 70.4, 54.1),
    _captions("sharegpt4v", "ShareGPT4V", 97.6, 94.2),
    _captions("urban1k", "Urban1K", 88.9, 78.6),
    _parts("entropy alone", 94.0, 81.2, 68.7, 50.8),
    _parts("enhancement alone", 94.0, 80.7, 68.8, 51.5),
    _parts("neither", 93.6, 80.2, 66.9, 50.3),
    PublishedRanking(
        *("sugarcrepe", RETLLM, "RetLLM", "Qwen2.5-VL-7B after CLIP ViT-L"),
        {"replace (mean)": 94.8, "swap (mean)": 92.7, "add (mean)": 96.2},
    ),
    PublishedRanking(
        *("mmeb", RETLLM, "RetLLM", "Qwen2.5-VL-7B after CLIP ViT-L"),
        {"classification": 60.3, "question answering": 27.8, "retrieval": 62.4, "grounding": 60.2, AVERAGE: 54.2},
    ),
)
"""All published figures, in the order of their tables."""


def published_rankings(dataset: str) -> tuple[PublishedRanking, ...]:
    """Return what papers print of a dataset; of "retllm" all of RetLLM's own tables."""
    of_retllm = [row for row in PUBLISHED_RANKINGS if row.source == RETLLM and row.dataset != "mmeb"]
    return tuple(of_retllm if dataset == "retllm" else (row for row in PUBLISHED_RANKINGS if row.dataset == dataset))
