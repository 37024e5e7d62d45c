"""Force fields that a segment can be integrated with: forces, and their derivatives.

A field is a function of positions [particles, 3] and the index of the time, which gives forces
[particles, 3] with a graph. None keeps more than the positions for its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import SegmentError
from ..adapters import FieldPart, has_energy, other_forces
from ..adapters.part import displacement

Array = NDArray[np.float64]
Field = Callable[[Tensor, int], Tensor]
Term = tuple[slice, FieldPart]

_PARAMETER_STEP = 1e-4  # of a global parameter, relative
_SAME_SLOPE = 1e-2  # of a one-sided difference, for half the step


class TorchField:
    """The forces of any energy that torch can differentiate twice.

        field = TorchField(lambda x: 0.5 * k * (x**2).sum(), [k])

    Parameters
    ----------
    energy : callable
        From positions [particles, 3] in nm to a scalar in kJ/mol. What it computes is done again
        when gradients are asked for, so no graph is kept meanwhile.
    parameters : iterable of Tensor
        What it depends on besides, such as ``module.parameters()``.
    """

    def __init__(self, energy: Callable[[Tensor], Tensor], parameters: Iterable[Tensor]) -> None:
        self.energy = energy
        self.parameters = tuple(parameters)

    def __call__(self, positions: Tensor, time: int) -> Tensor:
        """Forces, kJ/mol/nm, [particles, 3]."""
        return _TorchForces.apply(self, positions, *self.parameters)  # type: ignore[no-untyped-call]


class _TorchForces(torch.autograd.Function):
    """F = -dU/dx; backward differentiates it once more."""

    @staticmethod
    def forward(ctx: Any, field: TorchField, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.field = field
        ctx.save_for_backward(x)
        return _minus_gradient(field, x.detach().requires_grad_(True), create_graph=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[Any, ...]:
        (saved,) = ctx.saved_tensors
        x = saved.detach().requires_grad_(True)
        with torch.enable_grad():
            product = torch.sum(w * _minus_gradient(ctx.field, x, create_graph=True))
            wanted = [x, *(p for p in ctx.field.parameters if p.requires_grad)]
            found = iter(torch.autograd.grad(product, wanted, allow_unused=True))
        gx = next(found)
        return (None, gx, *(next(found) if p.requires_grad else None for p in ctx.field.parameters))


def _minus_gradient(field: TorchField, x: Tensor, create_graph: bool) -> Tensor:
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(field.energy(x), x, create_graph=create_graph)
    return -slope


class LearnedParts:
    """The learned terms in a Context, and what there is besides them.

    Parameters
    ----------
    context : openmm.Context
    terms : sequence of (slice, FieldPart)
        Each with where its coefficients are among all.
    """

    def __init__(self, context: openmm.Context, terms: Sequence[Term]) -> None:
        self.context = context
        self.terms = tuple(terms)
        self.in_context = not any(part.computes_forces for _, part in terms)
        """Do all forces come from the Context?"""
        others = [(where, part) for where, part in terms if not self.is_exact(part)]
        left_out = [part.name for _, part in terms if self.is_exact(part)]
        self.differences = DifferenceContext(context, left_out, others)

    def is_exact(self, part: FieldPart) -> bool:
        """Does it give derivatives of its own? Else they come by differences."""
        return part.computes_forces or (self.in_context and part.has_products)

    @property
    def native(self) -> FieldPart | None:
        """The one term, where the plugin runs it and there is nothing besides."""
        (_, first), *more = self.terms
        alone = not more and not self.differences.contribute
        return first if alone and first.native is not None else None


class SystemField:
    """All forces of a System, with the learned ones among them.

    Forces are those of the Context, on its own platform, which is lent for every evaluation and
    then as before. Where a learned term computes its own, such as a network, the Context is not
    asked: all other forces come from OpenMM in double precision. Positions may then be those of
    several segments, [segments, particles, 3], which such a term is given at once.

    Derivatives are those that the learned terms give, and directional differences of all else,

        H w = -(F(x + h w) - F(x - h w)) / (2 h),

    in double precision: on the Reference platform for Contexts of Reference and CPU, on the same
    device for the others. ``diagnostics["difference_error"]`` is the measured relative error of the
    last of them.

    Parameters
    ----------
    learned : LearnedParts
    coefficients : Tensor [coefficients]
        Of all learned terms, with a graph to what they depend on. They, and the Context's global
        parameters as they are now, are those of the segment whatever the Context has later.
    box : array [3, 3] or None
        nm, where a learned term is periodic.
    protocol : mapping of str to Tensor [times], optional
        Values of the Context's global parameters at each time.
    """

    def __init__(
        self,
        learned: LearnedParts,
        coefficients: Tensor,
        box: Array | None,
        protocol: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.learned = learned
        self.context = learned.context
        self.differences = learned.differences
        self.coefficients = coefficients
        self.parameters = dict(self.context.getParameters())
        self.box = box
        self.protocol = dict(protocol or {})
        self.diagnostics: dict[str, Any] = {}
        self._c = coefficients.detach().numpy().copy()
        self._is_lent = False

    def __call__(self, positions: Tensor, time: int) -> Tensor:
        """Forces, kJ/mol/nm, of the shape of the positions."""
        values = [series[time] for series in self.protocol.values()]
        return _SystemForces.apply(self, positions, self.coefficients, *values)  # type: ignore[no-untyped-call]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The Context with this box and these coefficients; afterwards it is as before."""
        if self._is_lent or not self.learned.in_context:
            yield
            return
        before = self.context.getState(getPositions=True, getVelocities=True, getParameters=True)
        self._is_lent = True
        try:
            with ExitStack() as stack:
                for where, part in self.learned.terms:
                    stack.enter_context(part.having(self._c[where]))
                self._set_parameters()
                if self.box is not None:
                    self.context.setPeriodicBoxVectors(*self.box)
                yield
        finally:
            self._is_lent = False
            self.context.setState(before)

    def forces(self, positions: Array, values: Sequence[float]) -> Array:
        """Forces, of the shape of the positions, at values of the protocol's parameters."""
        frames = positions.reshape(-1, *positions.shape[-2:])
        if self.learned.in_context:
            found = self._of_context(frames, values)
        else:
            found = self._of_others(frames, values)
            for where, part in self.learned.terms:
                if part.computes_forces:
                    found += part.forces(self._c[where], frames, self._box_of(part))
        return found.reshape(positions.shape)

    def products(
        self, positions: Array, w: Array, values: Sequence[float]
    ) -> tuple[Array, Array, list[float]]:
        """Derivatives of w . F with respect to positions, coefficients and global parameters."""
        frames, rows = (a.reshape(-1, *positions.shape[-2:]) for a in (positions, w))
        slope, by_value = self._differences(frames, rows, values)
        by_coefficient = np.zeros_like(self._c)
        for where, part in self.learned.terms:
            arguments = (self._c[where], frames, rows, self._box_of(part))
            if self.learned.is_exact(part):
                more, by_coefficient[where] = part.products(*arguments)
                slope = slope + more
            else:
                by_coefficient[where] = part.parameter_product(*arguments)
        return slope.reshape(positions.shape), by_coefficient, by_value

    def parameter_product(self, positions: Array, w: Array) -> Array:
        """sum_ti w_ti . dF_ti/dc over times and particles, [coefficients].

        Positions and w are [times, particles, 3].
        """
        found = np.zeros_like(self._c)
        for where, part in self.learned.terms:
            found[where] = part.parameter_product(self._c[where], positions, w, self._box_of(part))
        return found

    def _of_context(self, frames: Array, values: Sequence[float]) -> Array:
        with self.lent():
            for name, value in zip(self.protocol, values, strict=True):
                self.context.setParameter(name, value)
            return np.array([forces_at(self.context, x) for x in frames])

    def _of_others(self, frames: Array, values: Sequence[float]) -> Array:
        if not self.differences.contribute:
            return np.zeros_like(frames)
        self._set_conditions(values)
        return np.array([self.differences.forces(x) for x in frames])

    def _differences(
        self, frames: Array, rows: Array, values: Sequence[float]
    ) -> tuple[Array, list[float]]:
        """What is known by differences: derivatives by positions and by global parameters."""
        slope, by_value = np.zeros_like(frames), [0.0] * len(values)
        if not self.differences.contribute:
            return slope, by_value
        self._set_conditions(values)
        for k, (x, row) in enumerate(zip(frames, rows, strict=True)):
            slope[k], self.diagnostics["difference_error"] = self.differences.product(x, row)
            for j, (name, value) in enumerate(zip(self.protocol, values, strict=True)):
                by_value[j] += self.differences.parameter_product(x, row, name, value)
        return slope, by_value

    def _set_parameters(self) -> None:
        for name, value in self.parameters.items():
            if self.context.getParameter(name) != value:
                self.context.setParameter(name, value)

    def _set_conditions(self, values: Sequence[float]) -> None:
        """Give the differences this box, these coefficients and these global parameters."""
        protocol = dict(zip(self.protocol, values, strict=True))
        self.differences.set_conditions(self.box, {**self.parameters, **protocol}, self._c)

    def _box_of(self, part: FieldPart) -> Array | None:
        return self.box if part.periodic else None


class _SystemForces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, field: SystemField, x: Tensor, c: Tensor, *values: Tensor) -> Tensor:
        ctx.field = field
        ctx.values = [float(value) for value in values]
        ctx.save_for_backward(x)
        return torch.from_numpy(field.forces(x.numpy(force=True), ctx.values))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        by_position, by_coefficient, by_value = ctx.field.products(
            x.numpy(force=True), w.contiguous().numpy(), ctx.values
        )
        return (
            None,
            torch.from_numpy(by_position),
            torch.from_numpy(by_coefficient),
            *(torch.tensor(value, dtype=torch.float64) for value in by_value),
        )


class DifferenceContext:
    """Directional differences, in double precision, of what has no native derivatives."""

    def __init__(
        self, context: openmm.Context, left_out: Collection[str], terms: Sequence[Term] = ()
    ) -> None:
        self._left_out = left_out  # names of Forces
        self._terms = terms  # learned ones, that are not left out
        self._original = context
        self._system = self._copy()
        self._texts = self._written()
        self._context: openmm.Context | None = None
        self._coefficients = np.zeros(0)  # that the Context was given

    @property
    def contribute(self) -> bool:
        """Is there anything to take differences of?"""
        return bool(self._system.getNumForces() > 0)

    def refresh(self) -> None:
        """Take over what has changed in the forces of the original System.

        It writes these forces, and copies the System only where one has changed.
        """
        texts = self._written()
        if texts != self._texts:
            self._system, self._texts, self._context = self._copy(), texts, None
            self._coefficients = np.zeros(0)

    def set_conditions(
        self, box: Array | None, parameters: Mapping[str, float], coefficients: Array
    ) -> None:
        """Set a box, global parameters, and the coefficients of learned terms."""
        context = self._made()
        if box is not None:
            context.setPeriodicBoxVectors(*box)
        for name, value in parameters.items():
            if name in context.getParameters():
                context.setParameter(name, value)
        if self._terms and not np.array_equal(self._coefficients, coefficients):
            forces = {force.getName(): force for force in self._system.getForces()}
            for where, part in self._terms:
                if part.name in forces:  # its force group may be one that is not integrated
                    part.put(forces[part.name], context, coefficients[where])
            self._coefficients = coefficients.copy()

    def forces(self, positions: Array) -> Array:
        """Of all that differences are taken of, [particles, 3]."""
        return forces_at(self._made(), positions)

    def product(self, positions: Array, w: Array) -> tuple[Array, float]:
        """(dF/dx) w, [particles, 3], and its relative error, from twice the displacement."""
        step = displacement(w)
        near, far = (self._difference(positions, w, size) for size in (step, 2 * step))
        largest = float(np.abs(near).max())
        error = float(np.abs(far - near).max()) / (3 * largest) if largest > 0 else 0.0
        return near, error

    def parameter_product(self, positions: Array, w: Array, name: str, value: float) -> float:
        """w . dF/d(a global parameter); at a bound of the parameter, from its one side.

        Raises
        ------
        SegmentError
            If the forces are no numbers on both sides, or have no slope at the bound.
        """
        context = self._made()
        if name not in context.getParameters():
            return 0.0
        context.setPositions(positions)
        step = _PARAMETER_STEP * max(abs(value), 1.0)

        def at(steps: float) -> float:
            return float(np.sum(w * _forces_having(context, name, value + steps * step)))

        try:
            above, below = at(1), at(-1)
            if np.isfinite(above - below):
                return (above - below) / (2 * step)
            return _one_sided(at, 1 if np.isfinite(above) else -1, name, value) / step
        finally:
            context.setParameter(name, value)

    def _difference(self, positions: Array, w: Array, step: float) -> Array:
        context = self._made()
        sides = []
        for sign in (1, -1):
            sides.append(forces_at(context, positions + sign * step * w))
        return np.asarray((sides[0] - sides[1]) / (2 * step))

    def _copy(self) -> openmm.System:
        groups = self._original.getIntegrator().getIntegrationForceGroups()
        return other_forces(self._original.getSystem(), self._left_out, groups)

    def _written(self) -> list[str]:
        """Which groups act, and all forces but the learned ones, whose coefficients are set."""
        learned = {*self._left_out, *(part.name for _, part in self._terms)}
        others = [f for f in self._original.getSystem().getForces() if f.getName() not in learned]
        groups = str(self._original.getIntegrator().getIntegrationForceGroups())
        return [groups, *(openmm.XmlSerializer.serialize(f) for f in others if has_energy(f))]

    def _made(self) -> openmm.Context:
        if self._context is None:
            platform = self._original.getPlatform()
            properties = {}
            if "Precision" in platform.getPropertyNames():
                properties["Precision"] = "double"
                if "DeviceIndex" in platform.getPropertyNames():
                    device = platform.getPropertyValue(self._original, "DeviceIndex")
                    properties["DeviceIndex"] = device
            else:
                platform = openmm.Platform.getPlatform("Reference")
            integrator = openmm.VerletIntegrator(0.001)
            self._context = openmm.Context(self._system, integrator, platform, properties)
        return self._context


def _forces_having(context: openmm.Context, name: str, value: float) -> Array:
    """NaN where the System has no forces at that value of a global parameter."""
    try:
        context.setParameter(name, value)
        return forces_of(context)
    except openmm.OpenMMException:
        return np.full((context.getSystem().getNumParticles(), 3), np.nan)


def _one_sided(at: Callable[[float], float], side: int, name: str, value: float) -> float:
    """(-3 f(0) + 4 f(h) - f(2h)) / 2, which must be the same for half of h."""
    slopes = [side * (-3 * at(0) + 4 * at(side * h) - at(2 * side * h)) / (2 * h) for h in (1, 0.5)]
    scale = max(abs(slopes[1]), _PARAMETER_STEP * np.nan_to_num(abs(at(side / _PARAMETER_STEP))))
    if not abs(slopes[1] - slopes[0]) <= _SAME_SLOPE * scale:  # nor where one is NaN
        raise SegmentError(
            f"protocol: the forces have no slope with respect to {name!r} at {value:g}, where they "
            "begin to be numbers: let it stay off that bound, or take another form of the energy",
            got=value,
        )
    return slopes[1]


def forces_of(context: openmm.Context) -> Array:
    """Forces that the integrator of a Context acts with, kJ/mol/nm, [particles, 3]."""
    groups = context.getIntegrator().getIntegrationForceGroups()
    forces = context.getState(getForces=True, groups=groups).getForces(asNumpy=True)
    return np.asarray(
        forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer), dtype=np.float64
    )


def forces_at(context: openmm.Context, positions: Array) -> Array:
    """The same at other positions, [particles, 3] in nm, which the Context then has."""
    context.setPositions(positions)
    return forces_of(context)
