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
        r_max, bins, self._merged = _bins(state_point, grids)
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
        _, bins, merged = _bins(state_point, grids)
        unknowns = 2 * bins // merged * n_pairs_of_types(len(species.members))
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
        fine, g = self.rdfs[0].r, np.array([view.average(o).numpy(force=True) for o in self.rdfs])
        n = np.arange(len(fine))
        shells = ((n + 1.0) ** 3 - n**3).reshape(-1, self._merged)
        merged = (g.reshape(len(g), -1, self._merged) * shells).sum(axis=-1) / shells.sum(axis=-1)
        r, b = fine.reshape(-1, self._merged).mean(axis=1), beta(view.samples.temperature)
        return LiquidStructure(
            r, merged, self.n_of_species, volume, b, self.interactions, (fine, g)
        )

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
    ) -> tuple[Array, Array]:
        """Covariance of all values of all observables in one frame, and their counting noise.

        The shot noise of counting pairs depends on the width of the bins and is computed for
        those of each RDF; the rest is smooth and is interpolated.

        Returns
        -------
        array [values, values], zero where theory does not know it; array [values], the variance
        that pairs would have which know nothing of each other, NaN likewise
        """
        n_values = sum(o.n_values for o in observables)
        n_pairs, n_bins = structure.g.shape
        smooth = structure.rdf_covariance().reshape(n_pairs * n_bins, n_pairs * n_bins)
        shot = np.maximum(structure.g, 0) / structure.ideal_counts
        smooth = smooth - np.diag(shot.ravel())
        mapping = np.zeros((n_values, n_pairs * n_bins))
        own = np.full(n_values, np.nan)
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
        return mapping @ smooth @ mapping.T + np.diag(np.nan_to_num(own)), own


class _Liquid:
    """What ``Observable.liquid_response`` is given."""

    def __init__(
        self, theory: LiquidTheory, structure: LiquidStructure, coefficients: Array
    ) -> None:
        self.species_of = theory.species_of
        self._structure = structure
        self._coefficients = coefficients

    def of_g(self, shares: Array, r: Array) -> Array:
        return self._structure.response_at(shares, r)

    def of_pressure(self) -> Array:
        return self._structure.pressure_response(self._coefficients)[None]


def _bins(state_point: Any, grids: Sequence[Array]) -> tuple[float, int, int]:
    """How far the partial g(r) go, nm, in how many bins, and how many of these theory merges."""
    cutoff = max(pair.basis.cutoff for _, pair in state_point.potential.pairs())
    widths = [float(np.diff(grid)[0]) for grid in grids if len(grid) > 1]
    reach = min(largest_range(state_point.box()), 2.5 * cutoff)
    if state_point.pressure is not None:
        reach = min(reach, max([cutoff, *(float(grid[-1]) for grid in grids)]))
    width = min([*widths, cutoff / _FEWEST_BINS]) if widths else cutoff / 100
    merged = max(1, int(np.ceil(reach / width / _MOST_BINS - 1e-9)))
    bins = int(reach / (merged * width) + 1e-9) * merged
    return bins * width, bins, merged
