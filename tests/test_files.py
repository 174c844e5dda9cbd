"""Files are written whole or not at all, with the permissions of any new file, by any thread."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from picosam2._files import atomic_write, scratch_folder, write_bytes, write_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and locks")


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
def test_threads_never_see_another_umask(tmp_path: Path) -> None:
    interval, umask = sys.getswitchinterval(), os.umask(0o027)
    sys.setswitchinterval(1e-6)
    try:

        def write(number: int) -> tuple[int, int]:
            first, other = tmp_path / f"{number}.json", tmp_path / f"{number}.plain"
            write_text(first, "{}")
            other.touch()  # another thread's file, which asks for nothing special
            return permissions(first), permissions(other)

        with ThreadPoolExecutor(8) as pool:
            result = set(pool.map(write, range(1200)))
    finally:
        sys.setswitchinterval(interval)
        os.umask(umask)
    assert result == {(0o640, 0o640)}


def test_threads_that_write_one_file_leave_one_whole_content(tmp_path: Path) -> None:
    target, interval = tmp_path / "shared.txt", sys.getswitchinterval()
    contents = {str(i) * 5000 for i in range(8)}
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda text: write_text(target, text), sorted(contents) * 20))
    finally:
        sys.setswitchinterval(interval)
    assert target.read_text() in contents
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half of the new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "name", ["x" * 251 + ".png", "ä" * 120 + ".json", "a." + "b" * 250, "." + "c" * 200, "noend"]
)
def test_names_as_long_as_the_file_system_takes(name: str, tmp_path: Path) -> None:
    write_bytes(tmp_path / name, b"data")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@posix
def test_what_a_killed_process_left_is_gone_after_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "weights.onnx"
    code = (
        "import sys, time; from picosam2._files import atomic_write\n"
        f"with atomic_write({str(target)!r}) as temporary:\n"
        "    temporary.write_bytes(b'half of a long file'); print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (left,) = tmp_path.iterdir()
        # While it lives, its file is its own.
        write_bytes(target, b"first")
        assert set(tmp_path.iterdir()) == {target, left}
        process.send_signal(signal.SIGKILL)
    write_bytes(target, b"new")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"new"


@posix
def test_a_link_planted_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    folder.mkdir()
    victim.write_text("untouched")
    (folder / ".a-0.txt").symlink_to(victim)
    write_text(folder / "a.txt", "new")
    assert victim.read_text() == "untouched"
    assert (folder / "a.txt").read_text() == "new"
    assert not (folder / "a.txt").is_symlink()


def test_a_writer_that_replaces_the_temporary_file_itself(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with atomic_write(target) as temporary:
        own = tmp_path / "own"
        own.write_bytes(b"own")
        own.replace(temporary)
    assert target.read_bytes() == b"own"
    assert list(tmp_path.iterdir()) == [target]


def test_readers_never_see_half_of_a_file(tmp_path: Path) -> None:
    target, stop = tmp_path / "a.txt", threading.Event()
    whole = {letter * 20_000 for letter in "ab"}
    write_text(target, "a" * 20_000)
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(target.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        for text in whole:
            write_text(target, text)
    stop.set()
    reader.join()
    assert seen <= whole


# --- folders to work in -------------------------------------------------------------------------

KILLED_IN_A_FOLDER = """
import os, signal, sys
from pathlib import Path
from picosam2._files import scratch_folder
with scratch_folder(Path(sys.argv[1]) if sys.argv[1:] else None, "work-") as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_scratch_folder_goes_at_the_end_whatever_happens(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
    with pytest.raises(KeyError), scratch_folder(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_may_become_a_result(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, ".out-") as folder:
        (folder / "file").write_text("x")
        folder.rename(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "x"


@posix
def test_the_permissions_of_scratch_folders(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as private, scratch_folder(tmp_path) as usual:
        assert permissions(private) == 0o700
        (tmp_path / "new").mkdir()
        assert permissions(usual) == permissions(tmp_path / "new")


@posix
def test_what_killed_processes_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED_IN_A_FOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(words, **pipes) as running,
        subprocess.Popen(words, **pipes) as killed,
    ):
        in_use, left = (Path(each.stdout.readline().strip()) for each in (running, killed))
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert (left / "half").exists()
        others = [tmp_path / "work-notes", tmp_path / "other-0123456789abcdef"]
        for other in others:
            other.mkdir()
        with scratch_folder(tmp_path, "work-") as folder:
            assert sorted(tmp_path.iterdir()) == sorted([in_use, folder, *others])
            with scratch_folder(tmp_path, "work-"):
                assert folder.exists()  # not even this process's own are taken for left behind
        running.communicate()


@posix
def test_scratch_folders_of_many_threads_do_not_take_each_other_away(tmp_path: Path) -> None:
    def work(number: int) -> str:
        with scratch_folder(tmp_path) as folder:
            (folder / "file").write_text(str(number))
            time.sleep(0.001)
            return (folder / "file").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == [str(number) for number in range(200)]
    assert list(tmp_path.iterdir()) == []
