"""SplinePairForce, the force of the plugin."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from ...potentials import n_pairs_of_types
from ...statistics.kernels import PairHistogram, PairSums
from ...units import number_in_md_units
from . import libraries
from .calls import (
    Array,
    IntArray,
    addresses,
    as_array,
    as_boxes,
    as_int32,
    call,
    checked,
    is_spline_pair_force,
)


class SplinePairForce(openmm.Force):  # type: ignore[misc]
    """A pair force that is a cubic B-spline for each pair of types, and knows its derivatives.

        U = sum over pairs of u_p(r),   u_p(r) = sum_k c_pk B_k(r),

    with the basis of ``potentials.SplineBasis``: ``knots`` uniform knots from ``r_min`` to
    ``cutoff``, a straight line below, and zero with two derivatives at the cutoff. It is an
    OpenMM Force like any other: add it to a System, copy it, pickle it, write it to XML.
    ``System.getForce`` gives back a plain ``openmm.Force``, as for every plugin;
    ``SplinePairForce.cast`` makes it whole again.

    The ``compute...`` methods take derivatives at the present positions of a Context that was
    made from the force's System, natively, on its platform. Those of a double-precision platform
    are exact to rounding; on the others pair terms are in single precision and sums in double.

    Parameters
    ----------
    n_types : int
        Number of particle types. Pairs of types are numbered as the upper triangle row by row.
    r_min, cutoff : float or Quantity
        First and last knot, nm.
    knots : int
        Number of knots; there are ``knots - 2`` coefficients for each pair of types.

    Raises
    ------
    openmm.OpenMMException
        Here and in all methods: if an argument is out of range; the message has the limit.
    """

    CutoffNonPeriodic = 1
    CutoffPeriodic = 2

    def __init__(self, n_types: int, r_min: Any, cutoff: Any, knots: int) -> None:
        libraries.require()
        low, high = number_in_md_units(r_min, "length"), number_in_md_units(cutoff, "length")
        call("checkArguments", n_types, low, high, knots)
        xml = (
            f'<Force type="SplinePairForce" version="1" forceGroup="0" name="SplinePairForce" '
            f'numTypes="{n_types}" rMin="{low!r}" cutoff="{high!r}" numKnots="{knots}" method="1">'
            "<Splines/><Particles/><Exclusions/></Force>"
        )
        self.this = openmm.XmlSerializer.deserialize(xml).this

    @staticmethod
    def isinstance(force: openmm.Force) -> bool:
        """Is this, perhaps a plain ``openmm.Force``, a SplinePairForce?"""
        return libraries.api is not None and is_spline_pair_force(force)

    @staticmethod
    def cast(force: openmm.Force) -> SplinePairForce:
        """The same force, such as ``System.getForce`` gives it, as a SplinePairForce."""
        if not SplinePairForce.isinstance(force):
            raise openmm.OpenMMException(
                f"SplinePairForce: cannot cast {type(force).__name__} {force.getName()!r}"
            )
        force.__class__ = SplinePairForce
        return force

    # What it is -------------------------------------------------------------------------------

    def _describe(self) -> tuple[NDArray[np.int32], Array]:
        integers, lengths = np.zeros(5, dtype=np.int32), np.zeros(2)
        call("describe", self, integers, lengths)
        return integers, lengths

    def getNumTypes(self) -> int:
        """Number of particle types."""
        return int(self._describe()[0][0])

    def getNumKnots(self) -> int:
        """Number of knots, both ends included."""
        return int(self._describe()[0][1])

    def getNumCoefficients(self) -> int:
        """Number of coefficients of each pair of types."""
        return self.getNumKnots() - 2

    def getNumParticles(self) -> int:
        """Number of particles that were added."""
        return int(self._describe()[0][2])

    def getNumExclusions(self) -> int:
        """Number of excluded pairs."""
        return int(self._describe()[0][3])

    def getNonbondedMethod(self) -> int:
        """CutoffNonPeriodic or CutoffPeriodic."""
        return int(self._describe()[0][4])

    def setNonbondedMethod(self, method: int) -> None:
        """Set it to CutoffNonPeriodic or CutoffPeriodic (the nearest image, in any box)."""
        call("setNonbondedMethod", self, int(method))

    def usesPeriodicBoundaryConditions(self) -> bool:
        """Is the method CutoffPeriodic?"""
        return self.getNonbondedMethod() == self.CutoffPeriodic

    def getRMin(self) -> float:
        """First knot, nm."""
        return float(self._describe()[1][0])

    def getCutoffDistance(self) -> float:
        """Last knot, nm."""
        return float(self._describe()[1][1])

    def getCoefficients(self) -> Array:
        """All coefficients, kJ/mol, [pairs of types, coefficients]."""
        n = self.getNumTypes()
        c = np.zeros((n_pairs_of_types(n), self.getNumCoefficients()))
        for row, (i, j) in zip(c, _pairs_of_types(n), strict=True):
            call("getCoefficients", self, i, j, row)
        return c

    def setCoefficients(self, coefficients: ArrayLike) -> None:
        """Set all coefficients, kJ/mol, [pairs of types, coefficients]."""
        c = as_array(coefficients)
        n = self.getNumTypes()
        expected = (n_pairs_of_types(n), self.getNumCoefficients())
        if c.shape != expected:
            raise openmm.OpenMMException(
                f"SplinePairForce: expected coefficients of shape {expected}, got {c.shape}"
            )
        for row, (i, j) in zip(c, _pairs_of_types(n), strict=True):
            self.setTypePairCoefficients(i, j, row)

    def getTypePairCoefficients(self, type1: int, type2: int) -> Array:
        """Coefficients of one pair of types, kJ/mol."""
        c = np.zeros(self.getNumCoefficients())
        call("getCoefficients", self, type1, type2, c)
        return c

    def setTypePairCoefficients(self, type1: int, type2: int, coefficients: ArrayLike) -> None:
        """Set the coefficients of one pair of types, kJ/mol, in either order."""
        c = as_array(coefficients).ravel()
        call("setCoefficients", self, type1, type2, len(c), c)

    def addParticle(self, type: int) -> int:
        """Add a particle of a type, -1 if it does not interact; returns its index."""
        self.addParticles([type])
        return self.getNumParticles() - 1

    def addParticles(self, types: ArrayLike) -> None:
        """Add several particles at once, by their types."""
        t = as_int32(types).ravel()
        call("addParticles", self, len(t), t)

    def getParticleType(self, index: int) -> int:
        """Type of a particle, -1 if it does not interact."""
        found = ctypes.c_int()
        call("getType", self, index, ctypes.byref(found))
        return found.value

    def setParticleType(self, index: int, type: int) -> None:
        """Set the type of a particle."""
        call("setType", self, index, type)

    def getParticleTypes(self) -> IntArray:
        """Type of each particle, int [particles]."""
        types = np.zeros(self.getNumParticles(), dtype=np.int32)
        call("getTypes", self, types)
        return types.astype(np.int64)

    def addExclusion(self, particle1: int, particle2: int) -> int:
        """Exclude the interaction of a pair of particles; returns its index."""
        self.addExclusions([(particle1, particle2)])
        return self.getNumExclusions() - 1

    def addExclusions(self, pairs: ArrayLike) -> None:
        """Exclude several pairs at once, int [exclusions, 2]."""
        p = as_int32(pairs).reshape(-1, 2)
        call("addExclusions", self, len(p), p)

    def getExclusionParticles(self, index: int) -> list[int]:
        """The two particles of an exclusion."""
        pair = np.zeros(2, dtype=np.int32)
        call("getExclusion", self, index, pair)
        return [int(i) for i in pair]

    def setExclusionParticles(self, index: int, particle1: int, particle2: int) -> None:
        """Set the two particles of an exclusion."""
        call("setExclusion", self, index, particle1, particle2)

    def getExclusions(self) -> IntArray:
        """All excluded pairs, int [exclusions, 2]."""
        pairs = np.zeros((self.getNumExclusions(), 2), dtype=np.int32)
        call("getExclusions", self, pairs)
        return pairs.astype(np.int64)

    def createExclusionsFromBonds(self, bonds: ArrayLike, bondCutoff: int) -> None:
        """Exclude the pairs that are connected by up to ``bondCutoff`` bonds, int [bonds, 2]."""
        b = as_int32(bonds).reshape(-1, 2)
        call("createExclusionsFromBonds", self, len(b), b, bondCutoff)

    def updateParametersInContext(self, context: openmm.Context) -> None:
        """Copy coefficients and types to a live Context; nothing is rebuilt."""
        call("updateParametersInContext", self, checked(context))

    # Derivatives ------------------------------------------------------------------------------

    def computeBasisSums(self, context: openmm.Context) -> Array:
        """S = dU/dc, [pairs of types, coefficients]; U = sum(c * S)."""
        return self.computeSums(context).basis[0]

    def computeVirial(self, context: openmm.Context) -> tuple[float, Array]:
        """Virial W = -3 V dU/dV in kJ/mol, moving whole molecules, and dW/dc.

        W = -sum over pairs of u'(r) (r . D)/r, D being the vector between the centres (mean
        positions) of the two molecules; the force's part of the pressure is W / (3 V).
        """
        sums = self.computeSums(context, basis=False, virial=True).virial[0]
        return float(np.sum(self.getCoefficients() * sums)), sums

    def computePairHistogram(
        self, context: openmm.Context, edges: ArrayLike, type1: int = 0, type2: int = 0
    ) -> IntArray:
        """Number of pairs of two types per bin of distance, each pair once, int [bins].

        ``edges`` are in nm, [bins + 1], and may exceed the cutoff, up to half the box. Excluded
        pairs count as well.
        """
        types = self.getParticleTypes()
        pairs = PairHistogram(as_array(edges), types == type1, types == type2)
        counts = self.computeSums(context, basis=False, histograms=[pairs]).counts[0][0]
        return counts // 2 if type1 == type2 else counts

    def computeSums(
        self,
        context: openmm.Context,
        positions: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        basis: bool = True,
        virial: bool = False,
        histograms: Sequence[PairHistogram] = (),
    ) -> PairSums:
        """Basis sums, virial sums and histograms in one pass, of the Context or of stored frames.

        Parameters
        ----------
        context : openmm.Context
        positions : array [frames, particles, 3], optional
            nm. Default: the Context's own, as one frame. The Context's are never changed.
        boxes : array [frames, 3, 3], optional
            nm, reduced form. Default: the Context's box for all.
        basis, virial : bool
            What to compute, besides the ``histograms``.
        """
        pairs, coefficients, particles = self._sizes()
        x, b = _as_frames(positions, boxes, particles)
        frames = 1 if x is None else len(x)
        for h in histograms:
            sizes = {len(a) for a in (h.first, h.second, h.groups) if a is not None}
            if sizes != {particles}:
                raise openmm.OpenMMException(
                    f"SplinePairForce: a histogram's selections and groups are of {sizes} "
                    f"particles, expected {particles}"
                )
        s = np.zeros((frames, pairs, coefficients)) if basis else None
        w = np.zeros((frames, pairs, coefficients)) if virial else None
        counts = [np.zeros((frames, len(h.edges) - 1), dtype=np.int64) for h in histograms]
        n_edges = np.array([len(h.edges) for h in histograms], dtype=np.int32)
        edges = [as_array(h.edges) for h in histograms]
        groups = [None if h.groups is None else as_int32(h.groups) for h in histograms]
        call(
            "computeSums",
            self,
            checked(context),
            frames,
            x,
            b,
            s,
            w,
            len(histograms),
            n_edges,
            addresses(edges),
            addresses([h.selections for h in histograms]),
            addresses(groups),
            addresses(counts),
        )
        nothing = np.zeros((frames, 0, 0))
        return PairSums(nothing if s is None else s, nothing if w is None else w, counts)

    def computeHessianVectorProduct(
        self,
        context: openmm.Context,
        v: ArrayLike,
        positions: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
    ) -> Array:
        """(d2U/dx2) v in kJ/mol/nm^2 times the unit of v, of the shape of v.

        ``v`` is [particles, 3], or [frames, particles, 3] with stored frames.
        """
        product, _ = self._products(context, v, positions, boxes, hessian=True)
        assert product is not None
        return product

    def computeForceParameterProduct(
        self,
        context: openmm.Context,
        w: ArrayLike,
        positions: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
    ) -> Array:
        """sum_i w_i . dF_i/dc in 1/nm times the unit of w, [pairs of types, coefficients].

        ``w`` is [particles, 3], or [frames, particles, 3] with stored frames; the result then has
        the frames first.
        """
        _, product = self._products(context, w, positions, boxes, parameters=True)
        assert product is not None
        return product

    def computeProducts(
        self,
        context: openmm.Context,
        v: ArrayLike,
        positions: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """``computeHessianVectorProduct`` and ``computeForceParameterProduct`` in one pass."""
        first, second = self._products(context, v, positions, boxes, hessian=True, parameters=True)
        assert first is not None and second is not None
        return first, second

    def _products(
        self,
        context: openmm.Context,
        v: ArrayLike,
        positions: ArrayLike | None,
        boxes: ArrayLike | None,
        hessian: bool = False,
        parameters: bool = False,
    ) -> tuple[Array | None, Array | None]:
        pairs, coefficients, particles = self._sizes()
        x, b = _as_frames(positions, boxes, particles)
        vectors = as_array(v)
        expected = (particles, 3) if x is None else x.shape
        if vectors.shape != expected:
            raise openmm.OpenMMException(
                f"SplinePairForce: expected vectors of shape {expected}, got {vectors.shape}"
            )
        frames = 1 if x is None else len(x)
        h = np.zeros(expected) if hessian else None
        c = np.zeros((frames, pairs, coefficients)) if parameters else None
        call("computeProducts", self, checked(context), frames, x, b, vectors, h, c)
        return h, c[0] if x is None and c is not None else c

    def _sizes(self) -> tuple[int, int, int]:
        """Numbers of pairs of types, coefficients and particles."""
        n_types, knots, particles = (int(n) for n in self._describe()[0][:3])
        return n_pairs_of_types(n_types), knots - 2, particles


def _pairs_of_types(n_types: int) -> Iterator[tuple[int, int]]:
    """In the order of ``potentials.pair_index``."""
    return combinations_with_replacement(range(n_types), 2)


def _as_frames(
    positions: ArrayLike | None, boxes: ArrayLike | None, particles: int
) -> tuple[Array | None, Array | None]:
    """Stored frames and their boxes, checked; None for those of the Context."""
    if positions is None:
        return None, None if boxes is None else as_boxes(boxes, 1)
    x = as_array(positions)
    if x.ndim != 3 or x.shape[1:] != (particles, 3):
        raise openmm.OpenMMException(
            f"SplinePairForce: expected positions of shape [frames, {particles}, 3], got {x.shape}"
        )
    return x, None if boxes is None else as_boxes(boxes, len(x))
