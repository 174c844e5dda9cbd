"""How many processors this process may use, which can be fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def allowed_cpus() -> int:
    """The number of processors for this process, 1 or more.

    It is the smallest of: the machine's processors, those that `taskset` or a container leaves to
    the process, the CPU quota of its control groups (`docker run --cpus`), and OMP_NUM_THREADS.
    """
    limits = [os.cpu_count() or 1, _affinity(), _cgroup_quota(), _omp_num_threads()]
    return max(min(limit for limit in limits if limit is not None), 1)


def default_threads() -> int | None:
    """Threads for a library whose own default is all of the machine's processors.

    None where the process may use them all: then the library's choice is the best one.
    """
    allowed = allowed_cpus()
    return allowed if allowed < (os.cpu_count() or 1) else None


def _affinity() -> int | None:
    if not hasattr(os, "sched_getaffinity"):  # macOS and Windows
        return None
    return len(os.sched_getaffinity(0))


def _omp_num_threads() -> int | None:
    """OMP_NUM_THREADS; of a list, one number for each level of nesting, the first counts."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isascii() and first.isdecimal() and int(first) > 0 else None


def _cgroup_quota() -> int | None:
    """The quota of the process's control groups in whole processors, rounded up."""
    quotas = []
    for folder in _cgroup_folders():
        quota = _quota_of(folder)
        if quota is not None:
            quotas.append(math.ceil(quota))
    return min(quotas) if quotas else None


def _cgroup_folders() -> list[Path]:
    """The process's control groups that can limit processors, with all of their parents."""
    folders = [_CGROUPS, _CGROUPS / "cpu"]  # where a container sees its own group
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return folders
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS  # version 1, or 2
        parts = [part for part in path.split("/") if part]
        folders += [root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
    return folders


def _quota_of(folder: Path) -> float | None:
    """The processors that a control group allows; None for no limit."""
    try:
        if (folder / "cpu.max").exists():  # version 2: "quota period", or "max period"
            quota, period = (folder / "cpu.max").read_text().split()
        else:  # version 1: -1 is no limit
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        share = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such group
        return None
    return share if 0 < share < math.inf else None
