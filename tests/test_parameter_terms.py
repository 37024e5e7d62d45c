"""Parameters of bonds, angles, torsions, maps and custom forces: features are their energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app, unit
from peptides import alanine_dipeptide, folded, villin
from systems import (
    BOXES,
    TEMPERATURE,
    context_of,
    empty_system,
    energy_and_forces,
    lattice,
    simulate,
)
from test_system_parameters import features_of

import openmm_diffsim as diffsim
from openmm_diffsim.engine.adapters import attached, bonds_of
from openmm_diffsim.engine.recorder import describe_particles
from openmm_diffsim.errors import AttachError, PotentialError, SamplingError
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters

Array = NDArray[np.float64]
KT = 0.00831446261815324 * 300  # kJ/mol


def check_features(potential: Any, system: Any, x: Array, tries: int = 100) -> None:
    """c . S + a constant is the energy at random parameters."""
    context = context_of(system, x, "Reference")
    adapter = attached(potential, system)
    found, start = features_of(potential, context), flat_parameters(potential)
    rng, learned, total = np.random.default_rng(1), [], []
    for _ in range(tries):
        change = 0.2 * torch.from_numpy(rng.normal(size=len(start)))
        set_flat_parameters(potential, start + change * (start.abs() + 0.1))
        adapter.update(context, None)
        learned.append(potential.coefficients().detach().numpy() @ found)
        total.append(energy_and_forces(context)[0])
    rest = np.subtract(total, learned)
    size = np.median(np.abs(total) + np.abs(learned))
    assert np.ptp(learned) > 1e-6 * size, "the energy does not depend on the parameters"
    assert np.abs(rest - np.median(rest)).max() < 1e-9 * size
    set_flat_parameters(potential, start)
    adapter.update(context, None)


@pytest.fixture(scope="module")
def dipeptide() -> tuple[app.Topology, Array]:
    """Its topology, and positions."""
    topology = alanine_dipeptide()
    return topology, folded(app.ForceField("amber14-all.xml").createSystem(topology))


def amber(topology: app.Topology, *forces: Any, **options: Any) -> openmm.System:
    """By the Amber force field, and some forces more."""
    system = app.ForceField("amber14-all.xml").createSystem(topology, **options)
    for force in forces:
        system.addForce(force)
    return system


def test_a_protein_of_amber() -> None:
    topology, x = villin()
    system = amber(topology, constraints=app.HBonds)
    potential = diffsim.SystemParameters(system)
    shapes = [getattr(potential, what)().blocks for what in ("bonds", "angles", "torsions")]
    assert [shape["groups"][1] for shape in shapes] == [3, 3, 3]
    check_features(potential, system, x, tries=20)


def test_phases_of_every_torsion(dipeptide: Any) -> None:
    topology, x = dipeptide
    system = amber(topology)
    torsions = next(f for f in system.getForces() if type(f) is openmm.PeriodicTorsionForce)
    for k in range(torsions.getNumTorsions()):
        *atoms, n, phase, height = torsions.getTorsionParameters(k)
        torsions.setTorsionParameters(k, *atoms, n, phase, height + 0.1 * unit.kilojoule_per_mole)
    potential = diffsim.SystemParameters(system)
    potential.torsions(learn=("k", "phase"), each=True)
    check_features(potential, system, x)


@pytest.mark.parametrize("box", [None, "orthorhombic", "skewed"])
def test_listed_forces_with_and_without_a_box(box: str | None) -> None:
    """Bonds, angles, RB torsions between nearest images, or as long as they are."""
    rng = np.random.default_rng(5)
    system = openmm.System()
    for _ in range(12):
        system.addParticle(12.0)
    bonds, angles, torsions = (
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
        openmm.RBTorsionForce(),
    )
    for k in range(8):
        i, j, m, n = (int(a) for a in rng.permutation(12)[:4])
        bonds.addBond(i, j, 0.5 + 0.1 * (k % 2), 100.0)
        angles.addAngle(i, j, m, 1.9, 30.0 + k % 3)
        torsions.addTorsion(i, j, m, n, *(rng.normal(size=6) if k < 2 else range(6)))
    for force in (bonds, angles, torsions):
        force.setUsesPeriodicBoundaryConditions(box is not None)
        system.addForce(force)
    if box:
        system.setDefaultPeriodicBoxVectors(*BOXES[box])
    potential = diffsim.SystemParameters(system)
    groups = [
        len(getattr(potential, what)().group_names) for what in ("bonds", "angles", "rb_torsions")
    ]
    assert groups == [2, 3, 3]
    check_features(potential, system, rng.uniform(0, 3, size=(12, 3)))


def test_maps(dipeptide: Any) -> None:
    topology, x = dipeptide
    system = app.ForceField("amber19-all.xml").createSystem(topology)
    maps = next(f for f in system.getForces() if type(f) is openmm.CMAPTorsionForce)
    used = sorted({maps.getTorsionParameters(k)[0] for k in range(maps.getNumTorsions())})
    potential = diffsim.SystemParameters(system)
    potential.cmap(used)
    potential.torsions()
    check_features(potential, system, x)


# Custom forces -----------------------------------------------------------------------------------


def custom(kind: str, energy: str, add: Callable[[Any], None], size: Any = (), **own: Any) -> Any:
    """A custom force: ``own`` are its global parameters, in capitals those of its entries."""
    force = getattr(openmm, f"Custom{kind}Force")(*size, energy)
    for name, value in own.items():
        if isinstance(value, str):
            getattr(force, f"addPer{value}Parameter")(name)
        else:
            force.addGlobalParameter(name, value)
    add(force)
    return force


def bonds(force: Any) -> None:
    for i, numbers in enumerate([(200.0, 0.1), (200.0, 0.1), (300.0, 0.15)]):
        force.addBond(i, i + 1, numbers)


def impropers(force: Any) -> None:
    for i in range(8):
        force.addTorsion(i, i + 1, i + 2, i + 3, [20.0 + i % 2, 0.1])


def particles(force: Any) -> None:
    for i in range(22):
        force.addParticle([0.1 * (i % 3 - 1) + 0.01, 0.2 + 0.05 * (i % 2), 0.3])


def pinned(force: Any) -> None:
    for i in range(5):
        force.addParticle(i, [0.1, 0.2, 0.3])


def triples(force: Any) -> None:
    force.addBond([0, 1, 4], [20.0, 1.9])
    force.addBond([4, 6, 8], [30.0, 1.9])


def dihedral(force: Any) -> None:
    inner = openmm.CustomTorsionForce("theta")
    inner.addTorsion(4, 6, 8, 14, [])
    force.addCollectiveVariable("cv", inner)


def donors(force: Any) -> None:
    for i, j in ((6, 7), (16, 17)):
        force.addDonor(i, j, -1, [2.0])
    for i, j in ((5, 4), (15, 14)):
        force.addAcceptor(i, j, -1, [])


def lennard_jones() -> Any:
    energy = "4*eps*((sig/r)^12-(sig/r)^6)+138*q1*q2/r; sig=0.5*(s1+s2); eps=sqrt(e1*e2)"
    return custom("Nonbonded", energy, particles, q="Particle", s="Particle", e="Particle")


HARMONIC = "g*k*(r-r0)^2 + h*r"
WRAPPED = "k*min(dt, 6.283185307179586-dt)^2; dt = abs(theta-t0)"
CUSTOM: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], int]] = {
    "k of bonds": (
        lambda: custom("Bond", HARMONIC, bonds, g=2.0, h=9.0, k="Bond", r0="Bond"),
        lambda p: p.custom("k"),
        2,
    ),
    "k and r0 of bonds": (
        lambda: custom("Bond", HARMONIC, bonds, g=2.0, h=9.0, k="Bond", r0="Bond"),
        lambda p: p.custom("k", "r0"),
        10,
    ),
    "global parameters of bonds": (
        lambda: custom("Bond", HARMONIC, bonds, g=2.0, h=9.0, k="Bond", r0="Bond"),
        lambda p: p.global_parameters("g", "h"),
        2,
    ),
    "k of impropers": (
        lambda: custom("Torsion", WRAPPED, impropers, k="Torsion", t0="Torsion"),
        lambda p: p.custom("k"),
        2,
    ),
    "charges": (lennard_jones, lambda p: p.custom("q"), 9),
    "epsilon of all alike": (lennard_jones, lambda p: p.custom("e", bounds=(0.0, 9.0)), 1),
    "centres": (
        lambda: custom(
            "External",
            "K*((x-x0)^2+(y-y0)^2+(z-z0)^2)",
            pinned,
            K=90.0,
            **dict.fromkeys(("x0", "y0", "z0"), "Particle"),
        ),
        lambda p: p.custom("x0", "z0"),
        8,
    ),
    "angles of triples": (
        lambda: custom(
            "CompoundBond", "k*(angle(p1,p2,p3)-t0)^2", triples, (3,), k="Bond", t0="Bond"
        ),
        lambda p: p.custom("k", "t0"),
        10,
    ),
    "a collective variable": (
        lambda: custom("CV", "s*cv^2+w*exp(-u*cv)", dihedral, s=9.0, w=3.0, u=1.0),
        lambda p: p.global_parameters("s", "w"),
        2,
    ),
    "hydrogen bonds": (
        lambda: custom("Hbond", "90*k*(distance(d1,a1)-R)^2", donors, R=0.2, k="Donor"),
        lambda p: p.custom("k"),
        1,
    ),
    "length of hydrogen bonds": (
        lambda: custom("Hbond", "90*k*(distance(d1,a1)-R)^2", donors, R=0.2, k="Donor"),
        lambda p: p.global_parameters("R"),
        2,
    ),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_polynomials_of_custom_forces(name: str, dipeptide: Any) -> None:
    make, learn, n_features = CUSTOM[name]
    topology, x = dipeptide
    system = amber(topology, make())
    potential = diffsim.SystemParameters(system)
    learn(potential)
    assert len(potential.coefficients()) == n_features
    check_features(potential, system, x)


@pytest.mark.parametrize("energy", ["r*abs(b-0.3)", "r*min(b,3.4)", "r*max(b,-2)", "r*abs(b-2)"])
def test_bounds_say_where_the_energy_is_tried(energy: str, dipeptide: Any) -> None:
    """A line about the start, and within bounds, but not as far as the parameter may come."""
    topology, x = dipeptide
    system = amber(topology, custom("Bond", energy, lambda f: f.addBond(0, 1, []), b=0.9))
    free, bound = diffsim.SystemParameters(system), diffsim.SystemParameters(system)
    assert not free.global_parameters("b").energy_is_linear
    assert bound.global_parameters("b", bounds=(0.4, 1.5)).energy_is_linear
    check_features(bound, system, x)


def test_implicit_solvent(dipeptide: Any) -> None:
    topology, x = dipeptide
    forcefield = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    system = forcefield.createSystem(topology)
    potential = diffsim.SystemParameters(system)
    oxygens = [a.index for a in topology.atoms() if a.element.symbol == "O"]
    potential.custom("charge", select={"O": oxygens})
    check_features(potential, system, x)
    potential = diffsim.SystemParameters(system)
    hydrogens = [a.index for a in topology.atoms() if a.element.symbol == "H"]
    charges = {str(i): [i] for i in hydrogens[:4]} | {"O": oxygens}
    potential.charges(charges, neutral=True)
    check_features(potential, system, x, tries=20)
    with pytest.raises(PotentialError, match="learns parameters of the same Force"):
        potential.custom("charge", name="more")


def test_offsets_of_a_nonbonded_force(dipeptide: Any) -> None:
    topology, x = dipeptide
    system = amber(topology)
    nonbonded = next(f for f in system.getForces() if type(f) is openmm.NonbondedForce)
    nonbonded.addGlobalParameter("dipole", 0.1)
    nonbonded.addParticleParameterOffset("dipole", 4, 1.0, 0, 0)
    nonbonded.addParticleParameterOffset("dipole", 15, -1.0, 0, 0)
    potential = diffsim.SystemParameters(system)
    potential.global_parameters("dipole")
    assert len(potential.coefficients()) == 2
    check_features(potential, system, x)


def test_what_only_looked_like_a_polynomial_is_refused_at_the_first_frame(dipeptide: Any) -> None:
    """A wall that no trial configuration reaches, but a frame does."""
    wall = custom("External", "200*max(0, x-X)^2", lambda f: f.addParticle(0, []), X=9.0)
    topology, x = dipeptide
    system = amber(topology, wall)
    potential = diffsim.SystemParameters(system)
    potential.global_parameters("X", bounds=(8.0, 10.0))
    context = context_of(system, x + np.array([10.0, 0, 0]), "Reference")
    with pytest.raises(SamplingError, match="linear=False"):
        features_of(potential, context)


# Tables by pair of types -------------------------------------------------------------------------


def test_rows_of_tables_are_no_numbers() -> None:
    system, *_ = salt_of_tables()
    with pytest.raises(AttachError, match=r"'t' says which row .* pair_tables\(\) learns"):
        diffsim.SystemParameters(system).custom("t")
    with pytest.raises(PotentialError, match="'values' is taken by torch"):
        diffsim.SystemParameters(system).pair_tables(name="values")
    with pytest.raises(AttachError, match="expected a CustomNonbondedForce with two"):
        system.getForce(0).addPerParticleParameter("more")
        diffsim.SystemParameters(system).pair_tables()


def salt_of_tables(root: bool = False) -> tuple[openmm.System, Array, Array]:
    """Three types by tables, of which the first two have a pair of their own."""
    sigma, epsilon = np.array([0.25, 0.35, 0.3]), np.array([0.4, 0.6, 0.5])
    s, e = 0.5 * (sigma[:, None] + sigma), np.sqrt(np.outer(epsilon, epsilon))
    s[0, 1] = s[1, 0] = 0.33
    a, b = 4 * e * s**12, 4 * e * s**6
    energy = "(a/r6)^2 - b/r6; r6=r^6; a=acoef(t1,t2); b=bcoef(t1,t2)"
    force = openmm.CustomNonbondedForce(energy if root else "acoef(t1,t2)/r^12-bcoef(t1,t2)/r^6")
    for name, table in (("acoef", a**0.5 if root else a), ("bcoef", b)):
        force.addTabulatedFunction(name, openmm.Discrete2DFunction(3, 3, table.ravel().tolist()))
    force.addPerParticleParameter("t")
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    box = 1.4 * np.eye(3)
    system = empty_system(27, box)
    for k in range(27):
        force.addParticle([k % 3])
    force.addExclusion(0, 1)
    system.addForce(force)
    return system, lattice(27, box, 0.05), np.arange(27) % 3


@pytest.mark.parametrize("root", [False, True])
def test_pairs_of_their_own_are_learned_where_both_types_are(root: bool) -> None:
    system, x, types = salt_of_tables(root)
    potential = diffsim.SystemParameters(system)
    term = potential.pair_tables({n: np.flatnonzero(types == k) for k, n in enumerate("AB")})
    assert term.sigma.names == ("A", "B", "A-B")
    assert term.sigma.numbers() == pytest.approx([0.25, 0.35, 0.33])
    assert len(term.pairs) == 5  # all but that of the third type with itself
    check_features(potential, system, x)
    term = diffsim.SystemParameters(system)
    with pytest.warns(RuntimeWarning, match="1 pairs of a learned type"):
        term.pair_tables({"A": np.flatnonzero(types == 0)})
    check_features(term, system, x, tries=5)


def test_the_correction_of_tables_beyond_the_cutoff() -> None:
    """OpenMM integrates it, to five digits."""
    system, x, _ = salt_of_tables()
    force = system.getForce(0)
    force.setUseLongRangeCorrection(True)
    potential = diffsim.SystemParameters(system)
    potential.pair_tables()
    context = context_of(system, x, "Reference")
    found = features_of(potential, context)
    energy = potential.coefficients().detach().numpy() @ found
    assert energy == pytest.approx(energy_and_forces(context)[0], rel=1e-5)


def test_tables_of_another_system_are_found_by_what_they_hold() -> None:
    system, x, types = salt_of_tables()
    potential = diffsim.SystemParameters(system)
    potential.pair_tables({"A": np.flatnonzero(types == 0), "B": np.flatnonzero(types == 1)})
    other = openmm.XmlSerializer.clone(system)
    other.addParticle(10.0)
    other.getForce(0).addParticle([0])
    turned, force = [2, 0, 1], other.getForce(0)
    for k in (0, 1):
        table = np.array(force.getTabulatedFunction(k).getFunctionParameters()[2]).reshape(3, 3)
        values = table[np.ix_(turned, turned)].ravel().tolist()
        force.getTabulatedFunction(k).setFunctionParameters(3, 3, values)
    for k in range(28):
        force.setParticleParameters(k, [turned.index(int(force.getParticleParameters(k)[0]))])
    potential.attach(other)
    check_features(potential, other, np.concatenate([x, [[0.7, 0.7, 0.7]]]), tries=5)
    strange = openmm.XmlSerializer.clone(other)
    strange.addParticle(10.0)
    strange.getForce(0).addParticle([0])
    table = strange.getForce(0).getTabulatedFunction(1)
    table.setFunctionParameters(3, 3, [1e-3] * 9)
    with pytest.raises(AttachError, match="tables of this System are not those of the first"):
        potential.attach(strange)


# Which, and which together -----------------------------------------------------------------------


def test_ties_by_atom_types(dipeptide: Any) -> None:
    topology, x = dipeptide
    forcefield = app.ForceField("amber14-all.xml")
    system = forcefield.createSystem(topology)
    types = diffsim.atom_types(forcefield, topology)
    classes = diffsim.atom_types(forcefield, topology, classes=True)
    assert (types[8], classes[8]) == ("protein-CX", "CX")
    potential = diffsim.SystemParameters(system)
    term = potential.bonds([("*", "CX")], types=classes)
    assert term.group_names == ["C-CX", "CT-CX", "CX-H1", "CX-N"]
    psi = ("N", "CX", "C", "N")
    torsions = potential.torsions(
        {f"psi{n}": [k] for n, k in enumerate(periodic(system, classes, psi))}
    )
    assert torsions.group_names == [f"psi{n}" for n in range(len(torsions.start))]
    check_features(potential, system, x)


def test_torsions_of_the_same_types_differ_by_their_periodicity(dipeptide: Any) -> None:
    topology, x = dipeptide
    forcefield = app.ForceField("amber14-all.xml")
    system = forcefield.createSystem(topology)
    potential = diffsim.SystemParameters(system)
    term = potential.torsions(types=diffsim.atom_types(forcefield, topology, classes=True))
    for kinds in ("C-CX-N-C", "CX-N-C-O"):  # of the latter, one is improper
        assert sum(name.startswith(f"{kinds} n=") for name in term.group_names) > 1
    check_features(potential, system, x, tries=5)


def test_torsions_of_the_same_types_are_apart_by_periodicity() -> None:
    force = openmm.PeriodicTorsionForce()
    for shift in (0, 4):
        for n, k in ((1, 2.0), (2, 5.0)):
            force.addTorsion(*range(shift, shift + 4), n, 0.3, k)
    system = empty_system(8, 2 * np.eye(3))
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    term = potential.torsions([("A", "*", "*", "D")], types=list("ABCDABCD"))
    assert term.group_names == ["A-B-C-D n=1", "A-B-C-D n=2"]
    check_features(potential, system, np.random.default_rng(2).uniform(0, 2, (8, 3)), tries=5)


def periodic(system: openmm.System, classes: list[str], wanted: tuple[str, ...]) -> list[int]:
    """Entries of the torsions of these classes."""
    force = next(f for f in system.getForces() if type(f) is openmm.PeriodicTorsionForce)
    rows = [force.getTorsionParameters(k)[:4] for k in range(force.getNumTorsions())]
    kinds = [tuple(classes[i] for i in row) for row in rows]
    return [k for k, kind in enumerate(kinds) if wanted in (kind, kind[::-1])]


def test_bounds_and_masks_of_every_kind(dipeptide: Any) -> None:
    """As of Lennard-Jones parameters: v = a + (b - a) / (1 + exp(-theta)), for any theta."""
    force = openmm.CustomBondForce("k*r")
    force.addPerBondParameter("k")
    force.addBond(0, 1, [2.0])
    system = amber(dipeptide[0], force)
    potential = diffsim.SystemParameters(system)
    lengths = (0.5 * unit.angstrom, 0.2 * unit.nanometer)
    bonds = potential.bonds(np.arange(21) == 3, bounds={"k": (1e4, 1e6), "r0": lengths})
    potential.angles([0], learn=("theta0",), bounds={"theta0": (1.0, 180 * unit.degree)})
    potential.torsions([0], bounds={"k": (-20, 20)})
    potential.custom("k", bounds={"k": (0, 10)})
    assert bonds.layouts[bonds.key(system)].entries.tolist() == [3]
    ends = [(1e4, 1e6), (0.05, 0.2), (1.0, np.pi), (-20.0, 20.0), (0.0, 10.0)]
    for side, value in enumerate((-40.0, 40.0)):
        set_flat_parameters(potential, torch.full_like(flat_parameters(potential), value))
        found = [number for number, _ in potential.numbers().values()]
        assert found == pytest.approx([pair[side] for pair in ends])


def test_virtual_sites_have_types() -> None:
    forcefield = app.ForceField("amber14/tip4pew.xml")
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    modeller.addSolvent(forcefield, model="tip4pew", numAdded=2)
    types = diffsim.atom_types(forcefield, modeller.topology)
    assert len(types) == 8
    assert types[:4] == types[4:]
    assert len(set(types)) == 3


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "index": (lambda p: p.bonds([10_000]), "expected indices 0 .."),
    "types": (lambda p: p.bonds([("C", "N")]), "need types="),
    "no such types": (lambda p: p.bonds([("X", "Y")], types=["C"] * 22), "no entry"),
    "few types": (lambda p: p.bonds(types=["C"]), "each of the 22 particles.*got 1 "),
    "many types": (lambda p: p.bonds(types=["C"] * 23), "each of the 22 particles.*got 23 "),
    "no list of types": (lambda p: p.bonds(types="C" * 22), "types: expected the name of one"),
    "text": (lambda p: p.bonds("C"), "select: got 'C'"),
    "number": (lambda p: p.bonds(3), "select: got 3"),
    "mask": (lambda p: p.bonds([True] * 5), "or a mask of 21 that is true"),
    "option": (lambda p: p.bonds(limits=3), "bonds: got limits=, expected of name, learn, force"),
    "own option": (lambda p: p.global_parameters("b", learned=False), "got learned=, expected of"),
    "bounds": (lambda p: p.bonds(bounds={"sigma": (0, 1)}), r"some of \('k', 'r0'\)"),
    "bounds of all": (lambda p: p.bonds(bounds=(0, 1)), "bounds: expected two numbers each"),
    "bounds in another unit": (
        lambda p: p.bonds(bounds={"r0": (1 * unit.kelvin, 2 * unit.kelvin)}),
        "bounds of '.*': .* cannot be converted",
    ),
    "bounds of none": (lambda p: p.bonds(bounds={"r0": {"X": (0, 1)}}), "bounds: expected of"),
    "out of bounds": (lambda p: p.angles(bounds={"theta0": (0.1, 0.2)}), "at the start, expected"),
    "nothing": (lambda p: p.bonds([]), "nothing of the force"),
    "twice": (lambda p: p.bonds({"a": [0], "b": [0]}), "selected twice"),
    "unequal": (lambda p: p.bonds({"a": [0, 1, 2, 3, 4, 5]}), "have to start with equal"),
    "learn": (lambda p: p.bonds(learn=("sigma",)), "learn: expected some of"),
    "no force": (lambda p: p.rb_torsions(), "expected a RBTorsionForce"),
    "no parameter": (lambda p: p.global_parameters("lambda"), "no force of the System has"),
    "no custom": (lambda p: p.custom("lambda"), "expected one custom force"),
    "overlap": (lambda p: (p.bonds([0]), p.bonds([0, 1], name="b")), "parameters of the same"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, dipeptide: Any) -> None:
    act, message = MISTAKES[mistake]
    with pytest.raises((AttachError, PotentialError), match=message):
        act(diffsim.SystemParameters(amber(dipeptide[0])))


def test_the_same_parameters_in_another_system(dipeptide: Any) -> None:
    """Two of the molecule, of which one is all that the parameters were made for."""
    topology, x = dipeptide
    potential = diffsim.SystemParameters(amber(topology))
    for what in ("bonds", "angles", "torsions"):
        getattr(potential, what)()
    both = app.Modeller(topology, x * unit.nanometer)
    both.add(topology, (x + np.array([2.0, 0, 0])) * unit.nanometer)
    system = amber(both.topology)
    potential.attach(system)
    check_features(potential, system, np.concatenate([x, x + np.array([2, 0.1, 0])]))


# Exact values ------------------------------------------------------------------------------------


def test_bonds_of_an_ideal_gas_of_dimers() -> None:
    """<(r - r0)^2> of p(r) ~ r^2 exp(-k (r - r0)^2 / 2 kT), and at other k and r0 reweighted."""
    n, k, r0 = 200, 500.0, 0.3
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for i in range(n):
        system.addParticle(20.0)
        system.addParticle(20.0)
        force.addBond(2 * i, 2 * i + 1, r0, k)
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    potential.bonds()
    rng = np.random.default_rng(0)
    context = context_of(system, np.zeros((2 * n, 3)), "Reference")
    recorder = attached(potential, system).recorder(
        context, describe_particles(context, bonds_of(system)), None
    )
    features = []
    for _ in range(400):
        x = rng.normal(size=(2 * n, 3))
        r = drawn(rng, n, k, r0)
        direction = x[1::2] / np.linalg.norm(x[1::2], axis=1, keepdims=True)
        x[1::2] = x[::2] + r[:, None] * direction
        features.append(recorder.features(x, None)[0])
    means, error = np.mean(features, axis=0) / n, np.std(features, axis=0) / 20 / n
    exact = np.array([moment(k, r0, 2) / 2, -moment(k, r0, 1), 0.5])
    assert np.all(np.abs(means - exact) <= 4 * error + 1e-12)
    # d<S>/dc = -Cov(S, S) / kT, per dimer
    covariance = np.cov(np.array(features).T)[0, 0] / n
    fourth = (moment(k, r0, 4) - moment(k, r0, 2) ** 2) / 4
    assert covariance == pytest.approx(fourth, rel=4 * (2 / 400) ** 0.5)


def moment(k: float, r0: float, power: int) -> float:
    """<(r - r0)^power>."""
    r = np.linspace(1e-6, r0 + 12 * (KT / k) ** 0.5, 200_001)
    p = r**2 * np.exp(-k * (r - r0) ** 2 / (2 * KT))
    return float(np.sum(p * (r - r0) ** power) / np.sum(p))


def drawn(rng: np.random.Generator, n: int, k: float, r0: float) -> Array:
    """Distances by inversion of the distribution."""
    r = np.linspace(1e-6, r0 + 12 * (KT / k) ** 0.5, 200_001)
    p = np.cumsum(r**2 * np.exp(-k * (r - r0) ** 2 / (2 * KT)))
    return np.interp(rng.uniform(size=n), p / p[-1], r)


# What is no polynomial ---------------------------------------------------------------------------


def buckingham(n: int = 27, side: float = 1.4) -> tuple[openmm.System, Array]:
    """exp-6 particles in a periodic box, whose steepness b is no power of anything."""
    force = openmm.CustomNonbondedForce("A*exp(-b*r) - (s1*s2/r)^6")
    force.addGlobalParameter("A", 4e5)
    force.addGlobalParameter("b", 38.0)
    force.addPerParticleParameter("s")
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.65)
    system = empty_system(n, side * np.eye(3))
    for _ in range(n):
        force.addParticle([0.55])
    system.addForce(force)
    return system, lattice(n, side * np.eye(3), 0.02)


@pytest.mark.parametrize(
    "learn", [lambda p: p.global_parameters("b"), lambda p: p.custom("s", linear=False)]
)
def test_frames_are_evaluated_anew(learn: Callable[[Any], Any], tmp_path: Any) -> None:
    """Energies and virials at other parameters are OpenMM's, and gradients those of differences."""
    system, x = buckingham()
    potential = diffsim.SystemParameters(system)
    learn(potential)
    assert not potential.energy_is_linear
    point = diffsim.StatePoint(simulate(system, x), potential)
    pressure = diffsim.Pressure()
    samples = point.sample(40, 10, [pressure], trajectory=tmp_path / "run.dcd")
    start = flat_parameters(potential)
    theta = 1.02 * start
    view = samples.at(theta)
    context = context_of(system, x, "Reference")
    set_flat_parameters(potential, theta)
    attached(potential, system).update(context, None)
    ((run, indices),) = samples.learned.terms[0].runs
    frames = run.frames.read(indices)[0]
    for energy, frame in zip(view.learned_energy.tolist(), frames, strict=True):
        context.setPositions(frame)
        assert energy == pytest.approx(energy_and_forces(context)[0], rel=1e-9)
    set_flat_parameters(potential, start)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return samples.at(at).average(pressure).sum()

    leaf = theta.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    h = 1e-5 * theta
    difference = (loss(theta + h) - loss(theta - h)).item() / (2 * h.item())
    assert slope.item() == pytest.approx(difference, rel=1e-6)
    samples.save(tmp_path / "samples.npz")
    again = diffsim.Samples.load(tmp_path / "samples.npz", potential, [pressure])
    assert torch.allclose(again.at(theta).learned_energy, view.learned_energy, rtol=1e-12)


def test_a_value_that_was_set_in_the_context_is_not_lost_silently() -> None:
    system, x = buckingham()
    potential = diffsim.SystemParameters(system)
    potential.global_parameters("b")
    simulation = simulate(system, x)
    simulation.context.setParameter("b", 39.0)
    with pytest.warns(RuntimeWarning, match="Context has .*39"):
        diffsim.StatePoint(simulation, potential)


# In water, and in a fit --------------------------------------------------------------------------


def test_stored_frames_are_not_moved_into_the_box() -> None:
    """A wall, and a bond between molecules without images, of particles in other images."""
    system, x = buckingham()
    wall = openmm.CustomExternalForce("exp(w*x)")
    wall.addGlobalParameter("w", 1.0)
    tether = openmm.CustomBondForce("D*(1-exp(-w2*r))")
    tether.addGlobalParameter("w2", 0.5)
    tether.addGlobalParameter("D", 3.0)
    tether.addBond(0, 26, [])
    for i in range(27):
        wall.addParticle(i, [])
    system.addForce(wall)
    system.addForce(tether)
    potential = diffsim.SystemParameters(system)
    potential.global_parameters("w")
    potential.global_parameters("w2")
    x = x + 1.4 * np.array([1, 0, -2])
    x[26, 0] -= 3 * 1.4
    start = diffsim.StatePoint(simulate(system, x), potential)
    samples = start.sample(1, 1)
    at = np.array(start.simulation.context.getState(getPositions=True).getPositions(True)._value)
    bond = np.linalg.norm(at[0] - at[26])
    for w, w2 in ((1.0, 0.5), (1.2, 0.4)):
        exact = np.exp(w * at[:, 0]).sum() + 3 * (1 - np.exp(-w2 * bond))
        found = samples.at(torch.tensor([w, w2]).double()).learned_energy
        assert float(found[0]) == pytest.approx(exact, rel=1e-6)


@pytest.fixture(scope="module")
def solvated(dipeptide: Any) -> tuple[openmm.System, Array]:
    """The dipeptide in a small box of four-site water: constraints, virtual sites, PME."""
    topology, x = dipeptide
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip4pew.xml")
    modeller = app.Modeller(topology, (x + 0.75) * unit.nanometer)
    size = openmm.Vec3(1.5, 1.5, 1.5) * unit.nanometer
    modeller.addSolvent(forcefield, "tip4pew", boxSize=size, neutralize=False)
    system = forcefield.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.7 * unit.nanometer,
        constraints=app.HBonds,
    )
    return system, np.array(modeller.positions.value_in_unit(unit.nanometer))


def test_a_peptide_in_water(solvated: Any) -> None:
    system, x = solvated
    potential = diffsim.SystemParameters(system)
    for what in ("bonds", "angles", "torsions"):
        getattr(potential, what)()
    check_features(potential, system, x, tries=5)
    context = context_of(system, x, "Reference")
    recorder = attached(potential, system).recorder(
        context, describe_particles(context, bonds_of(system)), None
    )
    energies, virials = recorder.features(x, 1.5 * np.eye(3))
    size = np.abs(energies * potential.coefficients().detach().numpy()).max()
    assert np.abs(virials).max() < 1e-6 * size  # molecules move whole: what is in them stays


def test_all_of_a_peptide_in_water(solvated: Any) -> None:
    """Every kind of term together, with virtual sites, constraints, and 1-4 pairs that follow."""
    system, x = solvated
    force = next(f for f in system.getForces() if type(f) is openmm.NonbondedForce)
    rows = [force.getParticleParameters(k) for k in range(system.getNumParticles())]
    charge = np.array([row[0]._value for row in rows])
    water = np.arange(len(rows)) >= 22
    groups = {f"{q:g}": np.flatnonzero(water & (charge == q)) for q in np.unique(charge[water])}
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones()
    potential.charges({name: atoms for name, atoms in groups.items() if float(name)})
    potential.bonds()
    potential.angles()
    potential.torsions()
    check_features(potential, system, x, tries=5)


def test_virial_of_a_chain_through_the_box() -> None:
    """Its bonds are between nearest images, so that it is stretched with the box."""
    n, side = 6, 1.2
    system, force = empty_system(n, side * np.eye(3)), openmm.HarmonicBondForce()
    for i in range(n):
        force.addBond(i, (i + 1) % n, 0.15, 900.0)
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    potential.bonds()
    x = np.zeros((n, 3))
    x[:, 0] = np.arange(n) * side / n
    context = context_of(system, x, "Reference")
    molecule = describe_particles(context, bonds_of(system))
    recorder = attached(potential, system).recorder(context, molecule, None)
    _, virials = recorder.features(x, side * np.eye(3))
    # One bond alone, 5/6 of the molecule left behind, takes up all that the box grows by.
    assert potential.coefficients().detach().numpy() @ virials == pytest.approx(
        -900.0 * (side / n - 0.15) * side, rel=2e-2
    )


def test_gradient_and_hessian_of_an_average(dipeptide: Any) -> None:
    """Against differences on the same frames."""
    topology, x = dipeptide
    system = amber(topology)
    potential = diffsim.SystemParameters(system)
    potential.torsions([0, 5, 9], learn=("k", "phase"), each=True)
    potential.angles([0, 1])
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5, 0.001)
    integrator.setRandomNumberSeed(1)
    point = diffsim.StatePoint(simulate(system, x, integrator), potential)
    angle = diffsim.AngleDistribution(0.2, 4)
    samples = point.sample(300, 10, [angle])
    start = flat_parameters(potential) + 0.01

    def value(theta: torch.Tensor) -> torch.Tensor:
        return samples.at(theta).average(angle)[2]

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        leaf = theta.clone().requires_grad_(True)
        return torch.autograd.grad(value(leaf), leaf)[0]

    hessian = torch.autograd.functional.hessian(value, start)
    for k in range(len(start)):
        h = torch.zeros_like(start)
        h[k] = 1e-5 * max(1.0, abs(start[k].item()))
        step = 2 * h[k].item()
        slope = (value(start + h) - value(start - h)) / step
        assert slope.item() == pytest.approx(gradient(start)[k].item(), rel=1e-6, abs=1e-9)
        row = (gradient(start + h) - gradient(start - h)) / step
        assert torch.allclose(row, hessian[k], rtol=1e-5, atol=1e-8)
