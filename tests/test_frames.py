"""Configurations in a DCD file."""

from __future__ import annotations

import gc
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
