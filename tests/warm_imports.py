"""What the server of `forked` imports before it forks: what a process needs that loads the embedded model."""

import importlib
import os

from lvqa.startup import library_imports, paused_gc

MODULES = ("av", "faiss", "pyarrow.parquet", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl")
OWN_MODULES = ("evaluation.retrieval.run", "evaluation.run", "library", "models.qwen_vl", "pipeline")

os.environ |= {"HF_HUB_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}  # as the command line sets them
with library_imports(), paused_gc():
    for module in (*MODULES, *(f"lvqa.{name}" for name in OWN_MODULES)):
        importlib.import_module(module)
