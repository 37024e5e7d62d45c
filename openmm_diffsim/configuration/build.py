"""From a configuration to a Refinement that is ready to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..engine import native
from ..engine.segments import velocity_verlet
from ..engine.statepoint import StatePoint
from ..errors import ConfigurationError, TargetError
from ..fluid import (
    Dynamics,
    find_platform,
    fluid,
    load_system,
    select_atoms,
    start_disordered,
    start_from,
)
from ..io import (
    AngleData,
    CorrelationData,
    RDFData,
    check_rdf,
    check_vacf,
    read_angles,
    read_correlation,
    read_potential,
    read_rdf,
)
from ..observables import RDF, VACF, AngleDistribution, Diffusion, Pressure, SegmentObservable
from ..potentials import (
    LennardJones,
    Mie,
    Morse,
    NeuralPair,
    PairPotential,
    SoftSphere,
    SplinePair,
    Yukawa,
)
from ..refinement import Refinement, Target, boltzmann_inversion
from ..refinement.initial import contact, match_potential
from ..statistics.kernels import largest_range
from ..units import MOLAR_GAS_CONSTANT, number_in_md_units
from .toml import Configuration, PotentialSection, TargetSection

MeasuredCurve = RDFData | AngleData | CorrelationData
Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FINEST_BIN, _USUAL_BIN, _COARSEST_BIN = 0.006, 0.015, 0.03  # of the distance of the first peak
_MOST_LAGS = 20  # of a correlation function, which is smooth
_FEWEST_STEPS = 10  # of a segment that diffusion is measured on
_LONG_SEGMENTS = 20  # MD steps on segments for each step between frames: a user should know
_ROOM_FOR_BAROSTAT = 0.93  # share of half the box that is safe while the box fluctuates


def build_refinement(configuration: Configuration, warn: Any = print) -> Refinement:
    """Build everything, and check it, before any MD.

    Raises
    ------
    ConfigurationError, TargetError, AttachError, StatePointError
        If an entry, a file or the combination of them cannot be.
    """
    dynamics = Dynamics(**vars(configuration.dynamics))
    data = [_read_target(t) for t in configuration.targets]
    measured = next((d for d in data if isinstance(d, RDFData)), None)
    section, seed = configuration.system, configuration.refine.seed
    atoms, state, positions = None, None, None
    if section.particles is not None:
        topology, system = fluid(section.particles, section.number_density, section.mass)  # type: ignore[arg-type]
    else:
        topology, system, state, positions = load_system(
            str(section.topology),
            str(section.system),
            None if section.state is None else str(section.state),
        )
        if section.atoms is not None:
            atoms = select_atoms(topology, section.atoms, "system.atoms")
    box = _box(system, state)
    density = (system.getNumParticles() if atoms is None else len(atoms)) / float(
        np.linalg.det(box)
    )
    for target, table in zip(configuration.targets, data, strict=True):
        if isinstance(table, RDFData) and target.atoms is None:
            check_rdf(table, density)
    _check_cutoff(configuration, box)
    potential = build_potential(configuration.potential, measured, dynamics.temperature)
    backend = "native" if native.supports(find_platform(dynamics.platform)) else "table"
    potential.attach(system, atoms=atoms, backend=backend)
    simulation = dynamics.simulation(topology, system, seed)
    if section.particles is not None:
        start_disordered(simulation, dynamics.temperature, seed)
    else:
        start_from(simulation, state, positions, seed)
    point = StatePoint(simulation, potential)
    reach = largest_range(box) * (1.0 if point.pressure is None else _ROOM_FOR_BAROSTAT)
    targets = [
        _make_target(point, entry, table, atoms, reach, warn)
        for entry, table in zip(configuration.targets, data, strict=True)
    ]
    _tell_cost(targets, configuration.refine.every, warn)
    return Refinement(
        potential,
        targets,
        configuration.refine.method,
        largest_step=configuration.refine.largest_step,
    )


def build_potential(
    section: PotentialSection, measured: RDFData | None, temperature: float
) -> PairPotential:
    """The potential of a configuration at its first guess.

    Where neither parameters nor a table are given, a spline starts from the potential of mean
    force of ``measured``, and any other kind from the parameters that come nearest to it.

    Raises
    ------
    TargetError, PotentialError
        If g(r) or the table cannot be used.
    """
    thermal = MOLAR_GAS_CONSTANT * temperature
    rise = 0.3 if measured is None else float(measured.r[contact(measured.r, measured.g, 0.05)])
    peak = rise if measured is None else float(measured.r[np.argmax(measured.g)])
    r_min = section.r_min if section.r_min is not None else 0.88 * rise
    if r_min >= section.cutoff:
        raise ConfigurationError(
            f"potential.cutoff: got {section.cutoff} nm, but the target's g(r) rises only at "
            f"{rise:.4f} nm",
            key="potential.cutoff",
            got=section.cutoff,
        )
    parameters = _guess(section.kind, rise, peak, thermal) | dict(section.parameters)
    common = {"cutoff": section.cutoff, "r_min": r_min, "knots": section.knots}
    if section.kind != "spline":
        potential = _CLASSES[section.kind](**parameters, **common)
        if section.initial == "parameters":
            return potential
    spline = SplinePair(r_min, section.cutoff, section.knots)
    if section.initial == "boltzmann-inversion":
        assert measured is not None
        boltzmann_inversion(spline, measured.r, measured.g, temperature)
    elif section.initial == "table":
        assert section.file is not None
        spline.set_table(*read_potential(section.file))
    else:
        start = LennardJones(
            section.parameters["sigma"], section.parameters["epsilon"], section.cutoff, r_min
        )
        r = np.linspace(r_min, section.cutoff, 400)
        spline.set_table(r, start.energy(r)[0].detach().numpy())
    if section.kind == "spline":
        return spline
    return match_potential(potential, spline, rise, temperature)


_CLASSES: dict[str, Any] = {
    "neural": NeuralPair,
    "lennard-jones": LennardJones,
    "mie": Mie,
    "morse": Morse,
    "yukawa": Yukawa,
    "soft-sphere": SoftSphere,
}


def _guess(kind: str, rise: float, peak: float, thermal: float) -> dict[str, float]:
    """Parameters of the right size for a g(r) that rises at ``rise`` and peaks at ``peak`` (nm)."""
    guesses = {
        "neural": {"prior_sigma": rise, "prior_epsilon": thermal},
        "lennard-jones": {"sigma": rise, "epsilon": thermal},
        "mie": {"sigma": rise, "epsilon": thermal},
        "morse": {"depth": thermal, "width": 6 / peak, "r_0": peak},
        "yukawa": {"strength": 20 * thermal * peak, "kappa": 3 / peak},
        "soft-sphere": {"sigma": rise, "epsilon": thermal},
    }
    return guesses.get(kind, {})


def _read_target(section: TargetSection) -> MeasuredCurve | None:
    if section.file is None:
        return None
    data: MeasuredCurve
    if section.observable == "rdf":
        data = read_rdf(section.file, section.length_unit)
    elif section.observable == "angles":
        data = read_angles(section.file, section.angle_unit)
    else:
        data = read_correlation(section.file)
    if data.error is None and section.uncertainty is None:
        raise TargetError(
            f"{section.file}: has no third column with errors; give an uncertainty in [[target]]",
            path=section.file,
            key="target.uncertainty",
        )
    return data


def _make_target(
    point: StatePoint,
    section: TargetSection,
    data: MeasuredCurve | None,
    atoms: IntArray | None,
    reach: float,
    warn: Any,
) -> Target:
    if section.atoms is not None:
        atoms = select_atoms(point.simulation.topology, section.atoms, "target.atoms")
    if isinstance(data, RDFData):
        return _rdf_target(point, section, data, atoms, reach, warn)
    if isinstance(data, AngleData):
        return _angle_target(point, section, data, atoms, reach)
    if isinstance(data, CorrelationData):
        return _vacf_target(point, section, data, atoms)
    observable = (
        Pressure() if section.observable == "pressure" else _diffusion(point, section, atoms)
    )
    return Target(
        point,
        observable,
        section.value,
        uncertainty=section.uncertainty,
        weight=section.weight,
    )


def _rdf_target(
    point: StatePoint,
    section: TargetSection,
    data: RDFData,
    atoms: IntArray | None,
    reach: float,
    warn: Any,
) -> Target:
    topology = point.simulation.topology
    second = (
        None if section.atoms2 is None else select_atoms(topology, section.atoms2, "target.atoms2")
    )
    if section.window is not None and section.window[1] > reach:
        raise ConfigurationError(
            f"target.window: ends at {section.window[1]} nm, beyond half the box, {reach:.4f} nm; "
            "take more particles or a smaller window",
            key="target.window",
            got=section.window,
            expected=reach,
        )
    if data.r[-1] > reach * (1 + 1e-9) and section.window is None:
        warn(
            f"{section.file}: reaches to {data.r[-1]:.4g} nm, compared only up to half the box, "
            f"{reach:.4g} nm; more particles would let you use the rest"
        )
    return Target(
        point,
        rdf_for(data, reach, atoms, second),
        data.r,
        data.g,
        uncertainty=data.error if section.uncertainty is None else section.uncertainty,
        weight=section.weight,
        window=section.window,
        noise=section.noise,
    )


def _angle_target(
    point: StatePoint,
    section: TargetSection,
    data: AngleData,
    atoms: IntArray | None,
    reach: float,
) -> Target:
    if section.r_max is not None and section.r_max > reach:
        raise ConfigurationError(
            f"target.r_max: {section.r_max} nm is beyond half the box, {reach:.4f} nm; take more "
            "particles or a smaller r_max",
            key="target.r_max",
            got=section.r_max,
            expected=reach,
        )
    return Target(
        point,
        AngleDistribution(section.r_max, section.bins, atoms=atoms),
        data.theta,
        data.p,
        uncertainty=data.error if section.uncertainty is None else section.uncertainty,
        weight=section.weight,
        window=section.window,
        noise=section.noise,
    )


def _vacf_target(
    point: StatePoint, section: TargetSection, data: CorrelationData, atoms: IntArray | None
) -> Target:
    check_vacf(data, _squared_speed(point, atoms))
    low, high = section.window or (0.0, np.inf)
    t = data.t[(data.t >= low) & (data.t <= high)]
    if len(t) < 3:
        raise ConfigurationError(
            f"target.window: {section.file} has {len(t)} points from {low:g} to {high:g} ps, "
            f"expected at least 3; it reaches from {data.t[0]:g} to {data.t[-1]:g} ps",
            key="target.window",
            got=section.window,
        )
    lags = lags_for(t, _timestep(point))
    return Target(
        point,
        VACF(lags, atoms=atoms, **_segment_options(point, section)),
        data.t,
        data.values,
        uncertainty=data.error if section.uncertainty is None else section.uncertainty,
        weight=section.weight,
        window=section.window,
    )


def _diffusion(point: StatePoint, section: TargetSection, atoms: IntArray | None) -> Diffusion:
    assert section.length is not None
    timestep = _timestep(point)
    steps = round(section.length / timestep)
    if steps < _FEWEST_STEPS:
        raise ConfigurationError(
            f"target.length: {section.length:g} ps are {steps} steps of {timestep:g} ps, expected "
            f"at least {_FEWEST_STEPS}, and until the velocities have forgotten where they started",
            key="target.length",
            got=section.length,
        )
    options = _segment_options(point, section)
    return Diffusion(steps, method=section.method, atoms=atoms, **options)


def _segment_options(point: StatePoint, section: TargetSection) -> dict[str, Any]:
    options: dict[str, Any] = {"gradient_every": section.segments_every}
    if section.integrator == "nve":
        options["integrator"] = velocity_verlet(_timestep(point))
    return options


def _timestep(point: StatePoint) -> float:
    return number_in_md_units(point.simulation.integrator.getStepSize(), "time")


def _squared_speed(point: StatePoint, atoms: IntArray | None) -> float:
    """<v^2> = 3RT/m of free particles, nm^2/ps^2, the mean of the atoms."""
    system = point.simulation.system
    chosen = range(system.getNumParticles()) if atoms is None else map(int, atoms)
    masses = np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in chosen])
    inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)
    return float(3 * MOLAR_GAS_CONSTANT * point.temperature * inverse.mean())


def _tell_cost(targets: Sequence[Target], every: int, warn: Any) -> None:
    """Say so where segments take many times the steps that lie between their starts."""
    for target in targets:
        observable = target.observable
        if isinstance(observable, SegmentObservable) and observable.steps > _LONG_SEGMENTS * every:
            warn(
                f"{type(observable).__name__}: a segment of {observable.steps} steps from every "
                f"frame, {every} steps apart, takes {observable.steps / every:.0f} times the MD of "
                "the fit itself; a shorter window or length, or a larger refine.every, is faster"
            )


def lags_for(t: Array, timestep: float) -> IntArray:
    """Lags, in steps, that reach over the times ``t`` (ps, ascending): as fine, but at most 20."""
    first = int(np.floor(t[0] / timestep + 1e-6))
    last = max(int(np.ceil(t[-1] / timestep - 1e-6)), first + 1)
    spacing = max(float(np.median(np.diff(t))) / timestep, 1.0)
    intervals = int(np.clip(np.ceil((last - first) / spacing - 1e-6), 1, _MOST_LAGS - 1))
    return np.unique(np.round(np.linspace(first, last, intervals + 1)).astype(np.int64))


def rdf_for(
    data: RDFData,
    reach: float,
    atoms: IntArray | None = None,
    atoms2: IntArray | None = None,
) -> RDF:
    """An RDF with bins as fine as the data, and centred on their points where these are regular.

    Up to the last point or ``reach`` (nm), whichever comes first.
    """
    steps = np.diff(data.r)
    peak = float(data.r[np.argmax(data.g)])
    spacing = float(np.median(steps))
    low, width = 0.0, _USUAL_BIN * peak
    if np.all(np.abs(steps - spacing) < 1e-3 * spacing):
        parts = np.ceil(spacing / (_COARSEST_BIN * peak))
        width = max(spacing / parts, _FINEST_BIN * peak)
        low = width * (round(float(data.r[0]) / width - 0.5, 6) % 1.0)
    bins = int((min(reach, float(data.r[-1]) + 0.5 * width) - low) / width + 1e-6)
    return RDF(low + bins * width, bins, atoms=atoms, atoms2=atoms2, r_min=low)


def _box(system: openmm.System, state: openmm.State | None) -> Array:
    vectors = (
        system.getDefaultPeriodicBoxVectors() if state is None else state.getPeriodicBoxVectors()
    )
    return np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors], dtype=np.float64)


def _check_cutoff(configuration: Configuration, box: Array) -> None:
    cutoff, limit = configuration.potential.cutoff, largest_range(box)
    if cutoff <= limit:
        return
    hint = "take a larger box"
    n = configuration.system.particles
    if n is not None:
        hint = f"take at least {int(np.ceil(n * (cutoff / limit) ** 3))} particles"
    raise ConfigurationError(
        f"potential.cutoff: {cutoff:g} nm is beyond half the box, {limit:.4g} nm; {hint} or a "
        "smaller cutoff",
        key="potential.cutoff",
        got=cutoff,
        expected=limit,
    )
