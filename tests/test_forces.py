"""A potential attached to an OpenMM System: the same energy and forces, updated in place."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import unit
from systems import (
    BOXES,
    FreePair,
    argon,
    brute_force_pairs,
    context_of,
    direct_sums,
    empty_system,
    energy_and_forces,
    numerical_derivative,
)

from openmm_diffsim import (
    LennardJones,
    PairPotential,
    SplinePair,
    SplinePairForce,
    TemperatureDependent,
    Yukawa,
    portable_system,
)
from openmm_diffsim.engine import native
from openmm_diffsim.engine.adapters import attached, has_native_force
from openmm_diffsim.errors import AttachError
from openmm_diffsim.potentials import SplineBasis, adapter_of

Array = NDArray[np.float64]

BASIS = SplineBasis(0.25, 0.7, 20)
N = 70
# OpenMM 8.6's Reference platform misses pairs in a triclinic box that is not much wider than twice
# the cutoff, whatever the force.
WIDE = {shape: 1.6 * box for shape, box in BOXES.items()}


def points(box: Array, n: int = N) -> Array:
    """Random points, over several images; some are closer than r_min."""
    return np.random.default_rng(5).uniform(-0.5, 1.5, (n, 3)) @ box


class Expected(NamedTuple):
    energy: float  # c . S
    forces: Array
    scale: float  # |c| . |S|: the energy itself may be a small difference


def expected_of(
    potential: PairPotential, positions: Array, box: Array | None, **who: Any
) -> Expected:
    c = potential.spline_coefficients().detach().numpy()
    sums, slopes = direct_sums(potential.basis, positions, box, potential.n_types, **who)
    forces = -np.einsum("pk,pkia->ia", c, slopes)
    return Expected(float(np.sum(c * sums)), forces, float(np.sum(np.abs(c * sums))))


def assert_force_is_the_potentials(context: openmm.Context, expected: Expected) -> None:
    rtol = 1e-9 if context.getPlatform().getName() == "Reference" else 1e-5
    energy, forces = energy_and_forces(context)
    assert expected.scale > 1, "nothing interacts"
    assert energy == pytest.approx(expected.energy, abs=rtol * expected.scale)
    # A force is a difference of table entries: its rounding is larger than the energy's.
    largest = np.abs(expected.forces).max()
    np.testing.assert_allclose(forces, expected.forces, atol=10 * rtol * largest)


# Energies and forces ----------------------------------------------------------------------------

WHO: dict[str, dict[str, Any]] = {
    "all": {},
    "some": {"atoms": np.arange(1, N, 3)},
    "two types": {"types": np.arange(N) % 2},
    "three types, some atoms": {
        "atoms": np.arange(N - 1, 4, -1),
        "types": np.arange(N - 5) % 3,
    },
}


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("shape", ["cubic", "orthorhombic", "skewed", "dodecahedron", None])
def test_openmm_gives_the_energy_and_forces_of_the_spline(
    shape: str | None, who: str, platform: str, backend: str
) -> None:
    box = WIDE[shape or "cubic"]
    positions = points(box)
    n_types = 1 + int(np.max(WHO[who].get("types", 0)))
    potential = FreePair(BASIS, n_types, seed=6)
    system = empty_system(N, box)
    exclusions = [(3, 7), (12, 8), (0, 69)]
    periodic = shape is not None
    potential.attach(system, exclusions=exclusions, periodic=periodic, backend=backend, **WHO[who])

    types = np.full(N, -1)
    types[WHO[who].get("atoms", np.arange(N))] = WHO[who].get("types", 0)
    expected = expected_of(
        potential, positions, box if shape else None, types=types, exclusions=exclusions
    )
    context = context_of(system, positions, platform)
    assert_force_is_the_potentials(context, expected)


def test_forces_are_minus_the_slope_of_the_energy(backend: str) -> None:
    box = WIDE["skewed"]
    positions = points(box)
    potential = FreePair(BASIS, 2, seed=7)
    system = empty_system(N, box)
    potential.attach(system, types=np.arange(N) % 2, backend=backend)
    context = context_of(system, positions, "Reference")
    _, forces = energy_and_forces(context)

    def energy(x: Array) -> float:
        moved = positions.copy()
        moved[3] = x
        context.setPositions(moved)
        return energy_and_forces(context)[0]

    slope = numerical_derivative(energy, positions[3], 1e-6)
    np.testing.assert_allclose(forces[3], -slope, rtol=1e-6, atol=1e-6 * np.abs(slope).max())


def test_steep_core_of_one_pair_of_types_does_not_leak_into_the_others(backend: str) -> None:
    # A jump of 1e5 kJ/mol between two stretches of the table, which holds all pairs of types.
    potential = LennardJones(
        [0.34, 0.5, 0.34], [1.0, 1.0, 0.001], 0.7, r_min=0.2, knots=30, n_types=2
    )
    system = empty_system(2, BOXES["cubic"])
    potential.attach(system, types=[1, 1], backend=backend)
    context = context_of(system, np.zeros((2, 3)), "Reference")
    for r in (0.21, 0.3, 0.5, 0.69):
        context.setPositions([[0, 0, 0], [0, r, 0]])
        expected = potential.energy([r])[2, 0].item()
        assert energy_and_forces(context)[0] == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_energy_is_zero_beyond_the_cutoff_and_linear_to_contact(backend: str) -> None:
    potential = argon(0.7)
    system = empty_system(2, BOXES["cubic"])
    potential.attach(system, backend=backend)
    context = context_of(system, np.zeros((2, 3)), "Reference")
    for r in (0.001, 0.1, 0.2, 0.699, 0.7001, 0.95):
        context.setPositions([[0, 0, 0], [0, 0, r]])
        energy, forces = energy_and_forces(context)
        assert energy == pytest.approx(potential.energy([r])[0, 0].item(), rel=1e-9, abs=1e-12)
        slope = potential.force([r])[0, 0].item()
        assert forces[1, 2] == pytest.approx(slope, rel=1e-7, abs=1e-10)
    assert energy == 0.0


def test_two_potentials_of_different_names_add_up(backend: str) -> None:
    box = BOXES["cubic"]
    positions = points(box)
    first, second = FreePair(BASIS, seed=1), FreePair(SplineBasis(0.2, 0.8, 25), seed=2)
    second.name = "second"
    system = empty_system(N, box)
    first.attach(system, backend=backend)
    second.attach(system)  # where there is a plugin: the same kind, and one of each
    energy, forces = energy_and_forces(context_of(system, positions, "Reference"))
    parts = [expected_of(p, positions, box) for p in (first, second)]
    assert energy == pytest.approx(sum(p.energy for p in parts), rel=1e-9)
    np.testing.assert_allclose(forces, sum(p.forces for p in parts), rtol=1e-7, atol=1e-6)


def test_temperature_chooses_the_force_of_a_temperature_dependent_potential(
    backend: str,
) -> None:
    knots = {"cutoff": 0.7, "r_min": 0.25, "knots": 20}
    potential = TemperatureDependent(LennardJones(0.34, 1.0, **knots), Yukawa(0.001, 3.0, **knots))
    box = BOXES["cubic"]
    positions = points(box)
    sums, _ = direct_sums(potential.basis, positions, box)
    system = empty_system(N, box)
    potential.attach(system, temperature=300 * unit.kelvin, backend=backend)
    context = context_of(system, positions, "Reference")
    for temperature in (300.0, 150.0):
        attached(potential, system).update(context, temperature)
        c = potential.spline_coefficients(temperature).detach().numpy()
        assert energy_and_forces(context)[0] == pytest.approx(float(np.sum(c * sums)), rel=1e-9)


# Exclusions and boundaries taken from the System ------------------------------------------------


def nonbonded(n: int, method: int, exceptions: list[tuple[int, int]]) -> openmm.NonbondedForce:
    force = openmm.NonbondedForce()
    for _ in range(n):
        force.addParticle(0.0, 0.3, 0.0)
    for a, b in exceptions:
        force.addException(a, b, 0.0, 0.3, 0.0)
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.7)
    return force


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_exclusions_are_taken_from_the_nonbonded_force(platform: str, backend: str) -> None:
    box = BOXES["cubic"]
    positions = points(box)
    exceptions = list(brute_force_pairs(positions, box, 0.5))[::3]
    system = empty_system(N, box)
    system.addForce(nonbonded(N, openmm.NonbondedForce.CutoffPeriodic, exceptions))
    potential = FreePair(BASIS, seed=8)
    potential.attach(system, backend=backend)
    (exclusions,) = attached(potential, system).exclusions()
    listed = {frozenset(pair) for pair in exclusions.tolist()}
    assert listed == {frozenset(pair) for pair in exceptions}
    expected = expected_of(potential, positions, box, exclusions=exceptions)
    without = expected_of(potential, positions, box)
    assert abs(expected.energy - without.energy) > 0.1, "the exclusions are to matter"
    context = context_of(system, positions, platform)
    assert_force_is_the_potentials(context, expected)


def test_exclusions_and_periodicity_are_taken_from_another_potential(backend: str) -> None:
    system = empty_system(4, BOXES["cubic"])
    first, second = FreePair(BASIS, seed=1), FreePair(BASIS, seed=1)
    second.name = "second"
    first.attach(system, exclusions=[(2, 0)], periodic=False, backend=backend)
    with pytest.raises(AttachError, match="1 that differ"):
        second.attach(system, exclusions=[])
    for n, other in enumerate(("table", None)):
        second.name = f"second {n}"
        force = second.attach(system, backend=other)
        (exclusions,) = attached(second, system).exclusions()
        assert exclusions.tolist() == [[0, 2]]
        assert not force.usesPeriodicBoundaryConditions()


@pytest.mark.parametrize(
    ("method", "periodic"),
    [
        (openmm.NonbondedForce.NoCutoff, False),
        (openmm.NonbondedForce.CutoffNonPeriodic, False),
        (openmm.NonbondedForce.CutoffPeriodic, True),
        (openmm.NonbondedForce.PME, True),
        (None, True),
    ],
)
def test_force_is_periodic_where_the_systems_nonbonded_force_is(
    method: int | None, periodic: bool, backend: str
) -> None:
    system = empty_system(4, BOXES["cubic"])
    if method is not None:
        system.addForce(nonbonded(4, method, []))
    force = FreePair(BASIS).attach(system, backend=backend)
    assert force.usesPeriodicBoundaryConditions() == periodic


def test_types_and_absent_particles_are_read_back(backend: str) -> None:
    system = empty_system(6, BOXES["cubic"])
    potential = FreePair(BASIS, 2)
    potential.attach(system, atoms=[5, 1, 3], types=[1, 0, 1], backend=backend)
    assert attached(potential, system).types().tolist() == [-1, 0, -1, 1, -1, 1]


# Updates ----------------------------------------------------------------------------------------


OLD = [("8.5.2", "CPU", 1), ("8.6", "CPU", 1), ("8.6.1", "CPU", 0), ("8.5.2", "Reference", 0)]


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("n_types", [1, 2])
def test_update_changes_a_live_context_and_rebuilds_nothing(
    platform: str, n_types: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = BOXES["cubic"]
    positions = points(box)
    types = np.arange(N) % n_types
    potential = FreePair(BASIS, n_types, seed=1)
    system = empty_system(N, box)
    potential.attach(system, types=types, backend=backend)
    context = context_of(system, positions, platform)
    context.setVelocitiesToTemperature(100.0, 1)
    context.setTime(3.0)
    before = context.getState(positions=True, velocities=True)
    monkeypatch.setattr(openmm.Context, "reinitialize", lambda *_: pytest.fail("rebuilt"))
    potential.c.data.copy_(FreePair(BASIS, n_types, seed=2).c)
    attached(potential, system).update(context, None)
    expected = expected_of(potential, positions, box, types=types)
    assert_force_is_the_potentials(context, expected)
    after = context.getState(positions=True, velocities=True)
    assert after.getTime() == before.getTime()
    np.testing.assert_array_equal(
        after.getVelocities(asNumpy=True)._value, before.getVelocities(asNumpy=True)._value
    )
    assert system.getNumForces() == 1


@pytest.mark.parametrize(("version", "platform", "anew"), OLD)
def test_a_table_is_brought_anew_where_openmm_would_keep_old_energies(
    version: str, platform: str, anew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMM 8.5 and 8.6.0 on the CPU platform: openmm issue 5402."""
    box, types = BOXES["cubic"], np.arange(N) % 2
    potential = FreePair(BASIS, 2, seed=1)
    system = empty_system(N, box)
    potential.attach(system, types=types, backend="table")
    context = context_of(system, points(box), platform)
    context.setVelocitiesToTemperature(100.0, 1)
    before = context.getState(velocities=True)
    calls: list[Any] = []
    reinitialize = openmm.Context.reinitialize

    def counted(context: openmm.Context, preserveState: bool) -> None:
        calls.append(preserveState)
        reinitialize(context, preserveState)

    monkeypatch.setattr(openmm.Context, "reinitialize", counted)
    monkeypatch.setattr(openmm.Platform, "getOpenMMVersion", staticmethod(lambda: version))
    potential.c.data.copy_(FreePair(BASIS, 2, seed=2).c)
    attached(potential, system).update(context, None)
    assert calls == [True] * anew
    assert_force_is_the_potentials(context, expected_of(potential, points(box), box, types=types))
    np.testing.assert_array_equal(
        context.getState(velocities=True).getVelocities(asNumpy=True)._value,
        before.getVelocities(asNumpy=True)._value,
    )


def test_update_without_a_context_changes_the_system_alone(backend: str) -> None:
    positions = points(BOXES["cubic"])
    potential = FreePair(BASIS, seed=1)
    system = empty_system(N, BOXES["cubic"])
    potential.attach(system, backend=backend)
    context = context_of(system, positions, "Reference")
    old, _ = energy_and_forces(context)
    potential.c.data.mul_(2)
    attached(potential, system).update(None, None)
    assert energy_and_forces(context)[0] == old
    fresh, _ = energy_and_forces(context_of(system, positions, "Reference"))
    assert fresh == pytest.approx(2 * old, rel=1e-9)


def test_context_made_before_attach_is_told_apart(backend: str) -> None:
    system = empty_system(4, BOXES["cubic"])
    context = context_of(system, np.zeros((4, 3)), "Reference")
    potential = argon()
    potential.attach(system, backend=backend)
    with pytest.raises(AttachError, match="before attach") as error:
        attached(potential, system).update(context, None)
    assert "reinitialize" in str(error.value)
    context.reinitialize(preserveState=True)
    attached(potential, system).update(context, None)


def test_force_made_for_other_knots_is_refused(backend: str) -> None:
    system = empty_system(4, BOXES["cubic"])
    argon(0.6, knots=30).attach(system, backend=backend)
    before = openmm.XmlSerializer.serialize(system)
    for other in (argon(0.6, knots=31), argon(0.7, knots=30), argon(0.6, knots=30, n_types=2)):
        with pytest.raises(AttachError, match="other knots"):
            attached(other, system).update(None, None)
    assert openmm.XmlSerializer.serialize(system) == before


# What is refused --------------------------------------------------------------------------------


def test_second_potential_of_the_same_name_is_refused(backend: str) -> None:
    system = empty_system(4, BOXES["cubic"])
    argon(name="argon").attach(system, backend=backend)
    with pytest.raises(AttachError, match=r"'argon'.*name="):
        argon(name="argon").attach(system)
    assert system.getNumForces() == 1


REFUSED: dict[str, tuple[Callable[[openmm.System], Any], tuple[str, ...], dict[str, Any]]] = {
    "index too large": (
        lambda s: FreePair(BASIS).attach(s, atoms=[0, 6]),
        ("0 .. 5", "0 .. 6"),
        {"got": [0, 6]},
    ),
    "negative index": (
        lambda s: FreePair(BASIS).attach(s, atoms=[-1, 2]),
        ("0 .. 5", "-1 .. 2"),
        {"limit": 5},
    ),
    "no atom": (lambda s: FreePair(BASIS).attach(s, atoms=[]), ("none",), {"limit": 5}),
    "index twice": (lambda s: FreePair(BASIS).attach(s, atoms=[1, 2, 1]), ("twice",), {}),
    "too few types": (
        lambda s: FreePair(BASIS, 2).attach(s, atoms=[0, 1, 2], types=[0, 1]),
        ("3 atoms", "got 2"),
        {"expected": 3, "got": 2},
    ),
    "type too large": (
        lambda s: FreePair(BASIS, 2).attach(s, types=[0, 1, 2, 0, 1, 2]),
        ("0 .. 1", "2"),
        {},
    ),
    "negative type": (
        lambda s: FreePair(BASIS, 2).attach(s, types=[0, 1, -1, 0, 1, 0]),
        ("0 .. 1", "-1"),
        {},
    ),
    "half a type": (
        lambda s: FreePair(BASIS, 2).attach(s, types=[0, 1, 0.5, 0, 1, 0]),
        ("whole numbers", "0.5"),
        {},
    ),
    "exclusion of a missing particle": (
        lambda s: FreePair(BASIS).attach(s, exclusions=[(0, 1), (2, 6)]),
        ("(2, 6)", "0 .. 5"),
        {},
    ),
    "exclusion of a negative particle": (
        lambda s: FreePair(BASIS).attach(s, exclusions=[(-1, 1)]),
        ("(-1, 1)", "0 .. 5"),
        {},
    ),
    "exclusion with itself": (
        lambda s: FreePair(BASIS).attach(s, exclusions=[(3, 3)]),
        ("(3, 3)",),
        {},
    ),
    "atoms that are no whole numbers": (
        lambda s: FreePair(BASIS).attach(s, atoms=[0.9, 1.7]),
        ("atoms", "1.7"),
        {},
    ),
    "a mask of other length": (
        lambda s: FreePair(BASIS).attach(s, atoms=[True] * 4 + [False]),
        ("atoms", "mask"),
        {},
    ),
    "types that are words": (
        lambda s: FreePair(BASIS, 2).attach(s, types=["A"] * 6),
        ("types", "'A'"),
        {},
    ),
    "exclusions that are no whole numbers": (
        lambda s: FreePair(BASIS).attach(s, exclusions=[(0.2, 1.7)]),
        ("exclusions", "1.7"),
        {},
    ),
    "half a bond": (
        lambda s: FreePair(BASIS).attach(s, exclude_bonds=0.5),
        ("exclude_bonds", "0.5"),
        {"got": 0.5},
    ),
    "pairs and bonds at once": (
        lambda s: FreePair(BASIS).attach(s, exclusions=[(0, 1)], exclude_bonds=1),
        ("exclusions", "exclude_bonds"),
        {},
    ),
    "backend that does not exist": (
        lambda s: FreePair(BASIS).attach(s, backend="torch"),
        ("'native' or 'table'", "'torch'"),
        {"got": "torch"},
    ),
    "NaN coefficient": (
        lambda s: _with_coefficient(np.nan).attach(s),
        ("'FreePair'", "not finite"),
        {},
    ),
    "infinite coefficient": (
        lambda s: _with_coefficient(np.inf).attach(s),
        ("not finite",),
        {},
    ),
}


def _with_coefficient(value: float) -> FreePair:
    potential = FreePair(BASIS, seed=1)
    potential.c.data[0, 3] = value
    return potential


@pytest.mark.parametrize("case", REFUSED)
def test_bad_attachment_is_refused_and_leaves_the_system_alone(case: str) -> None:
    attach, words, numbers = REFUSED[case]
    system = empty_system(6, BOXES["cubic"])
    with pytest.raises(AttachError) as error:
        attach(system)
    for word in words:
        assert word in str(error.value)
    for name, number in numbers.items():
        assert getattr(error.value, name) == number
    assert system.getNumForces() == 0


def test_exclusions_that_openmm_would_refuse_are_refused_at_once() -> None:
    system = empty_system(6, BOXES["cubic"])
    system.addForce(nonbonded(6, openmm.NonbondedForce.CutoffPeriodic, [(0, 1), (2, 3)]))
    with pytest.raises(AttachError, match=r"got 1 pairs.* 2 that differ"):
        FreePair(BASIS).attach(system, exclusions=[(0, 1)])
    FreePair(BASIS).attach(system, exclusions=[(3, 2), (1, 0), (0, 1)])  # the same, otherwise put


def bonded(kind: str) -> openmm.System:
    """Six particles in a chain that one kind of force or constraint holds together."""
    system = empty_system(6, BOXES["cubic"])
    links = [(k, k + 1) for k in range(5)]
    force: Any = {
        "HarmonicBondForce": openmm.HarmonicBondForce,
        "CustomBondForce": lambda: openmm.CustomBondForce("r"),
        "CustomCompoundBondForce": lambda: openmm.CustomCompoundBondForce(2, "distance(p1, p2)"),
        "CustomCVForce": openmm.HarmonicBondForce,
    }.get(kind, lambda: None)()
    for a, b in links:
        if kind == "constraints":
            system.addConstraint(a, b, 0.3)
        elif kind == "CustomCompoundBondForce":
            force.addBond([a, b])
        else:
            force.addBond(a, b, *([] if kind == "CustomBondForce" else [0.3, 100.0]))
    if kind == "CustomCVForce":
        inner, force = force, openmm.CustomCVForce("bonds")
        force.addCollectiveVariable("bonds", inner)
    if force is not None:
        system.addForce(force)
    return system


@pytest.mark.parametrize(
    "kind",
    [
        "HarmonicBondForce",
        "CustomBondForce",
        "CustomCompoundBondForce",
        "CustomCVForce",
        "constraints",
    ],
)
def test_bonded_pairs_are_left_out_as_far_as_is_said(kind: str, backend: str) -> None:
    for most in range(4):
        system = bonded(kind)
        potential = FreePair(BASIS)
        potential.attach(system, backend=backend, exclude_bonds=most)
        expected = [(a, b) for a in range(6) for b in range(a + 1, 6) if b - a <= most]
        assert sorted(map(tuple, attached(potential, system).exclusions()[0].tolist())) == expected


def test_bonded_pairs_that_interact_are_told() -> None:
    with pytest.warns(RuntimeWarning, match=r"5 in all, such as \(0, 1\).*exclude_bonds"):
        FreePair(BASIS).attach(bonded("HarmonicBondForce"))
    with pytest.warns(RuntimeWarning, match=r"1 in all, such as \(2, 3\)"):
        FreePair(BASIS).attach(bonded("constraints"), atoms=[0, 2, 3, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FreePair(BASIS).attach(bonded("HarmonicBondForce"), atoms=[0, 2, 4])
        FreePair(BASIS).attach(bonded("HarmonicBondForce"), exclude_bonds=0)
        FreePair(BASIS).attach(bonded("HarmonicBondForce"), exclusions=[])
        system = bonded("HarmonicBondForce")
        links = [(k, k + 1) for k in range(5)]
        system.addForce(nonbonded(6, openmm.NonbondedForce.CutoffPeriodic, links))
        FreePair(BASIS).attach(system)


def joined(kind: str, bonds: int = 0) -> openmm.System:
    """Eight particles, the first five joined by a force that does not say which are bonded."""
    system = empty_system(8, BOXES["cubic"])
    for k in range(bonds):
        system.addConstraint(k, k + 1, 0.3)
    for k in range(0, 2 if kind == "torsion" else 3):
        if kind == "compound":
            force = openmm.CustomCompoundBondForce(3, "distance(p1, p2) + distance(p2, p3)")
            force.addBond([k, k + 1, k + 2])
        elif kind == "angle":
            force = openmm.HarmonicAngleForce()
            force.addAngle(k, k + 1, k + 2, 1.0, 1.0)
        elif kind == "torsion":
            force = openmm.RBTorsionForce()
            force.addTorsion(k, k + 1, k + 2, k + 3, 1, 1, 1, 1, 1, 1)
        else:
            force = openmm.CMAPTorsionForce()
            force.addMap(4, [0.0] * 16)
            force.addTorsion(0, 0, 1, 2, 3, 1, 2, 3, 4)
        system.addForce(force)
    return system


@pytest.mark.parametrize("kind", ["compound", "angle", "torsion", "map"])
def test_pairs_that_may_be_bonded_are_told_and_no_bond_is_not_counted(kind: str) -> None:
    with pytest.raises(AttachError, match=r"exclude_bonds: got 2, but no bond.* 8 particles"):
        FreePair(BASIS).attach(joined(kind), exclude_bonds=2)
    with pytest.warns(RuntimeWarning, match=r"no bond, .*\(4 such pairs, the first \(0, 1\)\)"):
        FreePair(BASIS).attach(joined(kind))
    with pytest.warns(RuntimeWarning, match=r"\(3 such pairs, the first \(1, 2\)\); exclusions="):
        FreePair(BASIS).attach(joined(kind, 1), exclude_bonds=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FreePair(BASIS).attach(joined(kind, 4), exclude_bonds=2)
        FreePair(BASIS).attach(joined(kind), exclusions=[(0, 1)])
        FreePair(BASIS).attach(joined(kind), exclude_bonds=0)
        FreePair(BASIS).attach(joined(kind), atoms=[0, 5, 6])


def test_bonds_are_not_counted_of_particles_that_have_none() -> None:
    system = bonded("constraints")
    for _ in range(3):
        system.addParticle(1.0)
    with pytest.raises(AttachError, match=r"exclude_bonds: got 1, .* 3 particles"):
        FreePair(BASIS).attach(system, atoms=[6, 7, 8], exclude_bonds=1)


def test_bonds_that_the_nonbonded_force_does_not_exclude_are_told_and_refused() -> None:
    system = bonded("HarmonicBondForce")
    system.addForce(nonbonded(6, openmm.NonbondedForce.CutoffPeriodic, [(0, 1)]))
    with pytest.raises(AttachError, match=r"exclude_bonds: got 5 pairs.* 1 that differ"):
        FreePair(BASIS).attach(system, exclude_bonds=1)
    with pytest.warns(RuntimeWarning, match=r"4 in all, such as \(1, 2\)"):
        FreePair(BASIS).attach(system)


def test_update_with_a_coefficient_that_is_not_a_number_leaves_the_force_alone(
    backend: str,
) -> None:
    positions = points(BOXES["cubic"])
    potential = FreePair(BASIS, seed=1)
    system = empty_system(N, BOXES["cubic"])
    potential.attach(system, backend=backend)
    context = context_of(system, positions, "Reference")
    old, _ = energy_and_forces(context)
    potential.c.data[0, 3] = np.nan
    with pytest.raises(AttachError, match="not finite"):
        attached(potential, system).update(context, None)
    assert energy_and_forces(context)[0] == old


# Which backend ----------------------------------------------------------------------------------


def test_native_is_the_default_where_there_is_a_plugin(backend: str) -> None:
    system = empty_system(4, BOXES["cubic"])
    force = argon().attach(system, backend=backend)
    is_native = backend == "native"
    assert isinstance(force, SplinePairForce if is_native else openmm.CustomNonbondedForce)
    assert type(attached(argon(), system).force) is type(force)
    assert has_native_force(system) == is_native
    by_default = argon(name="default").attach(system)
    assert isinstance(by_default, SplinePairForce) == native.available()


def test_table_is_the_default_without_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "why_not", "no compiler was found")
    system = empty_system(4, BOXES["cubic"])
    with pytest.raises(AttachError, match=r"no compiler was found.*backend='table'"):
        argon().attach(system, backend="native")
    assert system.getNumForces() == 0
    assert isinstance(argon().attach(system), openmm.CustomNonbondedForce)
    assert not native.supports(openmm.Platform.getPlatform("Reference"))


# Export -----------------------------------------------------------------------------------------

PLAIN_OPENMM = """
import sys, numpy, openmm
folder = sys.argv[1]
system = openmm.XmlSerializer.deserialize(open(folder + "/system.xml").read())
platform = openmm.Platform.getPlatform("Reference")
context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
context.setPositions(numpy.load(folder + "/positions.npy"))
state = context.getState(energy=True, forces=True)
numpy.save(folder + "/forces.npy", state.getForces(asNumpy=True)._value)
print(repr(state.getPotentialEnergy()._value), "openmm_diffsim" in sys.modules)
"""


def run_elsewhere(system: openmm.System, positions: Array, folder: Path, first: str = "") -> Any:
    """Energy and forces from the System's XML in a new process; was openmm_diffsim imported?"""
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(folder / "positions.npy", positions)
    command = [sys.executable, "-c", first + PLAIN_OPENMM, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    output = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    energy, imported = output.stdout.split()
    return float(energy), np.load(folder / "forces.npy"), imported == "True"


def two_potentials(backend: str) -> openmm.System:
    """A System with two potentials, some particles in none of them, and another force between."""
    system = empty_system(N, WIDE["dodecahedron"])
    first, second = FreePair(BASIS, 2, seed=1), FreePair(SplineBasis(0.2, 0.8, 25), seed=2)
    first.name, second.name = '<first> & "only"', "second"
    kinds = {"atoms": np.arange(30), "types": np.arange(30) % 2, "exclusions": [(0, 1), (5, 3)]}
    first.attach(system, backend=backend, **kinds).setForceGroup(3)
    bond = openmm.HarmonicBondForce()
    bond.addBond(4, 9, 0.2, 30.0)
    system.addForce(bond)
    second.attach(system, backend=backend).setForceGroup(5)
    return system


def test_portable_system_runs_in_plain_openmm_with_the_same_energy(
    backend: str, tmp_path: Path
) -> None:
    system, positions = two_potentials(backend), points(WIDE["dodecahedron"])
    before = openmm.XmlSerializer.serialize(system)
    portable = portable_system(system)
    assert openmm.XmlSerializer.serialize(system) == before
    assert [(f.getName(), f.getForceGroup()) for f in portable.getForces()] == [
        (f.getName(), f.getForceGroup()) for f in system.getForces()
    ]
    assert not has_native_force(portable)
    energy, forces, imported = run_elsewhere(portable, positions, tmp_path)
    assert not imported
    expected, expected_forces = energy_and_forces(context_of(system, positions, "Reference"))
    assert energy == pytest.approx(expected, rel=1e-9)
    scale = np.abs(expected_forces).max()
    np.testing.assert_allclose(forces, expected_forces, atol=1e-9 * scale)


def test_system_runs_as_it_is_after_the_import(backend: str, tmp_path: Path) -> None:
    system, positions = two_potentials(backend), points(WIDE["dodecahedron"])
    first = "import openmm_diffsim\n"
    energy, forces, imported = run_elsewhere(system, positions, tmp_path, first)
    assert imported
    expected, expected_forces = energy_and_forces(context_of(system, positions, "Reference"))
    assert energy == expected
    np.testing.assert_array_equal(forces, expected_forces)


def test_force_is_found_again_in_a_deserialized_system(backend: str) -> None:
    positions = points(BOXES["cubic"])
    potential = SplinePair(0.25, 0.7, 20, name="learned")
    system = empty_system(N, BOXES["cubic"])
    potential.attach(system, backend=backend)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    context = context_of(again, positions, "Reference")
    potential.values.data.fill_(0.5)
    attached(potential, again).update(context, None)
    expected = expected_of(potential, positions, BOXES["cubic"])
    assert_force_is_the_potentials(context, expected)
    assert not adapter_of(SplinePair(0.25, 0.7, name="another")).bind(again)
