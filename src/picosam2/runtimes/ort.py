"""ONNX Runtime, without what it would send home."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

from picosam2.runtimes.cpus import default_threads


def disable_telemetry() -> None:
    """Keep ONNX Runtime, which is imported later, from reporting to its makers.

    From 1.30 on it writes a device's identity to the home directory and reports, and only this
    variable, set before the first import, keeps it from doing so. Who sets the variable is obeyed.
    To be called before importing a package that may import ONNX Runtime itself.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def import_onnxruntime(submodule: str = "") -> ModuleType:
    """The package `onnxruntime`, or a module in it. Everything here imports it through this."""
    disable_telemetry()
    package = importlib.import_module("onnxruntime")
    return importlib.import_module(f"onnxruntime.{submodule}") if submodule else package


def session_options(threads: int | None = None) -> Any:
    """Options for a session on so many threads, by default on no more than this process may use."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    threads = threads or default_threads()
    if threads is not None:
        options.intra_op_num_threads = threads
    return options
