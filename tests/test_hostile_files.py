"""Files that others wrote to run code, to write elsewhere or to fill the memory: all refused.

By the command line, each in a process with little memory to spare. See test_xml.py for OpenMM's
XML in detail.
"""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import malformed
import numpy as np
import pytest
from forked import Forked
from interrupted import ENDED
from test_fuzz import complaints, contents

from openmm_diffsim.errors import FramesError
from openmm_diffsim.io import Frames, FrameWriter


class Evil:
    """Leaves a folder behind where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


EVIL = pickle.dumps(Evil()).hex()
PYTHON_FORCE = (
    f'<Forces><Force forceGroup="0" function="{EVIL}" name="f" type="PythonForce" usesPeriodic="0" '
    'version="2"><GlobalParameters/><Particles/></Force></Forces>'
)
OBSERVABLE = """
import os
os.mkdir("ran")
from openmm_diffsim import Pressure
class Mine(Pressure):
    pass
"""


def in_system(folder: Path) -> str:
    """A force that is code."""
    path = folder / "system.xml"
    path.write_text(path.read_text().replace("<Forces/>", PYTHON_FORCE))
    return "own.toml"


def in_state(folder: Path) -> str:
    """The same, where a State belongs."""
    text = (folder / "system.xml").read_text().replace("<Forces/>", PYTHON_FORCE)
    (folder / "state.xml").write_text(text)
    return "own.toml"


def entities(folder: Path) -> str:
    """A few lines that are gigabytes."""
    (folder / "system.xml").write_text(malformed.BOMB)
    return "own.toml"


def other_file(folder: Path) -> str:
    """An entity that is another file."""
    text = '<!DOCTYPE s [<!ENTITY x SYSTEM "g.csv">]><System type="System">&x;</System>'
    (folder / "system.xml").write_text(text)
    return "own.toml"


def own_class(folder: Path) -> str:
    """An observable in a file."""
    (folder / "mine.py").write_text(OBSERVABLE)
    return _changed(folder, "target", {"observable": "mine.py:Mine", "value": 1.0})


def module(folder: Path) -> str:
    """An observable in a module, which is imported from the folder."""
    (folder / "mine.py").write_text(OBSERVABLE)
    return _changed(folder, "target", {"observable": "mine:Mine", "value": 1.0})


def output_elsewhere(folder: Path) -> str:
    """Results in another's folder."""
    return _changed(folder, "refine", malformed.REFINE | {"output": "../elsewhere"})


def output_by_a_link(folder: Path) -> str:
    """The same, by a symbolic link."""
    (folder / "link").symlink_to("..")
    return _changed(folder, "refine", malformed.REFINE | {"output": "link/elsewhere"})


def endless_file(folder: Path) -> str:
    """A table that has no end."""
    (folder / "g.csv").unlink()
    (folder / "g.csv").symlink_to("/dev/zero")
    return "fit.toml"


def _changed(folder: Path, key: str, value: dict[str, Any]) -> str:
    targets = [malformed.RDF, {"uncertainty": 5.0} | value] if key == "target" else value
    (folder / "fit.toml").write_text(malformed.toml(malformed.FLUID | {key: targets}))
    return "fit.toml"


CONFIGURATIONS: dict[Callable[[Path], str], tuple[str, ...]] = {
    in_system: ("system.xml",),
    in_state: ("state.xml",),
    entities: ("system.xml",),
    other_file: ("system.xml",),
    own_class: ("mine.py",),
    module: ("mine:Mine",),
    output_elsewhere: ("refine.output",),
    output_by_a_link: ("refine.output",),
    endless_file: ("g.csv", "file"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return valid(tmp_path)


def valid(parent: Path) -> Path:
    """A folder of files that are right."""
    made = parent / "here"
    made.mkdir()
    malformed.write_valid(made)
    return made


def refused(commands: Forked, folder: Path, arguments: list[str], names: Any) -> list[str]:
    """What is wrong about how it was refused."""
    before = contents(folder.parent)
    done = commands.run(folder, arguments)
    case = malformed.Case("", arguments, names)
    wrong = complaints(case, done, contents(folder.parent) == before)
    return [*wrong, done["err"][-400:]] if wrong else []


@pytest.mark.parametrize("attack", CONFIGURATIONS, ids=lambda attack: attack.__name__)
def test_a_configuration_of_others_does_no_harm(
    commands: Forked, attack: Callable[[Path], str], folder: Path
) -> None:
    name = attack(folder)
    assert not refused(commands, folder, ["refine", name], CONFIGURATIONS[attack])


def test_files_to_be_read_may_lie_anywhere(commands: Forked, folder: Path) -> None:
    shutil.move(folder / "g.csv", folder.parent / "elsewhere.csv")
    for place in ("../elsewhere.csv", str(folder.parent / "elsewhere.csv")):
        targets = [malformed.RDF | {"file": place}]
        (folder / "fit.toml").write_text(malformed.toml(malformed.FLUID | {"target": targets}))
        assert commands.run(folder, ["refine", "fit.toml"])["code"] in ENDED
        shutil.rmtree(folder / "out")


def pickled(path: Path) -> None:
    """An archive of objects."""
    np.savez(path, meta=np.array([Evil()], dtype=object))


def bomb(path: Path) -> None:
    """An archive that is three gigabytes unpacked."""
    with open(path, "wb") as stream:
        np.savez_compressed(stream, meta=np.zeros(10**8, dtype=np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(100000000,)", b"(999999999,)"))


def huge_header(path: Path) -> None:
    """An array that says that it is an exabyte."""
    np.savez(path, meta=np.zeros(10**5, dtype=np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(100000,)", b"(10**15,)"))


def truncated(path: Path) -> None:
    """Half of what was written."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def altered(path: Path) -> None:
    """One byte is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def device(path: Path) -> None:
    """No file."""
    path.unlink()
    path.symlink_to("/dev/zero")


CHECKPOINTS = [pickled, bomb, huge_header, truncated, altered, device]


@pytest.fixture(scope="module")
def fitted(commands: Forked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit that has ended; a copy of it goes on, so what stops one is what was done to it."""
    folder = valid(tmp_path_factory.mktemp("fitted"))
    assert commands.run(folder, ["refine", "fit.toml"])["code"] in ENDED
    other = shutil.copytree(folder, folder.parent / "other")
    assert commands.run(other, ["refine", "fit.toml", "--resume"])["code"] in ENDED
    return folder


@pytest.mark.parametrize("attack", CHECKPOINTS, ids=lambda attack: attack.__name__)
def test_a_checkpoint_of_others_does_no_harm(
    commands: Forked, fitted: Path, attack: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = shutil.copytree(fitted, tmp_path / "here")
    attack(folder / "out/checkpoint.npz")
    assert not refused(commands, folder, ["refine", "fit.toml", "--resume"], ("checkpoint.npz",))


def gro(folder: Path) -> list[str]:
    """A thousand million atoms, it says."""
    (folder / "a.gro").write_text("argon\n1000000000\n    1AR      AR    1   0.0   0.0   0.0\n")
    return ["a.gro", "run.dcd"]


def dcd(folder: Path) -> list[str]:
    """Particles and frames beyond all memory."""
    data = (folder / "run.dcd").read_bytes()
    atoms = struct.pack("<3i", 4, malformed.N, 4)
    assert atoms in data
    (folder / "a.dcd").write_bytes(data.replace(atoms, struct.pack("<3i", 4, 2**31 - 1, 4)))
    return ["box.pdb", "a.dcd"]


def gzipped(folder: Path) -> list[str]:
    """Four gigabytes in four megabytes."""
    block = gzip.compress(b"\n" * 2**26)
    (folder / "a.pdb.gz").write_bytes(block * 64)
    return ["a.pdb.gz", "run.dcd"]


TRAJECTORIES = [gro, dcd, gzipped]


@pytest.mark.parametrize("attack", TRAJECTORIES, ids=lambda attack: attack.__name__)
def test_a_trajectory_of_others_does_no_harm(
    commands: Forked, attack: Callable[[Path], list[str]], folder: Path
) -> None:
    arguments = ["rdf", *attack(folder), "--output", "found.csv"]
    assert not refused(commands, folder, arguments, ("a.",))


@pytest.mark.parametrize("count", [-1, 0, 2**20, 2**28, 2**31 - 1])
def test_stored_frames_that_claim_other_particles_are_refused(tmp_path: Path, count: int) -> None:
    writer = FrameWriter(tmp_path / "a.dcd")
    writer.write(np.ones((7, 3)), np.eye(3))
    frames = writer.frames()
    data = frames.path.read_bytes()
    atoms = struct.pack("<3i", 4, 7, 4)
    frames.path.write_bytes(data.replace(atoms, struct.pack("<3i", 4, count, 4)))
    with pytest.raises(FramesError, match=r"a\.dcd"):
        Frames(frames.path, 1, np.eye(3)[None])


@pytest.mark.parametrize("name", ["box.pdb", "box.pdb.gz", "box.cif"])
def test_a_topology_that_fills_the_memory_is_not_read(
    commands: Forked, folder: Path, name: str
) -> None:
    if name.endswith("gz"):
        (folder / name).write_bytes(gzip.compress(b"\n" * 2**26) * 64)
    else:
        os.truncate(folder / "box.pdb", 2**40)  # of which the disk holds little
        (folder / "box.pdb").rename(folder / name)
    text = (folder / "own.toml").read_text().replace("box.pdb", name)
    (folder / "own.toml").write_text(text)
    done = commands.run(folder, ["refine", "own.toml"])
    case = malformed.Case("", [], (name,))
    assert not complaints(case, done, not (folder / "out").exists()), done["err"]
