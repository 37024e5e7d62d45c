"""Free-form potentials of bonds, angles and dihedral angles, one function for each type."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ...errors import PotentialError
from ...limits import checked_number, checked_whole
from .base import BondedSpline, number_of
from .basis import BondedBasis

Array = NDArray[np.float64]


class BondSpline(BondedSpline):
    """u(r) of bonds, one function for each type of bond.

    From ``r_min`` to ``r_max`` a spline; beyond, a straight line that leads back: at both ends u
    rises outwards by at least ``wall_slope``, whatever is learned.

        bond = diffsim.BondSpline(0.30, 0.46, name="bonds")
        bond.boltzmann_inversion(r, p, temperature=300)
        bond.attach(system, bonds=[(0, 1), (1, 2)])

    Parameters
    ----------
    r_min, r_max : float or Quantity
        nm, of the table.
    knots : int
        Both ends included; as many coefficients.
    n_types : int
        Of bonds.
    wall_slope : float
        Least steepness of both ends, kJ/mol/nm.
    prior_length : float or Quantity, optional
        nm, over which u may change by several kT; see ``BondedSpline``. Default: r_max - r_min.
    name : str
        Of the OpenMM Force.

    Raises
    ------
    PotentialError
        If not 0 < r_min < r_max, or an argument is out of range.
    """

    n_particles, called = 2, "bond"
    coordinate, quantity, tuples = "r", "length", "bonds"
    possible = (0.0, np.inf)

    def __init__(
        self,
        r_min: Any,
        r_max: Any,
        knots: int = 40,
        n_types: int = 1,
        wall_slope: float = 50.0,
        prior_length: Any = None,
        name: str | None = None,
    ) -> None:
        low, high = (number_of(n, v, "length") for n, v in (("r_min", r_min), ("r_max", r_max)))
        if not 0 < low < high:
            raise PotentialError(
                f"expected 0 < r_min < r_max, got r_min = {low} nm and r_max = {high} nm",
                r_min=low,
                r_max=high,
            )
        checked_number("r_min", low, PotentialError)
        checked_number("r_max", high, PotentialError)
        basis = BondedBasis(low, high, checked_whole("knots", knots, PotentialError), "straight")
        super().__init__(basis, n_types, high - low if prior_length is None else prior_length, name)
        self.wall_slope = checked_number("wall_slope", wall_slope, PotentialError)

    @staticmethod
    def measure(q: Array) -> Array:
        """r^2."""
        return q**2

    def spline_coefficients(self) -> Tensor:
        """c, kJ/mol, [types, knots], rising toward both ends by at least the slope of the wall."""
        rise = self.wall_slope * self.basis.spacing
        first = torch.maximum(self.values[:, :1], self.values[:, 1:2] + rise)
        last = torch.maximum(self.values[:, -1:], self.values[:, -2:-1] + rise)
        return torch.cat([first, self.values[:, 1:-1], last], dim=1)

    def attach(  # type: ignore[override]
        self,
        system: Any,
        bonds: Any = None,
        types: ArrayLike | None = None,
        atoms: ArrayLike | None = None,
        periodic: bool | None = None,
    ) -> Any:
        """Add a Force for these bonds to an OpenMM System; call it before the Context is made.

        It is a CustomCompoundBondForce. That makes no molecules of OpenMM's, which a barostat moves
        and a g(r) is between; where no other force bonds the particles, a HarmonicBondForce without
        stiffness is added beside it.

        Parameters
        ----------
        system : openmm.System
        bonds : sequence of (int, int), or Topology, optional
            Pairs of particles; of a Topology (OpenMM's or mdtraj's) all of its bonds. Default: the
            System's bonds, those of its HarmonicBondForce for one, but for constraints.
        types : sequence of int, optional
            Type of each of ``bonds``, 0 .. n_types - 1. Default: all 0.
        atoms : sequence of int, optional
            Without a list of ``bonds``: only those between these particles.
        periodic : bool, optional
            Between nearest images? Default: as the System's nonbonded forces.

        Returns
        -------
        openmm.CustomCompoundBondForce

        Raises
        ------
        AttachError
            If there is no bond, one comes twice, is constrained or no pair of particles, a type is
            out of range, or the System already has a force of this name.
        """
        return self._attach(system, bonds, types, atoms, periodic)


class AngleSpline(BondedSpline):
    """u(theta) of angles, one function for each type of angle; theta from 0 to pi.

    u is its own mirror image at 0 and at pi, so that forces are finite and do not jump where three
    particles are in line.

        diffsim.AngleSpline(name="angles").attach(system, triples=[(0, 1, 2), (1, 2, 3)])

    Parameters
    ----------
    knots : int
        From 0 to pi, both included; as many coefficients.
    n_types : int
        Of angles.
    prior_length : float or Quantity
        rad, over which u may change by several kT; see ``BondedSpline``.
    name : str
        Of the OpenMM Force.
    """

    n_particles, called = 3, "angle"
    coordinate, quantity, tuples = "theta", "angle", "triples"
    possible = (0.0, np.pi)

    def __init__(
        self, knots: int = 40, n_types: int = 1, prior_length: Any = 1.5, name: str | None = None
    ) -> None:
        basis = BondedBasis(0.0, np.pi, checked_whole("knots", knots, PotentialError), "even")
        super().__init__(basis, n_types, prior_length, name)

    @staticmethod
    def measure(q: Array) -> Array:
        """sin(theta)."""
        return np.sin(q)

    def attach(  # type: ignore[override]
        self,
        system: Any,
        triples: Any = None,
        types: ArrayLike | None = None,
        atoms: ArrayLike | None = None,
        periodic: bool | None = None,
    ) -> Any:
        """Add a CustomCompoundBondForce for these angles to an OpenMM System.

        Parameters
        ----------
        triples : sequence of (int, int, int), or Topology, optional
            The angle is at the second particle. Of a Topology, or by default of the System's bonds
            and constraints, all angles between two bonds, but those of three that are all bonded.
        system, types, atoms, periodic : see ``BondSpline.attach``

        Raises
        ------
        AttachError
            As of ``BondSpline.attach``.
        """
        return self._attach(system, triples, types, atoms, periodic)


class DihedralSpline(BondedSpline):
    """u(phi) of dihedral angles, one periodic function for each type; phi from -pi to pi.

        diffsim.DihedralSpline(name="torsions").attach(system, quadruples=[(0, 1, 2, 3)])

    Parameters
    ----------
    knots : int
        Of one turn; as many coefficients. The first is at -pi, which is pi.
    n_types : int
        Of dihedral angles.
    prior_length : float or Quantity
        rad, over which u may change by several kT; see ``BondedSpline``.
    name : str
        Of the OpenMM Force.
    """

    n_particles, called = 4, "dihedral"
    coordinate, quantity, tuples = "phi", "angle", "quadruples"
    possible = (-2 * np.pi, 2 * np.pi)

    def __init__(
        self, knots: int = 36, n_types: int = 1, prior_length: Any = 1.5, name: str | None = None
    ) -> None:
        whole = checked_whole("knots", knots, PotentialError)
        super().__init__(BondedBasis(-np.pi, np.pi, whole, "periodic"), n_types, prior_length, name)

    @staticmethod
    def measure(q: Array) -> Array:
        """1."""
        return np.ones_like(q)

    def attach(  # type: ignore[override]
        self,
        system: Any,
        quadruples: Any = None,
        types: ArrayLike | None = None,
        atoms: ArrayLike | None = None,
        periodic: bool | None = None,
    ) -> Any:
        """Add a CustomCompoundBondForce for these dihedral angles to an OpenMM System.

        Parameters
        ----------
        quadruples : sequence of (int, int, int, int), or Topology, optional
            The angle between the planes of the first and the last three. Of a Topology, or by
            default of the System's bonds and constraints, all chains of three bonds.
        system, types, atoms, periodic : see ``BondSpline.attach``

        Raises
        ------
        AttachError
            As of ``BondSpline.attach``.
        """
        return self._attach(system, quadruples, types, atoms, periodic)
