"""A state point without MD: frames drawn exactly from the distribution of two particles in a box.

The separation of two particles in a periodic cubic box of volume V, which interact by u(r) up to a
cutoff within half the box, has the density exp(-beta u(r)) / Z, Z its integral over the box. So
what a refinement estimates from frames is known, with <.> over that distribution:

    g(r) = V exp(-beta u(r)) / Z,    <S_k> = <B_k>,    dg(r)/dc_k = -beta g(r) (B_k(r) - <B_k>)

Frames are independent of each other and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openmm_diffsim import RDF, Observable, PairPotential
from openmm_diffsim.errors import SamplingError
from openmm_diffsim.observables import Place
from openmm_diffsim.observables.base import Frame, Particles
from openmm_diffsim.samples import Features, Run, Samples
from openmm_diffsim.statistics.kernels import PairHistogram
from openmm_diffsim.units import beta

Array = NDArray[np.float64]

_CELLS = 20_000  # of the quadrature, up to the cutoff
_DEEPEST = 200.0  # kT, of a well: beyond, the pair has collapsed


class FakeStatePoint:
    """What ``StatePoint`` is to a refinement, for two particles in a cubic box.

    Parameters
    ----------
    potential : PairPotential
        Of one type; its cutoff is at most half the box.
    temperature : float, K
    length : float, nm
        Edge of the box.
    seed : int

    Attributes
    ----------
    explosions : int
        How many of the next calls of ``sample`` end as a run that explodes.
    displacement : float, nm
        How far the particles are said to have moved in a run.
    """

    pressure = None
    n_particles = 2
    timestep = 0.001

    def __init__(
        self, potential: PairPotential, temperature: float, length: float, seed: int = 1
    ) -> None:
        assert potential.n_types == 1 and potential.basis.cutoff <= length / 2
        self.potential = potential
        self.temperature = temperature
        self.explosions = 0
        self.displacement = length
        self._length = length
        self._random = np.random.default_rng(seed)

    @property
    def volume(self) -> float:
        """nm^3."""
        return float(self._length**3)

    def pair_types(self) -> list[NDArray[np.int64]]:
        return [np.zeros(2, dtype=np.int64)]

    def check_observable(self, observable: Observable) -> None:
        """Any can be recorded that can be made."""

    def other_forces(self, first: Any, second: Any) -> list[str]:
        return []

    def charges_between(self, first: Any, second: Any) -> None:
        return None

    def beyond_pairs(self) -> str:
        return ""

    def rest(self) -> tuple[tuple[str, str], ...]:
        return ()

    def identity(self) -> dict[str, Any]:
        return {"temperature in K": self.temperature, "box in nm": self.box().tolist()}

    def box(self) -> Array:
        return np.eye(3) * self._length

    def place(self) -> Place:
        return Place(np.ones(2), np.arange(2), self.volume, self.temperature)

    def number_density(self, n_atoms: int | None = None) -> float:
        return (self.n_particles if n_atoms is None else n_atoms) / self.volume

    def apply(self) -> None:
        """``sample`` takes the present parameters anyway."""

    def snapshot(self) -> Any:
        return self._random.bit_generator.state

    def restore(self, snapshot: Any) -> None:
        self._random.bit_generator.state = snapshot

    serialize, deserialize, where = snapshot, restore, snapshot

    def another_start(self, text: Any, number: int) -> Any:
        return np.random.default_rng([number, text["state"]["state"] % 2**32]).bit_generator.state

    def again(self, text: Any) -> Any:
        return text

    def sample(
        self,
        steps: int,
        every: int,
        record: Sequence[Observable] = (),
        equilibration: int = 0,
        discard_transient: bool = False,
        progress: Callable[[int], None] | None = None,
        trajectory: str | Path | None = None,
    ) -> Samples:
        """``steps // every`` independent frames at the present parameters."""
        assert trajectory is None, "a pair potential needs none"
        if self.explosions:
            self.explosions -= 1
            raise SamplingError("the run exploded, as it was told to", reason="exploded")
        samples = self._recorded(self.draw(steps // every), every, record)
        if progress is not None:
            progress(equilibration + steps)
        return samples

    def draw(self, n: int) -> Array:
        """Separations of the two particles, nm, [n, 3]."""
        edges, below = self._radial()
        u = self._random.uniform(size=n)
        directions = self._random.normal(size=(n, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        vectors = np.interp(u, below, edges)[:, None] * directions
        left = np.flatnonzero(u > below[-1])  # beyond the cutoff, where the density is uniform
        while len(left):
            vectors[left] = self._random.uniform(-0.5, 0.5, (len(left), 3)) * self._length
            left = left[np.linalg.norm(vectors[left], axis=1) < edges[-1]]
        return vectors

    # What is known exactly ------------------------------------------------------------------------

    def mean(self, function: Callable[[Array], Array]) -> Array:
        """<f> of a function of r that is zero beyond the cutoff: from [points] to [points, ...]."""
        edges, below = self._radial()
        return np.asarray(np.diff(below) @ function(_middles(edges)))

    def g(self, rdf: RDF) -> Array:
        """<g> in each bin, [bins]."""
        edges, below = self._radial()
        cutoff = edges[-1]
        uniform = (1 - below[-1]) / (self.volume - _ball(cutoff))
        beyond = uniform * (_ball(np.maximum(rdf.edges, cutoff)) - _ball(cutoff))
        pairs = np.diff(np.interp(rdf.edges, edges, below) + beyond)
        return np.asarray(pairs * self.volume / rdf.shells)

    def g_slope(self, rdf: RDF) -> Array:
        """d<g>/dc in each bin, [bins, coefficients], mol/kJ."""
        edges, below = self._radial()
        values = self.potential.basis.values
        each = np.diff(below)[:, None] * values(_middles(edges))
        sums = np.concatenate([np.zeros((1, each.shape[1])), np.cumsum(each, axis=0)])
        at_edges = np.stack([np.interp(rdf.edges, edges, column) for column in sums.T], axis=1)
        together = np.diff(at_edges, axis=0) * (self.volume / rdf.shells)[:, None]
        return -beta(self.temperature) * (together - np.outer(self.g(rdf), self.mean(values)))

    def _radial(self) -> tuple[Array, Array]:
        """Distances up to the cutoff, nm, and the probability of being closer than each."""
        edges = np.linspace(0.0, self.potential.basis.cutoff, _CELLS + 1)
        with torch.no_grad():
            energy = self.potential.energy(_middles(edges), self.temperature)[0].numpy()
        u = beta(self.temperature) * energy
        if u.min() < -_DEEPEST:
            raise SamplingError(f"the run exploded: a well of {-u.min():.0f} kT", reason="exploded")
        below = np.concatenate([[0.0], np.cumsum(np.diff(_ball(edges)) * np.exp(-u))])
        return edges, below / (below[-1] + self.volume - _ball(edges[-1]))

    # As the recorder of a Simulation does it ------------------------------------------------------

    def _recorded(self, vectors: Array, every: int, record: Sequence[Observable]) -> Samples:
        n = len(vectors)
        positions = np.stack([np.zeros_like(vectors), vectors], axis=1)
        frames = [Frame(x, self.box(), self.volume, 0.0) for x in positions]
        recorders = [o.recorder(Particles(2, np.arange(2), np.ones(2))) for o in record]
        r = np.linalg.norm(vectors, axis=1)
        own = [[_count(h, r) for h in recorder.histograms] for recorder in recorders]
        rows = [
            [recorder.record(frame, [c[k] for c in mine]) for k, frame in enumerate(frames)]
            for recorder, mine in zip(recorders, own, strict=True)
        ]
        coefficients = self.potential.coefficients(self.temperature).detach().numpy().copy()
        return Samples(
            potential=self.potential,
            runs=(Run(coefficients, self.temperature, None, n, every, self.displacement),),
            learned=self._sums(r),
            volume=np.full(n, self.volume),
            rest_energy=np.zeros(n),
            records={o: np.array(r) for o, r in zip(record, rows, strict=True)},
            temperature=self.temperature,
        )

    def _sums(self, r: Array) -> Features:
        basis = self.potential.basis
        return Features(basis.values(r), -r[:, None] * basis.derivatives(r))


def _count(histogram: PairHistogram, r: Array) -> NDArray[np.int64]:
    """Ordered pairs in each bin, [frames, bins]."""
    first, second, edges = histogram.first, histogram.second, histogram.edges
    ordered = int(first[0] and second[1]) + int(first[1] and second[0])
    return ordered * ((edges[:-1] <= r[:, None]) & (r[:, None] < edges[1:]))


def _middles(edges: Array) -> Array:
    return np.asarray(0.5 * (edges[1:] + edges[:-1]))


def _ball(r: Any) -> Any:
    """Its volume, nm^3."""
    return 4 / 3 * np.pi * r**3
