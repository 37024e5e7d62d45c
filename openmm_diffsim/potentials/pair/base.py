"""What every pair potential is: a cubic spline for each pair of types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ...errors import PotentialError, UnitError
from ...io.checksum import brief
from ...limits import limit_of, shown
from ...units import MOLAR_GAS_CONSTANT, value_in_md_units
from ..base import Potential
from ..network.network import NetworkPotential
from .basis import SplineBasis, n_pairs_of_types, pair_index
from .pair_energy import PairEnergy

Array = NDArray[np.float64]
Pair = TypeVar("Pair", bound="PairPotential")

_KINDS = {
    **dict.fromkeys(("core_radius", "sigma", "r_0", "prior_sigma", "r_min"), "length"),
    **dict.fromkeys(("epsilon", "depth", "prior_epsilon", "tolerance"), "energy"),
    **dict.fromkeys(("width", "kappa"), "wavenumber"),
    "core_slope": "force",
    **dict.fromkeys(("core_attraction", "strength"), "energy_length"),
    **dict.fromkeys(("repulsive", "attractive", "exponent"), "dimensionless"),
}
"""What the arguments are, that may be Quantities."""


class PairPotential(Potential):
    """A pair potential u(r) per pair of types, as coefficients on a cubic B-spline basis.

    U(x) = sum over pairs of u_{type_i type_j}(r_ij),  u_p(r) = sum_k c_pk B_k(r).

    The spline *is* the potential that OpenMM runs: an analytic or neural form enters through its
    coefficients, which are a differentiable function of the module's parameters.

    Where the form is free (``is_free_form``), c is known beforehand to differ from the potential
    of mean force c_0 by something smooth: the second derivative of u - w is white noise of
    spectral density roughness (kT)^2 / length^3, length being the distance of nearest neighbours.

    Parameters
    ----------
    basis : SplineBasis
        Knots, shared by all pairs of types.
    n_types : int
        Number of particle types; there are n_types (n_types + 1) / 2 pairs of types, ordered as
        the upper triangle row by row: (0,0), (0,1), ..., (1,1), ...
    name : str
        Name of the OpenMM Force. Two potentials in one System need different names.
    """

    if TYPE_CHECKING:  # torch.jit cannot read it as a string
        centers: Tensor
        is_learned: Tensor
        given: Tensor

    energy_is_linear = True
    is_free_form = False
    """Can it have any shape, so that it needs a smoothness prior?"""
    n_functions = 1
    """Of how many functions of r is u(r, T) made? So many temperatures tell of different ones."""
    has_closed_form = False
    """Is there a ``switched_form`` that the spline interpolates?"""
    coordinate, quantity = "r", "length"
    """What it is a function of, and what kind of number that is, one of ``units.UNIT_NAMES``."""

    def __init__(self, basis: SplineBasis, n_types: int = 1, name: str | None = None) -> None:
        super().__init__(n_types, name)
        self.basis = basis
        self.n_pairs = n_pairs_of_types(n_types)
        self.register_buffer("centers", torch.from_numpy(basis.centers), persistent=False)
        learned = torch.ones(self.n_pairs, dtype=torch.bool)
        given = torch.zeros(self.n_pairs, basis.n_coefficients, dtype=torch.float64)
        self.register_buffer("is_learned", learned, persistent=False)
        self.register_buffer("given", given, persistent=False)

    def extra_repr(self) -> str:
        """The basis, for ``repr``."""
        return repr(self.basis)

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """One: "spline", [pairs of types, coefficients]."""
        return {"spline": (self.n_pairs, self.basis.n_coefficients)}

    def spline_coefficients(self, temperature: float | None = None) -> Tensor:
        """Spline coefficients, kJ/mol, shape [pairs of types, coefficients], differentiable.

        With the core, and with what ``learn_only`` keeps. ``temperature`` (K) matters only to a
        temperature-dependent potential.
        """
        return self.with_core(self.with_given(self.unbound_coefficients(temperature)))

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        """What the parameters say, before anything is kept; [pairs of types, coefficients]."""
        raise NotImplementedError

    def with_given(self, coefficients: Tensor) -> Tensor:
        """Spline coefficients with those of the pairs of types that ``learn_only`` leaves out."""
        return torch.where(self.is_learned[:, None], coefficients, self.given)

    def with_core(self, coefficients: Tensor) -> Tensor:
        """Spline coefficients with the core that this potential insists on; by default none.

        A sum has the cores of its terms: they are bounds on all that acts there.
        """
        return coefficients

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """The spline coefficients, flat, kJ/mol, [pairs of types * coefficients]."""
        return self.spline_coefficients(temperature).reshape(-1)

    def energy(self, r: ArrayLike, temperature: float | None = None) -> Tensor:
        """u(r) in kJ/mol, shape [pairs of types, len(r)], for r in nm; differentiable."""
        return (
            self.spline_coefficients(temperature) @ torch.from_numpy(self.basis.values(in_nm(r))).T
        )

    def force(self, r: ArrayLike, temperature: float | None = None) -> Tensor:
        """-du/dr in kJ/mol/nm, shape [pairs of types, len(r)], for r in nm; differentiable."""
        slopes = torch.from_numpy(self.basis.derivatives(in_nm(r)))
        return -self.spline_coefficients(temperature) @ slopes.T

    def in_torch(self, temperature: float | None = None) -> PairEnergy:
        """The energy of a configuration as a torch module, pair by pair."""
        return PairEnergy(self, temperature)

    def as_network(self, temperature: float | None = None) -> NetworkPotential:
        """The same potential with the same parameters, evaluated in torch pair by pair.

        An analytic or neural form is evaluated itself, not its spline, but for the straight line
        below ``r_min``. ``temperature`` (K) matters only to a temperature-dependent potential.
        """
        return NetworkPotential(self.in_torch(temperature), n_types=self.n_types, name=self.name)

    @torch.no_grad()
    def learn_only(self: Pair, pairs: Any) -> Pair:
        """Learn u(r) of these pairs of types alone; all others stay as they are. Returns self.

            pair.learn_only([(0, 1), (1, 1)])
            pair.learn_only(["epsilon"])  # these parameters alone, of every pair

        What stays is given: it has no gradient, no prior, and a standard error of zero. Whatever
        becomes of parameters that pairs of types share, such as those of a network, its
        coefficients are the same to the last bit.

        Parameters
        ----------
        pairs : sequence of (int, int), or of str, or None
            Types of each pair, in either order, or names as ``Potential.learn_only`` has them,
            which change nothing of the pairs of types; None: learn all again.

        Raises
        ------
        PotentialError
            If there is no such pair of types, or none at all; or if this kind of potential gives
            ``spline_coefficients`` itself in place of ``unbound_coefficients``.
        """
        if pairs is None or are_names(pairs):
            super().learn_only(pairs)
        if are_names(pairs):
            return self
        learned = self._learned_mask(pairs)
        if type(self).spline_coefficients is not PairPotential.spline_coefficients:
            raise PotentialError(
                f"{type(self).__name__} gives spline_coefficients itself, so nothing can be kept "
                "of it: let it give unbound_coefficients"
            )
        self.given.copy_(self.with_given(self.unbound_coefficients()))
        self.is_learned.copy_(learned)
        return self

    def _learned_mask(self, pairs: Any) -> Tensor:
        if pairs is None:
            return torch.ones(self.n_pairs, dtype=torch.bool)
        try:
            table = np.array(pairs).reshape(-1, 2)
            is_known = table.dtype.kind in "iu" and np.all((table >= 0) & (table < self.n_types))
        except ValueError:
            is_known = False
        if not is_known or not len(table):
            raise PotentialError(
                f"learn_only: got {shown(pairs)}, expected pairs of types 0 .. {self.n_types - 1}, "
                "as [(0, 0), (0, 1)]",
                got=pairs,
                n_types=self.n_types,
            )
        learned = torch.zeros(self.n_pairs, dtype=torch.bool)
        learned[pair_index(self.n_types)[table[:, 0], table[:, 1]]] = True
        return learned

    def learned_rows(self) -> NDArray[np.bool_]:
        """Which pairs of types are learned, [pairs of types]."""
        return np.asarray(self.is_learned.numpy(force=True))

    def form(self) -> dict[str, Any]:
        """Also which pairs of types are given, and what they are."""
        given = {
            name: {"pairs of types": np.flatnonzero(~rows).tolist(), "coefficients": brief(c)}
            for name, part in self.named_modules()
            if isinstance(part, PairPotential)
            for rows in [part.is_learned.numpy(force=True)]
            for c in [part.given.numpy(force=True)[~rows]]
            if not rows.all()
        }
        return super().form() | {"given": given}

    def prior_precision(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> Array | None:
        """D2^T D2 / (q spacing^3) for every pair of types that is learned.

        q = roughness (kT)^2 / length^3.

        One function of r is one piece of knowledge, at however many temperatures it acts: each has
        its share.
        """
        if not self.is_free_form:
            return None
        n, h = self.basis.n_coefficients, self.basis.spacing
        second = np.eye(n) - 2 * np.eye(n, k=1) + np.eye(n, k=2)  # c = 0 beyond the last
        thermal = MOLAR_GAS_CONSTANT * temperature
        share = min(1.0, self.n_functions / n_temperatures)
        variance = roughness * thermal**2 * (h / length) ** 3 / share
        return np.asarray(np.kron(np.diag(1.0 * self.learned_rows()), second.T @ second / variance))

    def step_size(self, change: Array, temperature: float, contact: float) -> float | None:
        """The largest change of u(r) where particles are found, in kT."""
        first = min(contact or self.basis.r_min, 0.9 * self.basis.cutoff)
        values = self.basis.values(np.linspace(first, self.basis.cutoff, 200))
        u = change.reshape(self.n_pairs, -1) @ values.T
        return float(np.abs(u).max() / (MOLAR_GAS_CONSTANT * temperature))

    def acts_at(self, r: Array) -> NDArray[np.bool_]:
        """Before the cutoff, [len(r)]."""
        return np.asarray(r < self.basis.cutoff)

    def change_of(self, r: Array, change: Array) -> Array:
        """Coefficients [coefficients] of a change of u that is known at places r, kJ/mol at nm.

        It is shifted to zero at the last, and is what it is at the first below that.
        """
        smooth = np.interp(self.basis.centers, r, change - change[-1], right=0.0)
        return np.asarray(self.basis.interpolate(torch.from_numpy(smooth)).numpy())

    def pairs(self) -> list[tuple[slice, PairPotential]]:
        """Itself."""
        return [(slice(0, self.n_pairs * self.basis.n_coefficients), self)]

    def ends(self) -> tuple[float, float]:
        """Where its knots begin and end, nm."""
        return self.basis.r_min, self.basis.cutoff

    def row_names(self) -> list[str]:
        """What to call each pair of types, "0-1"; empty where there is one."""
        if self.n_pairs == 1:
            return [""]
        return [f"{a}-{b}" for a in range(self.n_types) for b in range(a, self.n_types)]

    def kind_of(self, name: str) -> str | None:
        """By its name: a "sigma" is a length."""
        return _KINDS.get(name.rpartition(".")[2])

    def per_pair(self, name: str, value: ArrayLike) -> nn.Parameter:
        """A parameter of shape [pairs of types] from a number or one number per pair of types.

        Raises
        ------
        PotentialError
            If it has another shape, or a number is beyond the range of that name, see ``limits``.
        """
        array = checked(name, value)
        if array.ndim > 1 or (array.ndim == 1 and array.shape != (self.n_pairs,)):
            raise PotentialError(
                f"{name}: expected one number or {self.n_pairs} (one per pair of types), "
                f"got shape {array.shape}",
                expected=self.n_pairs,
                got=array.shape,
            )
        return nn.Parameter(torch.tensor(np.broadcast_to(array, (self.n_pairs,)).copy()))


def are_names(chosen: Any) -> bool:
    """Are they names, where they might be pairs of types?"""
    if isinstance(chosen, str):
        return True
    return isinstance(chosen, list | tuple | set) and any(isinstance(c, str) for c in chosen)


def in_nm(r: Any) -> Array:
    """Distances, or Quantities, as an array in nm."""
    return np.asarray(value_in_md_units(_plain(r), "length"))


def _plain(r: Any) -> Any:
    return r.numpy(force=True) if isinstance(r, Tensor) else r


def checked(name: str, value: ArrayLike) -> Array:
    """An argument as an array of numbers in md units that are within the range of that name.

    Raises
    ------
    PotentialError
        If it is none.
    """
    limit = limit_of(name)
    kind = _KINDS.get(name)
    try:
        plain = value if kind is None else value_in_md_units(value, kind)
        array = np.asarray(plain, dtype=np.float64)
    except UnitError as error:
        raise PotentialError(f"{name}: {error}", got=value) from error
    except (TypeError, ValueError) as error:
        raise PotentialError(f"{name}: {limit.error('a number', value)}", got=value) from error
    if not np.all((array >= limit.least) & (array <= limit.most)):
        raise PotentialError(f"{name}: {limit.error('finite numbers', value)}", got=value)
    return array
