"""The processors that a process may use: affinity, control groups, OMP_NUM_THREADS."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from picosam2.runtimes import cpus
from picosam2.runtimes.ort import session_options

SRC = Path(cpus.__file__).parents[1]
UNLIMITED = re.compile(r"\.SessionOptions\(|ThreadPoolExecutor\((\)|thread)|os\.cpu_count")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 processors without limits; the folder stands for /sys/fs/cgroup."""
    monkeypatch.setattr(cpus.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cpus, "_affinity", lambda: 8)
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cpus, "_OWN_CGROUPS", tmp_path / "self")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def test_without_limits_it_is_the_machine() -> None:
    assert cpus.allowed_cpus() == 8


@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3), ("2,4", 2), ("64", 8), ("", 8), ("none", 8), ("0", 8)]
)
def test_omp_num_threads(monkeypatch: pytest.MonkeyPatch, value: str, expected: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cpus.allowed_cpus() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("150000 100000\n", 2), ("50000 100000", 1), ("max 100000", 8), ("x", 8), ("5 0", 8)],
)
def test_version_2_of_control_groups(machine: Path, text: str, expected: int) -> None:
    (machine / "cpu.max").write_text(text)
    assert cpus.allowed_cpus() == expected


def test_the_limit_of_a_parent_group_counts(machine: Path) -> None:
    (machine / "self").write_text("0::/system.slice/my.service\n")
    (machine / "system.slice/my.service").mkdir(parents=True)
    (machine / "system.slice/my.service/cpu.max").write_text("600000 100000")
    assert cpus.allowed_cpus() == 6
    (machine / "system.slice/cpu.max").write_text("300000 100000")
    assert cpus.allowed_cpus() == 3


def test_version_1_of_control_groups(machine: Path) -> None:
    (machine / "self").write_text("7:memory:/m\n4:cpu,cpuacct:/box\n")
    group = machine / "cpu/box"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("400000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cpus.allowed_cpus() == 4
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpus.allowed_cpus() == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_process_pinned_to_one_processor_counts_one() -> None:
    """What `taskset -c 0` does."""
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{core}}}); "
        "from picosam2.runtimes.cpus import allowed_cpus; print(allowed_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_sessions_run_on_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for comes first; else the limit, which ONNX Runtime does not know."""
    for limit in ("3", "64"):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        threads = [session_options(count).intra_op_num_threads for count in (None, 2)]
        assert threads == [3 if limit == "3" else 0, 2]  # 0: as many as the machine has


def test_every_session_has_these_options() -> None:
    """Only files that run in another environment, without this package, make their own."""
    own = [
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        if UNLIMITED.search(path.read_text("utf-8"))
    ]
    assert sorted(own) == [
        "evaluation/network_facts.py",  # names the machine
        "export/imx500/worker.py",
        "runtimes/cpus.py",
        "runtimes/ort.py",
    ]
