"""A network as an OpenMM Force, and back.

OpenMM calls it by Python (``PythonForce``, or openmm-torch's ``PythonTorchForce``, which hands
over tensors), or it is compiled and called by openmm-torch's ``TorchForce`` (see ``torchforce``).

A Force of Python holds a ``Computation`` with a copy of the network. What leads from a Force found
in a System back to it is a number in a global parameter of the Force; changing that parameter in a
Context also tells the integrator that its forces are old.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from ...errors import AttachError
from ...io import FrameWriter
from ...io.checksum import brief
from ...observables import Particles
from ...potentials import AttachOptions, NetworkPotential, adapts, flat_parameters
from ...samples import EvaluatedFrames
from ...samples.stored_run import NetworkParticles, StoredRun
from ...statistics.kernels import PairSums
from ...statistics.molecules import molecule_centres
from . import torchforce
from .base import Adapter, Array, FeatureRecorder, IntArray, unknown_to_context
from .computation import DTYPES, Computation, check_importable
from .network_part import NetworkPart
from .pair_force import NETWORK_BACKENDS
from .part import FieldPart
from .system import is_periodic, type_of_particle

_LOG = logging.getLogger(__name__)


@adapts(NetworkPotential)
class NetworkAdapter(Adapter):
    """Connects a ``NetworkPotential``, by Python or compiled for TorchForce."""

    potential: NetworkPotential
    _repeats = False  # was it asked twice for one energy?

    def build(self, system: openmm.System, options: AttachOptions) -> openmm.Force:
        """A PythonForce, PythonTorchForce or TorchForce, as the backend says."""
        if options.exclusions is not None or options.exclude_bonds:
            raise AttachError(
                "exclusions: a network sees all its neighbours; leave them out, and let the "
                "network or its prior learn what bonded particles have between them"
            )
        if options.precision is not None and options.precision not in DTYPES:
            raise AttachError(
                f"precision: expected 'single' or 'double', got {options.precision!r}"
            )
        potential, n = self.potential, system.getNumParticles()
        chosen = _choose(options.backend or "auto", potential)
        dtype = DTYPES[options.precision or "double"]
        type_of = type_of_particle(potential.n_types, n, options.atoms, options.types)
        in_box = is_periodic(system, options.periodic)
        if chosen == "torchforce":
            try:
                return torchforce.make(potential, type_of, in_box, dtype)
            except AttachError as error:
                if options.backend == "torchforce":
                    raise
                chosen = "python"
                _LOG.info("%s runs by backend='python' after all: %s", potential.name, error)
        return _python_force(Computation(potential, type_of, in_box, options.precision), chosen)

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        """One that calls a network."""
        if torchforce.is_torch_force(force):
            return torchforce.whole(force)
        return None if _token(force) is None else force

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        """Copy the present parameters.

        Nothing is rebuilt, but for a TorchForce, whose network is frozen: the System gets a new
        one as its last Force, the Context is reinitialized with its state preserved, and the old
        Force must not be used any more.
        """
        if not bool(torch.isfinite(flat_parameters(self.potential)).all()):
            raise AttachError(f"the parameters of {self.potential.name!r} are not finite")
        if context is not None and not self._repeats:
            self._check_repeats(context)
        dtype = None if context is None else _dtype_of(context)
        if torchforce.is_torch_force(self.force):
            if context is None:
                raise AttachError("a TorchForce gets new parameters only together with its Context")
            self.force = torchforce.replace(
                self.potential, self.force, context, dtype or torch.float64
            )
            return
        for computation in _computations(self.force):
            if context is not None:
                wanted = DTYPES.get(computation.precision or "", dtype or torch.float64)
                device = _device_of(context)
                if (wanted, device) != (computation.dtype, computation.device):
                    computation.place(wanted, device)
            computation.take_over(self.potential)
        if context is not None:
            _forget_forces(self.force, context)

    def _check_repeats(self, context: openmm.Context) -> None:
        """PotentialError if one configuration has two energies; nothing without positions."""
        with suppress(openmm.OpenMMException):
            state = context.getState(getPositions=True)
            x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            twin = Computation(self.potential, self.types(), self.is_periodic, None)
            atoms = torch.from_numpy(np.array(x[twin.type_of >= 0], dtype=np.float64))
            twin.potential.check_repeats(atoms, twin._box(state), twin._types)
            self._repeats = True

    def recorder(
        self, context: openmm.Context, particles: Particles, trajectory: str | Path | None
    ) -> FeatureRecorder:
        """The configurations themselves."""
        return FramesRecorder(self.potential, self.types(), particles.molecule_of, trajectory)

    def types(self) -> IntArray:
        """Type of each particle, int [particles], -1 for those left out."""
        if torchforce.is_torch_force(self.force):
            return torchforce.types_in(self.force)
        return _computations(self.force)[0].type_of

    def part(self, context: openmm.Context) -> FieldPart:
        """Forces by torch, in the precision of the potential's own parameters."""
        return NetworkPart(self.potential, self.types(), self.is_periodic)

    def options(self, temperature: float) -> AttachOptions:
        """By the same backend, in the same precision."""
        precision = None
        if not torchforce.is_torch_force(self.force):
            precision = _computations(self.force)[0].precision
        made = super().options(temperature)
        return replace(made, backend=self.backend, precision=precision, temperature=None)

    @property
    def backend(self) -> str:
        """What runs the network: "torchforce", "pythontorchforce" or "python"."""
        return chosen_backend(self.force)

    @classmethod
    def portable(cls, force: Any) -> openmm.Force:
        """One that can be serialized with its present parameters."""
        if torchforce.is_torch_force(force):
            raise AttachError(
                f"the TorchForce {force.getName()!r} cannot be kept in a file: openmmtorch 1.5 "
                "crashes where it is read; attach the network with backend='python' to a System "
                "for that"
            )
        computation = _computations(force)[0].portable()
        twin = _python_force(computation, chosen_backend(force))
        twin.setName(force.getName())
        twin.setForceGroup(force.getForceGroup())
        return twin

    @classmethod
    def check_portable(cls, force: Any) -> None:
        """Are all classes in modules that another process can import?"""
        if not torchforce.is_torch_force(force):  # that is refused in any case
            check_importable(_computations(force)[0])

    @classmethod
    def content(cls, force: Any) -> dict[str, Any] | None:
        """The network with its present parameters, and the types that it is given."""
        if torchforce.is_torch_force(force):
            return None
        computation = _computations(force)[0]
        types = brief(computation.type_of)
        return {"types": types, "periodic": computation.periodic, **computation.potential.form()}

    def raise_interrupt(self) -> None:
        """Ctrl-C in the Python of the network."""
        for computation in Computation.sharing(_token(self.force)):
            if computation.interrupt is not None:
                interrupt, computation.interrupt = computation.interrupt, None
                raise interrupt


class FramesRecorder(FeatureRecorder):
    """Keeps configurations in a DCD file."""

    def __init__(
        self,
        potential: Any,
        types: IntArray,
        molecule_of: IntArray,
        trajectory: str | Path | None,
    ) -> None:
        atoms = np.flatnonzero(types >= 0)
        self._potential = potential
        self._particles = NetworkParticles(atoms, types[atoms], molecule_of)
        self._trajectory = trajectory
        super().__init__()

    def clear(self) -> None:
        """Forget what was kept; a trajectory with a name begins anew."""
        self._writer = FrameWriter(self._trajectory)

    def keep(self, positions: Array, box: Array | None, sums: PairSums) -> None:
        """Keep a frame."""
        self._writer.write(self.stored(positions, box), box)

    def stored(self, positions: Array, box: Array | None) -> Array:
        """What is kept: its molecules near the origin, as a DCD file has single precision."""
        return positions if box is None else _wrapped(positions, box, self._particles.molecule_of)

    def learned(self) -> EvaluatedFrames:
        frames = self._writer.frames()
        run = StoredRun(frames, self._particles)
        return EvaluatedFrames(self._potential, ((run, np.arange(len(frames))),))


def _wrapped(positions: Array, box: Array, molecule_of: IntArray) -> Array:
    """Each molecule moved as a whole, so that its centre is in the box."""
    centres = molecule_centres(positions, molecule_of)
    shifts = np.floor(centres @ np.linalg.inv(box)) @ box
    return np.asarray(positions - shifts[molecule_of])


def chosen_backend(force: openmm.Force) -> str:
    """Which backend runs a network: "torchforce", "pythontorchforce" or "python"."""
    if torchforce.is_torch_force(force):
        return "torchforce"
    return "python" if isinstance(force, openmm.PythonForce) else "pythontorchforce"


def _python_force(computation: Computation, backend: str) -> openmm.Force:
    parameters = {_parameter(computation.potential.name): computation.token}
    if backend == "python":
        force = openmm.PythonForce(computation, parameters)
    else:
        force = torchforce.library().PythonTorchForce(computation, parameters)
    force.setUsesPeriodicBoundaryConditions(computation.periodic)
    atoms = np.flatnonzero(computation.type_of >= 0)
    if len(atoms) < len(computation.type_of):
        force.setParticles(atoms.tolist())
    return force


def _choose(backend: str, potential: NetworkPotential) -> str:
    if backend not in (*NETWORK_BACKENDS, "auto"):
        raise AttachError(
            f"backend: expected one of {', '.join(map(repr, NETWORK_BACKENDS))} or 'auto', got "
            f"{backend!r}",
            got=backend,
        )
    if backend == "torchforce":
        torchforce.check()
    if backend == "pythontorchforce":
        torchforce.check_python()
    if backend != "auto":
        return backend
    chosen, why = torchforce.fastest()
    _LOG.info("%s runs by backend=%r: %s", potential.name, chosen, why)
    return chosen


def _parameter(name: str) -> str:
    """The global parameter that a Force of this name has."""
    return f"{name} network"


def _token(force: openmm.Force) -> float | None:
    """The number in its global parameter, of a Force of Python."""
    if not hasattr(force, "getGlobalParameters"):
        return None
    for name, value in dict(force.getGlobalParameters()).items():
        if name == _parameter(force.getName()):
            return float(value)
    return None


def _computations(force: openmm.Force) -> list[Computation]:
    """What the Force calls, and its copies."""
    found = Computation.sharing(_token(force))
    if not found:
        raise AttachError(
            f"nothing is known of the network in the force {force.getName()!r}: it was not made by "
            "attach()"
        )
    for computation in found:
        computation.unpack()
    return found


def _forget_forces(force: openmm.Force, context: openmm.Context) -> None:
    """Let the integrator compute them anew; what it kept are those of the old parameters."""
    name = _parameter(force.getName())
    try:
        value = context.getParameter(name)
        context.setParameter(name, value + 1)
    except openmm.OpenMMException as error:
        raise unknown_to_context(force, error) from error


def _dtype_of(context: openmm.Context) -> torch.dtype:
    """The precision that a Context's platform has forces in."""
    platform = context.getPlatform()
    if "Precision" in platform.getPropertyNames():
        return DTYPES.get(platform.getPropertyValue(context, "Precision"), torch.float32)
    return torch.float64 if platform.getName() == "Reference" else torch.float32


def _device_of(context: openmm.Context) -> torch.device:
    """Where to compute: on the GPU of a Context of CUDA, where torch has one."""
    platform = context.getPlatform()
    if platform.getName() != "CUDA" or not torch.cuda.is_available():
        return torch.device("cpu")
    index = platform.getPropertyValue(context, "DeviceIndex").split(",")[0]
    return torch.device("cuda", int(index or 0))
