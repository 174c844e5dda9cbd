"""Check that a tag, the packages, the changelog and the citation name the same version.

Usage: `python tools/release/check_version.py v0.2.0`.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NPM_PACKAGE = "web/packages/picosam2/package.json"


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """What is wrong with releasing `tag`, one sentence each; an empty list if nothing is."""
    version = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    messages = []
    if tag != f"v{version}":
        messages.append(f"the tag is {tag}, and pyproject.toml says {version}")
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    if not re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE
    ):
        messages.append(f"CHANGELOG.md has no section `## [{version}] - DATE`")
    citation = (root / "CITATION.cff").read_text("utf-8")
    if f"\nversion: {version}\n" not in citation:
        messages.append(f"CITATION.cff does not say `version: {version}`")
    npm = json.loads((root / NPM_PACKAGE).read_text("utf-8"))["version"]
    if npm != version:
        messages.append(f"{NPM_PACKAGE} has version {npm}, and pyproject.toml {version}")
    return messages


def main(arguments: list[str]) -> int:
    """Print what is wrong; exit code 1 if something is."""
    if len(arguments) != 1:
        print("usage: check_version.py TAG", file=sys.stderr)
        return 2
    messages = problems(arguments[0])
    for line in messages:
        print(line, file=sys.stderr)
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
