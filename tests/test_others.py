"""Pairs that other forces of a System describe already, and what a fit makes of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import liquids
import numpy as np
import openmm
import pytest
from liquids import CUTOFF, SIGMA, Array
from openmm import unit

from openmm_diffsim import RDF, Refinement, SplinePair, StatePoint, Target, boltzmann_inversion
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.toml import parse_configuration
from openmm_diffsim.engine.adapters import charges_between, nonbonded_between
from openmm_diffsim.errors import TargetError, UnitError
from openmm_diffsim.units import COULOMB, MOLAR_GAS_CONSTANT

N, KELVIN = 20, liquids.kelvin(1.5)
R = np.linspace(0.01, 1.2 * CUTOFF, 100)
G = np.where(R > 0.9 * SIGMA, 1 + np.exp(-(((R - 1.1 * SIGMA) / (0.2 * SIGMA)) ** 2)), 0.0)
FIRST, SECOND = np.arange(10), np.arange(10, N)


def system_of(*forces: openmm.Force) -> openmm.System:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(2.5 * np.eye(3)))
    for _ in range(N):
        system.addParticle(40.0)
    for force in forces:
        system.addForce(force)
    return system


def nonbonded(charges: Array, epsilons: Array) -> openmm.NonbondedForce:
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffPeriodic)
    for charge, epsilon in zip(charges, epsilons, strict=True):
        force.addParticle(charge, 0.3, epsilon)
    return force


IONS, SOLVENT = np.where(np.arange(N) < 10, 1.0, 0.0), np.where(np.arange(N) < 10, 0.0, 0.5)
NOTHING = np.zeros(N)


def test_a_nonbonded_force_counts_where_both_have_what_it_acts_by() -> None:
    between = nonbonded_between
    for charges, epsilons, expected in (
        (IONS, NOTHING, [True, False, False]),
        (NOTHING, SOLVENT, [False, False, True]),
        (IONS, SOLVENT, [True, False, True]),
        (NOTHING, NOTHING, [False, False, False]),
        (np.ones(N), NOTHING, [True, True, True]),
    ):
        system = system_of(nonbonded(charges, epsilons))
        pairs = ((FIRST, FIRST), (FIRST, SECOND), (SECOND, SECOND))
        assert [between(system, *pair) == ["NonbondedForce"] for pair in pairs] == expected
        assert not between(system, FIRST, FIRST, names={"NonbondedForce"})


def test_custom_forces_count_too_by_their_groups() -> None:
    def custom(*groups: list[int]) -> openmm.Force:
        force = openmm.CustomNonbondedForce("r")
        for _ in range(N):
            force.addParticle()
        if groups:
            force.addInteractionGroup(*groups)
        return force

    assert nonbonded_between(system_of(custom()), FIRST, SECOND) == ["CustomNonbondedForce"]
    system = system_of(custom([0, 1], [15, 16]))
    assert nonbonded_between(system, FIRST, SECOND) == ["CustomNonbondedForce"]
    assert nonbonded_between(system, SECOND, FIRST) == ["CustomNonbondedForce"]
    assert nonbonded_between(system, FIRST, FIRST) == []
    assert nonbonded_between(system_of(openmm.HarmonicAngleForce()), FIRST, FIRST) == []


def test_another_learned_potential_is_a_force_like_any(backend: str) -> None:
    system = system_of()
    liquids.lennard_jones(name="other").attach(system, atoms=FIRST, backend=backend)
    assert nonbonded_between(system, FIRST, FIRST) == ["other"]
    assert nonbonded_between(system, FIRST, FIRST, {"other"}) == []
    nothing = system_of()
    liquids.lennard_jones(epsilon=0.0, name="nothing").attach(nothing, backend=backend)
    assert nonbonded_between(nothing, FIRST, SECOND) == []
    if backend == "native":
        assert nonbonded_between(system, FIRST, SECOND) == []


def with_inner() -> openmm.CustomCVForce:
    outer = openmm.CustomCVForce("x")
    outer.addCollectiveVariable("x", nonbonded(IONS, NOTHING))
    return outer


@pytest.mark.parametrize(
    ("make", "acts"),
    [
        (lambda: openmm.PythonForce(lambda state: (0.0, np.zeros((N, 3)))), True),
        (lambda: openmm.CustomManyParticleForce(3, "distance(p1,p2)"), True),
        (with_inner, True),
        (lambda: openmm.CustomCVForce("0"), False),
        (lambda: openmm.CustomExternalForce("x"), False),
        (lambda: openmm.CustomCentroidBondForce(2, "distance(g1,g2)"), False),
        (lambda: openmm.MonteCarloBarostat(1.0, 300.0), False),
    ],
)
def test_what_acts_in_a_way_that_nobody_knows_counts(make: Any, acts: bool) -> None:
    system = system_of(make())
    assert bool(nonbonded_between(system, FIRST, FIRST)) == acts


def fit_beside(pair: SplinePair, *forces: openmm.Force, **options: Any) -> Refinement:
    system = system_of(*forces)
    pair.attach(system, backend="table", **options)
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1.0, 0.002)
    topology = openmm.app.Topology()
    chain = topology.addChain()
    for _ in range(N):
        topology.addAtom("X", None, topology.addResidue("X", chain))
    platform = openmm.Platform.getPlatform("Reference")
    simulation = openmm.app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(np.random.default_rng(1).uniform(0, 2.5, (N, 3)))
    point = StatePoint(simulation, pair)
    rdf = RDF(R[-1], 100)
    return Refinement(pair, [Target(point, rdf, R, G, uncertainty=0.05)])


def spline() -> SplinePair:
    return SplinePair(0.8 * SIGMA, CUTOFF, 30)


def test_the_prior_is_about_a_correction_beside_another_force() -> None:
    free = spline()
    mean = fit_beside(free).states[0].prior_mean
    inverted = boltzmann_inversion(spline(), R, G, KELVIN).spline_coefficients()[0]
    np.testing.assert_allclose(mean, inverted.detach().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beside = fit_beside(spline(), nonbonded(NOTHING, np.ones(N)))
    start = spline().spline_coefficients().detach().numpy()[0]  # zero, but for its core
    np.testing.assert_array_equal(beside.states[0].prior_mean, start)


def test_an_inverted_g_beside_another_force_is_warned_of() -> None:
    inverted = boltzmann_inversion(spline(), R, G, KELVIN)
    with pytest.warns(UserWarning, match="NonbondedForce also acts on: .* described twice"):
        fit = fit_beside(inverted, nonbonded(NOTHING, np.ones(N)))
    mean = fit.states[0].prior_mean
    assert mean is not None
    r = np.linspace(SIGMA, CUTOFF, 50)
    np.testing.assert_array_equal(inverted.basis.values(r) @ mean, 0.0)  # about no correction
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_beside(inverted)
        fit_beside(inverted, nonbonded(NOTHING, NOTHING))


def test_charges_alone_are_told_from_what_else_acts() -> None:
    salt = np.where(np.arange(N) < 10, 1.0, -2.0)
    offset = nonbonded(salt, NOTHING)
    offset.addGlobalParameter("lambda", 0.5)
    offset.addParticleParameterOffset("lambda", 0, 0.1, 0.0, 0.0)
    walls = openmm.CustomNonbondedForce("1/r^12")
    for _ in range(N):
        walls.addParticle([])
    for forces, expected in (
        ([nonbonded(salt, NOTHING)], (1.0, -2.0)),
        ([nonbonded(salt, SOLVENT)], (1.0, -2.0)),  # epsilon of the second set alone
        ([nonbonded(salt, np.ones(N))], None),
        ([nonbonded(np.arange(1.0, N + 1), NOTHING)], None),
        ([nonbonded(IONS, NOTHING)], None),  # nothing acts between both sets
        ([offset], None),
        ([nonbonded(salt, NOTHING), walls], None),
    ):
        assert charges_between(system_of(*forces), FIRST, SECOND) == expected


def inverted_beside(charges: Any) -> Array:
    pair = boltzmann_inversion(spline(), R, G, KELVIN, charges=charges)
    return pair.energy(R).detach().numpy()[0]


def test_boltzmann_inversion_beside_charges_is_the_closure_of_ions() -> None:
    """RT (h - ln g), and in the core what a shell does not screen of unlike charges."""
    thermal = MOLAR_GAS_CONSTANT * KELVIN
    bulk = (R > 1.0 * SIGMA) & (R < CUTOFF)
    mean_force, alike = inverted_beside(None), inverted_beside((1, 1))
    more = thermal * (G - np.interp(CUTOFF, R, G))
    np.testing.assert_allclose((alike - mean_force)[bulk], more[bulk], atol=0.02 * thermal)
    core = R < 0.9 * SIGMA
    unlike = inverted_beside((2 * unit.elementary_charge, -1))
    bare = 2 * COULOMB / R
    rest = unlike - alike
    assert (rest[core] > 0).all() and (rest[core] < bare[core]).all()
    inside = (R > 0.81 * SIGMA) & core
    force, bare_force = (-np.gradient(u, R)[inside] for u in (unlike - bare, bare))
    assert (force > -0.02 * bare_force).all(), "ions fall into each other"


def test_the_prior_beside_charges_is_about_what_is_inverted() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_beside(
            boltzmann_inversion(spline(), R, G, KELVIN, charges=(1, 1)),
            nonbonded(np.ones(N), NOTHING),
        )
    np.testing.assert_allclose(
        fit.states[0].prior_mean, fit.potential.coefficients().detach().numpy(), atol=1e-9
    )


@pytest.mark.parametrize("charges", [1.0, (1.0,), "ab", (1.0, np.inf), (1.0, "b")])
def test_charges_that_are_none_are_refused(charges: Any) -> None:
    with pytest.raises((TargetError, UnitError), match="charge"):
        boltzmann_inversion(spline(), R, G, KELVIN, charges=charges)


def test_from_the_command_line_a_correction_begins_at_zero(tmp_path: Path) -> None:
    system = system_of(nonbonded(NOTHING, np.ones(N)))
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    lines = [f"CRYST1{25:9.3f}{25:9.3f}{25:9.3f}{90:7.2f}{90:7.2f}{90:7.2f} P 1           1"]
    x = np.stack(np.meshgrid(*[np.arange(3) * 8.0] * 3), axis=-1).reshape(-1, 3)[:N]
    for i, (a, b, c) in enumerate(x, 1):
        lines.append(
            f"HETATM{i:5d} AR   AR  A{i:4d}    {a:8.3f}{b:8.3f}{c:8.3f}  1.00  0.00          AR"
        )
    (tmp_path / "box.pdb").write_text("\n".join([*lines, "END"]) + "\n")
    np.savetxt(tmp_path / "g.csv", np.stack([R, G], axis=1))
    raw = {
        "system": {"topology": "box.pdb", "system": "system.xml"},
        "dynamics": {"temperature": KELVIN, "timestep": 0.002, "platform": "Reference"},
        "potential": {"kind": "spline", "cutoff": CUTOFF},
        "target": [{"observable": "rdf", "file": "g.csv", "uncertainty": 0.05}],
        "refine": {"steps": 1000, "every": 25},
    }
    said: list[str] = []
    fit = build_refinement(parse_configuration(raw, tmp_path), warn=said.append)
    assert sum("NonbondedForce of the System acts between these particles" in s for s in said) == 1
    r = np.linspace(SIGMA, CUTOFF, 50)
    assert float(fit.pair_potential().energy(r).abs().max()) == 0.0
