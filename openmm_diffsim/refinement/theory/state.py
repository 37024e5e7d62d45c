"""Liquid-state theory for a state point: what it says about the observables of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...curve import interpolation_matrix
from ...observables import RDF, Observable
from ...potentials import n_pairs_of_types
from ...samples import View
from ...statistics.kernels import largest_range
from ...units import beta
from ..species import Species
from .liquid import LiquidStructure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEWEST_BINS = 20  # up to the cutoff
_MOST_BINS = 200  # the theory solves dense equations of twice as many unknowns per pair of types
_MOST_UNKNOWNS = 4000  # 128 MB a matrix
_FEWEST_PARTICLES = 10  # of a kind


class LiquidTheory:
    """Partial g(r) of a fluid of single sites, and the response they imply.

    For particles that nothing but learned pair potentials acts on: see ``why_not``. Their partial
    g(r) are recorded beside the targets, to half the box. At constant pressure the box may shrink,
    and they go as far as cutoff and targets do: where these fit into the box, theory does too.

    Parameters
    ----------
    state_point : StatePoint
    species : Species
        Of its particles.
    grids : sequence of array
        Equal steps in r, nm, of the g(r) that are targets; theory's bins are as wide, but there
        are at least 20 up to the cutoff.

    Attributes
    ----------
    rdfs : list of RDF, one per pair of species
    """

    def __init__(self, state_point: Any, species: Species, grids: Sequence[Array] = ()) -> None:
        self._pairs = state_point.potential.pairs()
        self.n_coefficients = len(state_point.potential.coefficients(state_point.temperature))
        self.species_of = species.of_particle
        self.n_of_species = species.number
        self.interactions = species.interactions
        r_max, bins = _bins(state_point, grids)
        self.rdfs = [
            RDF(r_max, bins, atoms=first, atoms2=second)
            for a, first in enumerate(species.members)
            for second in species.members[a:]
        ]

    @staticmethod
    def why_not(state_point: Any, species: Species, grids: Sequence[Array] = ()) -> str:
        """Why theory has no say here, for a log; empty where it has."""
        potential = state_point.potential
        learned = sum(where.stop - where.start for where, _ in potential.pairs())
        if learned < len(potential.coefficients(state_point.temperature)):
            return f"{potential.name} is more than pair potentials"
        if more := state_point.beyond_pairs():
            return (
                f"theory is for single sites with learned pair potentials alone, but there {more}"
            )
        if state_point.box() is None:
            return "there is no periodic box"
        fewest = int(species.number.min())
        if fewest < _FEWEST_PARTICLES:
            return f"of one kind there are {fewest} particles, fewer than {_FEWEST_PARTICLES}"
        unknowns = 2 * _bins(state_point, grids)[1] * n_pairs_of_types(len(species.members))
        if unknowns > _MOST_UNKNOWNS:
            return (
                f"{len(species.members)} kinds of particles make {unknowns} equations, more than "
                f"{_MOST_UNKNOWNS}"
            )
        return ""

    @cached_property
    def columns(self) -> Mask:
        """Of which coefficients theory knows the response, bool [coefficients]."""
        known = np.zeros(self.n_coefficients, dtype=bool)
        for where, _ in self._pairs:
            known[where] = True
        return known

    def structure(self, view: View) -> LiquidStructure:
        """The liquid as these frames see it."""
        volume = float(view.weights.detach() @ view.samples.volumes)
        g = np.array([view.average(rdf).numpy(force=True) for rdf in self.rdfs])
        r, b = self.rdfs[0].r, beta(view.samples.temperature)
        return LiquidStructure(r, g, self.n_of_species, volume, b, self.interactions)

    def jacobian(
        self, structure: LiquidStructure, observables: Sequence[Observable], coefficients: Array
    ) -> tuple[Array, Mask]:
        """d<A>/dc of all values of all observables, and which of them theory knows.

        Returns
        -------
        array [values, coefficients], zero in columns that theory does not know; bool array [values]
        """
        liquid = _Liquid(self, structure, coefficients[self.columns])
        rows, known = [], []
        for observable in observables:
            part = np.zeros((observable.n_values, self.n_coefficients))
            found = observable.liquid_response(liquid)
            if found is not None:
                part[:, self.columns] = found
            rows.append(part)
            known.append(np.full(len(part), found is not None))
        return np.concatenate(rows), np.concatenate(known)

    def covariance(
        self, structure: LiquidStructure, observables: Sequence[Observable]
    ) -> tuple[Array, Mask]:
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
            counted = observable.counted_pairs(self.species_of)
            if counted is None:
                continue
            grid = interpolation_matrix(structure.r, counted.r)
            mapping[here] = np.concatenate([share * grid for share in counted.shares], axis=1)
            width = structure.r[1] - structure.r[0]
            wider = width * 4 * np.pi * counted.r**2 / counted.shells
            own[here] = grid @ (counted.shares[:, None] ** 2 * shot).sum(axis=0) * wider
            known[here] = True
        return mapping @ smooth @ mapping.T + np.diag(own), known


class _Liquid:
    """What ``Observable.liquid_response`` is given."""

    def __init__(
        self, theory: LiquidTheory, structure: LiquidStructure, coefficients: Array
    ) -> None:
        self.species_of = theory.species_of
        self._structure = structure
        self._coefficients = coefficients
        self._response = structure.rdf_response()

    def of_g(self, shares: Array, r: Array) -> Array:
        grid = interpolation_matrix(self._structure.r, r)
        return np.asarray(grid @ np.einsum("p,pbk->bk", shares, self._response))

    def of_pressure(self) -> Array:
        return self._structure.pressure_response(self._coefficients, self._response)[None]


def _bins(state_point: Any, grids: Sequence[Array]) -> tuple[float, int]:
    """How far the partial g(r) go, nm, and in how many bins."""
    cutoff = max(pair.basis.cutoff for _, pair in state_point.potential.pairs())
    widths = [float(np.diff(grid)[0]) for grid in grids if len(grid) > 1]
    reach = min(largest_range(state_point.box()), 2.5 * cutoff)
    if state_point.pressure is not None:
        reach = min(reach, max([cutoff, *(float(grid[-1]) for grid in grids)]))
    width = min([*widths, cutoff / _FEWEST_BINS]) if widths else cutoff / 100
    width = max(width, reach / _MOST_BINS)
    bins = int(reach / width + 1e-9)
    return bins * width, bins
