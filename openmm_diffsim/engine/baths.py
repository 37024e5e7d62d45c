"""Temperature and pressure of a Simulation, as its thermostats and its barostat have them now."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import openmm

from ..errors import StatePointError
from ..units import MOLAR_GAS_CONSTANT, number_in_md_units

_SAME = 1e-4  # relative: two temperatures, or two pressures
_ISOTROPIC = (openmm.MonteCarloBarostat, openmm.MonteCarloFlexibleBarostat)
_OTHERS = (openmm.MonteCarloAnisotropicBarostat, openmm.MonteCarloMembraneBarostat)


def read_temperature(simulation: Any, given: float | None = None) -> float:
    """Temperature at which a Simulation runs now, K.

    That of its integrator, of an AndersenThermostat or, in a CustomIntegrator, of a global
    variable kT (kJ/mol); ``given`` where none of them is there.

    Raises
    ------
    StatePointError
        If there is none, or the thermostats, the barostat and what is given do not agree.
    """
    own = list(_thermostats(simulation))
    found = [*own, *_barostats(simulation)]
    if given is not None:
        found.insert(0, ("temperature=", given))
    if not own and given is None:
        raise StatePointError(
            f"cannot read a temperature from {type(simulation.integrator).__name__}: it has no "
            "thermostat. Use a Langevin or Nose-Hoover integrator or an AndersenThermostat, or "
            "pass temperature="
        )
    (first, kelvin), *rest = found
    for name, other in rest:
        if not _agree(kelvin, other):
            raise StatePointError(
                f"{first} is at {kelvin:.10g} K, but {name} at {other:.10g} K: one state point has "
                "one temperature; give both the same, a thermostat by integrator.setTemperature, "
                "a barostat by context.setParameter(barostat.Temperature(), ...)",
                got=other,
                expected=kelvin,
            )
    return kelvin


def read_pressure(simulation: Any, given: float | None = None) -> float | None:
    """Pressure of a Simulation's isotropic barostat now, bar; None at constant volume.

    ``given`` where a barostat is anisotropic.

    Raises
    ------
    StatePointError
        If the barostat is anisotropic and no pressure is given, or it has another than that.
    """
    for force in _active(simulation):
        if isinstance(force, _ISOTROPIC):
            bar = float(simulation.context.getParameter(force.Pressure()))
            if given is not None and not _agree(given, bar):
                raise StatePointError(
                    f"pressure= is {given:.10g} bar, but {type(force).__name__} at {bar:.10g} bar: "
                    "leave pressure= out, or set that of the barostat by "
                    "context.setParameter(barostat.Pressure(), ...)",
                    got=bar,
                    expected=given,
                )
            return bar
        if given is None:
            raise StatePointError(
                f"{type(force).__name__} has no single pressure; use MonteCarloBarostat, or pass "
                "pressure="
            )
    return given


def warn_of_no_barostat(simulation: Any, pressure: float | None) -> None:
    """A warning where a pressure was given, and nothing in the System lets the box follow it."""
    if pressure is None or any(_active(simulation)):
        return
    warnings.warn(
        f"pressure= is {pressure:.10g} bar, but no barostat is in the System, so runs have a "
        "constant volume: add an openmm.MonteCarloBarostat, or leave pressure= out; it is right "
        "for stored frames that a barostat made, and where you change the box yourself",
        RuntimeWarning,
        stacklevel=3,
    )


def conditions(temperature: float, pressure: float | None) -> str:
    """Both, for a message."""
    return f"{temperature:.10g} K" + ("" if pressure is None else f" and {pressure:.10g} bar")


def _agree(a: float, b: float) -> bool:
    return abs(a - b) <= _SAME * max(abs(a), abs(b))


def _thermostats(simulation: Any) -> Iterator[tuple[str, float]]:
    """Name and temperature, K, of each; the integrator's last."""
    context = simulation.context
    andersen = (openmm.AndersenThermostat,)
    for force in (f for f in simulation.system.getForces() if isinstance(f, andersen)):
        if context.getParameter(force.CollisionFrequency()) > 0:
            yield "AndersenThermostat", float(context.getParameter(force.Temperature()))
    integrator = simulation.integrator
    if hasattr(integrator, "getCurrentIntegrator"):
        integrator = integrator.getIntegrator(integrator.getCurrentIntegrator())
    for kelvin in _of_integrator(integrator):
        yield type(integrator).__name__, kelvin


def _of_integrator(integrator: Any) -> Iterator[float]:
    """Of each chain of a Nose-Hoover integrator, or the one."""
    if hasattr(integrator, "getNumThermostats"):
        for chain in range(integrator.getNumThermostats()):
            yield number_in_md_units(integrator.getTemperature(chain), "temperature")
    elif hasattr(integrator, "getTemperature"):
        yield number_in_md_units(integrator.getTemperature(), "temperature")
    elif hasattr(integrator, "getGlobalVariableByName"):
        with suppress(openmm.OpenMMException):  # OpenMM's own name for it, as in MTSLangevin
            yield integrator.getGlobalVariableByName("kT") / MOLAR_GAS_CONSTANT


def _barostats(simulation: Any) -> Iterator[tuple[str, float]]:
    """Name and temperature, K, of each that is at work."""
    for force in _active(simulation):
        kelvin = simulation.context.getParameter(force.Temperature())
        yield type(force).__name__, float(kelvin)


def _active(simulation: Any) -> Iterator[Any]:
    for force in simulation.system.getForces():
        if isinstance(force, _ISOTROPIC + _OTHERS) and force.getFrequency() > 0:
            yield force
