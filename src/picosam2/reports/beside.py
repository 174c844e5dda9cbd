"""Weights beside another model on the same objects: the numbers, their table and their drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from picosam2.evaluation.compare import compare, compare_clicks, compare_domains
from picosam2.evaluation.sam import KINDS
from picosam2.reports.blocks import Block, Bullets, Code, Figure, Table, Text
from picosam2.reports.figures import peer_clicks

PROTOCOLS = ("box", "click", "click-inside")
"""What a user of either model has."""

SHOWN_CLICKS = {"click": (2, 3, 5), "box": (2, 4)}
"""By how the session began: after how many clicks the table shows mIoU; a box is a click."""

_KEPT = ("protocol", "n", "photos", "a", "b", "difference", "low", "high", "better", "worse")


def is_peer(result: Mapping[str, Any]) -> bool:
    """Whether a result file is of another model, measured with `--peer`."""
    weights = result.get("weights") or {}
    return str(weights.get("name", "")).partition(":")[0] in KINDS


def peer_facts(weights: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of a peer. `known` are peers with a name, by their SHA-256."""
    kind = str(weights["name"]).partition(":")[0]
    files = str(weights.get("file", "")).split(" + ")
    return {
        "name": f"{kind}: {weights['file']}",
        "what": "",
        **known.get(weights["sha256"], {}),
        "option": f"{kind}:{','.join(files)}",
        "bytes": weights["bytes"],
        "sha256": weights["sha256"],
    }


def pair(
    ours: Sequence[Mapping[str, Any]],
    theirs: Sequence[Mapping[str, Any]],
    known: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Every peer with every weights that were measured the same way on the same objects.

    Args:
        ours: result files of weights of this project.
        theirs: result files of peers.
        known: peers with a name, by SHA-256.

    Returns:
        One entry for each pair; in its differences A is the peer and B the weights.
    """
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for b in ours:
        for a in theirs:
            if _way(a) is None or _way(a) != _way(b):
                continue
            key = (a["weights"]["sha256"], b["weights"]["sha256"])
            entry = pairs.setdefault(
                key,
                {
                    "peer": peer_facts(a["weights"], known),
                    "weights": {
                        "name": Path(str(b["weights"]["name"])).stem,
                        "bytes": b["weights"]["bytes"],
                        "sha256": b["weights"]["sha256"],
                    },
                    "scores": [],
                    "clicks": [],
                    "domains": [],
                },
            )
            _compare_into(entry, dict(a), dict(b))
    return list(pairs.values())


def _way(result: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """How and on what a result was measured; None for kinds that are not compared."""
    if result["kind"] == "evaluation":
        flipped = bool(result.get("flip"))
        return "evaluation", result["protocol"], result["dataset"], flipped
    if result["kind"] == "clicks":
        return "clicks", result["start"], result["dataset"]
    return ("domains",) if result["kind"] == "domains" else None


def _compare_into(entry: dict[str, Any], a: dict[str, Any], b: dict[str, Any]) -> None:
    if b["kind"] == "evaluation":
        numbers = compare(a, b).to_json()
        entry["scores"].append({key: numbers[key] for key in _KEPT} | {"dataset": b["dataset"]})
    elif b["kind"] == "clicks":
        curves = {
            side: {key: result[key] for key in ("clicks", "miou", "low", "high", "noc")}
            for side, result in (("a", a), ("b", b))
        }
        entry["clicks"].append(
            {**compare_clicks(a, b).to_json(), "dataset": b["dataset"], "curves": curves}
        )
    else:
        for comparison in compare_domains(a, b):
            sets = list(comparison.sets.values())
            entry["domains"].append(
                {
                    "protocol": comparison.protocol,
                    "sets": len(sets),
                    "n": sum(each.n for each in sets),
                    "a": sum(each.a for each in sets) / len(sets),
                    "b": sum(each.b for each in sets) / len(sets),
                    "difference": comparison.difference,
                    "low": comparison.low,
                    "high": comparison.high,
                }
            )


def beside_blocks(report: Mapping[str, Any]) -> list[Block]:
    """For each peer its table, the curves of clicks and the commands; nothing without a peer."""
    content: list[Block] = []
    for number, entries in enumerate(_by_peer(report["beside"])):
        peer = entries[0]["peer"]
        if peer["what"]:
            content.append(Text(text=f"`{peer['name']}`: {peer['what']}"))
        content.append(beside_table(entries, report["times"]))
        content.append(Bullets(items=_notes(entries, report["times"])))
        if entries[0]["clicks"]:
            content.append(
                Figure(
                    name="beside-clicks" + (f"-{number + 1}" if number else ""),
                    caption="mIoU after each click of a simulated user, who clicks where the "
                    "largest error is. Bands are 95 % intervals over images.",
                    svg=peer_clicks(entries[0]),
                    wide=True,
                )
            )
        content.append(Code(lines=tuple(_commands(entries, report))))
    return content


def _by_peer(pairs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in pairs:
        groups.setdefault(entry["peer"]["sha256"], []).append(entry)
    return list(groups.values())


def beside_table(entries: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]) -> Table:
    """One peer beside the weights of `entries`; the difference is to the first of them."""
    first, peer = entries[0], entries[0]["peer"]
    names = [entry["weights"]["name"] for entry in entries]
    header = ("mIoU, %", *names, peer["name"], f"{names[0]} minus {peer['name']}",
              "objects better / worse")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for score in first["scores"]:
        if score["protocol"] in PROTOCOLS:
            title = f"{score['protocol']}, {score['dataset'].upper()}, {score['n']:,} objects"
            pairs = [_same(entry["scores"], score, "protocol", "dataset") for entry in entries]
            rows.append(_row(title, pairs, _shares(score)))
    for start, shown in SHOWN_CLICKS.items():
        for session in (each for each in first["clicks"] if each["start"] == start):
            pairs = [_same(entry["clicks"], session, "start", "dataset") for entry in entries]
            for count in (count for count in shown if count <= len(session["miou"])):
                title = (
                    f"after {count} clicks"
                    if start == "click"
                    else f"box, then {count - 1} correction{'s' if count > 2 else ''}"
                )
                at = [None if pair is None else pair["miou"][count - 1] for pair in pairs]
                rows.append(_row(title, at, _shares(_at(session, count))))
            for target in session["noc"]:
                rows.append(_noc_row(target, start, pairs))
    for mean in first["domains"]:
        title = f"{mean['protocol']}, mean of {mean['sets']} domains, {mean['n']:,} objects"
        pairs = [_same(entry["domains"], mean, "protocol") for entry in entries]
        rows.append(_row(title, pairs, ""))
    sizes = [entry["weights"]["bytes"] for entry in entries]
    rows.append(
        ("weights, MB", *(f"{size / 1e6:.2f}" for size in sizes), f"{peer['bytes'] / 1e6:.1f}",
         "", "")
    )  # fmt: skip
    rows += _time_rows(entries, times)
    return Table(header=header, rows=tuple(rows), left=1)


def _same(
    among: Sequence[Mapping[str, Any]], as_this: Mapping[str, Any], *keys: str
) -> Mapping[str, Any] | None:
    return next((each for each in among if all(each[k] == as_this[k] for k in keys)), None)


def _at(session: Mapping[str, Any], count: int) -> dict[str, float]:
    """The shares of objects after so many clicks."""
    return {side: session[side][count - 1] for side in ("better", "worse")}


def _shares(numbers: Mapping[str, Any]) -> str:
    return f"{100 * numbers['better']:.0f} % / {100 * numbers['worse']:.0f} %"


def _row(title: str, pairs: Sequence[Mapping[str, Any] | None], shares: str) -> tuple[str, ...]:
    """mIoU in percent of each weights, of the peer, and the first difference."""
    first = pairs[0]
    assert first is not None, "the first entry names the rows"
    ours = ["-" if pair is None else f"{100 * pair['b']:.1f}" for pair in pairs]
    theirs = f"{100 * first['a']:.1f}"
    if first["low"] > 0:
        ours[0] = f"**{ours[0]}**"
    elif first["high"] < 0:
        theirs = f"**{theirs}**"
    change, low, high = (f"{100 * first[key]:+.1f}" for key in ("difference", "low", "high"))
    return title, *ours, theirs, f"{change} ({low} to {high})", shares


def _noc_row(target: str, start: str, pairs: Sequence[Mapping[str, Any] | None]) -> tuple[str, ...]:
    first = pairs[0]
    assert first is not None, "the first entry names the rows"

    def cell(pair: Mapping[str, Any] | None, side: str) -> str:
        if pair is None:
            return "-"
        noc = pair["curves"][side]["noc"][target]
        return f"{noc['clicks']:.2f} ({100 * noc['failed']:.0f} %)"

    ours, theirs = [cell(pair, "b") for pair in pairs], cell(first, "a")
    change = first["noc"][target]
    if change["high"] < 0:
        ours[0] = f"**{ours[0]}**"
    elif change["low"] > 0:
        theirs = f"**{theirs}**"
    difference = f"{change['difference']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f})"
    return f"NoC@{target} from a {start} (never)", *ours, theirs, difference, ""


def _time_rows(
    entries: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """Milliseconds and memory of a `benchmarks/peer.py` run with these very weights."""
    hashes = [entry["weights"]["sha256"] for entry in entries]
    peer = entries[0]["peer"]["sha256"]
    run = next((each for each in times if peer in each["models"]), None)
    if run is None:
        return
    for key, title in TIMES.items():
        values = [run["models"].get(sha, {}).get(key) for sha in (*hashes, peer)]
        if values[-1] is not None and any(value is not None for value in values[:-1]):
            yield (
                title,
                *("-" if value is None else f"{value:,.1f}" for value in values),
                "",
                "",
            )


TIMES = {
    "first_box_ms": "ms, first mask of an image by box",
    "first_click_ms": "ms, first mask of an image by click",
    "next_box_ms": "ms, each further box",
    "correction_ms": "ms, each correction by a click",
    "memory_mb": "memory at the peak, MB",
}
"""What `benchmarks/peer.py` measures, on one thread in one run."""


def _notes(
    entries: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    notes = [
        "In brackets stands the 95 % interval over images of the difference, paired object by "
        "object; an object is better or worse if its IoU differs by more than 0.01. A number is "
        "bold where the interval leaves out zero.",
    ]
    if entries[0]["clicks"]:
        most = max(clicks["curves"]["a"]["clicks"] for clicks in entries[0]["clicks"])
        notes.append(
            f"NoC is the mean number of clicks to an IoU of 0.85 or 0.90, at most {most}, with the "
            "share of objects that never get there. Lower is better. Both get all clicks "
            "so far; a peer in ONNX also gets its own mask before, as ours do."
        )
    peer = entries[0]["peer"]["sha256"]
    run = next((each for each in times if peer in each["models"]), None)
    if run is not None:
        notes.append(
            f"Times are medians on one thread, the models in turn in one run: "
            f"{run['machine']['processor']}, {run['measured']}, `{run['command']}`."
        )
    return tuple(notes)


def _commands(entries: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Iterator[str]:
    """What measures the peer, and an example of each kind that measures the weights and pairs."""
    peer, first = entries[0]["peer"], entries[0]
    files = {run["dataset"]: run.get("files") for run in report["runs"]}

    def data(dataset: str) -> str:
        names = files.get(dataset) or {"images": "IMAGES", "annotations": "ANNOTATIONS"}
        option = "" if dataset == "coco" else f"--dataset {dataset} "
        return f"{option}--images {names['images']} --annotations {names['annotations']}"

    measured = [
        (
            "eval",
            f"--protocol {score['protocol']} --threads 1 {data(score['dataset'])}",
            score["protocol"],
        )
        for score in first["scores"]
    ] + [
        (
            "clicks",
            f"--start {session['start']} --threads 1 {data(session['dataset'])}",
            f"clicks-{session['start']}",
        )
        for session in first["clicks"]
    ]
    for command, words, name in measured:
        yield f"picosam2 {command} --peer {peer['option']} {words} --json peer-{name}.json"
    if first["domains"]:
        yield f"picosam2 eval --peer {peer['option']} --domains domains --threads 1"
    for kind in ("eval", "clicks"):
        for command, words, name in [each for each in measured if each[0] == kind][:1]:
            weights = first["weights"]["name"]
            yield f"picosam2 {command} --weights {weights} {words} --json {name}.json"
            yield f"picosam2 compare peer-{name}.json {name}.json"
