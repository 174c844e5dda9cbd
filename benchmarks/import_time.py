"""How long `import picosam2` takes, beside an earlier revision of the repository.

    python benchmarks/import_time.py --before REVISION

Processor time of whole processes that import the package and end, in rounds in which both take
turns. `--before` is a revision of git. Both are copied into a temporary folder and compiled to
bytecode there, as an installation is.
"""

from __future__ import annotations

import compileall
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from common import parser, ratio, report, take_turns, taken

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1.05
CODE = "import picosam2; picosam2.Predictor"


def start(source: Path, code: str = CODE) -> None:
    """Run `code` with the package of a source folder, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def children() -> float:
    """Processor seconds of the processes that have ended."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def main() -> None:
    """Take turns, and print the ratio."""
    arguments = parser(__doc__)
    arguments.add_argument("--before", required=True, metavar="REVISION")
    arguments.add_argument("--rounds", type=int, default=20)
    options = arguments.parse_args()
    with TemporaryDirectory() as folder:
        words = ["git", "-C", str(ROOT), "archive", options.before, "src/picosam2"]
        packed = subprocess.run(words, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(Path(folder, "before"), filter="data")
        before, now = Path(folder, "before", "src"), Path(folder, "now", "src")
        skipped = shutil.ignore_patterns("assets", "__pycache__")
        shutil.copytree(ROOT / "src", now, ignore=skipped)
        compileall.compile_dir(folder, quiet=1)
        ways = {
            "now": lambda: start(now),
            "before": lambda: start(before),
            "Python": lambda: start(now, "pass"),
        }
        seconds = take_turns(ways, options.rounds, clock=children)
    numbers = {f"{name}, ms of processor": 1000 * min(each) for name, each in seconds.items()}
    numbers["import picosam2, now / before"] = ratio(seconds["now"], seconds["before"])
    limits = {"import picosam2, now / before": ("<=", LIMIT)}
    report(numbers, limits, taken(("numpy", "onnxruntime")), options.json)


if __name__ == "__main__":
    main()
