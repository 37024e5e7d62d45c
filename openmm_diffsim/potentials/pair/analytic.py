"""Analytic pair potentials, switched smoothly to zero at the cutoff."""

import warnings

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...errors import PotentialError
from ...limits import LIMITS
from .base import PairPotential, checked
from .basis import SplineBasis, length_in_nm
from .table_error import TableError, table_error

_MOST_KNOTS = int(LIMITS["knots"].most)


def switching_function(r: Tensor, start: float, end: float) -> Tensor:
    """OpenMM's switching function, 1 below ``start`` and 0 beyond ``end``.

    S(x) = 1 - 10 x^3 + 15 x^4 - 6 x^5 with x = (r - start) / (end - start); S' and S'' vanish at
    both ends.
    """
    x = ((r - start) / (end - start)).clamp(0.0, 1.0)
    return 1 - x**3 * (10 - x * (15 - 6 * x))


class AnalyticPair(PairPotential):
    """A closed form u(r) times a switching function, interpolated on the spline basis.

    Parameters
    ----------
    r_min, cutoff, knots, n_types
        See ``SplineBasis`` and ``PairPotential``.
    switch_distance : float
        Where the switching function starts, nm. Default 0.9 cutoff.
    """

    has_closed_form = True
    depends_on_temperature = False
    interpolation: Tensor

    def __init__(
        self,
        r_min: float,
        cutoff: float,
        knots: int = 120,
        n_types: int = 1,
        switch_distance: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(SplineBasis(r_min, cutoff, knots), n_types, name)
        self.register_buffer("interpolation", self.basis.interpolation, persistent=False)
        cutoff = self.cutoff = self.basis.cutoff
        self.tolerance: float | None = None
        self._told = False  # that the spline is off
        given = 0.9 * cutoff if switch_distance is None else switch_distance
        self.switch_distance = length_in_nm("switch_distance", given)
        if not 0 < self.switch_distance < cutoff:
            raise PotentialError(
                f"expected 0 < switch_distance < cutoff = {cutoff} nm, "
                f"got {self.switch_distance} nm",
                switch_distance=self.switch_distance,
                cutoff=cutoff,
            )

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        raise NotImplementedError

    def switched_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol, the closed form times the switching function; shape [pairs, n]."""
        return self.closed_form(r) * switching_function(r, self.switch_distance, self.cutoff)

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        """Those of the spline through the form, [pairs of types, coefficients]."""
        return self.switched_form(self.centers) @ self.interpolation.T

    def table_error(self, temperature: float = 300.0, r: ArrayLike | None = None) -> TableError:
        """How far the spline, which OpenMM runs, is from the form that it interpolates.

        Where the fluid goes: at every r up to the cutoff where u is less than 10 kT, beyond the
        first four knots, where the spline bends into the straight line below ``r_min``.

        Parameters
        ----------
        temperature : float
            K.
        r : array [n], nm, optional
            Compare at these distances, wherever they are.
        """
        return table_error(self, temperature, r)

    def check(self, temperature: float) -> None:
        """Warn once where the spline no longer follows the form, see ``check_table``."""
        if not self._told:
            self.check_table(temperature)

    def check_table(self, temperature: float = 300.0) -> TableError | None:
        """Warn if the spline's error is above ``tolerance``, which is None for knots given.

        ``temperature`` in K.
        """
        if self.tolerance is None:
            return None
        error = self.table_error(temperature)
        if error.largest > self.tolerance:
            self._told = True
            warnings.warn(
                f"{self.name}: its spline on {self.basis.knots} knots is off by "
                f"{error.energy:.2g} kJ/mol at {error.energy_at:.3f} nm and by {error.force:.2g} "
                f"of the force at {error.force_at:.3f} nm, tolerance {self.tolerance:g}. A fit "
                "goes on with these knots; for more, refine_knots() and attach it to a new System, "
                f"or begin with knots={2 * self.basis.knots}",
                RuntimeWarning,
                stacklevel=3,
            )
        return error

    def refine_knots(self, tolerance: float | None = None, temperature: float = 300.0) -> bool:
        """Take more knots until the spline's error is below a tolerance.

        A force that was attached before has the old knots: where this returns True, attach the
        potential to a new System.

        Parameters
        ----------
        tolerance : float, optional
            Largest error of the energy, kJ/mol, and of the force, relative; see ``table_error``.
            Default: that of the potential, or 1e-3.
        temperature : float
            K.

        Returns
        -------
        bool
            Are there more knots than before?

        Raises
        ------
        PotentialError
            If 2000 knots are not enough, or ``learn_only`` keeps a spline on the present ones.
        """
        if not bool(self.is_learned.all()):
            raise PotentialError(
                f"{self.name}: learn_only keeps splines on {self.basis.knots} knots: refine the "
                "knots first, or learn_only(None)"
            )
        bound = tolerance or self.tolerance or 1e-3
        before = self.basis
        while (error := self.table_error(temperature)).largest > bound:
            if self.basis.knots >= _MOST_KNOTS:
                self._set_knots(before.knots)
                raise PotentialError(
                    f"{self.name}: with {_MOST_KNOTS} knots its spline is still off by "
                    f"{error.energy:.2g} kJ/mol and {error.force:.2g} of the force, expected at "
                    f"most {bound:g}: the form is not smooth, or r_min = {before.r_min} nm is far "
                    "inside the core",
                    error=error,
                    tolerance=bound,
                )
            self._set_knots(min(3 * self.basis.knots // 2, _MOST_KNOTS))
        return self.basis.knots != before.knots

    def _set_knots(self, knots: int) -> None:
        self._told = False
        self.basis = SplineBasis(self.basis.r_min, self.basis.cutoff, knots)
        self.centers = torch.from_numpy(self.basis.centers).to(self.centers)
        self.interpolation = self.basis.interpolation.to(self.interpolation)
        self.given = self.given.new_zeros(self.n_pairs, self.basis.n_coefficients)


class SigmaEpsilonPair(AnalyticPair):
    """A form with sigma, nm, and epsilon, kJ/mol, of each pair of types."""

    first_knot = 0.8
    """Of sigma: where ``r_min`` is by default."""

    def __init__(
        self,
        sigma: ArrayLike,
        epsilon: ArrayLike,
        cutoff: float,
        r_min: float | None = None,
        knots: int = 120,
        n_types: int = 1,
        switch_distance: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            _first_knot(r_min, cutoff, "sigma", sigma, self.first_knot),
            cutoff,
            knots,
            n_types,
            switch_distance,
            name,
        )
        self.sigma = self.per_pair("sigma", sigma)
        self.epsilon = self.per_pair("epsilon", epsilon)


class LennardJones(SigmaEpsilonPair):
    """u(r) = 4 epsilon [(sigma/r)^12 - (sigma/r)^6]; sigma in nm, epsilon in kJ/mol.

    ``r_min`` defaults to 0.8 sigma, where u is about 43 epsilon.
    """

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        x6 = (self.sigma[:, None] / r) ** 6
        return 4 * self.epsilon[:, None] * (x6**2 - x6)


class Mie(SigmaEpsilonPair):
    """u(r) = C epsilon [(sigma/r)^n - (sigma/r)^m], C = n/(n-m) (n/m)^(m/(n-m)).

    sigma in nm, epsilon (the well depth) in kJ/mol; the exponents n > m > 0 are learnable too.
    """

    def __init__(
        self,
        sigma: ArrayLike,
        epsilon: ArrayLike,
        cutoff: float,
        repulsive: ArrayLike = 12.0,
        attractive: ArrayLike = 6.0,
        r_min: float | None = None,
        knots: int = 120,
        n_types: int = 1,
        switch_distance: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(sigma, epsilon, cutoff, r_min, knots, n_types, switch_distance, name)
        self.repulsive = self.per_pair("repulsive", repulsive)
        self.attractive = self.per_pair("attractive", attractive)
        if not bool((self.repulsive > self.attractive).all() and (self.attractive > 0).all()):
            raise PotentialError(
                f"expected repulsive > attractive > 0, got {repulsive!r} and {attractive!r}",
                repulsive=repulsive,
                attractive=attractive,
            )

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        n, m = self.repulsive[:, None], self.attractive[:, None]
        x = self.sigma[:, None] / r
        prefactor = n / (n - m) * (n / m) ** (m / (n - m))
        return prefactor * self.epsilon[:, None] * (x**n - x**m)


class Morse(AnalyticPair):
    """u(r) = depth [(1 - exp(-width (r - r_0)))^2 - 1]; kJ/mol, 1/nm, nm."""

    def __init__(
        self,
        depth: ArrayLike,
        width: ArrayLike,
        r_0: ArrayLike,
        cutoff: float,
        r_min: float | None = None,
        knots: int = 120,
        n_types: int = 1,
        switch_distance: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            _first_knot(r_min, cutoff, "r_0", r_0, 0.6),
            cutoff,
            knots,
            n_types,
            switch_distance,
            name,
        )
        self.depth = self.per_pair("depth", depth)
        self.width = self.per_pair("width", width)
        self.r_0 = self.per_pair("r_0", r_0)

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        decay = torch.exp(-self.width[:, None] * (r - self.r_0[:, None]))
        return self.depth[:, None] * ((1 - decay) ** 2 - 1)


class Yukawa(AnalyticPair):
    """u(r) = strength exp(-kappa r) / r; strength in kJ/mol nm (either sign), kappa in 1/nm.

    An attractive Yukawa needs a core: a ``PairSum`` with a ``SoftSphere`` on the same knots.
    """

    def __init__(
        self,
        strength: ArrayLike,
        kappa: ArrayLike,
        cutoff: float,
        r_min: float,
        knots: int = 120,
        n_types: int = 1,
        switch_distance: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(r_min, cutoff, knots, n_types, switch_distance, name)
        self.strength = self.per_pair("strength", strength)
        self.kappa = self.per_pair("kappa", kappa)

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        return self.strength[:, None] * torch.exp(-self.kappa[:, None] * r) / r


class SoftSphere(SigmaEpsilonPair):
    """u(r) = epsilon (sigma/r)^exponent; kJ/mol, nm."""

    first_knot = 0.7

    def __init__(
        self,
        sigma: ArrayLike,
        epsilon: ArrayLike,
        cutoff: float,
        exponent: ArrayLike = 12.0,
        r_min: float | None = None,
        knots: int = 120,
        n_types: int = 1,
        switch_distance: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(sigma, epsilon, cutoff, r_min, knots, n_types, switch_distance, name)
        self.exponent = self.per_pair("exponent", exponent)

    def closed_form(self, r: Tensor) -> Tensor:
        """u(r) in kJ/mol before switching, for r of shape [n] in nm; shape [pairs, n]."""
        return self.epsilon[:, None] * (self.sigma[:, None] / r) ** self.exponent[:, None]


def _first_knot(
    r_min: float | None, cutoff: float, name: str, length: ArrayLike, factor: float
) -> float:
    if r_min is not None:
        return r_min
    smallest = factor * float(checked(name, length).min())
    end = length_in_nm("cutoff", cutoff)
    if isinstance(end, float) and not smallest < end:
        raise PotentialError(
            f"{name}: got {smallest / factor:g} nm, from which r_min = {factor:g} {name} = "
            f"{smallest:g} nm follows, expected less than cutoff = {end:g} nm; give r_min, or look "
            f"whether {name} and cutoff are in their places",
            got=length,
            cutoff=end,
        )
    return smallest
