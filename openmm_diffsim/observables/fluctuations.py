"""What fluctuations say: heat capacity, compressibility, thermal expansion.

Each is made of covariances. The value of a frame is its product of deviations from the averages,

    (A_n - <A>) (B_n - <B>),

so that its average is the covariance, its influence on that is its own deviation, which error bars
are made of, and nothing is lost to the difference of <A B> and <A> <B>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ObservableError
from ..units import ACCEPTED, BAR, MOLAR_GAS_CONSTANT, UNIT_NAMES
from .base import Array, Conditions, Frame, IntArray, Observable, Particles, Recorder
from .function import FunctionOfAverages, check_observable
from .site import Section
from .thermodynamics import (
    InABox,
    PerMolecule,
    Volume,
    configurational_enthalpy,
    thermal_energy,
)

OVER = ("", "RT", "RT^2")


class Covariance(Observable):
    """Cov(A, B) = <(A - <A>) (B - <B>)>, of each value of A with that of B.

        Covariance(Volume())                                  # a variance, nm^6
        Covariance(rdf, Volume(), over="RT")                  # minus how g answers to a pressure

    Averages are the weighted ones at the parameters that are asked for, and the gradient is exact.
    The estimate is that of the frames, low by one part in the number of independent ones.

    Parameters
    ----------
    a, b : Observable
        With a value in every frame; b has as many values as a, or one. Default of b: a.
    over : "", "RT" or "RT^2"
        What it is divided by, kJ/mol or kJ K/mol.
    kind : str
        Of the values, one of ``units.UNIT_NAMES``.

    Raises
    ------
    ObservableError
        If an observable has no value in a frame, or the numbers of values do not fit.
    """

    def __init__(
        self,
        a: Observable,
        b: Observable | None = None,
        over: str = "",
        kind: str = "dimensionless",
    ) -> None:
        self.a, self.b = a, a if b is None else b
        for part in (self.a, self.b):
            check_observable(part)
        self.over, self.kind, self.n_values = over, kind, a.n_values
        self._check()
        needs = ("needs_virial", "needs_axes", "needs_molecules", "needs_box", "needs_pressure")
        for need in needs:
            setattr(self, need, any(getattr(part, need) for part in (type(self), self.a, self.b)))

    def _check(self) -> None:
        if self.kind not in UNIT_NAMES:
            raise ObservableError(
                f"kind: expected one of {', '.join(UNIT_NAMES)}, got {self.kind!r}", got=self.kind
            )
        if self.over not in OVER:
            raise ObservableError(f"over: expected one of {OVER}, got {self.over!r}")
        if any(part.is_dynamic for part in (self.a, self.b)):
            raise ObservableError("Covariance: expected values of frames, got those of segments")
        if self.b.n_values not in (1, self.a.n_values):
            raise ObservableError(
                f"Covariance: expected one value of b or as many as of a, {self.a.n_values}, got "
                f"{self.b.n_values}"
            )

    @property
    def name(self) -> str:
        """In output files."""
        return f"covariance_{self.a.name}_{self.b.name}"

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps what both keep, and of how many numbers the first is."""
        return _Both(self.a.recorder(particles), self.b.recorder(particles))

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """The product of deviations of each frame, [frames, values of a]."""
        end = 1 + int(records[0, 0])
        a = deviations(self.a.values(records[:, 1:end], conditions), conditions)
        if self.b is self.a:
            return a**2 / self._divisor(conditions)
        b = deviations(self.b.values(records[:, end:], conditions), conditions)
        return a * b / self._divisor(conditions)

    def _divisor(self, conditions: Conditions) -> float:
        energy = thermal_energy(conditions) if self.over else 1.0
        return energy * (conditions.temperature if self.over == "RT^2" else 1.0)


class _Both:
    """The records of two recorders, one behind the other."""

    def __init__(self, first: Recorder, second: Recorder) -> None:
        self.first, self.second = first, second
        self.histograms = (*first.histograms, *second.histograms)

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        n = len(self.first.histograms)
        first = self.first.record(frame, counts[:n])
        return np.concatenate([[len(first)], first, self.second.record(frame, counts[n:])])


class _AtPressure(Covariance):
    """A covariance that says something at constant pressure only."""

    needs_pressure = True


class _Enthalpy(Observable):
    """U + p V of the box, kJ/mol."""

    kind = "energy"
    needs_pressure = True

    def recorder(self, particles: Particles) -> Recorder:
        return InABox(type(self).__name__, 0.0)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        return configurational_enthalpy(conditions)


class HeatCapacity(PerMolecule):
    """Heat capacity per mole of molecules, J/mol/K, at constant pressure or volume.

        C_p = [f R / 2 + Var(U + p V) / (R T^2)] / n
        C_V = [f R / 2 + Var(U) / (R T^2)] / n

    Classical: f degrees of freedom, three for each particle that has a mass, less the constraints,
    give R / 2 each, in place of the fluctuations of the kinetic energy. Vibrations that are frozen
    in reality count in full, so flexible bonds give too much; no quantum correction is made. Per
    gram: ``SpecificHeatCapacity``.

    Parameters
    ----------
    at : "pressure" or "volume"
        What is constant: that of the state point, where fluctuations say no other.
    n : int, optional
        Number of molecules. Default: those of the System.

    Raises
    ------
    ObservableError
        If ``at`` is not what the state point keeps constant.
    """

    entry = "heat-capacity"
    usual = (0.5e3 * MOLAR_GAS_CONSTANT, 1e6)  # from R / 2
    kind = "heat_capacity"

    def __init__(self, at: str = "pressure", n: int | None = None) -> None:
        if at not in ("pressure", "volume"):
            raise ObservableError(f"at: expected 'pressure' or 'volume', got {at!r}", got=at)
        super().__init__(n)
        self.at = at
        self.needs_pressure = at == "pressure"

    @classmethod
    def measured_in(cls, unit: Any) -> type[Observable]:
        """Per mass, where that is what the unit says."""
        is_specific = isinstance(unit, str) and unit in ACCEPTED["specific_heat_capacity"]
        return SpecificHeatCapacity if is_specific else cls

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """``at`` and ``n``."""
        at = section.choice("at", ("pressure", "volume"), "pressure")
        return {"at": at, **super().settings(section)}

    def terms(self, state_points: Sequence[Any]) -> tuple[tuple[Any, Observable], ...]:
        """Its own average."""
        self._check_ensemble(state_points[0].pressure)
        return super().terms(state_points)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """What a frame says of it, J/mol/K, [frames, 1]."""
        self._check_ensemble(conditions.pressure)
        enthalpy = deviations(configurational_enthalpy(conditions), conditions)
        variance = enthalpy**2 / (thermal_energy(conditions) * conditions.temperature)
        kinetic = 0.5 * MOLAR_GAS_CONSTANT * records[:, 1:]
        return 1e3 * (variance / records[:, :1] + kinetic)

    def _check_ensemble(self, pressure: float | None) -> None:
        found = "volume" if pressure is None else "pressure"
        if self.at != found:
            raise ObservableError(
                f"{self.label}: asked for the one at constant {self.at}, got a state point at "
                f"constant {found}, whose fluctuations give another; take HeatCapacity({found!r})"
                f"{' or add a barostat' if pressure is None else ' or remove the barostat'}",
                got=found,
                expected=self.at,
            )


class SpecificHeatCapacity(HeatCapacity):
    """Heat capacity per mass, J/g/K: that of ``HeatCapacity``, per gram of the whole System.

    ``at``: "pressure" or "volume".
    """

    entry = "specific-heat-capacity"
    usual = (1e-2, 1e3)
    kind = "specific_heat_capacity"

    def __init__(self, at: str = "pressure") -> None:
        super().__init__(at)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """``at``."""
        return {"at": section.choice("at", ("pressure", "volume"), "pressure")}

    def n_of(self, particles: Particles) -> float:
        """Grams in one mole of Systems."""
        return float(particles.masses.sum())


class IsothermalCompressibility(FunctionOfAverages):
    """kappa = Var(V) / (R T <V>), 1/bar, at constant pressure and temperature."""

    entry = "compressibility"
    usual = (1e-8, 100.0)  # of a solid, of a dilute gas
    kind = "compressibility"
    needs_pressure = True

    def __init__(self) -> None:
        terms = [_AtPressure(Volume(), over="RT"), Volume()]
        super().__init__(_compressibility, terms, self.kind, symbol=type(self).__name__)


class ThermalExpansion(FunctionOfAverages):
    """alpha = Cov(V, U + p V) / (R T^2 <V>), 1/K, at constant pressure."""

    entry = "thermal-expansion"
    kind = "expansion"
    needs_pressure = True

    def __init__(self) -> None:
        terms = [Covariance(Volume(), _Enthalpy(), over="RT^2"), Volume()]
        super().__init__(_ratio, terms, self.kind, symbol=type(self).__name__)


def deviations(values: Tensor, conditions: Conditions) -> Tensor:
    """Of values [frames, n] from their average, with a graph to all that it depends on."""
    return values - conditions.weights() @ values


def _compressibility(variance: Tensor, volume: Tensor) -> Tensor:
    return variance / volume / BAR


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return a / b
