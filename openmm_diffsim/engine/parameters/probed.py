"""Parameters whose part in the energy is found by evaluations of their Force."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from torch import Tensor

from ...errors import AttachError, SamplingError
from ...potentials.values import Values
from ...statistics.polynomials import Polynomial, polynomial_of
from .probe import Probe, scratch_xml, trial_configurations
from .term import ForcePlace, FrameFeatures, Term

Array = NDArray[np.float64]

_LOG = logging.getLogger(__name__)
_SPAN = 0.5  # of a parameter's value: how far from there it is tried
_FAR = 8.0  # of that: a polynomial has to hold as far as there
_N_FAR = 6  # sets of parameters that tell
_ASIDE = 0.37  # of that: off all nodes
# What a polynomial may miss of a frame, of how much the energy varies and of the energy itself.
_MISSED = np.array([1e-7, 1e-12])
_MISSED_SINGLE = np.array([1e-4, 1e-5])  # where forces are in single precision


@dataclass(frozen=True, eq=False)
class Layout:
    """What is learned of a System.

    Attributes
    ----------
    own : Any
        Where the parameters are in the Force.
    xml : str
        A System with the Forces alone.
    """

    own: Any
    xml: str


class ProbedTerm(Term):
    """Parameters p of a Force, found out by evaluating it alone; for subclasses.

    Where the energy is a polynomial of them, U = U_0 + sum_k c_k S_k with monomials c of p, and its
    values at as many sets of parameters give S of a frame. One more, at the present parameters,
    tells whether that is all: SamplingError if not. Else the coefficients are p, and U is evaluated
    anew from stored frames, with OpenMM's dU/dp where it has that, or by differences.
    """

    def __init__(self, name: str, place: ForcePlace, own: Values) -> None:
        super().__init__(name, place)
        self.own = own
        self.polynomial: Polynomial | None = None
        self.by_differences = False
        """Is OpenMM's own dU/dp not to be had, or not what differences say?"""

    # To give --------------------------------------------------------------------------------------

    def put(self, force: Any, own: Any, numbers: Array) -> None:
        """Give a Force these values, [values]."""
        raise NotImplementedError

    def blank(self, force: Any) -> None:
        """Put constants in place of all that might be learned so, whatever the layout is."""

    def related(self) -> list[list[int]]:
        """Which values may have to do with each other; none: all of them."""
        return []

    # Torch ----------------------------------------------------------------------------------------

    def coefficients(self) -> Tensor:
        """The monomials of the parameters, or these themselves."""
        p: Tensor = self.own()
        return p if self.polynomial is None else self.polynomial.monomials(p)

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """One."""
        return {"own": (len(self.own if self.polynomial is None else self.polynomial),)}

    def form(self) -> dict[str, Any]:
        """Also what the coefficients are."""
        p = self.polynomial
        known = {} if p is None else {"centre": p.centre.tolist(), "scale": p.scale.tolist()}
        return super().form() | known

    # OpenMM ---------------------------------------------------------------------------------------

    def begin(self, system: openmm.System, own: Any, linear: bool | None = None) -> None:
        """Find out what the energy of this System is of the parameters."""
        layout = self.layout_of(system, own)
        self.keep(system, layout)
        probe, trials = Probe(self, own, layout.xml), trial_configurations(system)
        if linear is not False:
            self.polynomial = self._polynomial(probe, trials)
        self.energy_is_linear = self.polynomial is not None
        if self.polynomial is None:
            self.by_differences = not self._derivatives_hold(probe, trials)
        _LOG.info("%s: %s", self.name, self._route())

    def _route(self) -> str:
        if self.polynomial is not None:
            degree, n = self.polynomial.exponents.sum(axis=1).max(), len(self.polynomial)
            return f"the energy is a polynomial of degree {degree}: exact, from {n} features"
        by = "differences" if self.by_differences else "OpenMM's own derivatives"
        return f"the energy is no polynomial: evaluated anew from stored frames, with {by}"

    def _derivatives_hold(self, probe: Probe, trials: list[tuple[Array, Array]]) -> bool:
        """Does OpenMM give dU/dp, and is it what differences say?"""
        if not probe.knows_derivatives:
            return False
        centre, scale = trial_range(self.own)
        for trial in trials:
            probe.place(*trial)
            given, found = (probe.slopes(centre, scale, how) for how in (False, True))
            if not np.allclose(given, found, rtol=1e-4, atol=1e-6 * np.abs(given).max()):
                _LOG.warning(
                    "%s: dU/dp is %s by OpenMM and %s by differences: differences are taken",
                    self.name, given, found,
                )  # fmt: skip
                return False
        return True

    def slopes(self, probe: Probe, numbers: Array) -> Array:
        """dU/dp of a frame, [values], by the route that was chosen."""
        return probe.slopes(numbers, trial_range(self.own)[1], self.by_differences)

    def frame_of(self, force: Any) -> Any:
        """All of it but what might be learned, and what a Context has in place of defaults."""
        copy = openmm.XmlSerializer.clone(force)
        self.blank(copy)
        copy.setName("")
        copy.setForceGroup(0)
        if hasattr(copy, "setGlobalParameterDefaultValue"):
            for k in range(copy.getNumGlobalParameters()):
                copy.setGlobalParameterDefaultValue(k, 0.0)
        return openmm.XmlSerializer.serialize(copy)

    def is_apart_from(self, other: Term) -> bool:
        """Nothing else of its Forces is learned: what that has to do with this is not known."""
        return not set(self.places) & set(other.places)

    def layout_of(self, system: openmm.System, own: Any) -> Layout:
        """In a System where the parameters are there."""
        forces = [place.find(system) for place in self.places]
        return Layout(own, scratch_xml(system, forces))

    def _polynomial(self, probe: Probe, trials: list[tuple[Array, Array]]) -> Polynomial | None:
        centre, scale = trial_range(self.own)

        def of_trials(p: Array) -> Array:
            energies = []
            for positions, box in trials:
                probe.place(positions, box)
                energies.append(probe.energy(p))
            return np.array(energies)

        try:
            found = polynomial_of(of_trials, centre, scale, self.related())
            if found is None or found.reaches(of_trials, _far(self.own, centre, scale)):
                return found
            _LOG.info(
                "%s: its energy is a polynomial near %s only; bounds= within which it is one make "
                "its features exact", self.name, centre,
            )  # fmt: skip
            return None
        except openmm.OpenMMException as error:
            raise AttachError(
                f"{self.name}: OpenMM refuses other values than those of the System: {error}; "
                "say by bounds= what it may be"
            ) from error

    def write(self, force: Any, layout: Layout) -> None:
        """Give the Force the present values."""
        self.put(force, layout.own, self.own.numbers())

    def hide(self, force: Any, layout: Layout) -> None:
        """Ones."""
        self.put(force, layout.own, np.ones(len(self.own)))

    def features(self, context: openmm.Context, layout: Layout) -> FrameFeatures:
        """By evaluations at the nodes of the polynomial; two more tell whether it holds."""
        assert self.polynomial is not None
        probe, polynomial = Probe(self, layout.own, layout.xml, context), self.polynomial
        aside = polynomial.centre + _ASIDE * polynomial.scale
        checks = np.array([self.own.numbers(), aside])
        missed = _MISSED_SINGLE if probe.is_single else _MISSED

        def found(positions: Array, box: Array | None) -> Array:
            probe.place(positions, box)
            energies, there = probe.energies(polynomial.nodes), probe.energies(checks)
            said = np.array([polynomial.at(energies, p) for p in checks])
            every = np.concatenate([energies, there])
            sizes = np.array([np.ptp(every), np.abs(every).max()])
            if not np.abs(there - said).max() <= missed @ sizes:
                raise self._no_polynomial(checks, there, said)
            return polynomial.features(energies)

        return FrameFeatures(found)

    def _no_polynomial(self, p: Array, there: Array, said: Array) -> SamplingError:
        worst = int(np.argmax(np.abs(there - said)))
        return SamplingError(
            f"{self.name}: the energy of a frame at {p[worst].tolist()} is {there[worst]:.9g} "
            f"kJ/mol, but {said[worst]:.9g} as a polynomial of the parameters: declare these with "
            "linear=False, so that frames are stored and evaluated anew",
            reason="features",
        )


def trial_range(values: Values) -> tuple[Array, Array]:
    """About which parameters, and how far from there, the energy is tried."""
    v = values.numbers()
    centre, scale = v.copy(), np.where(v == 0, 1.0, _SPAN * np.abs(v))
    for name, (low, high) in values.bounds.items():
        k = values.names.index(name)
        centre[k], scale[k] = (low + high) / 2, (high - low) / 2
    return centre, scale


def _far(values: Values, centre: Array, scale: Array) -> Array:
    """Parameters to ask a polynomial at that was found near the centre, [sets, parameters].

    All of them as large, and as small, as they can become, and some between.
    """
    rng = np.random.default_rng(1)
    signs = np.vstack([np.ones(len(centre)), -np.ones(len(centre))])
    between = rng.uniform(-1, 1, size=(_N_FAR - len(signs), len(centre)))
    bounded = np.array([name in values.bounds for name in values.names])
    points = centre + np.where(bounded, 1.0, _FAR) * scale * np.vstack([signs, between])
    least = np.where(bounded | (not values.positive), -np.inf, scale / _FAR)
    return np.asarray(np.maximum(points, least))
