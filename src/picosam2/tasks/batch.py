"""Batches of rows in, batches of rows out: the function that engines for large data sets call.

A row is an image with its prompts. `BatchSegmenter` goes to other processes and machines as a few
words, and opens the network there when the first batch arrives. `integrations/` has programs that
use it with Ray Data, Spark and Daft.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from picosam2.errors import (
    ConfigError,
    ImageError,
    PicoSAM2Error,
    PromptError,
    WeightsError,
    require,
)
from picosam2.images import load_image
from picosam2.predictor import Predictor
from picosam2.prompts import Prompt, as_prompts
from picosam2.results import Segmentation
from picosam2.runtimes.weights import find_weights

RESULTS: Final = ("size", "rle", "box", "score", "error")
"""The columns of results; see `BatchSegmenter`."""

PROMPTS: Final = ("prompts", "points", "boxes")
"""The columns of prompts, in the order of their masks."""


class BatchSegmenter:
    """Segments the images of a batch of rows. It can be pickled.

    A batch is columns by name: a mapping to lists or arrays, a pandas `DataFrame` or a pyarrow
    `Table`. The answer is of the same kind, a row for each row.

    Columns in:
        image: the bytes of an image file, a path, or {"bytes": ..., "path": ...}.
        boxes: a list of x0, y0, x1, y1, one object each; or nothing.
        points: a list of x, y, one object each; or nothing.
        prompts: a list of {"points": [[x, y, label], ...], "box": [x0, y0, x1, y1]}, one object
            each, of either or both; or nothing.

    Columns out, after those that are kept:
        size: [H, W] of the image; nothing if it cannot be read.
        rle: a list with a mask for each prompt, in the order prompts, points, boxes: COCO's
            compressed RLE, the text that it calls counts.
        box: a list with a box x0, y0, x1, y1 for each mask; nothing for an empty mask.
        score: a list with the predicted IoU of each mask, 0..1.
        error: one sentence that says what of the row could not be used, or nothing.

    What a prompt that cannot be used would have given is nothing, in its place. A row whose image
    cannot be used has nothing but the error. A box that reaches past the image is cut to it.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] = "default",
        threads: int | None = 1,
        *,
        runtime: str = "onnx",
        keep: Sequence[str] = (),
    ) -> None:
        """Say what to segment with. Nothing is opened yet.

        Args:
            weights: a shipped name or a path, which must be the same on every machine.
            threads: threads of one inference. One is best where each core has a worker.
            runtime: what runs the network.
            keep: columns of the batch that its answer has too, such as the row's key.

        Raises:
            WeightsError: there are no such weights.
            ConfigError: a column cannot be kept.
        """
        path = find_weights(weights, runtime)
        # Workers have other working directories.
        self.weights = str(path.absolute()) if Path(weights).suffix else os.fspath(weights)
        self.threads = threads
        self.runtime = runtime
        self.keep = (keep,) if isinstance(keep, str) else tuple(keep)
        for name in self.keep:
            if name in RESULTS:
                raise ConfigError(f"{name!r} is a column of the results: rename yours to keep it")
        self._predictor: Predictor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open network."""
        return {**self.__dict__, "_predictor": None}

    def prompt_columns(self, columns: Sequence[str]) -> list[str]:
        """Those of a batch's columns that hold prompts; the others that it needs must be there.

        Raises:
            ConfigError: a column is missing.
        """
        for name in ("image", *self.keep):
            if name not in columns:
                raise ConfigError(f"there is no column {name!r}: there are {_listed(columns)}")
        used = [name for name in PROMPTS if name in columns]
        if not used:
            raise ConfigError(f"there is no column of {' or '.join(PROMPTS)}: add one")
        return used

    def __call__(self, batch: Any) -> Any:
        """The results of a batch, of the same kind.

        Raises:
            ConfigError: a column is missing.
            WeightsError: the weights cannot be used.
        """
        columns = _columns(batch)
        used = self.prompt_columns(list(columns))
        images = columns["image"]()
        prompts = [columns[name]() for name in used]
        if self._predictor is None:
            self._predictor = Predictor(self.weights, runtime=self.runtime, threads=self.threads)
        rows = [
            _row(self._predictor, image, dict(zip(used, cells, strict=True)))
            for image, *cells in zip(images, *prompts, strict=True)
        ]
        results = {name: [row[name] for row in rows] for name in RESULTS}
        return _like(batch, self.keep, columns, results)


def _row(predictor: Predictor, image: Any, cells: Mapping[str, Any]) -> dict[str, Any]:
    """The results of one row."""
    try:
        pixels = load_image(_source(image))
        height, width = pixels.shape[:2]
        problems: list[str] = []
        prompts: list[Prompt | None] = []
        for column, cell in cells.items():
            for number, value in enumerate(_items(column, cell), 1):
                try:
                    prompts.append(_prompt(column, value).clipped(height, width))
                except PicoSAM2Error as error:
                    prompts.append(None)
                    problems.append(f"{column} {number}: {error}")
        usable = [prompt for prompt in prompts if prompt is not None]
        masks = iter(predictor(pixels, prompts=usable))
    except WeightsError:
        raise  # no fault of the row
    except PicoSAM2Error as error:
        return {**dict.fromkeys(RESULTS), "error": str(error)}
    results = [None if prompt is None else next(masks) for prompt in prompts]
    return {
        "size": [height, width],
        "rle": [None if each is None else each.rle()["counts"] for each in results],
        "box": [None if each is None else _corners(each) for each in results],
        "score": [None if each is None else each.score for each in results],
        "error": "; ".join(problems) or None,
    }


def _source(cell: Any) -> Any:
    """What `load_image` takes, from an image's cell."""
    if isinstance(cell, Mapping):
        cell = cell["path"] if cell.get("bytes") is None else cell["bytes"]
    if _missing(cell):
        raise ImageError("there is no image: the row's cell is empty")
    return cell


def _items(column: str, cell: Any) -> list[Any]:
    """The prompts of one cell, as plain values: one row of numbers is one prompt."""
    if _missing(cell):
        return []
    values = _plain(cell)
    if not isinstance(values, list):
        raise PromptError(f"the column {column!r} holds lists, not {type(values).__name__}")
    if values and all(isinstance(value, int | float) for value in values):
        return [values]
    return values


def _prompt(column: str, value: Any) -> Prompt:
    if column == "prompts":
        return Prompt.from_json(value)
    if not isinstance(value, list):
        raise PromptError(f"it is a list of numbers, not {type(value).__name__}")
    made = as_prompts(points=[value]) if column == "points" else as_prompts(boxes=[value])
    return made[0]


def _plain(value: Any) -> Any:
    """Arrays, and arrays and rows in lists of any depth, as lists, mappings and numbers."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _missing(cell: Any) -> bool:
    """Whether a cell is empty: None, or what pandas has for it, NaN or NA."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or type(cell).__name__ == "NAType"


def _corners(result: Segmentation) -> list[float] | None:
    box = result.box
    return None if box is None else [box.x0, box.y0, box.x1, box.y1]


def _columns(batch: Any) -> dict[str, Callable[[], list[Any]]]:
    """What reads each column as a list, by its name."""
    kind = _kind(batch)
    if kind == "pyarrow":
        return {name: batch.column(name).to_pylist for name in batch.schema.names}
    if kind == "pandas":
        return {str(name): batch[name].tolist for name in batch.columns}
    if not isinstance(batch, Mapping):
        raise ConfigError(
            "a batch is columns by name: a mapping, a pandas DataFrame or a pyarrow Table, not "
            f"{type(batch).__name__}"
        )
    return {str(name): partial(list, batch[name]) for name in batch}


def _like(
    batch: Any,
    keep: Sequence[str],
    columns: Mapping[str, Callable[[], list[Any]]],
    results: Mapping[str, list[Any]],
) -> Any:
    """The kept columns and the results as a batch of the same kind."""
    kind = _kind(batch)
    if kind == "pyarrow":
        import pyarrow

        table = pyarrow.table(results, schema=arrow_schema())
        for place, name in enumerate(keep):
            table = table.add_column(place, batch.schema.field(name), batch.column(name))
        return table
    if kind == "pandas":
        import pandas

        kept = {name: batch[name] for name in keep}
        made = {
            name: pandas.Series(values, index=batch.index, dtype=object)
            for name, values in results.items()
        }
        return pandas.DataFrame({**kept, **made}, index=batch.index)
    return {**{name: columns[name]() for name in keep}, **results}


def arrow_schema() -> Any:
    """The columns of the results as a `pyarrow.Schema`. `MissingExtraError` without pyarrow."""
    pyarrow = require("pyarrow", "parquet")
    number = pyarrow.float64()
    return pyarrow.schema(
        {
            "size": pyarrow.list_(pyarrow.int64()),
            "rle": pyarrow.list_(pyarrow.string()),
            "box": pyarrow.list_(pyarrow.list_(number)),
            "score": pyarrow.list_(number),
            "error": pyarrow.string(),
        }
    )


def _kind(batch: Any) -> str:
    """The package that a batch's class is from."""
    return type(batch).__module__.partition(".")[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
