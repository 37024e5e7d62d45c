"""The native plugin: SplinePairForce, an OpenMM Force that knows its derivatives.

``why_not`` is None where the plugin was found and loaded, and else says what is missing.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from ..potentials import n_pairs_of_types
from ..statistics.kernels import PairHistogram, PairSums
from ..units import number_in_md_units

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FOLDER = Path(__file__).parents[1] / "lib"
_BUILT_FOR = _FOLDER / "openmm_version.txt"
_API = "libOpenMMDiffSim.so"

why_not: str | None = None
loaded: list[str] = []
"""The platforms whose library was loaded."""
not_loaded: dict[str, str] = {}
"""Why a platform's library was not loaded, by its name."""
_api: Any = None


def _load() -> str | None:
    """Load the plugin's libraries; None, or why that cannot be."""
    global _api
    if not (_FOLDER / _API).exists() or not _BUILT_FOR.exists():
        reason = _FOLDER / "why_not.txt"
        if reason.exists():
            return reason.read_text(encoding="utf-8").strip()
        return (
            f"{_FOLDER} has no libraries; if this is a source tree, pip install -e . puts them "
            "there, and from another folder an installed openmm_diffsim is imported"
        )
    built_for = _BUILT_FOR.read_text(encoding="utf-8").strip()
    if built_for != openmm.__version__:
        return (
            f"it was built for OpenMM {built_for}, but this is OpenMM {openmm.__version__}: "
            f"pip install openmm=={built_for}, or build openmm_diffsim for this one (README)"
        )
    try:
        _api = ctypes.CDLL(str(_FOLDER / _API), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"{_API} cannot be loaded: {error}"
    _api.DiffSim_getError.restype = ctypes.c_char_p
    for library in sorted(_FOLDER.glob("libOpenMMDiffSim?*.so")):
        platform = library.stem.removeprefix("libOpenMMDiffSim")
        try:
            openmm.Platform.loadPluginLibrary(str(library))
            loaded.append(platform)
        except openmm.OpenMMException as error:
            not_loaded[platform] = str(error)
    return None


why_not = _load()


def available() -> bool:
    """Is the plugin there, for this version of OpenMM?"""
    return why_not is None


def supports(platform: openmm.Platform) -> bool:
    """Has the plugin kernels for this platform?"""
    return available() and bool(platform.supportsKernels(("CalcSplinePairForce",)))


@dataclass(frozen=True)
class NoseHooverChain:
    """A Nose-Hoover chain on all particles with mass, as that of OpenMM's NoseHooverIntegrator.

    It makes the scale of a step of the form (dt, dt/2, scale, dt/2, 0) a function of the kinetic
    energy of v1 and of the chain's own state, the positions of its ``length`` thermostats and then
    their velocities in 1/ps. Its masses are kT/frequency^2, the first n times as large; its
    propagator is that of Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996), with
    multiple time steps and 1, 3, 5 or 7 Yoshida-Suzuki weights. OpenMM takes 3 per massive
    particle for the degrees of freedom n, and 3 less where there is a CMMotionRemover.

    Raises
    ------
    TypeError
        If one of the last four numbers is not whole.
    openmm.OpenMMException
        If a number is out of range.
    """

    temperature: float  # K
    frequency: float  # 1/ps
    degreesOfFreedom: int
    length: int = 3
    multipleTimeSteps: int = 3
    yoshidaSuzuki: int = 7

    def __post_init__(self) -> None:
        for number in astuple(self)[2:]:
            operator.index(number)
        if available():
            _call("checkChain", _array(astuple(self)))


@dataclass(frozen=True)
class SegmentRun:
    """A trajectory segment as it was integrated; positions are never wrapped into the box."""

    positions: Array  # [steps + 1, particles, 3], nm
    velocities: Array  # [steps + 1, particles, 3], nm/ps
    chainStates: Array | None  # [steps + 1, 2 * length]: positions, then velocities in 1/ps


@dataclass(frozen=True)
class SegmentGradient:
    """Gradient of a function L of a trajectory segment."""

    parameters: Array  # dL/dc, [pairs of types, coefficients]
    positions: Array  # dL/dx(0), [particles, 3]
    velocities: Array  # dL/dv(0), [particles, 3]
    noise: Array | None  # dL/d(noise), [steps, particles, 3]; None if not asked for
    growth: Array  # norm of the adjoint at each time, [steps + 1]; zero where nothing follows
    chainState: Array | None  # dL/d(chainState at 0), [2 * length]; None without a chain


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
        if why_not is not None:
            raise openmm.OpenMMException(f"SplinePairForce: there is no native plugin: {why_not}")
        low, high = number_in_md_units(r_min, "length"), number_in_md_units(cutoff, "length")
        _call("checkArguments", n_types, low, high, knots)
        xml = (
            f'<Force type="SplinePairForce" version="1" forceGroup="0" name="SplinePairForce" '
            f'numTypes="{n_types}" rMin="{low!r}" cutoff="{high!r}" numKnots="{knots}" method="1">'
            "<Splines/><Particles/><Exclusions/></Force>"
        )
        self.this = openmm.XmlSerializer.deserialize(xml).this

    @staticmethod
    def isinstance(force: openmm.Force) -> bool:
        """Is this, perhaps a plain ``openmm.Force``, a SplinePairForce?"""
        return available() and bool(_api.DiffSim_isSplinePairForce(_as_c(force)))

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
        _call("describe", self, integers, lengths)
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
        _call("setNonbondedMethod", self, int(method))

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
            _call("getCoefficients", self, i, j, row)
        return c

    def setCoefficients(self, coefficients: ArrayLike) -> None:
        """Set all coefficients, kJ/mol, [pairs of types, coefficients]."""
        c = _array(coefficients)
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
        _call("getCoefficients", self, type1, type2, c)
        return c

    def setTypePairCoefficients(self, type1: int, type2: int, coefficients: ArrayLike) -> None:
        """Set the coefficients of one pair of types, kJ/mol, in either order."""
        c = _array(coefficients).ravel()
        _call("setCoefficients", self, type1, type2, len(c), c)

    def addParticle(self, type: int) -> int:
        """Add a particle of a type, -1 if it does not interact; returns its index."""
        self.addParticles([type])
        return self.getNumParticles() - 1

    def addParticles(self, types: ArrayLike) -> None:
        """Add several particles at once, by their types."""
        t = _int32(types).ravel()
        _call("addParticles", self, len(t), t)

    def getParticleType(self, index: int) -> int:
        """Type of a particle, -1 if it does not interact."""
        found = ctypes.c_int()
        _call("getType", self, index, ctypes.byref(found))
        return found.value

    def setParticleType(self, index: int, type: int) -> None:
        """Set the type of a particle."""
        _call("setType", self, index, type)

    def getParticleTypes(self) -> IntArray:
        """Type of each particle, int [particles]."""
        types = np.zeros(self.getNumParticles(), dtype=np.int32)
        _call("getTypes", self, types)
        return types.astype(np.int64)

    def addExclusion(self, particle1: int, particle2: int) -> int:
        """Exclude the interaction of a pair of particles; returns its index."""
        self.addExclusions([(particle1, particle2)])
        return self.getNumExclusions() - 1

    def addExclusions(self, pairs: ArrayLike) -> None:
        """Exclude several pairs at once, int [exclusions, 2]."""
        p = _int32(pairs).reshape(-1, 2)
        _call("addExclusions", self, len(p), p)

    def getExclusionParticles(self, index: int) -> list[int]:
        """The two particles of an exclusion."""
        pair = np.zeros(2, dtype=np.int32)
        _call("getExclusion", self, index, pair)
        return [int(i) for i in pair]

    def setExclusionParticles(self, index: int, particle1: int, particle2: int) -> None:
        """Set the two particles of an exclusion."""
        _call("setExclusion", self, index, particle1, particle2)

    def getExclusions(self) -> IntArray:
        """All excluded pairs, int [exclusions, 2]."""
        pairs = np.zeros((self.getNumExclusions(), 2), dtype=np.int32)
        _call("getExclusions", self, pairs)
        return pairs.astype(np.int64)

    def createExclusionsFromBonds(self, bonds: ArrayLike, bondCutoff: int) -> None:
        """Exclude the pairs that are connected by up to ``bondCutoff`` bonds, int [bonds, 2]."""
        b = _int32(bonds).reshape(-1, 2)
        _call("createExclusionsFromBonds", self, len(b), b, bondCutoff)

    def updateParametersInContext(self, context: openmm.Context) -> None:
        """Copy coefficients and types to a live Context; nothing is rebuilt."""
        _call("updateParametersInContext", self, _checked(context))

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
        pairs = PairHistogram(_array(edges), types == type1, types == type2)
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
        x, b = _frames(positions, boxes, particles)
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
        edges = [_array(h.edges) for h in histograms]
        groups = [None if h.groups is None else _int32(h.groups) for h in histograms]
        _call(
            "computeSums",
            self,
            _checked(context),
            frames,
            x,
            b,
            s,
            w,
            len(histograms),
            n_edges,
            _addresses(edges),
            _addresses([h.selections for h in histograms]),
            _addresses(groups),
            _addresses(counts),
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

    def computeSegment(
        self,
        context: openmm.Context,
        splitting: Sequence[float],
        positions: ArrayLike,
        velocities: ArrayLike,
        steps: int,
        noise: ArrayLike | None = None,
        box: ArrayLike | None = None,
        chain: NoseHooverChain | None = None,
        chainState: ArrayLike | None = None,
    ) -> SegmentRun:
        """Integrate a segment from given positions and velocities, in one native call.

        A step is that of ``computeSegmentGradient``. Positions and velocities are in double
        precision; forces are those of the Context's platform, of all Forces in the force groups
        of its integrator, each computed once per stored time. Particles without mass do not move.
        Nothing else acts: barostats, CMMotionRemover and AndersenThermostat do not. Positions and
        box of the Context are put back at the end, also after an error; its velocities, time and
        parameters are not touched.

        Parameters
        ----------
        context : openmm.Context
        splitting : (kick1, drift1, scale, drift2, kick2)
            See ``computeSegmentGradient``. With a chain, the scale is ignored.
        positions, velocities : array [particles, 3], nm and nm/ps
            The start, whose box images do not matter.
        steps : int
        noise : array [steps, particles, 3], optional
            nm/ps, as LangevinMiddleIntegrator draws it. Default: none.
        box : array [3, 3], optional
            nm, constant along the segment. Default: the Context's.
        chain : NoseHooverChain, optional
            Takes the place of the scale; goes with steps (dt, dt/2, any, dt/2, 0) and no noise.
        chainState : array [2 * length], optional
            Of the chain at the start. Default: zeros, as for a new NoseHooverIntegrator.

        Raises
        ------
        openmm.OpenMMException
            If an argument is out of range, the System has constraints or virtual sites, or the
            segment explodes: a force or velocity is not finite, or a coordinate beyond 1e9 nm.
        """
        steps, n = operator.index(steps), self.getNumParticles()
        if steps < 0:
            raise openmm.OpenMMException(f"SplinePairForce: expected steps >= 0, got {steps}")
        start = _shaped("positions", positions, (n, 3))
        x = np.concatenate([start[None], np.zeros((steps, n, 3))])
        v = np.zeros_like(x)
        v[0] = _shaped("velocities", velocities, (n, 3))
        states = None
        if chain is not None:
            states = np.zeros((steps + 1, 2 * chain.length))
            if chainState is not None:
                states[0] = _shaped("chainState", chainState, (2 * chain.length,))
        _call(
            "computeSegment",
            self,
            _checked(context),
            _splitting(splitting),
            steps,
            x,
            v,
            None if noise is None else _shaped("noise", noise, (steps, n, 3)),
            None if box is None else _boxes(box, 1),
            None if chain is None else _array(astuple(chain)),
            states,
        )
        return SegmentRun(x, v, states)

    def computeSegmentGradient(
        self,
        context: openmm.Context,
        splitting: Sequence[float],
        positions: ArrayLike,
        positionGradients: ArrayLike | None = None,
        velocityGradients: ArrayLike | None = None,
        box: ArrayLike | None = None,
        *,
        velocities: ArrayLike | None = None,
        chain: NoseHooverChain | None = None,
        chainStates: ArrayLike | None = None,
        includeNoise: bool = False,
        truncation: int = 0,
        clipping: float = 0.0,
    ) -> SegmentGradient:
        """Carry a gradient back through a whole stored segment, in one native call.

        The segment was integrated with this force alone, by steps of the form

            v1 = v + kick1 F(x)/m;  x1 = x + drift1 v1;  v2 = scale v1 + noise;
            x' = x1 + drift2 v2;    v' = v2 + kick2 F(x')/m,

        and the result is their discrete adjoint, exact to rounding. Masses are those of the
        System, parameters those of the Context. Particles without mass do not move, whatever the
        kicks and the noise. With a chain, the scale is what the chain made it. Of a segment that
        other Forces acted on as well, only what this force does is carried back: callers take
        care.

        Parameters
        ----------
        context : openmm.Context
        splitting : (kick1, drift1, scale, drift2, kick2)
            ps. VerletIntegrator: (dt, dt, 1, 0, 0). Velocity Verlet: (dt/2, dt, 1, 0, dt/2).
            LangevinMiddleIntegrator: (dt, dt/2, exp(-friction dt), dt/2, 0).
            NoseHooverIntegrator: the same with a chain, and any scale.
        positions : array [steps + 1, particles, 3], nm
        positionGradients : array [steps + 1, particles, 3], optional
            How L depends on each stored position directly. Default: not.
        velocityGradients : array [steps + 1, particles, 3], optional
            Likewise for velocities. Times after the last that L depends on cost nothing.
        box : array [3, 3], optional
            nm, constant along the segment. Default: the Context's.
        velocities : array [steps + 1, particles, 3], nm/ps
            As ``computeSegment`` gave them; only needed with a chain.
        chain : NoseHooverChain, optional
            That of the segment.
        chainStates : array [steps + 1, 2 * length]
            As ``computeSegment`` gave them; only needed with a chain.
        includeNoise : bool
            Also give dL/d(noise), which is the adjoint of v2.
        truncation : int
            With t the last time that L depends on, the adjoint of the state is dropped at
            t - truncation, t - 2 truncation, ...: what follows a stretch of so many steps is
            taken to depend on the parameters there, not on the state that it starts from.
            0: never.
        clipping : float
            At least 1. Where the growth exceeds ``clipping`` times its value at t, the adjoint is
            scaled down to that. 0: never.

        Returns
        -------
        SegmentGradient
            Its growth is sqrt(sum of (abs(dL/dx)^2 dt^2 + abs(dL/dv)^2)/m) over particles with
            mass, dt being drift1 + drift2, before any clipping at that time. dL/dx and dL/dv are
            those of the state (x, v) at a stored time, but that with a last kick v is taken before
            that kick.
        """
        x, n = _array(positions), self.getNumParticles()
        arrays = {
            "positions": x,
            "positionGradients": positionGradients,
            "velocityGradients": velocityGradients,
            "velocities": velocities,
        }
        given = {name: None if a is None else _array(a) for name, a in arrays.items()}
        for name, array in given.items():
            if array is not None and (array.shape != x.shape or array.shape[1:] != (n, 3)):
                raise openmm.OpenMMException(
                    f"SplinePairForce: {name}: expected the shape [steps + 1, {n}, 3] of the "
                    f"positions, got {array.shape}"
                )
        if len(x) < 1:
            raise openmm.OpenMMException(
                "SplinePairForce: expected at least one stored time in positions, got none"
            )
        states, chain_state = None, None
        if chain is not None:
            chain_state = np.zeros(2 * chain.length)
            if chainStates is not None:
                states = _shaped("chainStates", chainStates, (len(x), 2 * chain.length))
        c = np.zeros((n_pairs_of_types(self.getNumTypes()), self.getNumCoefficients()))
        x0, v0, growth = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros(len(x))
        noise = np.zeros((len(x) - 1, n, 3)) if includeNoise else None
        _call(
            "computeSegmentGradient",
            self,
            _checked(context),
            _splitting(splitting),
            len(x) - 1,
            x,
            None if box is None else _boxes(box, 1),
            given["positionGradients"],
            given["velocityGradients"],
            given["velocities"],
            None if chain is None else _array(astuple(chain)),
            states,
            operator.index(truncation),
            float(clipping),
            c,
            x0,
            v0,
            growth,
            noise,
            chain_state,
        )
        return SegmentGradient(c, x0, v0, noise, growth, chain_state)

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
        x, b = _frames(positions, boxes, particles)
        vectors = _array(v)
        expected = (particles, 3) if x is None else x.shape
        if vectors.shape != expected:
            raise openmm.OpenMMException(
                f"SplinePairForce: expected vectors of shape {expected}, got {vectors.shape}"
            )
        frames = 1 if x is None else len(x)
        h = np.zeros(expected) if hessian else None
        c = np.zeros((frames, pairs, coefficients)) if parameters else None
        _call("computeProducts", self, _checked(context), frames, x, b, vectors, h, c)
        return h, c[0] if x is None and c is not None else c

    def _sizes(self) -> tuple[int, int, int]:
        """Numbers of pairs of types, coefficients and particles."""
        n_types, knots, particles = (int(n) for n in self._describe()[0][:3])
        return n_pairs_of_types(n_types), knots - 2, particles


def _pairs_of_types(n_types: int) -> Iterator[tuple[int, int]]:
    """In the order of ``potentials.pair_index``."""
    return combinations_with_replacement(range(n_types), 2)


def _frames(
    positions: ArrayLike | None, boxes: ArrayLike | None, particles: int
) -> tuple[Array | None, Array | None]:
    """Stored frames and their boxes, checked; None for those of the Context."""
    if positions is None:
        return None, None if boxes is None else _boxes(boxes, 1)
    x = _array(positions)
    if x.ndim != 3 or x.shape[1:] != (particles, 3):
        raise openmm.OpenMMException(
            f"SplinePairForce: expected positions of shape [frames, {particles}, 3], got {x.shape}"
        )
    return x, None if boxes is None else _boxes(boxes, len(x))


def _boxes(boxes: ArrayLike, frames: int) -> Array:
    b = _array(boxes).reshape(-1, 3, 3)
    if len(b) != frames:
        raise openmm.OpenMMException(
            f"SplinePairForce: expected boxes of shape ({frames}, 3, 3), got {b.shape}"
        )
    return b


def _shaped(name: str, numbers: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = _array(numbers)
    if array.shape != shape:
        raise openmm.OpenMMException(
            f"SplinePairForce: {name}: expected the shape {shape}, got {array.shape}"
        )
    return array


def _splitting(splitting: Sequence[float]) -> Array:
    if len(splitting) != 5:
        raise openmm.OpenMMException(
            "SplinePairForce: expected five numbers in splitting (kick1, drift1, scale, drift2, "
            f"kick2), got {len(splitting)}"
        )
    return _array(splitting)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C interface; its error becomes an OpenMMException.

    Arrays stand for the addresses of their numbers, objects of OpenMM for those of what is behind.
    """
    if getattr(_api, f"DiffSim_{name}")(*map(_as_c, arguments)) != 0:
        raise openmm.OpenMMException(_api.DiffSim_getError().decode())


_OPENMM = (openmm.Force, openmm.Context)


def _as_c(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.__array_interface__["data"][0])
    if isinstance(argument, _OPENMM):
        return ctypes.c_void_p(int(argument.this))
    if isinstance(argument, (int, np.integer)):
        if not -(2**31) <= argument < 2**31:  # ctypes would drop the upper bits
            raise openmm.OpenMMException(
                f"SplinePairForce: expected a whole number of 32 bits, got {argument}"
            )
        return int(argument)
    return ctypes.c_double(argument) if isinstance(argument, float) else argument


def _checked(context: Any) -> openmm.Context:
    """Any other object of OpenMM would be taken for a Context by the C interface."""
    if not isinstance(context, openmm.Context):
        raise openmm.OpenMMException(
            f"SplinePairForce: expected an openmm.Context, got {type(context).__name__}"
        )
    return context


def _array(numbers: ArrayLike) -> Array:
    return np.ascontiguousarray(numbers, dtype=np.float64)


def _int32(numbers: ArrayLike) -> NDArray[np.int32]:
    given = np.asarray(numbers)
    with np.errstate(invalid="ignore"):
        whole = np.ascontiguousarray(given, dtype=np.int32)
    if given.dtype != np.int32 and not np.array_equal(whole, given):
        raise openmm.OpenMMException(
            "SplinePairForce: expected whole numbers of 32 bits, got "
            f"{given[whole != given].flat[0]}"
        )
    return whole


def _addresses(arrays: Sequence[NDArray[Any] | None]) -> Any:
    """Pointers to arrays that the caller keeps alive."""
    return (ctypes.c_void_p * len(arrays))(*[_as_c(array) for array in arrays])
