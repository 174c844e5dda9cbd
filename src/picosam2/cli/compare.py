"""`picosam2 compare`: did a change help? Two result files, object by object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from picosam2.cli._targets import check_files

if TYPE_CHECKING:
    from picosam2.evaluation.compare import ClicksComparison, Comparison


def compare(
    a: Annotated[Path, Parameter(metavar="A.json")],
    b: Annotated[Path, Parameter(metavar="B.json")],
    /,
    *,
    json: Annotated[Path | None, Parameter(metavar="FILE")] = None,
) -> None:
    """Compare two results of `eval` or `clicks` on the same objects, of weights or of a peer.

    The difference is paired object by object and its 95 % interval is over images, so that one can
    say whether B is better than A and not just luckier.

    Args:
        a: The result to compare with, written by `eval --json` or `clicks --json`.
        b: The result in question.
        json: Also write the numbers to this file.
    """
    from picosam2._files import write_json
    from picosam2.evaluation.compare import compare as paired
    from picosam2.evaluation.compare import compare_clicks, compare_domains, read_result

    check_files(json)
    before, after = read_result(a), read_result(b)
    if before["kind"] == after["kind"] == "domains":
        sets = compare_domains(before, after)
        print("\n".join(map(str, sets)))
        if json is not None:
            write_json(
                json,
                {"protocols": {comparison.protocol: comparison.to_json() for comparison in sets}},
            )
        return
    if before["kind"] == after["kind"] == "clicks":
        paired_result: Comparison | ClicksComparison = compare_clicks(before, after)
    else:
        paired_result = paired(before, after)
    print(paired_result)
    if json is not None:
        write_json(json, paired_result.to_json())
