"""What the benchmarks share: taking turns, medians, and where and when a number was taken."""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from picosam2.evaluation.network_facts import machine


def taken(packages: tuple[str, ...]) -> dict[str, Any]:
    """Where, when and with what: for the first line of a report and for its JSON."""
    return {
        **machine(),
        "date": datetime.date.today().isoformat(),
        "versions": {name: version(name) for name in ("picosam2", *packages)},
    }


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way in each round; every round runs all of them, in turning order.

    Whatever else the machine does then slows all of them alike, so that ratios within a round mean
    something on a machine that is not idle. One round before, which warms up, is not counted. With
    `time.process_time` as the clock, what other programs take does not count either.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = clock()
            ways[name]()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """The median over the rounds of above / below."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what every benchmark understands."""
    command = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return command


def report(
    numbers: dict[str, float],
    limits: Mapping[str, tuple[str, float]],
    where: dict[str, Any],
    file: Path | None,
) -> None:
    """Print numbers, each with its limit if it has one ("<=" or ">="); exit with 1 if one fails."""
    versions = " ".join(f"{name} {number}" for name, number in where["versions"].items())
    print(f"{where['processor']}, {where['cores']} cores, {where['date']}; {versions}")
    failed = False
    for name, number in numbers.items():
        line = f"{name:<58} {number:10.3f}"
        if name in limits:
            sign, limit = limits[name]
            good = number <= limit if sign == "<=" else number >= limit
            failed |= not good
            line += f"   {sign} {limit:g}: {'yes' if good else 'NO'}"
        print(line)
    if file is not None:
        result = {
            "where": where,
            "numbers": numbers,
            "limits": {k: list(v) for k, v in limits.items()},
        }
        file.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(int(failed))
