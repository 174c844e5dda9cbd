"""`picosam2 labelme`: the annotation tool labelme, with PicoSAM2 among its AI models."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from picosam2.cli._options import Threads, Weights


def labelme(
    *arguments: Annotated[str, Parameter(name="ARGUMENT", allow_leading_hyphen=True)],
    weights: Weights = "default",
    threads: Threads = None,
) -> None:
    """Start labelme with PicoSAM2 as the model of its AI points and AI boxes.

    Nothing is downloaded. Another model can be chosen in labelme's list, or in ~/.labelmerc.

    Args:
        arguments: What labelme takes: an image or a folder, and its own options.
    """
    from picosam2.apps.labelme import run_labelme

    run_labelme(arguments, weights, threads)
