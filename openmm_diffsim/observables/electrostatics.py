"""Dielectric constant of a liquid, at any charges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import ObservableError
from ..limits import checked_number
from ..statistics.kernels import PairHistogram
from ..statistics.molecules import molecule_centres
from ..units import COULOMB, value_in_md_units
from .base import Array, Charges, Conditions, Frame, IntArray, Observable, Particles, Recorder
from .fluctuations import deviations
from .function import FunctionOfAverages
from .plausible import check_usual
from .site import Section
from .thermodynamics import Volume, thermal_energy

_NEUTRAL = 1e-3  # e, of a molecule


class DielectricConstant(FunctionOfAverages):
    """Static dielectric constant, from the fluctuations of the dipole moment M of the box,

        epsilon = background + (<M^2> - <M>^2) / (3 epsilon_0 <V> R T),

    for conducting ("tin-foil") boundaries, which are those of PME and other Ewald sums, and of a
    reaction field of a high dielectric constant (Neumann, Mol. Phys. 50, 841 (1983)).

    Charges that are learned may be any: of each frame the dipole moments of their independent
    directions are kept, so M is exact at every set of parameters, and the gradient has the part by
    M itself beside that by the weights. Molecules are whole, and have to be neutral.

    Dipoles of liquids turn slowly: water takes some ns for ten per cent.

    Parameters
    ----------
    background : float
        That of what does not move: 1, or that of electrons which the model has not.
    charges : array [particles], e, optional
        That stay. Default: those of the System's NonbondedForce, as far as they are learned at
        the present parameters.

    Raises
    ------
    ObservableError
        If charges are not known, or molecules not neutral.
    """

    entry = "dielectric-constant"

    def __init__(self, background: float = 1.0, charges: ArrayLike | None = None) -> None:
        self.background = checked_number("background", background, ObservableError)
        super().__init__(
            partial(_epsilon, background=self.background),
            [DipoleFluctuation(charges), Volume()],
            symbol=type(self).__name__,
        )

    def check_values(self, values: Array) -> None:
        """No less than the background."""
        check_usual(self.label, values, (self.background, 1e6), self.unit)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """``background``."""
        return {"background": section.number("background", 1.0)}


class DipoleFluctuation(Observable):
    """|M - <M>|^2 / (3 epsilon_0 R T) of the box, nm^3; see ``DielectricConstant``."""

    kind = "volume"
    needs_molecules = True

    def __init__(self, charges: ArrayLike | None = None) -> None:
        given = None if charges is None else np.asarray(value_in_md_units(charges, "charge"))
        if given is not None and not (given.ndim == 1 and np.all(np.isfinite(given))):
            raise ObservableError(
                f"charges: expected finite numbers in e, one for each particle, got {given}",
                got=given,
            )
        self.charges = given

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps dipole moments, of fixed charges and of each direction of what is learned."""
        known = particles.charges
        if self.charges is not None:
            known = Charges(self.charges, np.zeros((len(self.charges), 0)))
        if known is None or len(known.fixed) != particles.n_particles:
            raise ObservableError(
                "DielectricConstant: expected charges of all particles, in one NonbondedForce of "
                f"the System or as charges= [{particles.n_particles}], got "
                f"{'none' if known is None else len(known.fixed)}"
            )
        if not (known.fixed.any() or known.along.any()):
            raise ObservableError(
                "DielectricConstant: expected charges, all of them are zero; where the model has "
                "other ones, give them as charges="
            )
        return _Dipoles(known, particles)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Of each frame, nm^3, [frames, 1]."""
        parts = records.reshape(len(records), -1, 3)
        dipole = parts[:, 0]
        if parts.shape[1] > 1:
            z = conditions.free_charges(conditions.coefficients)
            dipole = dipole + torch.einsum("d,fdk->fk", z, parts[:, 1:])
        squares = (deviations(dipole, conditions) ** 2).sum(dim=1, keepdim=True)
        return 4 * np.pi * COULOMB / (3 * thermal_energy(conditions)) * squares


class _Dipoles:
    """Dipole moments of charges, e nm, and of each direction, nm, from centres of molecules."""

    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, charges: Charges, particles: Particles) -> None:
        self._molecule_of = particles.molecule_of
        self._charges = np.column_stack([charges.fixed, charges.along]).T
        self._check_neutral()

    def _check_neutral(self) -> None:
        each = np.array([np.bincount(self._molecule_of, row) for row in self._charges])
        for most, what in (
            (
                np.abs(each[0]).max(),
                "molecules without a charge, got one of {:.3g} e: ions conduct",
            ),
            (np.abs(each[1:]).max(initial=0.0), "charges learned with neutral=True, got others"),
        ):
            if most > _NEUTRAL:
                raise ObservableError(
                    f"DielectricConstant: expected {what.format(most)}", got=float(most)
                )

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        centres = molecule_centres(frame.positions, self._molecule_of)
        return (self._charges @ (frame.positions - centres[self._molecule_of])).ravel()


def _epsilon(fluctuation: Tensor, volume: Tensor, background: float) -> Tensor:
    return background + fluctuation / volume
