"""`picosam2 calibrate`: teach weights what a mask is worth, and which window a click meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from picosam2.cli._targets import check_files


def calibrate(
    *,
    weights: Annotated[Path, Parameter(metavar="FILE")],
    store: Annotated[Path, Parameter(metavar="STORE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
    clicks: int = 3,
    few_windows: Annotated[bool, Parameter(negative="--all-windows", show_default=False)] = True,
    half: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    threads: int | None = None,
) -> None:
    """Fit the scorers of trained weights on a store's validation images.

    Without scorers a click chooses its window by a rule of thumb, and scores mean little. The
    numbers that are printed are cross-validated by image.

    Args:
        weights: A safetensors file that `picosam2 train` wrote.
        store: The store it was trained on, of crops or of whole images; its validation images are
            used.
        out: The file to write: the same weights, with scorers.
        clicks: Clicks on each object: its center point, then in turn random places near it and
            anywhere in it.
        few_windows: Look through the windows of a click one by one, and stop when the others
            promise too little: a click then takes about half of them, and loses nothing in
            cross-validation. With --all-windows each click takes all of them.
        half: Keep the weights in 16 bits, which halves the file.
        threads: Threads of the network; by default as many as there are cores.
    """
    from picosam2.cli._progress import progress
    from picosam2.errors import require

    check_files(out, ending=".safetensors", kept=[weights])
    for module in ("torch", "safetensors", "onnx", "pycocotools"):
        require(module, "train")
    import tempfile

    from picosam2.data.image_store import ImageStore
    from picosam2.data.store import Store
    from picosam2.export.onnx import export_onnx
    from picosam2.models.checkpoint import load_weights, read_tensors, save_weights
    from picosam2.predictor import Predictor
    from picosam2.runtimes.onnx import OnnxRuntime
    from picosam2.runtimes.weights import find_weights
    from picosam2.training.scorers import ScorerConfig, collect, fit

    config = ScorerConfig(clicks=clicks, few_windows=few_windows)
    find_weights(weights, "torch")
    opened = ImageStore(store) if (store / "images.json").exists() else Store(store)
    images = opened.held_out()
    model, facts = load_weights(weights), read_tensors(weights).info
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.onnx"
        export_onnx(model, file, {k: v for k, v in facts.items() if k != "scorers"})
        predictor = Predictor(OnnxRuntime(file, threads=threads))
        sources = facts.get("recipe", {}).get("train", {}).get("sources", {})
        with progress("clicking", "images") as update:
            examples = collect(
                predictor,
                images,
                config,
                source_weights=sources,
                progress=update,
            )
    fitted = {
        kind: fit(collected, config)
        for kind, collected in zip(("click", "box"), examples, strict=True)
    }
    facts = {
        **facts,
        "geometry": predictor.runtime.info.facts["geometry"],  # a scorer belongs to its windows
        "scorers": {kind: result.scorer.to_json() for kind, result in fitted.items()},
        "calibration": {kind: result.report() for kind, result in fitted.items()},
    }
    save_weights(out, model, facts, half=half)
    for kind, result in fitted.items():
        spearman = result.report()["spearman"]
        correlation = "-" if spearman is None else f"{spearman:.3f}"
        print(
            f"{kind}: mIoU {result.chosen:.3f} (best candidate {result.best:.3f}), Spearman "
            f"{correlation}, calibration error {result.calibration_error:.3f}, "
            f"windows {result.looks:.1f}"
        )
    print(f"wrote {out}")
