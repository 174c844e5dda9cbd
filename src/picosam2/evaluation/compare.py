"""Compare two result files object by object, with an interval of the difference."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2._words import counted
from picosam2.errors import DataError
from picosam2.evaluation import metrics

KINDS = ("evaluation", "robustness", "clicks", "proposals", "domains", "times")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """B minus A over the objects that both measured. IoU is between 0 and 1."""

    protocol: str
    n: int
    photos: int
    only_a: int
    only_b: int
    a: float
    b: float
    difference: float
    low: float
    """Of the 95 % bootstrap interval of the difference, over images."""
    high: float
    better: float
    """Share of objects whose IoU rose by more than 0.01."""
    worse: float
    by_size: dict[str, float | None]
    """The difference in each of COCO's size classes."""
    costs: dict[str, tuple[float | None, float | None]]
    """The costs of A and B, by their text in `COSTS`; None where a file has none."""

    @property
    def verdict(self) -> str:
        """The conclusion that the interval allows."""
        if self.low > 0:
            return "B is better"
        if self.high < 0:
            return "B is worse"
        return "no difference can be shown"

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**vars(self), "verdict": self.verdict}

    def __str__(self) -> str:
        sizes = ", ".join(
            f"{name} {value:+.4f}" for name, value in self.by_size.items() if value is not None
        )
        left_out = self.only_a + self.only_b
        lines = [
            f"protocol {self.protocol}: {counted(self.n, 'object')} on "
            f"{counted(self.photos, 'image')}",
            f"mIoU A {self.a:.4f}   B {self.b:.4f}",
            f"B - A {self.difference:+.4f}   95 % interval over images "
            f"{self.low:+.4f} to {self.high:+.4f}",
            f"objects better {self.better:.1%}, worse {self.worse:.1%}   ({sizes})",
            *(f"{name}: A {_shown(a)}   B {_shown(b)}" for name, (a, b) in self.costs.items()),
            self.verdict,
        ]
        if left_out:
            lines.insert(
                1, f"left out: {counted(left_out, 'object')} that only one of the files has"
            )
        return "\n".join(lines)


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A result file of `eval` and its like (`KINDS`). `DataError` if it is none."""
    try:
        result = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise DataError(f"there is no result file {path}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no JSON file") from error
    if not isinstance(result, dict) or result.get("kind") not in KINDS:
        raise DataError(f"{path} is no result file: write one with `picosam2 eval --json FILE`")
    return result


def compare(a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    """Compare two results of `eval` object by object.

    Raises:
        DataError: they measured by different protocols or share no object.
    """
    for name, result in (("first", a), ("second", b)):
        if result.get("kind") != "evaluation":
            raise DataError(
                f"the {name} file is of {result.get('kind')}: pass two results of `eval`, two of "
                "`clicks`, or two of `eval --domains`"
            )
    if (a["protocol"], a["dataset"]) != (b["protocol"], b["dataset"]):
        raise DataError(
            f"{a['protocol']} on {a['dataset']} and {b['protocol']} on {b['dataset']} cannot be "
            "compared: measure both by the same protocol on the same data"
        )
    try:
        of_a = {item["annotation"]: item for item in a["items"]}
        of_b = {item["annotation"]: item for item in b["items"]}
        shared = sorted(of_a.keys() & of_b.keys())
        before = np.array([of_a[key]["iou"] for key in shared], float)
        after = np.array([of_b[key]["iou"] for key in shared], float)
        image_ids = np.array([of_a[key]["photo"] for key in shared], np.int64)
        areas = np.array([of_a[key]["area"] for key in shared], float)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"a result file has broken items ({error}): measure again") from error
    if not shared:
        raise DataError("the two results share no object: measure both on the same images")
    change = after - before
    low, high = metrics.interval(change, image_ids)
    return Comparison(
        protocol=a["protocol"],
        n=len(shared),
        photos=len(set(image_ids)),
        only_a=len(of_a) - len(shared),
        only_b=len(of_b) - len(shared),
        a=float(before.mean()),
        b=float(after.mean()),
        difference=float(change.mean()),
        low=low,
        high=high,
        better=float((change > 0.01).mean()),
        worse=float((change < -0.01).mean()),
        by_size=metrics.by_size(change, areas),
        costs=costs_of(a, b),
    )


COSTS = {
    "ms_per_prompt": "ms per prompt, all in all",
    "encode_ms_per_image": "ms to encode an image",
    "decode_ms_per_prompt": "ms to decode a prompt",
    "weights_mb": "weights, MB",
    "peak_memory_mb": "memory at the peak, MB",
}
"""The costs that are compared beside the scores, and their text."""


def costs_of(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """The costs of two results, by their text in `COSTS`; a cost that neither has is left out."""
    pairs = {text: (_cost(a, key), _cost(b, key)) for key, text in COSTS.items()}
    return {text: pair for text, pair in pairs.items() if pair != (None, None)}


def _cost(result: dict[str, Any], key: str) -> float | None:
    weights = result.get("weights")
    size = weights.get("bytes") if isinstance(weights, dict) else None
    value = size / 1e6 if key == "weights_mb" and isinstance(size, int) else result.get(key)
    return float(value) if isinstance(value, int | float) else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


@dataclass(frozen=True, kw_only=True)
class DomainComparison:
    """B minus A on several sets, by one protocol: each set, and the mean over sets."""

    protocol: str
    sets: dict[str, Comparison]
    difference: float
    low: float
    """Of the 95 % bootstrap interval of the mean over sets, over images within each set."""
    high: float

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            **vars(self),
            "sets": {name: comparison.to_json() for name, comparison in self.sets.items()},
        }

    def __str__(self) -> str:
        return "\n".join(
            [
                f"protocol {self.protocol}: B - A over {len(self.sets)} sets "
                f"{self.difference:+.4f}   95 % interval {self.low:+.4f} to {self.high:+.4f}",
                *(
                    f"  {name}: {each.a:.4f} to {each.b:.4f}, {each.difference:+.4f} "
                    f"({each.low:+.4f} to {each.high:+.4f}), {each.verdict}"
                    for name, each in self.sets.items()
                ),
            ]
        )


def compare_domains(a: dict[str, Any], b: dict[str, Any]) -> list[DomainComparison]:
    """Compare two results of `eval --domains`, by every protocol that both have.

    Raises:
        DataError: they share no set and protocol, or a set shares no object.
    """
    comparisons = []
    for protocol, before in a["protocols"].items():
        after = b["protocols"].get(protocol, {"sets": {}})
        names = [name for name in before["sets"] if name in after["sets"]]
        if not names:
            continue
        sets = {name: compare(before["sets"][name], after["sets"][name]) for name in names}
        pairs = [paired_changes(before["sets"][name], after["sets"][name]) for name in names]
        low, high = metrics.interval_of_means(pairs)
        comparisons.append(
            DomainComparison(
                protocol=protocol,
                sets=sets,
                difference=float(np.mean([comparison.difference for comparison in sets.values()])),
                low=low,
                high=high,
            )
        )
    if not comparisons:
        raise DataError("the two results share no set: measure both on the same folder")
    return comparisons


def paired_changes(
    a: dict[str, Any], b: dict[str, Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The change of IoU (N,) of the objects that both measured, and their images (N,)."""
    of_b = {item["annotation"]: item["iou"] for item in b["items"]}
    shared = sorted((i["annotation"], i["iou"], i["photo"]) for i in a["items"]
                    if i["annotation"] in of_b)  # fmt: skip
    changes = np.array([of_b[key] - before for key, before, _ in shared], float)
    return changes, np.array([image_id for _, _, image_id in shared], np.int64)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """B minus A, with its 95 % bootstrap interval over images."""

    a: float
    b: float
    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"A {self.a:.4f}   B {self.b:.4f}   B - A {self.difference:+.4f} "
            f"({self.low:+.4f} to {self.high:+.4f})"
        )


@dataclass(frozen=True, kw_only=True)
class ClicksComparison:
    """B minus A over the objects that both were clicked at."""

    start: str
    n: int
    photos: int
    miou: tuple[Difference, ...]
    """After each click."""
    better: tuple[float, ...]
    """Share of objects whose IoU is higher by more than 0.01 in B, after each click."""
    worse: tuple[float, ...]
    noc: dict[str, Difference]
    """Clicks to an IoU, by the IoU in percent; the limit where an object never gets there."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            **vars(self),
            "miou": [vars(each) for each in self.miou],
            "noc": {target: vars(each) for target, each in self.noc.items()},
        }

    def __str__(self) -> str:
        return "\n".join(
            [
                f"clicks from {self.start}: {counted(self.n, 'object')} on "
                f"{counted(self.photos, 'image')}",
                *(
                    f"mIoU after {count}: {difference}   objects better {better:.1%}"
                    for count, (difference, better) in enumerate(
                        zip(self.miou, self.better, strict=True), start=1
                    )
                ),
                *(f"NoC@{target}: {difference}" for target, difference in self.noc.items()),
            ]
        )


def compare_clicks(a: dict[str, Any], b: dict[str, Any]) -> ClicksComparison:
    """Compare two results of `picosam2 clicks` object by object.

    Raises:
        DataError: they began in different ways or share no object.
    """
    if (a["start"], a["dataset"]) != (b["start"], b["dataset"]):
        raise DataError(
            f"clicks from {a['start']} on {a['dataset']} and from {b['start']} on {b['dataset']} "
            "cannot be compared: measure both with the same --start on the same data"
        )
    clicks = min(a["clicks"], b["clicks"])
    of_b = {each["annotation"]: each["ious"][:clicks] for each in b["objects"]}
    shared = [each for each in a["objects"] if each["annotation"] in of_b]
    if not shared:
        raise DataError("the two results share no object: measure both on the same images")
    before = np.array([each["ious"][:clicks] for each in shared], float)
    after = np.array([of_b[each["annotation"]] for each in shared], float)
    image_ids = np.array([each["photo"] for each in shared], np.int64)
    return ClicksComparison(
        start=a["start"],
        n=len(shared),
        photos=len(set(image_ids)),
        miou=tuple(
            _difference(before[:, index], after[:, index], image_ids) for index in range(clicks)
        ),
        better=tuple(float(share) for share in (after - before > 0.01).mean(0)),
        worse=tuple(float(share) for share in (after - before < -0.01).mean(0)),
        noc={
            target: _difference(
                _clicks_to(before, int(target) / 100),
                _clicks_to(after, int(target) / 100),
                image_ids,
            )
            for target in a["noc"]
            if target in b["noc"]
        },
    )


def _clicks_to(ious: npt.NDArray[np.float64], target: float) -> npt.NDArray[np.float64]:
    """How many clicks (N,) each object took, given its IoU after each (N, clicks)."""
    reached = ious >= target
    first = reached.argmax(1) + 1.0
    return np.where(reached.any(1), first, float(ious.shape[1]))


def _difference(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], image_ids: npt.NDArray[np.int64]
) -> Difference:
    low, high = metrics.interval(b - a, image_ids)
    return Difference(
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float((b - a).mean()),
        low=low,
        high=high,
    )
