"""Force fields that a segment can be integrated with: forces, and their derivatives.

A field is a function of positions [particles, 3] and the index of the time, which gives forces
[particles, 3] with a graph. None keeps more than the positions for its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...potentials import SplineBasis
from ...statistics.kernels import PairSums
from ..adapters import coefficients_in, other_forces, set_coefficients
from ..native import SplinePairForce

Array = NDArray[np.float64]
Field = Callable[[Tensor, int], Tensor]

_DISPLACEMENT = 1e-6  # nm, of the particle that a directional difference moves most
_PARAMETER_STEP = 1e-4  # of a global parameter, relative


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


class SystemField:
    """All forces of a System, with the learned one among them: what such fields share.

    Derivatives are those of the learned force plus directional differences of all other forces,

        H w = -(F(x + h w) - F(x - h w)) / (2 h),

    in double precision: on the Reference platform for Contexts of Reference and CPU, on the same
    device for the others. ``diagnostics["difference_error"]`` is the measured relative error of the
    last of them.

    Parameters
    ----------
    context : openmm.Context
    coefficients : Tensor [pairs of types, coefficients], or [1, parameters] of a network
        Of the learned force, with a graph to what they depend on. They, and the Context's global
        parameters as they are now, are those of the segment whatever the Context has later.
    differences : DifferenceContext
    box : array [3, 3] or None
        nm, where the force is periodic.
    protocol : mapping of str to Tensor [times], optional
        Values of the Context's global parameters at each time.
    """

    def __init__(
        self,
        context: openmm.Context,
        coefficients: Tensor,
        differences: DifferenceContext,
        box: Array | None,
        protocol: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.context = context
        self.coefficients = coefficients
        self.differences = differences
        self.parameters = dict(context.getParameters())
        self.box = box
        self.protocol = dict(protocol or {})
        self.diagnostics: dict[str, Any] = {}

    def __call__(self, positions: Tensor, time: int) -> Tensor:
        """Forces, kJ/mol/nm, of the shape of the positions."""
        values = [series[time] for series in self.protocol.values()]
        return _SystemForces.apply(self, positions, self.coefficients, *values)  # type: ignore[no-untyped-call]

    def lent(self) -> AbstractContextManager[None]:
        """What a field takes hold of while a segment runs; afterwards it is as before."""
        return nullcontext()

    def forces(self, positions: Array, values: Sequence[float]) -> Array:
        """Forces at values of the protocol's parameters."""
        raise NotImplementedError

    def learned_products(self, positions: Array, w: Array) -> tuple[Array, Array]:
        """Derivatives of w . F_learned with respect to positions and coefficients."""
        raise NotImplementedError

    def parameter_product(self, positions: Array, w: Array) -> Array:
        """sum_ti w_ti . dF_ti/dc over times and particles, of the shape of the coefficients.

        Positions and w are [times, particles, 3].
        """
        raise NotImplementedError

    def products(
        self, positions: Array, w: Array, values: Sequence[float]
    ) -> tuple[Array, Array, list[float]]:
        """Derivatives of w . F with respect to positions, coefficients and global parameters."""
        slope, by_coefficient = self.learned_products(positions, w)
        by_value = [0.0] * len(values)
        if self.differences.contribute:
            self.set_conditions(values)
            protocol = dict(zip(self.protocol, values, strict=True))
            shape = (-1, *positions.shape[-2:])
            rows = []
            for x, row in zip(positions.reshape(shape), w.reshape(shape), strict=True):
                product, error = self.differences.product(x, row)
                self.diagnostics["difference_error"] = error
                rows.append(product)
                for k, (name, value) in enumerate(protocol.items()):
                    by_value[k] += self.differences.parameter_product(x, row, name, value)
            slope = slope + np.reshape(rows, positions.shape)
        return slope, by_coefficient, by_value

    def set_conditions(self, values: Sequence[float]) -> None:
        """Give the differences this box, these coefficients and these global parameters."""
        protocol = dict(zip(self.protocol, values, strict=True))
        self.differences.set_conditions(
            self.box, {**self.parameters, **protocol}, self.coefficients.detach().numpy()
        )


class ContextField(SystemField):
    """The forces of a Context that has a pair potential, from its own platform.

    Derivatives of the learned force are native where it is native.

    Parameters
    ----------
    context : openmm.Context
        Lent for every evaluation, and then as before.
    force : openmm.Force
        The learned one, that ``PairPotential.attach`` made.
    basis : SplineBasis
        Of the learned force.
    sums : callable
        From ``forces.sums_over_pairs``.
    coefficients, differences, box, protocol
        See ``SystemField``.
    """

    def __init__(
        self,
        context: openmm.Context,
        force: openmm.Force,
        basis: SplineBasis,
        sums: Callable[..., PairSums],
        coefficients: Tensor,
        differences: DifferenceContext,
        box: Array | None,
        protocol: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(context, coefficients, differences, box, protocol)
        self.force = force
        self.basis = basis
        self._sums = sums
        self._lent = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The Context with this box and these coefficients; afterwards it is as before."""
        if self._lent:
            yield
            return
        context = self.context
        before = context.getState(getPositions=True, getVelocities=True, getParameters=True)
        self._lent = True
        try:
            with self._own_coefficients():
                for name, value in self.parameters.items():
                    if context.getParameter(name) != value:
                        context.setParameter(name, value)
                if self.box is not None:
                    context.setPeriodicBoxVectors(*self.box)
                yield
        finally:
            self._lent = False
            context.setState(before)

    def forces(self, positions: Array, values: Sequence[float]) -> Array:
        """Forces from the Context's own platform, [particles, 3]."""
        with self.lent():
            for name, value in zip(self.protocol, values, strict=True):
                self.context.setParameter(name, value)
            self.context.setPositions(positions)
            return forces_of(self.context)

    def learned_products(self, positions: Array, w: Array) -> tuple[Array, Array]:
        """Derivatives of w . F with respect to positions and coefficients."""
        if not isinstance(self.force, SplinePairForce):
            # The differences include a table.
            return np.zeros_like(w), self._table_product(positions, w)
        with self._own_coefficients():
            hessian, parameters = self.force.computeProducts(
                self.context, w[None], positions[None], self._boxes(1)
            )
        return -hessian[0], parameters[0].ravel()

    def parameter_product(self, positions: Array, w: Array) -> Array:
        """sum_ti w_ti . dF_ti/dc, [pairs of types, coefficients]."""
        if isinstance(self.force, SplinePairForce):
            boxes = self._boxes(len(positions))
            each = self.force.computeForceParameterProduct(self.context, w, positions, boxes)
            return np.asarray(each.sum(axis=0)).ravel()
        rows = [self._table_product(x, row) for x, row in zip(positions, w, strict=True)]
        return np.asarray(np.sum(rows, axis=0))

    def _table_product(self, positions: Array, w: Array) -> Array:
        """By differences of the basis sums: dF/dc = -dS/dx."""
        step = displacement(w)
        frames = np.stack([positions + step * w, positions - step * w])
        sums = self._sums(frames, self._boxes(2)).basis
        return np.asarray((sums[1] - sums[0]) / (2 * step)).ravel()

    def _own_coefficients(self) -> AbstractContextManager[None]:
        c = self.coefficients.detach().numpy().reshape(-1, self.basis.n_coefficients)
        return coefficients_in(self.force, self.context, self.basis, c)

    def _boxes(self, frames: int) -> Array | None:
        return None if self.box is None else np.repeat(self.box[None], frames, axis=0)


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
        self, context: openmm.Context, force: openmm.Force, basis: SplineBasis | None
    ) -> None:
        # A table's own derivatives are taken by differences, like those of any other force.
        is_table = isinstance(force, openmm.CustomNonbondedForce)
        self._learned = set() if is_table else {force.getName()}
        self._table = force.getName() if is_table else None
        self._basis = basis
        self._original = context
        self._system = self._copy()
        self._text = openmm.XmlSerializer.serialize(self._system)
        self._context: openmm.Context | None = None

    @property
    def contribute(self) -> bool:
        """Is there anything to take differences of?"""
        return bool(self._system.getNumForces() > 0)

    def refresh(self) -> None:
        """Take over what has changed in the forces of the original System."""
        system = self._copy()
        text = openmm.XmlSerializer.serialize(system)
        if text != self._text:
            self._system, self._text, self._context = system, text, None

    def set_conditions(
        self, box: Array | None, parameters: Mapping[str, float], coefficients: Array
    ) -> None:
        """Set a box, global parameters, and the coefficients of a table."""
        context = self._made()
        if box is not None:
            context.setPeriodicBoxVectors(*box)
        for name, value in parameters.items():
            if name in context.getParameters():
                context.setParameter(name, value)
        for force in self._system.getForces():
            if force.getName() == self._table:
                assert self._basis is not None
                c = coefficients.reshape(-1, self._basis.n_coefficients)
                set_coefficients(force, self._basis, c)
                force.updateParametersInContext(context)

    def forces(self, positions: Array) -> Array:
        """Of all that differences are taken of, [particles, 3]."""
        context = self._made()
        context.setPositions(positions)
        return forces_of(context)

    def product(self, positions: Array, w: Array) -> tuple[Array, float]:
        """(dF/dx) w, [particles, 3], and its relative error, from twice the displacement."""
        step = displacement(w)
        near, far = (self._difference(positions, w, size) for size in (step, 2 * step))
        largest = float(np.abs(near).max())
        error = float(np.abs(far - near).max()) / (3 * largest) if largest > 0 else 0.0
        return near, error

    def parameter_product(self, positions: Array, w: Array, name: str, value: float) -> float:
        """w . dF/d(a global parameter)."""
        context = self._made()
        if name not in context.getParameters():
            return 0.0
        context.setPositions(positions)
        step = _PARAMETER_STEP * max(abs(value), 1.0)
        sides = []
        for sign in (1, -1):
            context.setParameter(name, value + sign * step)
            sides.append(float(np.sum(w * forces_of(context))))
        context.setParameter(name, value)
        return (sides[0] - sides[1]) / (2 * step)

    def _difference(self, positions: Array, w: Array, step: float) -> Array:
        context = self._made()
        sides = []
        for sign in (1, -1):
            context.setPositions(positions + sign * step * w)
            sides.append(forces_of(context))
        return np.asarray((sides[0] - sides[1]) / (2 * step))

    def _copy(self) -> openmm.System:
        groups = self._original.getIntegrator().getIntegrationForceGroups()
        return other_forces(self._original.getSystem(), self._learned, groups)

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


def displacement(w: Array) -> float:
    """What to multiply w with, so that the largest of its vectors becomes a small displacement."""
    largest = float(np.sqrt(np.max(np.sum(w**2, axis=-1))))
    return _DISPLACEMENT / largest if largest > 0 else 1.0


def forces_of(context: openmm.Context) -> Array:
    """Forces that the integrator of a Context acts with, kJ/mol/nm, [particles, 3]."""
    groups = context.getIntegrator().getIntegrationForceGroups()
    forces = context.getState(getForces=True, groups=groups).getForces(asNumpy=True)
    return np.asarray(
        forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer), dtype=np.float64
    )


def box_of(context: openmm.Context) -> Array:
    """Box vectors of a Context, nm, [3, 3]."""
    box = context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    return np.asarray(box, dtype=np.float64)
