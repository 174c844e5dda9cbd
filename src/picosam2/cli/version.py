"""`picosam2 version`: what is installed."""

from __future__ import annotations


def version() -> None:
    """Print the versions of this package and of what it stands on."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from picosam2.cli._text import columns

    rows = [("picosam2", installed("picosam2")), ("python", platform.python_version())]
    for package in ("numpy", "pillow", "onnxruntime", "torch"):
        try:
            rows.append((package, installed(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    print(columns(rows, left=2))
