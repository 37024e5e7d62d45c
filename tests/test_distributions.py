"""Distributions of bonds, angles and dihedral angles: counts, selections, configurations, fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app, unit
from systems import BOXES, empty_system, langevin, lattice, topology

import openmm_diffsim as diffsim
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.toml import parse_configuration
from openmm_diffsim.errors import ConfigurationError, ObservableError, TargetError
from openmm_diffsim.observables import Frame, Particles
from openmm_diffsim.report.figures import curve_figure
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

N, KELVIN = 40, 300.0
THERMAL = MOLAR_GAS_CONSTANT * KELVIN


def recorded(observable: Any, x: Array, box: Array | None, bonds: Any = ()) -> Array:
    table = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    recorder = observable.recorder(Particles(len(x), np.arange(len(x)), np.ones(len(x)), table))
    volume = np.nan if box is None else float(np.linalg.det(box))
    return np.asarray(recorder.record(Frame(x, box, volume, 0.0), []))


def chains(size: int) -> NDArray[np.int64]:
    """Neighbours along a chain of all particles."""
    return np.arange(N - size + 1)[:, None] + np.arange(size)


# What is counted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", BOXES)
def test_counts_are_those_of_mdtraj_in_every_box(shape: str) -> None:
    """A chain that a box cut everywhere; mdtraj is in single precision: one may be moved."""
    box, rng = BOXES[shape], np.random.default_rng(3)
    steps = rng.normal(size=(N, 3))
    x = np.cumsum(0.4 * steps / np.linalg.norm(steps, axis=1)[:, None] * rng.random((N, 1)), axis=0)
    x = x + rng.integers(-1, 2, (N, 3)) @ box
    frame = mdtraj.Trajectory(x[None], mdtraj.Topology.from_openmm(topology(N)))
    frame.unitcell_vectors = box[None].astype(np.float32)
    cases = [
        (mdtraj.compute_distances, diffsim.BondDistribution(0.0, 0.5, 15, bonds=chains(2))),
        (mdtraj.compute_angles, diffsim.AngleDistribution(triples=chains(3), bins=15)),
        (mdtraj.compute_dihedrals, diffsim.DihedralDistribution(15, quadruples=chains(4))),
    ]
    for size, (compute, observable) in enumerate(cases, 2):
        expected = np.histogram(compute(frame, chains(size))[0], observable.edges)[0]
        found = recorded(observable, x, box) * (N - size + 1) * np.diff(observable.edges)
        assert found.sum() == pytest.approx(N - size + 1)
        assert np.abs(np.cumsum(found - expected)).max() < 1.5


def test_a_density_is_per_tuple_and_what_is_beyond_the_edges_is_missing() -> None:
    x = np.array([[0, 0, 0], [0, 0, 0.15], [0, 0, 0.45], [0, 0, 0.56]])
    short = diffsim.BondDistribution(0.1, 0.2, 5, bonds=[(0, 1), (1, 2), (2, 3), (3, 2 - 2)])
    p = recorded(short, x, None)
    assert np.sum(p * np.diff(short.edges)) == pytest.approx(2 / 4)
    assert p[2] == pytest.approx(1 / (4 * 0.02))


def test_free_rotation_and_free_directions() -> None:
    """Steps in any direction: 1 / (2 pi) and sin(theta) / 2, within four standard errors."""
    n = 20_000
    x = np.cumsum(np.random.default_rng(5).normal(size=(n, 4, 3)), axis=1).reshape(-1, 3)
    index = np.arange(4 * n).reshape(n, 4)
    p = recorded(diffsim.DihedralDistribution(8, quadruples=index), x, None)
    assert np.abs(p * 2 * np.pi - 1).max() < 4 * np.sqrt(7 / n)
    angles = diffsim.AngleDistribution(triples=index[:, :3], bins=8)
    expected = -np.diff(np.cos(angles.edges)) / 2
    found = recorded(angles, x, None) * np.diff(angles.edges)
    assert np.all(np.abs(found - expected) < 4 * np.sqrt(expected / n))


def test_all_bonded_ones_are_the_default() -> None:
    """Of a molecule i-j-k-l with a branch, those among the atoms; not of particles without mass."""
    bonds = np.array([(0, 1), (1, 2), (2, 3), (1, 4), (5, 6), (6, 7)])
    masses = np.array([1.0] * 7 + [0.0])
    particles = Particles(8, np.zeros(8, dtype=np.int64), masses, bonds)
    cases: list[tuple[Any, Any]] = [
        (diffsim.BondDistribution(0, 1), [(0, 1), (1, 2), (1, 4), (2, 3), (5, 6)]),
        (diffsim.BondDistribution(0, 1, atoms=[0, 1, 2, 5]), [(0, 1), (1, 2)]),
        (diffsim.AngleDistribution(triples="bonded"), [(0, 1, 2), (0, 1, 4), (1, 2, 3), (2, 1, 4)]),
        (diffsim.DihedralDistribution(), [(0, 1, 2, 3), (3, 2, 1, 4)]),
    ]
    for observable, expected in cases:
        assert list(map(tuple, observable.counted_tuples(particles).tolist())) == expected
    assert diffsim.AngleDistribution(0.3).counted_tuples(particles) is None
    with pytest.raises(ObservableError, match="make none"):
        diffsim.DihedralDistribution(atoms=[0, 1, 2]).recorder(particles)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: diffsim.BondDistribution(0.3, 0.2), "r_min < r_max"),
        (lambda: diffsim.BondDistribution(0.1, 0.2, bonds=[(0, 1, 2)]), "2 indices each"),
        (lambda: diffsim.BondDistribution(0.1, 0.2, bonds=[]), "2 indices each"),
        (lambda: diffsim.BondDistribution(0.1, 0.2, bonds="all"), "2 indices each"),
        (lambda: diffsim.BondDistribution(0.1, 0.2, bonds=[(0, 1), (1, 0)]), "comes twice"),
        (lambda: diffsim.BondDistribution(0.1, 0.2, bonds=[(0, 1)], atoms=[0]), "atoms as well"),
        (lambda: diffsim.DihedralDistribution(quadruples=[(0, 1, 2, 0)]), "different indices"),
        (lambda: diffsim.AngleDistribution(), "one of the two"),
        (lambda: diffsim.AngleDistribution(0.3, triples=[(0, 1, 2)]), "one of the two"),
    ],
)
def test_bad_arguments_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ObservableError, match=words):
        make()


def test_an_index_beyond_the_particles_is_refused() -> None:
    observable = diffsim.BondDistribution(0.1, 0.2, bonds=[(0, N)])
    with pytest.raises(ObservableError, match=f"0 .. {N - 1}"):
        recorded(observable, np.zeros((N, 3)), None)


# In a configuration -------------------------------------------------------------------------------


def written(folder: Path) -> dict[str, Any]:
    """A fluid of butane-like chains, C1-C2-C3-C4, and a configuration of it with a g(r)."""
    names, side = ("C1", "C2", "C3", "C4"), 2.2
    top, system = topology(64, names), empty_system(64, np.eye(3) * side)
    atoms, bonds = list(top.atoms()), openmm.HarmonicBondForce()
    for k in range(63):
        if k % 4 < 3:
            top.addBond(atoms[k], atoms[k + 1])
            bonds.addBond(k, k + 1, 0.4, 100.0)
    bonds.setUsesPeriodicBoundaryConditions(True)
    system.addForce(bonds)
    top.setPeriodicBoxVectors(np.eye(3) * side * unit.nanometer)
    with open(folder / "box.cif", "w") as stream:
        x = lattice(64, np.eye(3) * side) * unit.nanometer
        app.PDBxFile.writeFile(top, x, stream, keepIds=True)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    r = np.arange(0.2, 0.9, 0.02)
    np.savetxt(folder / "g.csv", np.stack([r, 1 / (1 + np.exp(-(r - 0.34) / 0.01))], axis=1))
    q = np.linspace(0.3, 0.5, 41)
    np.savetxt(folder / "bonds.csv", np.stack([q, np.exp(-(((q - 0.4) / 0.04) ** 2) / 2) / 0.1], 1))
    phi = np.arange(-175, 180, 10.0)
    np.savetxt(folder / "phi.csv", np.stack([phi, np.full(36, 1 / 360)], axis=1), fmt="%.10f")
    theta = np.arange(2.5, 180, 5.0)
    p = np.sin(np.radians(theta)) / 2 * np.pi / 180
    np.savetxt(folder / "theta.csv", np.stack([theta, p], axis=1))
    return {
        "system": {"topology": "box.cif", "system": "system.xml"},
        "dynamics": {"temperature": KELVIN, "timestep": 0.004, "platform": "Reference"},
        "potential": {"kind": "lennard-jones", "cutoff": 0.8},
        "target": [{"observable": "rdf", "file": "g.csv", "uncertainty": 0.05}],
        "refine": {"steps": 1000, "every": 25},
    }


def built(folder: Path, **target: Any) -> Any:
    raw = written(folder)
    raw["system"]["exclude_bonds"] = 1
    raw["target"].append({"uncertainty": 0.05} | target)
    fit = build_refinement(parse_configuration(raw, folder), warn=lambda line: None)
    return fit.targets[-1]


BONDS = {"observable": "bonds", "file": "bonds.csv"}
ANGLES = {"observable": "angles", "file": "theta.csv", "angle_unit": "degree"}
DIHEDRALS = {"observable": "dihedrals", "file": "phi.csv", "angle_unit": "degree"}


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        (BONDS, 48),
        (BONDS | {"names": "C1-C2"}, 16),
        (BONDS | {"bonds": [[0, 1], [1, 2]]}, 2),
        (BONDS | {"atoms": "name C2 C3"}, 16),
        (ANGLES | {"triples": "bonded"}, 32),
        (ANGLES | {"names": "C4-C3-C2"}, 16),
        (ANGLES | {"triples": [[0, 1, 2]], "bins": 36}, 1),
        (DIHEDRALS, 16),
        (DIHEDRALS | {"window": [-3.0, 1.5]}, 16),
        (DIHEDRALS | {"quadruples": [[0, 1, 2, 3]]}, 1),
    ],
)
def test_a_configuration_names_the_tuples(tmp_path: Path, entry: Any, count: int) -> None:
    target = built(tmp_path, **entry)
    point, observable = target.terms[0]
    particles = point.simulation.context.getSystem().getNumParticles()
    assert particles == 64
    samples = point.sample(4, 2, [observable])
    assert len(samples.records[observable]) == 2
    recorder = observable.recorder(
        Particles(64, np.zeros(64, dtype=np.int64), np.ones(64), _bonds_of(point))
    )
    assert len(recorder.tuples) == count
    assert target.curve is not None and len(target.curve) > 20


def _bonds_of(point: Any) -> NDArray[np.int64]:
    force = point.simulation.system.getForce(0)
    return np.array([force.getBondParameters(k)[:2] for k in range(force.getNumBonds())])


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        (BONDS | {"names": "C1-C3"}, "target.names"),
        (BONDS | {"names": "C1-C2", "bonds": [[0, 1]]}, "target.names"),
        (BONDS | {"bonds": [[0, 1, 2]]}, "target[1].bonds"),
        (BONDS | {"bonds": [[0, -1]]}, "target[1].bonds"),
        (ANGLES, "target[1].r_max"),
        (ANGLES | {"r_max": 0.5, "triples": "bonded"}, "target.triples"),
        (ANGLES | {"names": "C1-C2"}, "target.names"),
        (DIHEDRALS | {"bins": 2}, "target[1].bins"),
        (BONDS | {"window": [-0.1, 0.3]}, "target[1].window"),
    ],
)
def test_a_configuration_is_refused_by_its_key(tmp_path: Path, entry: Any, key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        built(tmp_path, **entry)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("observable", "x", "y", "words"),
    [
        (diffsim.BondDistribution(0.1, 0.3), np.linspace(0.1, 0.3, 21), 0.1, "integral"),
        (diffsim.DihedralDistribution(), np.arange(0, 360, 10.0) * np.pi / 180, 1.0, "360"),
        (diffsim.DihedralDistribution(), np.linspace(-3.1, 3.1, 30), 10.0, "integral"),
    ],
)
def test_what_is_no_density_is_refused(observable: Any, x: Array, y: float, words: str) -> None:
    shape = np.exp(-(((x - x.mean()) / 0.03) ** 2)) if x.max() < 1 else np.ones_like(x)
    curve = diffsim.Curve(x, y * shape / (0.05 if x.max() < 1 else 2 * np.pi))
    with pytest.raises(TargetError, match=words):
        observable.check(curve)


def test_figures_say_what_is_drawn() -> None:
    observable = diffsim.DihedralDistribution(18)
    axis = observable.axis(0.004)
    figure = curve_figure(observable, axis, diffsim.Curve(axis.values, np.ones(18)))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "phi / rad" and axes.get_ylabel() == "p(phi) / rad$^{-1}$"


# Fits ---------------------------------------------------------------------------------------------


def trimers(potential: Any) -> Any:
    """60 free trimers, 3 apart in every direction, with all that acts in them learned."""
    bond, angle = potential
    system = empty_system(180, np.eye(3) * 12)
    first = 3 * np.arange(60)
    bonds = np.concatenate([np.stack([first + k, first + k + 1], axis=1) for k in (0, 1)])
    bond.attach(system, bonds=bonds, periodic=False)
    angle.attach(system, periodic=False)
    platform = openmm.Platform.getPlatform("Reference")
    made = app.Simulation(topology(180), system, langevin(KELVIN, 3), platform)
    places = np.repeat(lattice(60, np.eye(3) * 12), 3, axis=0)
    shape = np.array([[0.3, 0, 0], [0, 0, 0], [-0.1, 0.28, 0]])
    made.context.setPositions(places + np.tile(shape, (60, 1)))
    made.context.setVelocitiesToTemperature(KELVIN, 1)
    return diffsim.StatePoint(made, potential)


@pytest.mark.parametrize("method", ["ibi", "gauss-newton"])
def test_bonds_and_angles_come_to_their_distributions_in_one_fit(method: str) -> None:
    """Free trimers, whose distributions are known: both functions within a fifth of kT."""
    bond, angle = diffsim.BondSpline(0.2, 0.4, 16, name="r"), diffsim.AngleSpline(16, name="a")
    r, theta = np.linspace(0.2, 0.4, 201), np.linspace(0.001, np.pi - 0.001, 201)
    bond.set_table(r, 3000 * (r - 0.31) ** 2)
    angle.set_table(theta, 5 * np.cos(theta))
    point = trimers(bond + angle)
    truth = {"r": 2500 * (r - 0.3) ** 2, "a": 6 * np.cos(theta) + 2 * np.cos(2 * theta)}
    targets = []
    for observable, q, jacobian, u in (
        (diffsim.BondDistribution(0.22, 0.38, 32), r, r**2, truth["r"]),
        (diffsim.AngleDistribution(triples="bonded", bins=30), theta, np.sin(theta), truth["a"]),
    ):
        p = jacobian * np.exp(-u / THERMAL)
        p /= np.trapezoid(p, q)
        x = observable.axis(0.004).values
        value = np.interp(x, q, p)
        targets.append(diffsim.Target(point, observable, x, value, uncertainty=0.01 * p.max()))
    fit = diffsim.Refinement(point.potential, targets, method)
    fit.run(6, 4000, 20, 1000, progress=False)
    for name, q, jacobian in (("r", r, r**2), ("a", theta, np.sin(theta))):
        u, error = fit.potential_table(q, term=name)
        p = jacobian * np.exp(-truth[name] / THERMAL)
        seen = p > 0.1 * p.max()
        off = (u[0] - truth[name])[seen]
        off -= np.average(off, weights=p[seen])
        assert np.sqrt(np.mean(off**2)) < 0.2 * THERMAL
        within = np.abs(off) < 3 * np.maximum(error[0, seen], 0.02 * THERMAL)
        assert within.all()
    assert fit.potential_table([0.3], term="r")[0].shape == (1, 1)
    with pytest.raises(TargetError, match="expected one of 'r', 'a'"):
        fit.potential_table([0.3], term="x")


def test_iterative_inversion_asks_for_the_distribution_of_each_function() -> None:
    bond, angle = diffsim.BondSpline(0.2, 0.4, 16, name="r"), diffsim.AngleSpline(16, name="a")
    point = trimers(bond + angle)
    x = np.linspace(0.25, 0.35, 20)
    some = diffsim.BondDistribution(0.2, 0.4, 40, bonds=[(0, 1)])
    for observable in (some, diffsim.BondDistribution(0.2, 0.4, 40)):
        p = np.exp(-(((x - 0.3) / 0.02) ** 2) / 2) / 0.05
        target = diffsim.Target(point, observable, x, p, uncertainty=0.1)
        with pytest.raises(TargetError, match="of each type of"):
            diffsim.Refinement(point.potential, [target], "ibi")


def test_a_worker_samples_the_same() -> None:
    """Bonds, molecules and angles come back in another Simulation."""
    bond, angle = diffsim.BondSpline(0.2, 0.4, 16, name="r"), diffsim.AngleSpline(16, name="a")
    bond.set_table(np.linspace(0.2, 0.4, 50), 3000 * (np.linspace(0.2, 0.4, 50) - 0.31) ** 2)
    point = trimers(bond + angle)
    observable = diffsim.BondDistribution(0.2, 0.4, 20)
    plan = diffsim.Recording(40, 10, [observable])
    job = diffsim.SamplingJob.of(point, plan)
    here = point.sample(40, 10, [observable])
    result = job.run()  # afterwards: random numbers of the Reference platform are the process's
    there = diffsim.Samples.from_arrays(point.potential, plan.record, result.arrays, Path())
    np.testing.assert_array_equal(there.features, here.features)
    np.testing.assert_array_equal(there.records[observable], here.records[observable])


def test_the_gradient_of_a_segment_is_that_of_differences() -> None:
    """Of how far three particles come apart, with respect to bonds and angles."""
    bond, angle = diffsim.BondSpline(0.2, 0.4, 12, name="r"), diffsim.AngleSpline(12, name="a")
    bond.set_table(np.linspace(0.2, 0.4, 50), 2000 * (np.linspace(0.2, 0.4, 50) - 0.31) ** 2)
    angle.set_table(np.linspace(0, np.pi, 50), 5 * np.cos(np.linspace(0, np.pi, 50)))
    point = trimers(bond + angle)
    rng = np.random.default_rng(2)
    state = point.simulation.context.getState(positions=True)
    x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    v = 0.3 * rng.normal(size=x.shape)
    options = diffsim.SegmentOptions(integrator=openmm.VerletIntegrator(0.004))

    def end() -> Any:
        segment = point.segment(20, x, v, options)
        last = segment.positions[-1]
        return (last[0] - last[1]).norm() + 2 * (last[0] - last[2]).norm()

    end().backward()
    for term in point.potential:
        grown = term.values.grad
        direction = torch.from_numpy(rng.normal(size=tuple(term.values.shape)))
        slope = float((grown * direction).sum())
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                term.values.add_(sign * 1e-4 * direction)
                found.append(float(end()))
                term.values.add_(-sign * 1e-4 * direction)
        assert slope == pytest.approx((found[0] - found[1]) / 2e-4, rel=1e-6)
