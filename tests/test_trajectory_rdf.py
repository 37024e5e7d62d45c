"""The g(r) of stored trajectories: what is counted, and what is refused, from the command line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from numpy.typing import NDArray

from openmm_diffsim import cli
from openmm_diffsim.errors import ConfigurationError
from openmm_diffsim.report.trajectory import trajectory_rdf

Array = NDArray[np.float64]

SIDE = 2.0


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def atoms(n: int = 40, frames: int = 6, sides: Array | None = None) -> mdtraj.Trajectory:
    """Random atoms in cubes of ``sides``."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(n):
        topology.add_atom("AR", mdtraj.element.argon, topology.add_residue("AR", chain))
    lengths = np.full(frames, SIDE) if sides is None else sides
    frames = len(lengths)
    random = np.random.default_rng(1)
    return mdtraj.Trajectory(
        random.random((frames, n, 3)) * lengths[:, None, None],
        topology,
        unitcell_lengths=np.repeat(lengths[:, None], 3, axis=1),
        unitcell_angles=np.full((frames, 3), 90.0),
    )


def dimers(waters: int = 0) -> mdtraj.Trajectory:
    """An ideal gas of dimers, 0.15 nm long, and of waters, whose bonds every reader knows."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(60):
        residue = topology.add_residue("DIM", chain)
        pair = [topology.add_atom(name, mdtraj.element.carbon, residue) for name in ("C1", "C2")]
        topology.add_bond(*pair)
    for _ in range(waters):
        residue = topology.add_residue("HOH", chain)
        oxygen = topology.add_atom("O", mdtraj.element.oxygen, residue)
        for name in ("H1", "H2"):
            topology.add_bond(oxygen, topology.add_atom(name, mdtraj.element.hydrogen, residue))
    random = np.random.default_rng(4)
    centre = random.random((5, 60, 1, 3)) * SIDE
    axis = random.normal(size=(5, 60, 1, 3))
    axis *= 0.075 / np.linalg.norm(axis, axis=-1, keepdims=True)
    x = np.concatenate([centre - axis, centre + axis], axis=2).reshape(5, -1, 3)
    oxygens = random.random((5, waters, 1, 3)) * SIDE
    arms = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
    x = np.concatenate([x, (oxygens + arms).reshape(5, -1, 3)], axis=1)
    return mdtraj.Trajectory(x, topology, None, np.full((5, 3), SIDE), np.full((5, 3), 90.0))


def written(trajectory: mdtraj.Trajectory, here: Path, kind: str = "dcd") -> tuple[Path, Path]:
    """A PDB file of the first frame, with bonds, and all frames."""
    trajectory[0].save_pdb(here / "top.pdb")
    trajectory.save(str(here / f"run.{kind}"))
    return here / "top.pdb", here / f"run.{kind}"


def test_the_default_range_fits_the_smallest_box(here: Path) -> None:
    files = written(atoms(sides=np.array([2.0, 1.9, 2.1, 1.8, 2.0])), here)
    rdf, _ = trajectory_rdf(*files, bins=20)
    assert rdf.edges[-1] == pytest.approx(0.9, abs=1e-5)
    assert run("rdf", *files, "--bins", 20) == cli.FINISHED


@pytest.mark.parametrize("waters", [0, 20])
def test_molecules_whose_bonds_are_unknown_are_not_guessed(
    here: Path, waters: int, capsys: pytest.CaptureFixture
) -> None:
    trajectory = dimers(waters)
    with_bonds, frames = written(trajectory, here)
    without = here / "conf.gro"
    trajectory[0].save_gro(str(without))
    arguments = {"atoms": "resname DIM", "r_max": 0.6, "bins": 60}
    _, expected = trajectory_rdf(with_bonds, frames, **arguments)
    assert expected.value[14:16].max() < 4  # 12 where both atoms of a dimer are counted
    with pytest.raises(ConfigurationError, match=r"conf\.gro.*residue DIM0.*--molecules residues"):
        trajectory_rdf(without, frames, **arguments)
    assert run("rdf", without, frames, "--atoms", "resname DIM") == cli.BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
    _, found = trajectory_rdf(without, frames, molecules="residues", **arguments)
    np.testing.assert_array_equal(found.value, expected.value)
    _, every = trajectory_rdf(without, frames, intramolecular=True, **arguments)
    _, all_but = trajectory_rdf(with_bonds, frames, exclude_bonds=1, **arguments)
    assert every.value[14:16].max() > 6
    np.testing.assert_array_equal(all_but.value, expected.value)
    # One atom of each: no pair is in question, whatever is known.
    trajectory_rdf(without, frames, "name C1", r_max=0.6, bins=20)


@pytest.mark.parametrize("molecules", ["bonds", "residues"])
@pytest.mark.parametrize(("chosen", "words"), [("all", "residue DIM0"), ("name C1", "60 atoms")])
def test_bonds_that_are_unknown_cannot_be_counted(
    here: Path, molecules: str, chosen: str, words: str, capsys: pytest.CaptureFixture
) -> None:
    """Not even where residues say what a molecule is: that is not how far apart atoms are."""
    trajectory = dimers()
    with_bonds, frames = written(trajectory, here)
    trajectory[0].save_gro(str(here / "conf.gro"))
    options = ("--atoms", chosen, "--r-max", 0.6, "--molecules", molecules, "--exclude-bonds")
    assert run("rdf", "conf.gro", frames, *options, 1) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert "no bond" in said and words in said and "exclude" in said and said.count("\n") == 1
    assert run("rdf", "conf.gro", frames, *options, 0) == cli.FINISHED
    assert run("rdf", with_bonds, frames, *options, 1) == cli.FINISHED


def test_one_kind_of_atom_without_bonds_is_counted(here: Path) -> None:
    trajectory = atoms()
    _, frames = written(trajectory, here)
    trajectory[0].save_gro(str(here / "top.gro"))
    _, expected = trajectory_rdf(here / "top.pdb", frames, r_max=0.9)
    _, found = trajectory_rdf(here / "top.gro", frames, r_max=0.9)
    np.testing.assert_array_equal(found.value, expected.value)


DUMP = "ITEM: TIMESTEP\n{0}\nITEM: NUMBER OF ATOMS\n{1}\nITEM: BOX BOUNDS {2}\n{3}ITEM: ATOMS {4}\n"


def dump(
    path: Path, columns: str = "id type x y z", bounds: str = "pp pp pp", origin: float = 0.0
) -> Path:
    """A LAMMPS dump of random atoms; scaled where the columns say so."""
    random = np.random.default_rng(2)
    text = ""
    for frame in range(4):
        x = random.random((40, 3)) * (1.0 if "xs" in columns else 10 * SIDE) + origin
        edges = f"{origin} {origin + 10 * SIDE}\n" * 3
        text += DUMP.format(frame, 40, bounds, edges, columns)
        text += "".join(f"{k + 1} 1 {a:.5f} {b:.5f} {c:.5f}\n" for k, (a, b, c) in enumerate(x))
    path.write_text(text)
    return path


def test_a_box_of_lammps_may_begin_anywhere(here: Path) -> None:
    written(atoms(), here)
    found = [
        trajectory_rdf(here / "top.pdb", dump(here / "a.lammpstrj", origin=o), r_max=0.9, bins=9)[1]
        for o in (0.0, -17.3)
    ]
    np.testing.assert_allclose(found[1].value, found[0].value, atol=0.1)


def _not_a_number(here: Path) -> tuple[Path, Path]:
    trajectory = atoms()
    trajectory.xyz[4, 7, 1] = np.nan
    return written(trajectory, here)


def _cut_short(share: float, kind: str = "dcd") -> Callable[[Path], tuple[Path, Path]]:
    def make(here: Path) -> tuple[Path, Path]:
        top, run = written(atoms(), here, kind)
        data = run.read_bytes()
        run.write_bytes(data[: int(share * len(data))])
        return top, run

    return make


def _without_last_frame(here: Path) -> tuple[Path, Path]:
    top, run = written(atoms(), here)
    data = run.read_bytes()
    (frames,) = struct.unpack("<i", data[8:12])
    run.write_bytes(data[: -((len(data) - 276) // frames)])
    return top, run


def _dumped(**options: str) -> Callable[[Path], tuple[Path, Path]]:
    def make(here: Path) -> tuple[Path, Path]:
        return written(atoms(), here)[0], dump(here / "run.lammpstrj", **options)

    return make


def _topology(name: str, text: str) -> Callable[[Path], tuple[Path, Path]]:
    def make(here: Path) -> tuple[Path, Path]:
        (here / name).write_text(text)
        return here / name, written(atoms(), here)[1]

    return make


def _named(name: str) -> Callable[[Path], tuple[Path, Path]]:
    def make(here: Path) -> tuple[Path, Path]:
        (here / name).write_bytes(b"\0" * 200)
        return written(atoms(), here)[0], here / name

    return make


def _other_number(here: Path) -> tuple[Path, Path]:
    written(atoms(30), here)[0].rename(here / "few.pdb")
    return here / "few.pdb", written(atoms(), here)[1]


REFUSED = {
    "NaN": (_not_a_number, ("run.dcd", "frame 4 ", "not finite")),
    "cut in a frame": (_cut_short(0.55), ("run.dcd", "cut short", "3 whole frames of 6")),
    "cut in the header": (_cut_short(0.03), ("run.dcd",)),
    "cut between frames": (_without_last_frame, ("run.dcd", "cut short", "5 whole frames of 6")),
    "cut XTC": (_cut_short(0.55, "xtc"), ("run.xtc",)),
    "cut dump": (_cut_short(0.55, "lammpstrj"), ("run.lammpstrj", "cut short")),
    "scaled": (_dumped(columns="id type xs ys zs"), ("run.lammpstrj", "xs ys zs", "x y z")),
    "open box": (_dumped(bounds="pp ff pp"), ("run.lammpstrj", "pp ff pp", "pp pp pp")),
    "topology of a wrong kind": (_topology("system.data", "LAMMPS"), ("system.data", ".pdb")),
    "malformed PSF": (_topology("x.psf", "LAMMPS data file\n\n64 atoms\n"), ("x.psf", "topology")),
    "empty PDB": (_topology("e.pdb", ""), ("e.pdb",)),
    "PDB without atoms": (_topology("e.pdb", "REMARK\nEND\n"), ("e.pdb",)),
    "empty GRO": (_topology("e.gro", ""), ("e.gro",)),
    "GSD": (_named("run.gsd"), ("run.gsd",)),
    "unknown": (_named("run.dump"), ("run.dump",)),
    "other atoms": (_other_number, ("run.dcd", "30")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sound_trajectory_is_refused_in_one_line(
    case: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    make, words = REFUSED[case]
    topology, trajectory = make(here)
    assert run("rdf", topology, trajectory, "--r-max", 0.9, "--bins", 10) == cli.BAD_INPUT
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert said.count("\n") == 1
    assert not (here / "rdf.csv").exists()


def test_hdf5_without_pytables_says_what_is_missing(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology, trajectory = _named("run.h5")(here)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("rdf", topology, trajectory) == cli.BAD_INPUT
    assert "pip install tables" in capsys.readouterr().err


@pytest.mark.parametrize("selection", ["nam O", "name O and", "5", "(((", "name O'"])
def test_a_selection_is_refused_in_plain_words(
    selection: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("rdf", *written(atoms(), here), "--atoms", selection) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert selection in said and "name O" in said
    assert "Group" not in said and "Expected" not in said and said.count("\n") == 1


def test_a_selection_of_nothing_is_told_what_there_is(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("rdf", *written(atoms(), here), "--atoms2", "name O") == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert "atoms2" in said and "called AR" in said


@pytest.mark.parametrize("bins", [0, -3, 10**9])
def test_absurd_bins_are_refused(here: Path, bins: int, capsys: pytest.CaptureFixture) -> None:
    assert run("rdf", *written(atoms(), here), "--bins", bins) == cli.BAD_INPUT
    assert "bins" in capsys.readouterr().err


@pytest.mark.parametrize(
    "output",
    ["top.pdb", "run.dcd", "./x/../run.dcd", "link.csv", "top.x", "mine.txt", "x", "a.png"],
)
def test_nothing_that_is_there_is_overwritten(
    output: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    topology, trajectory = written(atoms(), here)
    (here / "x").mkdir()
    (here / "mine.txt").write_text("mine")
    (here / "top.png").write_bytes(b"a figure")
    (here / "link.csv").symlink_to(trajectory)
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert run("rdf", topology, trajectory, "--output", output) == cli.BAD_INPUT
    assert "--output" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in here.iterdir() if path.is_file()}


def test_its_own_table_and_figure_are_written_again(here: Path) -> None:
    files = written(atoms(), here)
    assert run("rdf", *files, "--bins", 10) == cli.FINISHED
    assert run("rdf", *files, "--bins", 20) == cli.FINISHED
    assert len(np.loadtxt(here / "rdf.csv", delimiter=",", skiprows=1)) == 20
