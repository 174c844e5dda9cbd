"""What becomes of errors: a mistake of the user is one sentence on stderr, and an exit code.

The command `picosam2` ends so, and the scripts of `benchmarks` and `tools` by `run_script`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from picosam2.cli._text import one_line
from picosam2.errors import PicoSAM2Error, install_command

EXTRAS = {
    **dict.fromkeys(
        ("torch", "safetensors", "onnx", "pycocotools", "cv2", "rich", "matplotlib", "jinja2"),
        "train",
    ),
    **dict.fromkeys(
        ("fastapi", "starlette", "uvicorn", "prometheus_client", "cachetools"), "serve"
    ),
    "av": "video",
    "transformers": "sam2",
    "labelme": "labelme",
    "osam": "labelme",
    "tensorboard": "tensorboard",
    "openvino": "openvino",
    "ai_edge_litert": "litert",
    "litert_torch": "export-litert",
    "coremltools": "coreml",
    "executorch": "executorch",
}
"""The extra that brings a package which the base install lacks, by the package's name."""

USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
"""Exit codes: a mistake the user can mend, and what shells give for SIGINT and SIGPIPE."""


def run_script(main: Callable[[], object]) -> NoReturn:
    """Run the `main` of a script beside the package and exit as the commands do."""
    sys.exit(exit_code(main, Path(sys.argv[0]).name))


def exit_code(work: Callable[[], object], program: str = "picosam2") -> int:
    """Do the work of `program`; its exit code, which is what `work` returns if that is a number."""
    try:
        code = work()
    except PicoSAM2Error as error:
        return _fail(program, str(error))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(
            program, f"this needs the Python package {error.name!r}: {install_command(extra)}"
        )
    except MemoryError as error:
        return _fail(
            program,
            f"there is not enough memory{f' ({error})' if str(error) else ''}: "
            "use smaller or fewer images, or fewer --threads",
        )
    except OSError as error:  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename else ""
        return _fail(program, f"{where}{error.strerror or error}")
    return code if isinstance(code, int) else 0


def _fail(program: str, message: str) -> int:
    print(f"{program}: {one_line(' '.join(message.split()))}", file=sys.stderr)
    return USAGE
