"""Writes the JSON schema of the weights' metadata for the web library.

python tools/weights_schema.py
"""

from __future__ import annotations

from pathlib import Path

from picosam2._files import write_json
from picosam2.runtimes.metadata import weights_schema

OUT = Path(__file__).parents[1] / "web/packages/picosam2/weights.schema.json"

if __name__ == "__main__":
    write_json(OUT, weights_schema())
