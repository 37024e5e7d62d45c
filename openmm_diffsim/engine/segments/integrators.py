"""Integrators, as steps of kicks and drifts that can be followed backward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import SegmentError
from ...units import MOLAR_GAS_CONSTANT, number_in_md_units
from ..context import masses_of
from ..native import ChainThermostat

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scheme:
    """One step of an integrator,

        v1 = v + kick1 F(x)/m;  x1 = x + drift1 v1;  v2 = scale v1 + noise;
        x' = x1 + drift2 v2;    v' = v2 + kick2 F(x')/m.

    The noise of Langevin dynamics is normal with variance R T (1 - scale^2) / m. With a
    Nose-Hoover chain, ``scale`` follows from the kinetic energy of v1 and the state of the chain.

    Velocities of leapfrog and of all "middle" schemes are half a step behind the positions:
    what has a Maxwell-Boltzmann distribution, whatever the positions, is v + lag F(x)/m.
    """

    name: str
    timestep: float  # ps
    splitting: tuple[float, float, float, float, float]  # kick1, drift1, scale, drift2, kick2
    lag: float  # ps
    temperature: float | None = None  # K, of the noise; None without noise
    chain: ChainThermostat | None = None
    counts_freedom: bool = False  # the chain's degrees of freedom are those of the System

    @property
    def is_noisy(self) -> bool:
        """Is this Langevin dynamics?"""
        return self.temperature is not None

    def noise_scale(self, masses: Array) -> Array:
        """Standard deviation of the noise of each particle, nm/ps, [particles, 1]."""
        if self.temperature is None:
            return np.zeros((len(masses), 1))
        thermal = MOLAR_GAS_CONSTANT * self.temperature * (1 - self.splitting[2] ** 2)
        return np.asarray(np.sqrt(thermal * inverse_masses(masses)))


def velocity_verlet(timestep: Any) -> Scheme:
    """Velocity Verlet, for constant energy; ``timestep`` in ps."""
    dt = _positive("timestep", timestep, "time")
    return Scheme("velocity Verlet", dt, (dt / 2, dt, 1.0, 0.0, dt / 2), 0.0)


def leapfrog(timestep: Any) -> Scheme:
    """What OpenMM's VerletIntegrator does: velocities are half a step behind; ps."""
    dt = _positive("timestep", timestep, "time")
    return Scheme("leapfrog Verlet", dt, (dt, dt, 1.0, 0.0, 0.0), dt / 2)


def langevin_middle(timestep: Any, temperature: Any, friction: Any) -> Scheme:
    """Langevin dynamics as OpenMM's LangevinMiddleIntegrator; ps, K, 1/ps.

    Zhang et al., J. Phys. Chem. A 123, 6056 (2019).
    """
    dt = _positive("timestep", timestep, "time")
    kelvin = _positive("temperature", temperature, "temperature")
    scale = float(np.exp(-dt * _positive("friction", friction, "rate")))
    return Scheme("LangevinMiddle", dt, (dt, dt / 2, scale, dt / 2, 0.0), dt / 2, kelvin)


def langevin(timestep: Any, temperature: Any, friction: Any) -> Scheme:
    """Langevin dynamics with one kick, one friction and one drift in a step; ps, K, 1/ps.

    What OpenMM's LangevinIntegrator was until it became another name of LangevinMiddleIntegrator.
    """
    dt = _positive("timestep", timestep, "time")
    kelvin = _positive("temperature", temperature, "temperature")
    gamma = _positive("friction", friction, "rate")
    scale = float(np.exp(-dt * gamma))
    kick = (1 - scale) / gamma
    return Scheme("Langevin", dt, (kick / scale, 0.0, scale, dt, 0.0), dt / 2, kelvin)


def nose_hoover(
    timestep: Any,
    temperature: Any,
    frequency: Any,
    degrees_of_freedom: int | None = None,
    length: int = 3,
    multiple_time_steps: int = 3,
    yoshida_suzuki: int = 7,
) -> Scheme:
    """A Nose-Hoover chain for all particles, as OpenMM's NoseHooverIntegrator; ps, K, 1/ps.

    By default ``degrees_of_freedom`` are those of the System that it is used with. A segment starts
    with a chain at rest.
    """
    dt = _positive("timestep", timestep, "time")
    chain = ChainThermostat(
        _positive("temperature", temperature, "temperature"),
        _positive("frequency", frequency, "rate"),
        degrees_of_freedom or 1,
        length,
        multiple_time_steps,
        yoshida_suzuki,
    )
    counts = degrees_of_freedom is None
    splitting = (dt, dt / 2, 1.0, dt / 2, 0.0)
    return Scheme("Nose-Hoover", dt, splitting, dt / 2, chain=chain, counts_freedom=counts)


def read_scheme(integrator: openmm.Integrator | Scheme, system: openmm.System) -> Scheme:
    """The steps of an OpenMM integrator, or of a Scheme for this System.

    Raises
    ------
    SegmentError
        If the integrator is not one of VerletIntegrator, LangevinMiddleIntegrator,
        LangevinIntegrator and NoseHooverIntegrator with one thermostat for all particles.
    """
    scheme = integrator if isinstance(integrator, Scheme) else _from_openmm(integrator)
    if scheme.chain is not None and scheme.counts_freedom:
        chain = replace(scheme.chain, degreesOfFreedom=_degrees_of_freedom(system))
        scheme = replace(scheme, chain=chain, counts_freedom=False)
    return scheme


def _from_openmm(integrator: Any) -> Scheme:
    if isinstance(integrator, openmm.VerletIntegrator):
        return leapfrog(integrator.getStepSize())
    if isinstance(integrator, openmm.LangevinMiddleIntegrator):  # LangevinIntegrator is one, too
        return langevin_middle(
            integrator.getStepSize(), integrator.getTemperature(), integrator.getFriction()
        )
    if isinstance(integrator, openmm.NoseHooverIntegrator):
        return _from_nose_hoover(integrator)
    raise SegmentError(
        f"integrator: a segment cannot follow {type(integrator).__name__}; expected "
        "VerletIntegrator, LangevinMiddleIntegrator, LangevinIntegrator or NoseHooverIntegrator, "
        "or pass integrator=segments.velocity_verlet(timestep)",
        got=type(integrator).__name__,
    )


def _from_nose_hoover(integrator: openmm.NoseHooverIntegrator) -> Scheme:
    dt = number_in_md_units(integrator.getStepSize(), "time")
    if integrator.getNumThermostats() == 0:
        return Scheme("Verlet in the middle", dt, (dt, dt / 2, 1.0, dt / 2, 0.0), dt / 2)
    if integrator.hasSubsystemThermostats() or integrator.getNumThermostats() > 1:
        raise SegmentError(
            "integrator: a segment follows a NoseHooverIntegrator with one thermostat for all "
            f"particles, got {integrator.getNumThermostats()} for subsystems"
        )
    chain = integrator.getThermostat(0)
    return nose_hoover(
        dt,
        chain.getTemperature(),
        chain.getCollisionFrequency(),
        None,
        chain.getChainLength(),
        chain.getNumMultiTimeSteps(),
        chain.getNumYoshidaSuzukiTimeSteps(),
    )


def _degrees_of_freedom(system: openmm.System) -> int:
    """As a NoseHooverIntegrator counts them in a System without constraints."""
    massive = int((masses_of(system) > 0).sum())
    return 3 * (massive - int(removes_motion(system)))


def removes_motion(system: openmm.System) -> bool:
    """Has the System a CMMotionRemover?"""
    return any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())


def inverse_masses(masses: Array) -> Array:
    """1/m of each particle, 1/amu, [particles, 1]; zero for those that do not move."""
    inverse = np.divide(1, masses, out=np.zeros_like(masses), where=masses > 0)
    return np.asarray(inverse[:, None])


def _positive(name: str, value: Any, kind: str) -> float:
    number = number_in_md_units(value, kind)
    if not (np.isfinite(number) and number > 0):
        raise SegmentError(f"{name}: expected a positive number, got {value}", got=value)
    return float(number)
