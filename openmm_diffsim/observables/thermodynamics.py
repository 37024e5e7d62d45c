"""Volume, density and energies, and what they say of vaporization."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ObservableError
from ..statistics.kernels import PairHistogram
from ..units import BAR, GRAM_PER_CM3, MOLAR_GAS_CONSTANT, number_in_md_units
from .arguments import at_least
from .base import Array, Conditions, Frame, IntArray, Observable, Particles, Recorder
from .function import FunctionOfAverages
from .site import Section

_SAME = 1e-6  # K: temperatures that are one


class Numbers:
    """Records the same numbers of each frame: what is known of its particles."""

    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, *numbers: float) -> None:
        self.numbers = np.array(numbers, dtype=np.float64)

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        """The numbers."""
        return self.numbers


class InABox(Numbers):
    """As ``Numbers``, for an observable that needs a volume."""

    def __init__(self, label: str, *numbers: float) -> None:
        super().__init__(*numbers)
        self.label = label

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        """The numbers; ObservableError without a box."""
        if frame.box is None:
            raise ObservableError(f"{self.label}: needs a periodic box, the System has none")
        return self.numbers


class Volume(Observable):
    """Volume of the box, nm^3."""

    entry = "volume"
    kind = "volume"
    needs_box = True

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps nothing but what every frame has."""
        return InABox(self.label, 0.0)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Volume of each frame, nm^3, [frames, 1]."""
        return conditions.volume[:, None]


class Density(Observable):
    """Mass density rho = M / V, g/cm^3, at constant pressure.

    M is the mass of all particles of the System. The gradient is that of the weights: the volume
    itself does not depend on the parameters.
    """

    entry = "density"
    usual = (1e-7, 30.0)
    kind = "mass_density"
    needs_pressure = True
    needs_box = True

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps the mass."""
        return InABox(self.label, float(particles.masses.sum()) / GRAM_PER_CM3)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Density in each frame, g/cm^3, [frames, 1]."""
        return records / conditions.volume[:, None]


class PerMolecule(Observable):
    """A quantity per mole of molecules, of ``n`` of them; to be subclassed."""

    kind = "energy"

    def __init__(self, n: int | None = None) -> None:
        self.n = None if n is None else at_least(1, "n", n)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """``n``."""
        return {"n": section.integer("n", None, at_least=1)}

    def n_of(self, particles: Particles) -> float:
        """Molecules that count: ``n``, or all that bonds and constraints hold together."""
        return self.n or particles.n_molecules

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps the number of molecules and the degrees of freedom per molecule."""
        n = self.n_of(particles)
        return Numbers(n, particles.freedom.sum() / n)


class PotentialEnergy(PerMolecule):
    """Potential energy per mole of molecules, <U> / n, kJ/mol.

    U = U_learned(x; c) + U_rest(x), all that acts in the System. The gradient has both parts,
    d<U>/dc = <dU/dc> - beta Cov(U, dU/dc).

    Parameters
    ----------
    n : int, optional
        What it is divided by; ``n=1`` is the energy of the box. Default: the molecules of the
        System.
    """

    entry = "potential-energy"

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """U / n of each frame, kJ/mol, [frames, 1]."""
        return potential_energy(conditions) / records[:, :1]


class Enthalpy(PerMolecule):
    """Enthalpy per mole of molecules at constant pressure, kJ/mol,

        H = [<U> + p <V> + f R T / 2] / n,

    with the pressure p of the state point and f degrees of freedom: three for each particle that
    has a mass, less the constraints. The kinetic part is the classical average, not the velocities
    of the moment.

    Parameters
    ----------
    n : int, optional
        Number of molecules. Default: those of the System.
    """

    entry = "enthalpy"
    needs_pressure = True

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """H of each frame, kJ/mol, [frames, 1]."""
        kinetic = 0.5 * MOLAR_GAS_CONSTANT * conditions.temperature * records[:, 1:]
        self.check_pressure(conditions.pressure)
        return configurational_enthalpy(conditions) / records[:, :1] + kinetic


class _Gas(PerMolecule):
    """U / n + R T, the enthalpy of an ideal gas less its kinetic energy."""

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        return potential_energy(conditions) / records[:, :1] + thermal_energy(conditions)


class _Cohesion(PerMolecule):
    """R T - U / n of a liquid whose molecules have no energy in the gas."""

    def recorder(self, particles: Particles) -> Recorder:
        if not particles.are_rigid:
            raise ObservableError(
                "HeatOfVaporization: expected rigid molecules, got some that bend or stretch, and "
                "have an energy in the gas too; give both state points, Target([liquid, gas], "
                "HeatOfVaporization(), ...), gas being a single molecule"
            )
        return super().recorder(particles)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        return thermal_energy(conditions) - potential_energy(conditions) / records[:, :1]


class HeatOfVaporization(FunctionOfAverages):
    """Heat of vaporization of two state points, liquid and gas, kJ/mol,

        dH = <U_gas> / n_gas - <U_liquid> / n + R T + correction.

        Target([liquid, gas], HeatOfVaporization(n=216), 44.0, uncertainty=0.5)
        Target(liquid, HeatOfVaporization(), 44.0, uncertainty=0.5)  # rigid molecules

    The vapour is an ideal gas, of which p V = R T, and p V of the liquid (0.002 kJ/mol for water at
    1 bar) is left out. Kinetic energies are classical and the same in both. The gas is best a
    single molecule in a System without a box, so that it feels none of its images.

    Given the liquid alone, U_gas = 0: for molecules without an energy of their own, which are
    single sites or rigid bodies with all their pairs excluded, as common models of water.

    Parameters
    ----------
    n : int, optional
        Molecules of the liquid. Default: those of the System.
    n_gas : int, optional
        Those of the gas, likewise.
    correction : float or Quantity, kJ/mol
        What is added, such as -5.22 for the polarization of SPC/E (Berendsen et al., J. Phys. Chem.
        91, 6269 (1987)).

    Raises
    ------
    ObservableError
        If the temperatures differ, the first state point has fewer particles than the second, so
        that they are in the wrong order, or the molecules of a liquid alone are not rigid.
    """

    entry = "heat-of-vaporization"
    usual = (1e-3, 2000.0)
    kind = "energy"

    def __init__(
        self, n: int | None = None, n_gas: int | None = None, correction: Any = 0.0
    ) -> None:
        self.correction = number_in_md_units(correction, "energy")
        self._alone = _Cohesion(n)
        super().__init__(
            partial(_of_both, correction=self.correction),
            [PotentialEnergy(n), _Gas(n_gas)],
            kind="energy",
            symbol="HeatOfVaporization",
        )

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """``n`` and ``correction``; a configuration has one state point, the liquid's."""
        return {
            "n": section.integer("n", None, at_least=1),
            "correction": section.number("correction", 0.0),
        }

    def terms(self, state_points: Sequence[Any]) -> tuple[tuple[Any, Observable], ...]:
        """Energies of liquid and gas, or of the liquid alone."""
        if len(state_points) == 1:
            return ((state_points[0], self._alone),)
        if len(state_points) == 2:
            liquid, gas = (point.temperature for point in state_points)
            if abs(liquid - gas) > _SAME:
                raise ObservableError(
                    f"{self.symbol}: expected liquid and gas at one temperature, got {liquid:g} K "
                    f"and {gas:g} K",
                    got=gas,
                    expected=liquid,
                )
            sizes = [getattr(point, "n_particles", 0) for point in state_points]
            if sizes[0] < sizes[1]:
                raise ObservableError(
                    f"{self.symbol}: expected [liquid, gas], got a first state point of {sizes[0]} "
                    f"particles and a second of {sizes[1]}: a gas is the smaller one, best one "
                    "molecule; give them in the other order",
                    got=sizes,
                )
        return super().terms(state_points)

    def parts(self) -> tuple[Observable, ...]:
        """Of the liquid alone; that of two state points is recorded as its ``observables``."""
        return (self._alone,)

    def combine(self, *averages: Tensor) -> Tensor:
        """The heat of both, or of the liquid alone, kJ/mol, [1]."""
        return averages[0] + self.correction if len(averages) == 1 else super().combine(*averages)


def _of_both(liquid: Tensor, gas: Tensor, correction: float) -> Tensor:
    return gas - liquid + correction


def potential_energy(conditions: Conditions) -> Tensor:
    """U_learned + U_rest of each frame, kJ/mol, [frames, 1]."""
    learned = conditions.learned_energy(conditions.coefficients)
    return (learned + conditions.rest_energy)[:, None]


def configurational_enthalpy(conditions: Conditions) -> Tensor:
    """U + p V of each frame, kJ/mol, [frames, 1]; U alone at constant volume."""
    energy = potential_energy(conditions)
    if conditions.pressure is None:
        return energy
    return energy + conditions.pressure / BAR * conditions.volume[:, None]


def thermal_energy(conditions: Conditions) -> float:
    """R T, kJ/mol."""
    return MOLAR_GAS_CONSTANT * conditions.temperature
