"""A state point is told from every other by what it samples, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from networks import embedded
from systems import MASS, argon, empty_system, langevin, lattice, simulate

import openmm_diffsim as diffsim
from openmm_diffsim import SplinePair, StatePoint
from openmm_diffsim.errors import StatePointError
from openmm_diffsim.potentials import Potential, flat_parameters, set_flat_parameters
from openmm_diffsim.refinement.identity import differences

N = 27


@dataclass
class Fluid:
    """All that a System may be made of; each test changes one thing."""

    length: float = 1.3
    masses: dict[int, float] = field(default_factory=dict)
    stiffness: float = 1000.0  # of the bond between the first two
    strength: float = 2.0  # of the field, as the Context has it
    constraint: float = 0.43  # between the fifth and the sixth particle
    weight: float = 0.5  # of the virtual site, the last particle
    exclusions: tuple[tuple[int, int], ...] = ((0, 1),)
    types: tuple[int, ...] = (0, 1) * 12
    temperature: float = 120.0
    barostat: float | None = None
    network: float | None = None  # scale of one that is not learned
    seed: int = 1
    group: int = 0

    def potential(self) -> Potential:
        return argon(0.6, 14, n_types=2) + SplinePair(0.28, 0.5, 12)

    def system(self) -> openmm.System:
        system = empty_system(N, np.eye(3) * self.length)
        for i in range(N):
            system.setParticleMass(i, self.masses.get(i, MASS))
        system.setParticleMass(N - 1, 0.0)
        site = openmm.TwoParticleAverageSite(0, 1, self.weight, 1 - self.weight)
        system.setVirtualSite(N - 1, site)
        system.addConstraint(5, 6, self.constraint)
        return system

    def forces(self) -> list[openmm.Force]:
        bonds = openmm.HarmonicBondForce()
        bonds.addBond(0, 1, 0.4, self.stiffness)
        trap = openmm.CustomExternalForce("strength*y")
        trap.addGlobalParameter("strength", 0.0)
        trap.addParticle(3)
        trap.setForceGroup(self.group)
        if self.barostat is None:
            return [bonds, trap]
        barostat = openmm.MonteCarloBarostat(self.barostat, 120.0)
        barostat.setRandomNumberSeed(self.seed)
        return [bonds, trap, barostat]

    def point(self, potential: Potential | None = None) -> StatePoint:
        potential = potential or self.potential()
        system = self.system()
        for force in self.forces():
            system.addForce(force)
        if self.network is not None:
            embedded(self.network).attach(system, backend="python")
        first, second = list(potential)  # type: ignore[call-overload]
        first.attach(
            system,
            atoms=np.arange(len(self.types)),
            types=self.types,
            exclusions=self.exclusions,
        )
        second.attach(system, atoms=np.arange(N - 1))
        integrator = langevin(self.temperature, self.seed)
        simulation = simulate(system, lattice(N, np.eye(3) * self.length, 0.02), integrator)
        simulation.context.setParameter("strength", self.strength)
        simulation.context.applyConstraints(1e-6)
        return StatePoint(simulation, potential)

    def identity(self) -> Any:
        """As it comes back from a file."""
        return json.loads(json.dumps(self.point().identity()))


PLAIN = Fluid()


def changed(old: Any, new: Any, path: str = "") -> set[str]:
    """Where two identities differ, as paths."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return {path} if old != new else set()
    keys = {*old, *new}
    return set().union(*(changed(old.get(k), new.get(k), f"{path}/{k}") for k in keys))


LEARNED, BONDS = "/learned forces", "/forces/HarmonicBondForce/Bonds/sha256"
BOX = {"/density in 1/nm^3", "/box in nm"}
ALTERED: dict[str, tuple[Fluid, set[str]]] = {
    "a mass": (Fluid(masses={3: 40.0}), {"/masses in amu"}),
    "the box": (Fluid(length=1.31), BOX),
    "a bond": (Fluid(stiffness=1001.0), {BONDS}),
    "a parameter of the Context": (
        Fluid(strength=2.5),
        {"/forces/CustomExternalForce/GlobalParameters/strength"},
    ),
    "a constraint": (Fluid(constraint=0.44), {"/constraints"}),
    "a virtual site": (Fluid(weight=0.4), {"/virtual sites/sha256"}),
    "exclusions": (
        Fluid(exclusions=((0, 1), (2, 3))),
        {f"{LEARNED}/LennardJones/exclusions", f"{LEARNED}/SplinePair/exclusions"},
    ),
    "types": (Fluid(types=(1, 0) * 12), {f"{LEARNED}/LennardJones/types of particles"}),
    "atoms": (Fluid(types=(0, 1) * 11), {f"{LEARNED}/LennardJones/types of particles"}),
    "the temperature": (Fluid(temperature=121.0), {"/temperature in K"}),
    "a barostat": (
        Fluid(barostat=300.0),
        BOX | {"/pressure in bar", "/forces/MonteCarloBarostat"},
    ),
    "another force": (Fluid(network=0.3), {"/forces/NetworkPotential"}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_was_altered_is_named_and_nothing_else(what: str) -> None:
    altered, names = ALTERED[what]
    old, new = PLAIN.identity(), altered.identity()
    assert changed(old, new) == names
    assert differences(old, new)


def test_a_network_that_is_not_learned_is_known_by_its_parameters() -> None:
    one, other = (Fluid(network=scale).identity() for scale in (0.3, 0.31))
    assert changed(one, Fluid(network=0.3).identity()) == set()
    found = changed(one, other)
    assert found and all("/forces/NetworkPotential/fixed" in path for path in found)


def learned_anew(point: StatePoint) -> None:
    set_flat_parameters(point.potential, 1.01 * flat_parameters(point.potential))
    point.apply()


UNALTERED: dict[str, Callable[[StatePoint], Any]] = {
    "parameters": learned_anew,
    "a run": lambda point: point.sample(30, 10),
    "a restart": lambda point: point.deserialize(point.serialize()),
}


@pytest.mark.parametrize("what", UNALTERED)
def test_what_does_not_count_is_not_seen(what: str) -> None:
    point = PLAIN.point()
    UNALTERED[what](point)
    assert json.loads(json.dumps(point.identity())) == PLAIN.identity()


def test_seeds_and_force_groups_do_not_count() -> None:
    under_pressure = replace(PLAIN, barostat=300.0)
    other = replace(under_pressure, seed=7, group=3)
    assert other.identity() == under_pressure.identity()


def test_the_box_does_not_count_at_constant_pressure() -> None:
    point = Fluid(barostat=300.0, length=1.35).point()
    before = point.identity()
    point.sample(100, 50)
    assert point.box()[0, 0] != 1.35  # type: ignore[index]
    assert point.identity() == before


def test_another_process_finds_the_same() -> None:
    fluid = Fluid(network=0.3, barostat=300.0)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        elsewhere = pool.submit(fluid.identity).result()
    assert elsewhere == fluid.identity()


# Frames know what else acted ----------------------------------------------------------------------


def test_frames_of_other_forces_are_not_pooled(tmp_path: Path) -> None:
    point = Fluid(barostat=1.0).point()
    point.simulation.minimizeEnergy(maxIterations=100)
    bonds, trap, barostat, *_ = point.simulation.system.getForces()
    context = point.simulation.context
    samples = point.sample(4, 2)
    bonds.setBondParameters(0, 0, 1, 0.4, 12.0)
    bonds.updateParametersInContext(context)
    stiffer = point.sample(4, 2)
    with pytest.raises(StatePointError, match=r"HarmonicBondForce changed since .* set it back"):
        samples + stiffer
    bonds.setBondParameters(0, 0, 1, 0.4, Fluid().stiffness)
    bonds.updateParametersInContext(context)
    again = point.sample(4, 2)
    assert len(samples + again) == len(samples) + len(again)
    context.setParameter("strength", 0.5)
    with pytest.raises(StatePointError, match="CustomExternalForce changed"):
        samples + point.sample(4, 2)
    context.setParameter("strength", Fluid().strength)
    trap.setForceGroup(3)  # as it is summed up is not what it does
    point.simulation.integrator.setTemperature(130.0)
    context.setParameter(barostat.Temperature(), 130.0)
    hot = point.sample(4, 2)
    assert len(samples + hot) == len(samples) + len(hot)
    samples.save(tmp_path / "samples.npz")
    kept = diffsim.Samples.load(tmp_path / "samples.npz", point.potential, [])
    assert kept.runs[0].rest == samples.runs[0].rest
    with pytest.raises(StatePointError, match="HarmonicBondForce changed"):
        kept + stiffer
