"""`picosam2 weights`: what comes with the package."""

from __future__ import annotations


def weights() -> None:
    """List the weights that come with the package: name, runtime, size and SHA-256."""
    from picosam2.cli.report import columns, size
    from picosam2.files import sha256_file
    from picosam2.weights import RUNTIMES, find_weights, shipped

    rows = [("name", "runtime", "size", "sha256")]
    for name in shipped():
        for runtime in RUNTIMES:
            path = find_weights(name, runtime)
            if path.is_file():
                rows.append((name, runtime, size(path.stat().st_size), sha256_file(path)))
    if len(rows) == 1:
        print("no weights come with this build: give --weights a file")
        return
    print(columns(rows, left=2))
