"""What every bonded potential is: a free-form spline of an internal coordinate for each type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ...errors import PotentialError, UnitError
from ...limits import Limit, checked_number, checked_whole, shown
from ...units import MOLAR_GAS_CONSTANT, UNIT_NAMES, number_in_md_units, value_in_md_units
from ..adapter import AttachOptions, adapter_of
from ..base import Potential
from .basis import BondedBasis
from .table import between, from_distribution, from_table

Array = NDArray[np.float64]
Self = TypeVar("Self", bound="BondedSpline")

_LARGEST = 5.0  # kT above the minimum: beyond, hardly any bond is found
_LEVEL = 2.5  # kJ/mol, kT at room temperature: where most bonds are found
_ROUNDING = 1e-3  # rad, nm: how far beyond what is possible a table may go
_COVERED = 0.5  # of a distribution: how much of it has to lie in the range of a table
_PIN = 1e-3  # kT: how well the zero of energy is known, of which nothing depends


class BondedSpline(Potential):
    """u(q) of an internal coordinate q of bonded particles, a free-form spline for each type.

    U(x) = sum over tuples of u_type(q),  u_t(q) = sum_k c_tk B_k(q), with B of a ``BondedBasis``.
    The parameters are the coefficients. A System runs it as one of OpenMM's own forces, on every
    platform, with a table; the energy is that of the spline, to rounding.

    Known beforehand, as of a pair potential: u differs from where a fit begins by something smooth,
    whose second derivative is white noise of spectral density
    roughness (kT)^2 / prior_length^3. A constant that is added to u changes nothing: its mean over
    where bonds are mostly found, as it was when u was set, stays, and errors of u are those of
    differences to that mean.

    Attributes
    ----------
    values : Parameter [n_types, knots]
        kJ/mol; zero at the start.
    """

    if TYPE_CHECKING:
        zero: Tensor

    energy_is_linear = True
    is_linear = True
    depends_on_temperature = False
    n_particles: ClassVar[int]
    """In a tuple."""
    called: ClassVar[str]
    """What it is of, one of the tuples; its table is a file of this name."""
    coordinate: ClassVar[str]
    """What q is, for messages."""
    quantity: ClassVar[str]
    """What kind of number q is, one of ``units.UNIT_NAMES``."""
    possible: ClassVar[tuple[float, float]]
    """Between what q may be, nm or rad."""
    tuples: ClassVar[str]
    """What ``attach`` calls the tuples."""

    def __init__(
        self, basis: BondedBasis, n_types: int, prior_length: Any, name: str | None
    ) -> None:
        super().__init__(n_types, name)
        self.basis = basis
        length = number_of("prior_length", prior_length, self.quantity)
        self.prior_length = checked_number("prior_length", length, PotentialError)
        self.values = nn.Parameter(torch.zeros(n_types, basis.knots, dtype=torch.float64))
        level = self._populated(np.zeros(basis.knots))
        self.register_buffer("zero", torch.from_numpy(np.tile(level, (n_types, 1))))

    @staticmethod
    def measure(q: Array) -> Array:
        """How much of space belongs to q: the density of q where no force acts, up to a factor."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The basis, for ``repr``."""
        return repr(self.basis)

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """One: "spline", [types, knots]."""
        return {"spline": tuple(self.values.shape)}

    def spline_coefficients(self) -> Tensor:
        """c, kJ/mol, [types, knots], with a graph to the parameters."""
        return self.values * 1.0

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """c, flat, kJ/mol, [types * knots]."""
        return self.spline_coefficients().reshape(-1)

    def energy(self, q: Any) -> Tensor:
        """u(q) in kJ/mol, [types, len(q)], for q in nm or rad, or Quantities; differentiable."""
        return self.spline_coefficients() @ torch.from_numpy(self.basis.values(self._in_md(q))).T

    def force(self, q: Any) -> Tensor:
        """-du/dq in kJ/mol/nm or kJ/mol/rad, [types, len(q)]; differentiable."""
        slopes = self.basis.derivatives(self._in_md(q))
        return -self.spline_coefficients() @ torch.from_numpy(slopes).T

    @torch.no_grad()
    def set_table(self: Self, q: Any, u: Any, type: int = 0) -> Self:
        """Take one type from a table u(q), kJ/mol at nm or rad. Returns self.

        Between its points without overshoot; beyond its ends it goes on with the slopes there, and
        round and round for a dihedral angle.

        Raises
        ------
        PotentialError
            If q does not rise, a number is not finite, there are fewer than four, or they cover
            less than two thirds of the range.
        """
        u = np.asarray(_in_md("u", u, "energy"))
        return self._take(from_table(self.basis, self._in_md(q), u), type)

    @torch.no_grad()
    def boltzmann_inversion(
        self: Self, q: Any, p: Any, temperature: Any, type: int = 0, least: float = 0.01
    ) -> Self:
        """Set one type to the potential of mean force of a distribution. Returns self.

        u(q) = -R T ln(p(q) / J(q)), with J = r^2 of a bond, sin(theta) of an angle and 1 of a
        dihedral angle, and 0 at its minimum. Where p is below ``least`` of its maximum the noise of
        ln p takes over: between points that are kept u is interpolated, beyond them it goes on as a
        parabola with the mean curvature of what was kept.

        Parameters
        ----------
        q, p : arrays [points]; q in nm or rad, the density p up to a factor
        temperature : float, K, or Quantity

        Raises
        ------
        PotentialError
            If there is no such type, fewer than four points of p are to be kept, or most of p lies
            beyond the range of the table, as where q is in another unit.
        """
        kelvin = number_of("temperature", temperature, "temperature")
        kelvin = checked_number("temperature", kelvin, PotentialError)
        checked_number("least", least, PotentialError, Limit(1e-9, 0.5, "of the largest p"))
        points = self._in_md(q)
        density = _density(p, points.shape)
        self._check_covered(points, density)
        thermal = MOLAR_GAS_CONSTANT * kelvin
        curvature = thermal / self.prior_length**2
        with np.errstate(divide="ignore", invalid="ignore"):
            u = -thermal * np.log(density / self.measure(points))
        kept = np.isfinite(u) & (density > least * density.max())
        u = from_distribution(self.basis, points[kept], u[kept], density[kept], curvature)
        return self._take(u, type)

    def _check_covered(self, q: Array, p: Array) -> None:
        """PotentialError where most of a distribution lies beyond the table."""
        inside = (q >= self.basis.low) & (q <= self.basis.high)
        if self.basis.ends == "straight" and p[inside].sum() < _COVERED * p.sum():
            raise PotentialError(
                f"{self.coordinate}: got a distribution most of which lies beyond the table's "
                f"{self.basis.low:.4g} to {self.basis.high:.4g} {UNIT_NAMES[self.quantity]}, about "
                f"{np.average(q, weights=p):.4g}; is it in another unit, or the range another one?",
                got=float(np.average(q, weights=p)),
                expected=(self.basis.low, self.basis.high),
            )

    def _take(self: Self, u: Array, type: int) -> Self:
        """Values [knots] of one type."""
        known = Limit(0, self.n_types - 1, "counts the types")
        row = checked_whole("type", type, PotentialError, known)
        self.values[row] = self.basis.interpolation @ torch.from_numpy(u)
        self.zero[row] = torch.from_numpy(self._populated(u))
        return self

    def _populated(self, u: Array) -> Array:
        """Weights of the knots in a mean of u that is about that of bonds, [knots]."""
        weights = self.measure(self.basis.centers) * np.exp(-(u - u.min()) / _LEVEL)
        return np.asarray(weights / weights.sum())

    def prior_precision(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> Array | None:
        """D2^T D2 / (q spacing^3) of each type, and that its zero is known.

        q = roughness (kT)^2 / prior_length^3; ``length`` is that of pairs, and does not count here.
        """
        second = self.basis.curvatures
        thermal = MOLAR_GAS_CONSTANT * temperature
        variance = roughness * thermal**2 * (self.basis.spacing / self.prior_length) ** 3
        smooth = second.T @ second / variance
        rows = self.zero.numpy() @ self.basis.values(self.basis.centers) / (_PIN * thermal)
        found = np.zeros((self.values.numel(),) * 2)
        for k, row in enumerate(rows):
            own = slice(k * self.basis.knots, (k + 1) * self.basis.knots)
            found[own, own] = smooth + np.outer(row, row)
        return found / n_temperatures

    def step_size(self, change: Array, temperature: float, contact: float) -> float | None:
        """The largest change of u(q), to a constant, where it is less than 5 kT, in kT."""
        q = np.linspace(self.basis.low, self.basis.high, 200)
        u = self.energy(q).numpy(force=True)
        thermal = MOLAR_GAS_CONSTANT * temperature
        found = u < u.min(axis=1, keepdims=True) + _LARGEST * thermal
        moved = change.reshape(self.values.shape) @ self.basis.values(q).T
        sizes = [np.ptp(row[here]) / 2 for row, here in zip(moved, found, strict=True)]
        return float(np.max(sizes) / thermal)

    def acts_at(self, q: Array) -> NDArray[np.bool_]:
        """Everywhere, [len(q)]."""
        return np.ones(len(q), dtype=bool)

    def change_of(self, q: Array, change: Array) -> Array:
        """Coefficients [knots] of a change of u that is known at places q, kJ/mol at nm or rad.

        It is what it is at the first and the last beyond these; of a dihedral angle between them.
        """
        smooth = between(self.basis, q, change)
        return np.asarray((self.basis.interpolation @ torch.from_numpy(smooth)).numpy())

    def ends(self) -> tuple[float, float]:
        """Where its knots begin and end, nm or rad."""
        return self.basis.low, self.basis.high

    def row_names(self) -> list[str]:
        """What to call each type, "type 0"; empty where there is one."""
        return [f"type {k}" for k in range(self.n_types)] if self.n_types > 1 else [""]

    def functions(self) -> list[tuple[slice, Any]]:
        """Itself."""
        return [(slice(0, self.values.numel()), self)]

    def _attach(
        self, system: Any, tuples: Any, types: ArrayLike | None, atoms: Any, periodic: bool | None
    ) -> Any:
        options = AttachOptions(atoms, periodic=periodic, tuples=tuples, tuple_types=types)
        return adapter_of(self).attach(system, options)

    def _in_md(self, q: Any) -> Array:
        plain = q.numpy(force=True) if isinstance(q, Tensor) else q
        found = np.atleast_1d(np.asarray(_in_md(self.coordinate, plain, self.quantity)))
        low, high = self.possible
        wrong = ~((found >= low - _ROUNDING) & (found <= high + _ROUNDING))
        if wrong.any():
            raise PotentialError(
                f"{self.coordinate}: got {found[wrong].flat[0]:g}, expected {low:.4g} to "
                f"{high:.4g}: plain numbers are in {UNIT_NAMES[self.quantity]}; give "
                "others, degrees or angstrom, as a Quantity",
                got=float(found[wrong].flat[0]),
                expected=self.possible,
            )
        return found


def _density(p: Any, shape: tuple[int, ...]) -> Array:
    """p as it was given, in whatever unit; PotentialError where it is none."""
    try:
        density = np.asarray(getattr(p, "_value", p), dtype=np.float64)
    except (TypeError, ValueError):
        density = np.array(np.nan)
    if density.shape != shape or not np.all(np.isfinite(density) & (density >= 0)):
        raise PotentialError(
            f"p: expected finite numbers >= 0, one for each q, of shape {shape}, got {shown(p)}",
            got=p,
        )
    return density


def _in_md(name: str, value: Any, kind: str) -> Any:
    try:
        return value_in_md_units(value, kind)
    except UnitError as error:
        raise PotentialError(f"{name}: {error}", got=value) from error


def number_of(name: str, value: Any, kind: str) -> float:
    """A number or a Quantity of that kind in md units; PotentialError where it is none."""
    try:
        return number_in_md_units(value, kind)
    except UnitError as error:
        raise PotentialError(f"{name}: {error}", got=value) from error
