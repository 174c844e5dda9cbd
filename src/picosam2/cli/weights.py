"""`picosam2 weights`: what comes with the package."""

from __future__ import annotations


def weights() -> None:
    """List the weights that come with the package: name, runtime, SHA-256 and size.

    `finder` proposes the boxes of `picosam2 everything`; the others make masks.
    """
    from picosam2._files import sha256_file
    from picosam2.cli._text import columns, size
    from picosam2.models.views import FINDER
    from picosam2.runtimes.weights import shipped, shipped_files

    rows = [("name", "runtime", "sha256", "size")]
    for name in (*shipped(), FINDER):
        files = shipped_files(name)
        for runtime in ("onnx", "torch"):  # the other runtimes take the first one's file
            if path := files.get(runtime):
                rows.append((name, runtime, sha256_file(path), size(path.stat().st_size)))
    if len(rows) == 1:
        print("no weights come with this build: give --weights a file")
        return
    print(columns(rows, left=3))
