"""What no run can begin from is told before it runs, and what can be mended is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from openmm import app, unit
from systems import argon, empty_system, energy_and_forces, lattice, simulate, topology

from openmm_diffsim import RDF, StatePoint
from openmm_diffsim.errors import ConfigurationError, SamplingError, StatePointError
from openmm_diffsim.fluid import Dynamics, load_system, start_from

N, LENGTH = 27, 1.4
BOX = np.eye(3) * LENGTH


def point(
    positions: Any = None, system: Any = None, platform: str = "Reference", **options: Any
) -> StatePoint:
    potential = argon()
    system = empty_system(N, BOX) if system is None else system
    potential.attach(system, **options)
    x = lattice(N, BOX, 0.02) if positions is None else positions
    return StatePoint(simulate(system, x, platform=platform), potential)


@pytest.mark.parametrize("mass", [-1.0, float("nan"), float("inf")])
def test_a_mass_that_none_has_is_refused(mass: float) -> None:
    system = empty_system(N, BOX)
    system.setParticleMass(5, mass)
    with pytest.raises(StatePointError, match=f"particle 5 .* mass of {mass:g} amu"):
        point(system=system).sample(10, 5)


def test_a_system_in_which_nothing_moves_is_refused() -> None:
    system = empty_system(N, BOX)
    for i in range(N):
        system.setParticleMass(i, 0.0)
    with pytest.raises(StatePointError, match="all masses of the System are 0"):
        point(system=system).sample(10, 5)


def test_positions_that_were_never_set_are_asked_for() -> None:
    potential, system = argon(), empty_system(N, BOX)
    potential.attach(system)
    simulation = app.Simulation(
        topology(N),
        system,
        openmm.LangevinMiddleIntegrator(85.0, 1.0, 0.001),
        openmm.Platform.getPlatform("Reference"),
    )
    with pytest.raises(StatePointError, match=r"no run can begin here.*positions"):
        StatePoint(simulation, potential).sample(10, 5)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_two_particles_in_one_place_of_a_table_are_named(platform: str) -> None:
    x = lattice(N, BOX, 0.02)
    x[7] = x[3]
    with pytest.raises(StatePointError, match=r"particles 3 and 7 lie in the same place.*minimise"):
        point(x, platform=platform, backend="table").sample(10, 5)
    samples = point(x, platform=platform, backend="native")
    assert np.isfinite(energy_and_forces(samples.simulation.context)[1]).all()


@pytest.mark.parametrize("energy", ["1e300", "1e12", "sqrt(-1-x*x)"])
def test_an_energy_beyond_all_reason_is_refused(energy: str) -> None:
    system = empty_system(N, BOX)
    force = openmm.CustomExternalForce(f"({energy})*(1 + x)")
    force.addParticle(0, [])
    system.addForce(force)
    with pytest.raises(StatePointError, match=r"the energy is .* kJ/mol.*minimise"):
        point(system=system).sample(10, 5)


def test_numbers_of_a_start_that_are_none_are_refused() -> None:
    start = point()
    velocities = np.zeros((N, 3))
    velocities[4, 1] = np.nan
    start.simulation.context.setVelocities(velocities)
    with pytest.raises(StatePointError, match="velocities of particle 4"):
        start.sample(10, 5)


@pytest.mark.parametrize(("side", "refused"), [(1.21, True), (1.25, False)])
def test_a_cutoff_that_leaves_a_barostat_no_room_is_told_at_once(
    side: float, refused: bool
) -> None:
    box = np.eye(3) * side
    system = empty_system(N, box)
    system.addForce(openmm.MonteCarloBarostat(1.0, 120.0, 5))
    words = rf"cutoff 0\.6 nm .*{side} x {side} x {side} nm.*expected at most 0\.5"
    start = point(lattice(N, box, 0.02), system)
    told = pytest.raises(StatePointError, match=words) if refused else pytest.warns(match=words)
    with told:
        start.sample(10, 5)


def test_a_box_that_shrinks_below_the_cutoff_is_named() -> None:
    system = empty_system(N, BOX)
    barostat = openmm.MonteCarloBarostat(30_000.0, 120.0, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    with pytest.raises(SamplingError, match=r"ended at step .*shrank to 1\.\d+ x .*0\.6 nm") as e:
        point(system=system).sample(4000, 50)
    assert "potential.cutoff" in str(e.value) and e.value.reason == "box"


def test_a_box_that_shrinks_below_what_is_counted_ends_the_run_and_is_no_bad_input() -> None:
    system = empty_system(N, BOX)
    barostat = openmm.MonteCarloBarostat(30_000.0, 120.0, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    rdf = RDF(0.49 * float(BOX[0, 0]), 20)
    with pytest.raises(SamplingError, match=r"the box shrank, and .* r_max = 0\.") as e:
        point(system=system).sample(4000, 10, [rdf])
    assert e.value.reason == "box"


# The user's own files -----------------------------------------------------------------------------


def files(folder: Path, positions: Any) -> tuple[str, openmm.System]:
    system = empty_system(N, BOX)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with open(folder / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(topology(N), positions * unit.nanometer, stream)
    return str(folder / "box.pdb"), system


def state(folder: Path, **what: bool) -> openmm.State:
    context = simulate(files(folder, np.zeros((N, 3)))[1], lattice(N, BOX, 0.02)).context
    return context.getState(**what)


@pytest.mark.parametrize("kind", ["no positions", "no number", "others"])
def test_a_state_that_cannot_be_started_from_is_bad_input(kind: str, tmp_path: Path) -> None:
    pdb, _ = files(tmp_path, lattice(N, BOX, 0.02))
    text = openmm.XmlSerializer.serialize(state(tmp_path, positions=kind != "no positions"))
    if kind == "no number":
        text = text.replace('<Position x="', '<Position x="nan" was="', 1)
    if kind == "others":
        other = simulate(empty_system(2, BOX), np.eye(3)[:2]).context.getState(positions=True)
        text = openmm.XmlSerializer.serialize(other)
    path = tmp_path / "state.xml"
    path.write_text(text)
    words = {"no positions": "has no positions", "no number": "positions of particle 0"}
    with pytest.raises(ConfigurationError, match=words.get(kind, "of 2 particles")) as error:
        load_system(pdb, str(tmp_path / "system.xml"), str(path))
    assert error.value.key == "system.state" and "state.xml" in str(error.value)


def test_a_mass_in_a_file_is_bad_input(tmp_path: Path) -> None:
    pdb, system = files(tmp_path, lattice(N, BOX, 0.02))
    system.setParticleMass(2, -3.0)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(ConfigurationError, match=r"system\.xml: particle 2 .*-3 amu") as error:
        load_system(pdb, str(tmp_path / "system.xml"), None)
    assert error.value.key == "system.system"


def packed(n: int = 64) -> Any:
    """At random, no two closer than 0.24 nm: what a packing program gives."""
    rng, found = np.random.default_rng(3), np.zeros((0, 3))
    side = (n / 16.0) ** (1 / 3)
    while len(found) < n:
        new = rng.random(3) * side
        d = found - new
        d -= np.round(d / side) * side
        if (np.linalg.norm(d, axis=1) > 0.24).all():
            found = np.vstack([found, new])
    return found, np.eye(3) * side


def started(x: Any, box: Any, told: list[str]) -> StatePoint:
    potential, system = argon(), empty_system(len(x), box)
    potential.attach(system)
    dynamics = Dynamics(85.0, 0.005, platform="Reference")
    simulation = dynamics.simulation(topology(len(x)), system, 1)
    start_from(simulation, None, x, 1, told.append)
    return StatePoint(simulation, potential)


def test_a_packed_box_is_minimised_and_cooled_before_it_is_run() -> None:
    told: list[str] = []
    start = started(*packed(), told)
    assert len(told) == 1 and "minimised" in told[0]
    assert start.simulation.currentStep == 0
    assert len(start.sample(400, 20)) == 20


def test_what_can_be_run_as_it_is_starts_from_where_it_was() -> None:
    told: list[str] = []
    x = lattice(N, BOX, 0.02)
    start = started(x, BOX, told)
    found = start.simulation.context.getState(positions=True).getPositions(asNumpy=True)
    np.testing.assert_array_equal(found._value, x)
    assert told == []


def test_heat_that_soon_goes_is_seen_too() -> None:
    """A lattice that is dense in one half of its box: hot after 50 steps, and no more after 200."""
    side = (150 / 21.5) ** (1 / 3)
    grid = np.stack(np.meshgrid(*3 * [np.arange(6)]), axis=-1).reshape(-1, 3)[:150]
    told: list[str] = []
    start = started((grid + 0.5) * side / 6, np.eye(3) * side, told)
    assert len(told) == 1
    assert len(start.sample(400, 20, equilibration=50)) == 20
