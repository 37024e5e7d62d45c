"""One process at a time writes to a folder, and nothing that it did not write is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import make, run
from test_cli import configure, here  # noqa: F401  a fixture

from openmm_diffsim import Samples, cli
from openmm_diffsim.errors import CheckpointError, TakenError
from openmm_diffsim.io import lock as locks
from openmm_diffsim.io.lock import Lock
from openmm_diffsim.io.manifest import NAME, Manifest
from openmm_diffsim.io.process import Process
from openmm_diffsim.io.temporary import discard

ENDED = (cli.FINISHED, cli.NOT_CONVERGED)  # of a fit that was left to end

HOLD = """if True:
    import sys
    from pathlib import Path
    from openmm_diffsim.io import lock as locks
    if sys.argv[2] == "no flock":
        locks._flock = lambda file: None
    lock = locks.Lock(Path(sys.argv[1]), "out")
    print("held", flush=True)
    input()
    lock.release()
"""


@pytest.fixture(params=["flock", "no flock"])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the file system's own locks, and where it has none."""
    if request.param == "no flock":
        monkeypatch.setattr(locks, "_flock", lambda file: None)
    return str(request.param)


def holder(path: Path, flock: str = "flock") -> subprocess.Popen[str]:
    """Another process, which holds a lock."""
    command = [sys.executable, "-c", HOLD, str(path), flock]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def lock_of(path: Path, **changed: Any) -> None:
    """A lock file of a process that differs in something from this one."""
    path.write_text(json.dumps(vars(replace(Process.this(), **changed)) | {"since": "then"}))


# Locks --------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path, flock: str) -> None:
    path = tmp_path / "fit.lock"
    process = holder(path, flock)
    with pytest.raises(TakenError, match=f"process {process.pid} on host .* since 2") as caught:
        Lock(path, "out")
    assert (caught.value.pid, caught.value.host) == (process.pid, os.uname().nodename)
    assert caught.value.path == path
    process.communicate("\n")  # releases it
    assert not path.exists()
    Lock(path, "out").release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, flock: str) -> None:
    path = tmp_path / "fit.lock"
    process = holder(path, flock)
    process.kill()
    process.wait()
    assert path.exists()
    with Lock(path, "out"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(TakenError, match=f"process {os.getpid()} "):
            Lock(path, "out")  # two of one process are two
    assert list(tmp_path.iterdir()) == []


def test_of_many_who_find_the_lock_of_a_killed_process_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "fit.lock"
    lock_of(path, started="1")
    start, tell, gate = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(6):
        children.append(os.fork())
        if children[-1] == 0:
            for _, write in (start, gate):
                os.close(write)
            os.read(start[0], 1)  # until it is closed
            try:
                held: Lock | None = Lock(path, "out")
            except TakenError:
                held = None
            os.write(tell[1], b"h" if held else b"r")
            os.read(gate[0], 1)  # until all have tried
            os._exit(0)
    os.close(start[1])
    said = b"".join(os.read(tell[0], 1) for _ in children)
    os.close(gate[1])
    for child in children:
        os.waitpid(child, 0)
    assert sorted(said.decode()) == ["h", "r", "r", "r", "r", "r"]


@pytest.mark.parametrize(
    "changed",
    [{"started": "1"}, {"system": "an earlier boot pid:[1]"}],
    ids=["the number is another's by now", "before the last boot"],
)
def test_a_lock_that_is_stale_by_what_it_says(
    tmp_path: Path, flock: str, changed: dict[str, str]
) -> None:
    lock_of(tmp_path / "fit.lock", **changed)
    Lock(tmp_path / "fit.lock", "out").release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_host_is_not_judged(tmp_path: Path, flock: str) -> None:
    path = tmp_path / "fit.lock"
    lock_of(path, host="node7", pid=4711)
    said = f"process 4711 on host node7, since then: .* if it has ended, .* delete {path}"
    with pytest.raises(TakenError, match=said):
        Lock(path, "out")
    path.unlink()
    Lock(path, "out").release()


@pytest.mark.parametrize("content", [b"", b"the user's", b"[1]", b"{}", b"\0" * 20_000])
def test_a_file_that_is_no_lock_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fit.lock"
    path.write_bytes(content)
    with pytest.raises(TakenError, match="it is none: move it away"):
        Lock(path, "out")
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_an_empty_lock_is_nobodys_after_a_minute(tmp_path: Path, flock: str) -> None:
    path = tmp_path / "fit.lock"
    path.touch()
    os.utime(path, (time.time() - 90,) * 2)
    Lock(path, "out").release()
    assert list(tmp_path.iterdir()) == []


def test_a_link_or_a_folder_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("the user's")
    (tmp_path / "a.lock").symlink_to("other")
    (tmp_path / "b.lock").mkdir()
    for name in ("a.lock", "b.lock"):
        with pytest.raises(TakenError):
            Lock(tmp_path / name, "out")
    assert (tmp_path / "other").read_text() == "the user's"


def test_a_forked_process_neither_holds_nor_releases(tmp_path: Path) -> None:
    path = tmp_path / "fit.lock"
    lock = Lock(path, "out")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        lock.release()
        os.read(read, 1)
        os._exit(0)
    assert path.exists()
    lock.release()
    Lock(path, "out").release()  # though the child is still there
    os.write(write, b"x")
    os.waitpid(child, 0)


@pytest.mark.parametrize("call", ["link", "write", "unlink"])
def test_ctrl_c_while_it_is_taken_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    original, calls = getattr(os, call), 0

    def interrupted(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        original(*arguments, **options)
        if calls == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, call, interrupted)
        Lock(tmp_path / "fit.lock", "out")
    discard(tmp_path)
    assert list(tmp_path.iterdir()) == []
    Lock(tmp_path / "fit.lock", "out").release()


def test_without_hard_links_and_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: str
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "fit.lock"
    with Lock(path, "out"), pytest.raises(TakenError):
        Lock(path, "out")
    process = holder(path, flock)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(TakenError, match=str(process.pid)):  # whoever is at work is named first
            Lock(path, "out")
    process.communicate("\n")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        Lock(path, "out")
    assert caught.value.filename == str(tmp_path) and list(tmp_path.iterdir()) == []


# Manifests ----------------------------------------------------------------------------------------


def test_what_the_owner_wrote_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    mine = Manifest(tmp_path, "me")
    mine.write({"a.csv": b"1", "b.csv": b"2"})
    mine.write({"a.csv": b"3"})
    assert (tmp_path / "a.csv").read_bytes() == b"3"
    (tmp_path / "b.csv").write_bytes(b"edited")
    (tmp_path / "c.csv").write_bytes(b"the user's")
    (tmp_path / "d.csv").symlink_to("nowhere")
    (tmp_path / "e.csv").mkdir()
    for name in ("b.csv", "c.csv", "d.csv", "e.csv"):
        with pytest.raises(TakenError, match="would be overwritten") as caught:
            mine.write({"a.csv": b"4", name: b"5"})
        assert caught.value.path == tmp_path / name
    assert (tmp_path / "a.csv").read_bytes() == b"3"  # all or nothing
    with pytest.raises(TakenError, match="another fit's"):
        Manifest(tmp_path, "you").write({"new.csv": b""})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"what": "mine"}', "[" * 100_000])
def test_another_list_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(TakenError, match=NAME):
        Manifest(tmp_path, "me").write({"a.csv": b"1"})
    assert (tmp_path / NAME).read_text() == content and not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("last", range(1, 5))
def test_after_a_kill_between_two_files_all_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    Manifest(tmp_path, "me").write({"a": b"1", "b": b"2"})
    calls = 0

    class Killed(BaseException):
        pass

    def deadly(*arguments: Any, original: Any = os.replace) -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            raise Killed
        original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", deadly)
        Manifest(tmp_path, "me").write({"a": b"3", "b": b"4"})
    Manifest(tmp_path, "me").write({"a": b"5", "b": b"6"})
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"56"


# Fits ---------------------------------------------------------------------------------------------


def test_a_fit_in_python_keeps_to_its_own_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "water.npz"
    fit = run(make(checkpoint=path), 1)
    kept = path.read_bytes()
    with pytest.raises(TakenError, match=r"water.npz is there already, .* resume\(\)"):
        run(make(checkpoint=path), 1)
    assert path.read_bytes() == kept
    run(fit, 2)  # its own
    run(make(checkpoint=path).resume(path), 3)
    with pytest.raises(TakenError, match="is there already"):
        run(fit, 3)  # another has gone on with it since
    process = holder(path.with_suffix(".lock"))
    with pytest.raises(TakenError, match=f"process {process.pid} on host"):
        run(make(checkpoint=path).resume(path), 4)
    process.communicate("\n")
    assert sorted(tmp_path.iterdir()) == [path]


def test_two_fits_with_one_place_for_frames_are_two(tmp_path: Path) -> None:
    fit = make(checkpoint=tmp_path / "water.npz")
    other = make(checkpoint=tmp_path / "water.ckpt")  # water_frames, too
    with fit.holding_checkpoint(), pytest.raises(TakenError):
        run(other, 1)


def test_saving_never_replaces_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    fit = run(make(), 1)
    with pytest.raises(TakenError, match="no checkpoint"):
        fit.save(path)
    samples = fit.states[0].frames
    assert isinstance(samples, Samples)
    with pytest.raises(TakenError, match="no samples file"):
        samples.save(path)
    assert path.read_text() == "mine"
    fit.save(tmp_path / "fit.npz")
    fit.save(tmp_path / "fit.npz")


def test_a_folder_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Any, flags: int, *mode: int, original: Any = os.open) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return int(original(path, flags, *mode))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(CheckpointError, match=r"fit.npz: Permission denied; choose a folder"):
        run(make(checkpoint=tmp_path / "fit.npz"), 1)


def command(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


USERS = (
    "system.xml",
    "state.xml",
    "rdf_0.csv",
    "figure.png",
    "report.html",
    "summary.json",
    NAME,
    "fit.lock",
)


@pytest.mark.parametrize("name", [*USERS, "checkpoint.npz"])
def test_files_of_the_user_in_the_output_folder_stay(
    here: Path,  # noqa: F811
    name: str,
    capsys: pytest.CaptureFixture,
) -> None:
    config = configure(here, rounds=1, platform="Reference")
    (here / name).write_text("the user's")
    assert command("refine", config, "--output", ".") == cli.BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and (name in said or "already holds a fit" in said)
    assert (here / name).read_text() == "the user's"
    assert sorted(p.name for p in here.iterdir()) == sorted(["fit.toml", "g.csv", name])
    assert command("refine", config, "--output", ".", "--resume") == cli.BAD_INPUT
    assert (here / name).read_text() == "the user's"


def test_the_output_folder_may_be_a_link_but_no_file(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    config = configure(here, rounds=1, platform="Reference")
    before = config.read_bytes()
    for name in ("fit.toml", "g.csv", "g.csv/out"):
        assert command("refine", config, "--output", name) == cli.BAD_INPUT
        assert name in capsys.readouterr().err
    assert config.read_bytes() == before
    (here / "there").mkdir()
    (here / "link").symlink_to("there")
    assert command("refine", config, "--output", "link") in ENDED
    assert (here / "there/summary.json").exists()
    assert command("refine", config, "--output", "there") == cli.BAD_INPUT  # the same


def test_a_result_that_was_edited_stays(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    config = configure(here, target="uncertainty = 0.0002", rounds=1, platform="Reference")
    assert command("refine", config) in ENDED
    (here / "out/potential.csv").write_text("edited")
    config.write_text(config.read_text().replace("rounds = 1", "rounds = 2"))
    kept = (here / "out/checkpoint.npz").read_bytes()
    assert command("refine", config, "--resume") == cli.BAD_INPUT  # before the first step
    assert "potential.csv would be overwritten" in capsys.readouterr().err
    assert (here / "out/checkpoint.npz").read_bytes() == kept
    (here / "out/potential.csv").rename(here / "mine.csv")
    assert command("refine", config, "--resume") in ENDED


def test_the_second_of_two_commands_is_refused_at_once(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture,
) -> None:
    config = configure(here, rounds=1, platform="Reference")
    (here / "out").mkdir()
    process = holder(here / "out/fit.lock")
    for more in ([], ["--resume"]):
        assert command("refine", config, *more) == cli.BAD_INPUT
        said = capsys.readouterr().err.strip()
        assert f"out is in use by process {process.pid} on host {os.uname().nodename}" in said
        assert "\n" not in said
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert command("refine", config) in ENDED
    assert not (here / "out/fit.lock").exists() and not (here / "out/checkpoint.lock").exists()


def test_a_refused_input_leaves_no_folder(here: Path) -> None:  # noqa: F811
    config = configure(here, rows="hello")
    assert command("refine", config, "--output", "new/folder") == cli.BAD_INPUT
    assert not (here / "new").exists()
