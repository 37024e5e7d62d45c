"""Liquid-state theory for a state point: what it says about the observables of its targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...curve import interpolation_matrix
from ...engine.adapters import particle_types
from ...engine.statepoint import StatePoint
from ...observables import RDF, Observable, Pressure
from ...potentials import PairPotential
from ...samples import Samples
from ...statistics.kernels import largest_range
from ...units import beta
from .liquid import LiquidStructure

Array = NDArray[np.float64]

_MOST_BINS = 200  # the theory solves dense equations of twice as many unknowns per pair of types


class LiquidTheory:
    """Partial g(r) of the particles that the potential acts on, and the response they imply.

    The partial g(r) are recorded beside the targets, to half the box. Theory takes the particles
    of the potential for a simple fluid; whatever else the System holds counts only through g(r).

    Parameters
    ----------
    state_point : StatePoint
        Of a pair potential.
    bin_width : float, nm

    Attributes
    ----------
    rdfs : list of RDF, one per pair of types; empty where theory has no say (no box, or a type
        with fewer than 10 particles)
    """

    def __init__(self, state_point: StatePoint, bin_width: float) -> None:
        potential = state_point.potential
        assert isinstance(potential, PairPotential)
        self.basis = potential.basis
        self.type_of = particle_types(state_point.force, potential.n_types)
        self.n_of_type = np.array(
            [float((self.type_of == t).sum()) for t in range(potential.n_types)]
        )
        self.rdfs: list[RDF] = []
        box = state_point.box()
        if box is None or self.n_of_type.min() < 10:
            return
        margin = 1.0 if state_point.pressure is None else 0.93  # the box may shrink
        reach = min(margin * largest_range(box), 2.5 * self.basis.cutoff)
        width = max(bin_width, reach / _MOST_BINS)
        bins = int(reach / width + 1e-9)
        members = [np.nonzero(self.type_of == t)[0] for t in range(potential.n_types)]
        for a in range(potential.n_types):
            for b in range(a, potential.n_types):
                self.rdfs.append(RDF(bins * width, bins, atoms=members[a], atoms2=members[b]))

    def structure(self, samples: Samples) -> LiquidStructure | None:
        """The liquid as these frames see it, or None where theory has no say."""
        if not self.rdfs:
            return None
        with torch.no_grad():
            volume = float(samples.weights() @ torch.from_numpy(samples.volume))
            g = np.array([samples.average(rdf).numpy() for rdf in self.rdfs])
        return LiquidStructure(
            self.rdfs[0].r, g, self.n_of_type, volume, beta(samples.temperature), self.basis
        )

    def jacobian(
        self, structure: LiquidStructure, observables: Sequence[Observable], coefficients: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """d<A>/dc of all values of all observables, and which of them theory knows.

        Returns
        -------
        array [values, pairs * coefficients], bool array [values]
        """
        response = structure.rdf_response()
        n_pairs, n_bins = response.shape[:2]
        flat = response.reshape(n_pairs, n_bins, -1)
        rows, known = [], []
        for observable in observables:
            part = np.zeros((observable.n_values, flat.shape[2]))
            shares = self.shares(observable)
            if isinstance(observable, RDF) and shares is not None:
                grid = interpolation_matrix(structure.r, observable.r)
                part = grid @ np.einsum("p,pbk->bk", shares, flat)
            elif isinstance(observable, Pressure):
                part = structure.pressure_response(coefficients, response).reshape(1, -1)
            rows.append(part)
            known.append(np.full(len(part), shares is not None or isinstance(observable, Pressure)))
        return np.concatenate(rows), np.concatenate(known)

    def covariance(
        self, structure: LiquidStructure, observables: Sequence[Observable]
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Covariance of all values of all observables in one frame, and which theory knows.

        The shot noise of counting pairs depends on the width of the bins and is computed for
        those of each RDF; the rest is smooth and is interpolated.

        Returns
        -------
        array [values, values], bool array [values]
        """
        n_values = sum(o.n_values for o in observables)
        n_pairs, n_bins = structure.g.shape
        smooth = structure.rdf_covariance().reshape(n_pairs * n_bins, n_pairs * n_bins)
        shot = np.maximum(structure.g, 0) / structure.ideal_counts
        smooth = smooth - np.diag(shot.ravel())
        mapping = np.zeros((n_values, n_pairs * n_bins))
        own = np.zeros(n_values)
        known = np.zeros(n_values, dtype=bool)
        start = 0
        for observable in observables:
            here = slice(start, start + observable.n_values)
            start += observable.n_values
            shares = self.shares(observable)
            if not isinstance(observable, RDF) or shares is None:
                continue
            grid = interpolation_matrix(structure.r, observable.r)
            mapping[here] = np.concatenate([share * grid for share in shares], axis=1)
            width = structure.r[1] - structure.r[0]
            wider = width * 4 * np.pi * observable.r**2 / observable.shells
            own[here] = grid @ (shares[:, None] ** 2 * shot).sum(axis=0) * wider
            known[here] = True
        return mapping @ smooth @ mapping.T + np.diag(own), known

    def shares(self, observable: Observable) -> Array | None:
        """Share of each pair of types in the pairs of an RDF, [pairs]; None if others count."""
        if not isinstance(observable, RDF):
            return None
        n = len(self.type_of)
        first = self.type_of[np.arange(n) if observable.atoms is None else observable.atoms]
        second = self.type_of[np.arange(n) if observable.atoms2 is None else observable.atoms2]
        if first.min() < 0 or second.min() < 0:
            return None
        size = len(self.n_of_type)
        both = np.outer(
            np.bincount(first, minlength=size) / len(first),
            np.bincount(second, minlength=size) / len(second),
        )
        rows, columns = np.triu_indices(size)
        return np.where(rows == columns, 0.5, 1.0) * (both + both.T)[rows, columns]
