"""Configurations in a DCD file."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from systems import topology

from openmm_diffsim.errors import FramesError
from openmm_diffsim.io import Frames, FrameWriter

N = 11
BOX = np.array([[2.0, 0.0, 0.0], [0.3, 1.9, 0.0], [-0.4, 0.5, 2.1]])


def written(path: Path | None, n_frames: int = 6, boxed: bool = True) -> tuple[FrameWriter, ...]:
    rng = np.random.default_rng(3)
    writer = FrameWriter(path)
    positions = rng.uniform(-1, 3, (n_frames, N, 3))
    boxes = BOX * rng.uniform(0.9, 1.1, (n_frames, 1, 1))
    for x, box in zip(positions, boxes, strict=True):
        writer.write(x, box if boxed else None)
    return writer, positions, boxes


@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4, 5], [1, 3, 4], [5]])
def test_frames_come_back_in_single_precision(tmp_path: Path, indices: list[int]) -> None:
    writer, positions, boxes = written(tmp_path / "run.dcd")
    x, cells = writer.frames().read(np.array(indices))
    np.testing.assert_allclose(x, positions[indices], rtol=0, atol=3e-7)
    np.testing.assert_array_equal(cells, boxes[indices])


def test_frames_are_there_while_writing_goes_on(tmp_path: Path) -> None:
    writer, positions, boxes = written(tmp_path / "run.dcd")
    first = writer.frames()
    writer.write(positions[2], boxes[2])
    assert (len(first), len(writer.frames())) == (6, 7)
    x, _ = writer.frames().read(np.array([6]))
    np.testing.assert_allclose(x[0], positions[2], rtol=0, atol=3e-7)


@pytest.mark.parametrize("boxed", [True, False])
def test_another_program_reads_the_same(tmp_path: Path, boxed: bool) -> None:
    writer, _, boxes = written(tmp_path / "run.dcd", boxed=boxed)
    ours, cells = writer.frames().read(np.arange(6))
    del writer
    theirs = mdtraj.load_dcd(str(tmp_path / "run.dcd"), mdtraj.Topology.from_openmm(topology(N)))
    np.testing.assert_allclose(theirs.xyz, ours, rtol=0, atol=3e-7)
    if boxed:
        np.testing.assert_allclose(theirs.unitcell_vectors, boxes, rtol=0, atol=3e-6)
    else:
        assert cells is None


def test_a_temporary_file_goes_with_its_last_owner() -> None:
    writer, *_ = written(None)
    path, frames = writer.path, writer.frames()
    del writer
    gc.collect()
    assert path.exists() and len(frames.read(np.arange(2))[0]) == 2
    del frames
    gc.collect()
    assert not path.exists()


def test_a_file_that_was_cut_short_or_is_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.dcd"
    writer, *_ = written(path)
    del writer
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(FramesError, match="holds 5 frames, expected 6"):
        Frames(path, 6)
    path.write_bytes(b"\x54\x00\x00\x00 nothing of a trajectory" * 10)
    with pytest.raises(FramesError, match="no DCD file"):
        Frames(path, 6)
    with pytest.raises(FramesError, match="cannot read the frames in"):
        Frames(tmp_path / "missing.dcd", 6)
    with pytest.raises(FramesError, match="cannot write frames"):
        FrameWriter(path / "below" / "a_file.dcd")


def test_a_file_that_another_run_has_overwritten_is_refused(tmp_path: Path) -> None:
    writer, *_ = written(tmp_path / "run.dcd")
    frames = writer.frames()
    del writer
    again, *_ = written(tmp_path / "run.dcd")
    assert again.frames().mark == frames.mark  # the same frames
    frames.read(np.array([2]))
    again.write(np.ones((N, 3)), BOX)
    assert again.frames().mark != frames.mark
    frames.read(np.array([2]))  # one more does not matter
    other = FrameWriter(tmp_path / "run.dcd")
    for _ in range(6):
        other.write(np.ones((N, 3)), BOX)
    with pytest.raises(FramesError, match="was overwritten"):
        frames.read(np.array([2]))
    (tmp_path / "run.dcd").unlink()
    with pytest.raises(FramesError, match="the samples need that file"):
        frames.read(np.array([2]))


HEADER = 276  # bytes, of the three records that mdtraj writes
COUNTS = {*range(8, 12), *range(20, 24)}  # of frames and steps, which grow while a run goes on
TITLE = set(range(96, 260))


def test_the_mark_is_that_of_every_byte_that_matters(tmp_path: Path) -> None:
    path = tmp_path / "run.dcd"
    writer, *_ = written(path)
    mark, data = writer.frames().mark, path.read_bytes()
    del writer
    unnoticed = set()
    for k in range(len(data)):
        path.write_bytes(data[:k] + bytes([data[k] ^ 0x10]) + data[k + 1 :])
        try:
            if Frames(path, 6).mark == mark:
                unnoticed.add(k)
        except FramesError:
            pass
    assert unnoticed == COUNTS | TITLE


DAMAGE: dict[str, tuple[Callable[[bytes, int], bytes], str]] = {
    "doubled frame": (
        lambda b, n: b[: HEADER + 2 * n] + b[HEADER + n : HEADER + 2 * n] + b[HEADER + 3 * n :],
        "overwritten, or damaged",
    ),
    "not a number": (
        lambda b, n: b[: HEADER + 3 * n + 80] + b"\xff" * 4 + b[HEADER + 3 * n + 84 :],
        "overwritten, or damaged",
    ),
    "cut within a frame": (lambda b, n: b[: -n // 2], "holds 5 frames, expected 6"),
    "empty": (lambda b, n: b"", "no DCD file"),
    "cut within the header": (lambda b, n: b[:50], "no DCD file"),
    "negative length": (lambda b, n: b"\xfb\xff\xff\xff" + b[4:], "no DCD file"),
    "huge length": (lambda b, n: b"\xff\xff\xff\x7f" + b[4:], "no DCD file"),
    "negative number of atoms": (
        lambda b, n: b[: HEADER - 8] + b"\xfb\xff\xff\xff" + b[HEADER - 4 :],
        "cannot read the frames",
    ),
    "huge number of atoms": (
        lambda b, n: b[: HEADER - 8] + b"\xff\xff\xff\x7f" + b[HEADER - 4 :],
        "cannot read the frames",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_whenever_it_happens(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "run.dcd"
    writer, *_ = written(path)
    frames = writer.frames()
    del writer
    change, message = DAMAGE[damage]
    data = path.read_bytes()
    path.write_bytes(change(data, (len(data) - HEADER) // 6))
    with pytest.raises(FramesError, match=message):
        frames.read(np.array([0]))


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FramesError, match="cannot read the frames"):
        Frames(tmp_path, 6)


def test_a_file_is_read_as_a_whole_only_when_it_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, positions, boxes = written(tmp_path / "run.dcd")
    calls = []
    whole = Frames._read
    monkeypatch.setattr(Frames, "_read", lambda frames: calls.append(1) or whole(frames))
    frames = writer.frames()
    for _ in range(3):
        frames.read(np.arange(6))
    assert len(calls) == 1
    writer.write(positions[0], boxes[0])
    for _ in range(3):
        frames.read(np.arange(6))
    assert len(calls) == 2


def test_a_temporary_file_of_a_killed_process_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """if True:
        import os, signal
        from openmm_diffsim.io import FrameWriter
        writer = FrameWriter()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writer, _, _ = written(None)
    assert not left.exists() and len(writer.frames()) == 6
    del writer
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(FramesError, match=r"missing.*TMPDIR"):
        FrameWriter()
