"""The marks that decide what the fast lane runs, and the record they come from."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import durations
import pytest
from durations import DOCUMENT, GPU, RECORD, REFRESH, name_of, read, slowest, stale, write

MOST_STALE = 0.25  # of the names: a test that was renamed only counts as fast until it is measured


def test_the_record_names_tests_that_are_there() -> None:
    names = list(read())
    gone = stale(names)
    assert names and len(gone) <= MOST_STALE * len(names), (
        f"{len(gone)} of the {len(names)} tests in {RECORD.name} are no more, such as {gone[:3]}; "
        f"measure again: {REFRESH}"
    )


def test_the_slowest_tests_are_published() -> None:
    assert slowest() in DOCUMENT.read_text(encoding="utf-8"), f"not those of the record: {REFRESH}"


def test_a_case_has_the_name_of_its_function() -> None:
    assert name_of("tests/test_io.py::test_x[a/b::c]") == "test_io.py::test_x"
    assert name_of("test_io.py::test_x", gpu=True) == "test_io.py::test_x" + GPU


def test_the_record_keeps_what_did_not_run_and_drops_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_one(): ...\ndef test_two(): ...\n")
    record = tmp_path / "durations.txt"
    write({"test_a.py::test_one": 3.0, "test_a.py::test_two": 2.0}, record)
    write({"test_a.py::test_gone": 4.0}, record)
    write({"test_a.py::test_one": 0.1, f"test_a.py::test_one{GPU}": 7.0}, record)
    assert read(record) == {f"test_a.py::test_one{GPU}": 7.0, "test_a.py::test_two": 2.0}
    assert stale(["test_a.py::test_one", "test_b.py::test_one"], tmp_path) == [
        "test_b.py::test_one"
    ]


# Pytest itself, with this conftest ----------------------------------------------------------------

PLANTED = """
import signal, time
import pytest
from native_systems import CPU, Where

def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

@pytest.fixture(scope="module")
def costly():
    work(0.7)

def test_pays_for_the_fixture(costly): pass
def test_uses_the_fixture(costly): pass
def test_quick(): pass

@pytest.mark.parametrize("where", [CPU, Where("OpenCL", "single")], ids=str)
def test_somewhere(where): work(0.6 if where is CPU else 0.8)

@pytest.mark.parametrize("platform", ["Reference", "CUDA"])
def test_by_name(platform): pass

def test_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
"""
NAMES = ["test_pays_for_the_fixture", "test_uses_the_fixture", "test_quick", "test_ctrl_c"]
HOST = ["test_somewhere[CPU]", "test_by_name[Reference]"]
DEVICE = ["test_somewhere[OpenCL-single]", "test_by_name[CUDA]"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tests with the conftest of this one."""
    here, folder = Path(__file__).parent, tmp_path_factory.mktemp("planted") / "tests"
    folder.mkdir()
    document = "Before.\n\n<!-- slowest tests -->\n```\n9.0 old\n```\nAfter.\n"
    (folder.parent / DOCUMENT.name).write_text(document)
    for name in ("conftest.py", "durations.py", "native_systems.py", "systems.py"):
        (folder / name).write_text((here / name).read_text(encoding="utf-8"))
    (folder / "test_planted.py").write_text(PLANTED)
    return folder


def passed(folder: Path, *arguments: str) -> list[str]:
    """The cases that passed, in a pytest that was started with SIGINT ignored; no other ran."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "test_planted.py::" in line]
    assert all(" PASSED " in line for line in lines if "::" in line.split()[0])
    return [line.split()[0].split("::")[1] for line in lines if " PASSED " in line]


def test_marks_come_from_parameters_and_from_measured_times(planted: Path) -> None:
    assert sorted(passed(planted, "--record-durations")) == sorted(NAMES + HOST + DEVICE)
    found = read(planted / RECORD.name)
    assert set(found) == {
        "test_planted.py::test_pays_for_the_fixture",
        "test_planted.py::test_uses_the_fixture",  # though another paid
        "test_planted.py::test_somewhere",
        "test_planted.py::test_somewhere" + GPU,
    }
    assert found["test_planted.py::test_somewhere" + GPU] >= 0.8
    published = (planted.parent / DOCUMENT.name).read_text()
    block = "<!-- slowest tests -->\n```\n" + slowest(planted / RECORD.name) + "\n```"
    assert published == f"Before.\n\n{block}\nAfter.\n" and published.count("test_planted") == 4
    write({"test_planted.py::test_quick": durations.SLOW + 0.1}, planted / RECORD.name)
    fast = [name for name in NAMES if name != "test_quick"]
    # of those on a device none is slow: they are left out for their other mark
    assert sorted(passed(planted, "-m", "not slow and not gpu")) == sorted(fast + HOST)
