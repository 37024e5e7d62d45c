"""Simulations to refine in: a fluid of simple particles, or the user's own System."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from .engine.adapters import bonds_of
from .engine.context import box_of
from .engine.start import box_fluctuates, check_masses, check_numbers
from .engine.statepoint import degrees_of_freedom, hottest, kinetic_temperature
from .engine.xml import read_xml
from .errors import ConfigurationError, DiffsimError, SamplingError, StatePointError
from .io import check_regular
from .io.trajectories import select
from .limits import checked_whole
from .units import number_in_md_units, value_in_md_units

IntArray = NDArray[np.int64]

_TRIAL = 200  # steps that show whether a start can be run
_LOOK = 10  # of them between two looks at the temperature
_MOST_ATTEMPTS = 50
_MOST_BYTES = 2**28  # of a topology: some millions of atoms


@dataclass(frozen=True)
class Dynamics:
    """How to run: Langevin dynamics by OpenMM's LangevinMiddleIntegrator."""

    temperature: float  # K
    timestep: float  # ps
    friction: float = 1.0  # 1/ps
    platform: str = "CPU"
    threads: int | None = None  # of the CPU platform; None: OpenMM's choice
    pressure: float | None = None  # bar; None: that of the System's barostat, or constant volume

    def press(self, system: openmm.System, seed: int) -> None:
        """Add the barostat of a ``pressure``, before anything asks whether the volume changes.

        Raises
        ------
        ConfigurationError
            If the System has one that is at work.
        """
        if self.pressure is None:
            return
        if box_fluctuates(system):
            raise ConfigurationError(
                f"dynamics.pressure: got {self.pressure:g} bar, but the System has a barostat of "
                "its own; leave one of them out",
                key="dynamics.pressure",
                got=self.pressure,
            )
        barostat = openmm.MonteCarloBarostat(self.pressure, self.temperature)
        barostat.setRandomNumberSeed(seed + 2)
        system.addForce(barostat)

    def simulation(self, topology: app.Topology, system: openmm.System, seed: int) -> Any:
        """A Simulation on the named platform.

        Raises
        ------
        ConfigurationError
            If this OpenMM has no such platform, or the platform cannot run the System.
        """
        checked_whole("seed", seed, ConfigurationError)
        integrator = openmm.LangevinMiddleIntegrator(self.temperature, self.friction, self.timestep)
        integrator.setRandomNumberSeed(seed + 1)  # 0 would be random
        platform = find_platform(self.platform)
        properties = {}
        if self.threads is not None and "Threads" in platform.getPropertyNames():
            properties["Threads"] = str(self.threads)
        try:
            return app.Simulation(topology, system, integrator, platform, properties)
        except openmm.OpenMMException as error:
            raise ConfigurationError(
                f"dynamics.platform: {self.platform} cannot run this System: {error}",
                key="dynamics.platform",
                got=self.platform,
            ) from error


def find_platform(name: str) -> openmm.Platform:
    """The OpenMM platform of that name; ConfigurationError lists those there are."""
    try:
        return openmm.Platform.getPlatform(name)
    except openmm.OpenMMException as error:
        names = [
            openmm.Platform.getPlatform(i).getName()
            for i in range(openmm.Platform.getNumPlatforms())
        ]
        raise ConfigurationError(
            f"dynamics.platform: this OpenMM has no platform {name!r}, only {', '.join(names)}",
            key="dynamics.platform",
            got=name,
            expected=names,
        ) from error


def fluid(
    n: int | Sequence[int],
    number_density: float,
    mass: float | Sequence[float],
    names: Sequence[str] | None = None,
) -> tuple[app.Topology, openmm.System]:
    """Particles in a cube, without forces: of one kind, or a mixture, kind after kind.

        topology, system = fluid(500, 21.5, 39.948)
        topology, system = fluid([125, 375], 18.0, [39.948, 83.798], ["Ar", "Kr"])

    Parameters
    ----------
    n : int, or sequence of int
        How many there are, or how many of each kind.
    number_density : float
        Of all together, 1/nm^3.
    mass : float, or sequence of float
        amu, of all or of each kind.
    names : sequence of str, optional
        Of the kinds, which atoms and residues have. Default: "X" for one kind, "A", "B", ...

    Raises
    ------
    ConfigurationError
        If there are not as many masses or names as kinds.
    """
    counts = [n] if isinstance(n, int) else list(n)
    kinds = list(names or ("X" if len(counts) == 1 else ascii_uppercase)[: len(counts)])
    masses = [mass] * len(counts) if isinstance(mass, int | float) else list(mass)
    if not len(counts) == len(kinds) == len(masses):
        raise ConfigurationError(
            f"fluid: got {len(counts)} numbers of particles, {len(masses)} masses and "
            f"{len(kinds)} names, expected as many of each"
        )
    side = (sum(counts) / number_density) ** (1 / 3)
    vectors = np.eye(3) * side
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*vectors)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    chain = topology.addChain()
    for count, own, name in zip(counts, masses, kinds, strict=True):
        for _ in range(count):
            system.addParticle(own)
            topology.addAtom(name, None, topology.addResidue(name, chain))
    return topology, system


def start_disordered(simulation: Any, temperature: float, seed: int) -> None:
    """Random positions, freed of overlaps by minimization, and velocities at ``temperature`` (K).

    A fluid started from a lattice may stay a crystal near its triple point; this one cannot.

    Raises
    ------
    SamplingError
        If the minimization ends in what is no number.
    """
    box = simulation.context.getState().getPeriodicBoxVectors(asNumpy=True)
    random = np.random.default_rng(seed)
    fractions = random.random((simulation.system.getNumParticles(), 3))
    simulation.context.setPositions(fractions @ box.value_in_unit(unit.nanometer))
    try:
        openmm.LocalEnergyMinimizer.minimize(simulation.context, 50.0, 200)
        simulation.context.setVelocitiesToTemperature(temperature, seed + 1)
    except openmm.OpenMMException as error:
        raise SamplingError(
            f"overlaps of random positions cannot be removed ({error}); is the first guess of the "
            "potential endless, or too steep?",
            reason="exploded",
        ) from error


def load_system(
    topology_file: str, system_file: str, state_file: str | None, trusted: bool = False
) -> tuple[app.Topology, openmm.System, openmm.State | None, Any]:
    """The user's own: topology (PDB or mmCIF), System and State (XML).

    ``trusted``: the System may hold code, which runs as it is read; see ``engine.xml``.

    Returns
    -------
    topology, system, state or None, positions of the topology file

    Raises
    ------
    ConfigurationError
        If a file is missing or is not what it should be, or their numbers of atoms differ.
    """
    pdb = _read("system.topology", topology_file, _read_topology)
    system = _read("system.system", system_file, lambda p: read_xml(p, openmm.System, trusted))
    state = None
    if state_file is not None:
        state = _read("system.state", state_file, lambda p: read_xml(p, openmm.State))
    n = system.getNumParticles()
    if pdb.topology.getNumAtoms() != n:
        raise ConfigurationError(
            f"system.system: {system_file} has {n} particles, but {topology_file} has "
            f"{pdb.topology.getNumAtoms()} atoms",
            key="system.system",
            got=n,
            expected=pdb.topology.getNumAtoms(),
        )
    _checked("system.system", system_file, lambda: check_masses(system))
    if state is not None:
        _checked("system.state", state_file, lambda: check_numbers(state, n))
    return pdb.topology, system, state, pdb.positions


def start_from(
    simulation: Any,
    state: openmm.State | None,
    positions: Any,
    seed: int,
    warn: Callable[[str], None] = print,
) -> None:
    """Start from a State, or from positions with thermal velocities.

    What is too far from equilibrium to be run, such as a box that was packed, is minimised first,
    and has its heat taken away until it stays at the temperature; ``warn`` is told.
    """
    if state is not None:
        simulation.context.setState(state)
    else:
        x = np.array(value_in_md_units(positions, "length"))
        bonding = bonds_of(simulation.system).bonding(len(x), stored=True)
        simulation.context.setPositions(bonding.whole(x, box_of(simulation.context))[0])
        temperature = simulation.integrator.getTemperature()
        simulation.context.setVelocitiesToTemperature(temperature, seed + 1)
    _settle(simulation, seed, warn)


def _settle(simulation: Any, seed: int, warn: Callable[[str], None]) -> None:
    """Nothing where the start can be run as it is, but for the random numbers."""
    context = simulation.context
    temperature = number_in_md_units(simulation.integrator.getTemperature(), "temperature")
    start = context.getState(positions=True, velocities=True, parameters=True)
    stays = _stays_cool(context, temperature)
    context.setState(start)
    if stays:
        return
    warn(
        "the start is far from equilibrium: it is minimised, and its heat taken away, before the "
        "run"
    )
    with suppress(openmm.OpenMMException):  # what cannot be minimised is told by the run itself
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 200)
    for attempt in range(_MOST_ATTEMPTS):
        context.setVelocitiesToTemperature(temperature, seed + 1 + attempt)
        if _stays_cool(context, temperature):
            break
    context.setTime(start.getTime())
    context.setStepCount(start.getStepCount())


def _stays_cool(context: openmm.Context, temperature: float) -> bool:
    """Is it never hotter than allowed in a short run? A run ends at the peak of its heat."""
    freedom = degrees_of_freedom(context.getSystem())
    try:
        for _ in range(_TRIAL // _LOOK):
            context.getIntegrator().step(_LOOK)
            if not kinetic_temperature(context, freedom) < hottest(freedom, temperature):
                return False
        return True
    except openmm.OpenMMException:
        return False


def select_atoms(topology: app.Topology, selection: str, key: str) -> IntArray:
    """Indices of the atoms that a selection in mdtraj's language names.

    Raises
    ------
    ConfigurationError
        If the selection cannot be read, or names no atom.
    """
    return select(mdtraj.Topology.from_openmm(topology), selection, key)


def _checked(key: str, path: str | None, check: Callable[[], None]) -> None:
    try:
        check()
    except StatePointError as error:
        raise ConfigurationError(f"{key}: {path}: {error}", key=key, got=path) from error


def _read(key: str, path: str, reader: Any) -> Any:
    try:
        return reader(path)
    except OSError as error:
        raise ConfigurationError(
            f"{key}: {path} cannot be read: {error.strerror or error}", key=key, got=path
        ) from error
    except DiffsimError as error:
        raise ConfigurationError(f"{key}: {error}", key=key, got=path) from error
    except Exception as error:  # OpenMM's readers raise many kinds
        raise ConfigurationError(
            f"{key}: {path} is not what it should be: {error}", key=key, got=path
        ) from error


def _read_topology(path: str) -> Any:
    check_regular(Path(path), _MOST_BYTES)
    readers = {".pdb": app.PDBFile, ".ent": app.PDBFile}
    readers |= dict.fromkeys((".cif", ".mmcif", ".pdbx"), app.PDBxFile)
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise ValueError("expected a PDB or mmCIF file, named .pdb or .cif")
    try:
        made = reader(path)
        positions = np.array(made.positions.value_in_unit(unit.nanometer), dtype=np.float64)
    except (IndexError, AttributeError, AssertionError) as error:  # of OpenMM's readers
        raise ValueError("expected atoms, found none that can be read") from error
    if not np.isfinite(positions).all():
        atom = int(np.argmin(np.isfinite(positions).all(axis=1)))
        raise ValueError(f"the position of atom {atom} (the first is 0) is not finite")
    return made
