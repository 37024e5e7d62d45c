"""What OpenMM calls to run a network by Python, and how it is kept in a file."""

from __future__ import annotations

import io
import pickle
import secrets
import weakref
from typing import Any, ClassVar

import numpy as np
import openmm
import torch
from openmm import unit
from torch import Tensor

from ...errors import AttachError
from ...potentials import NetworkPotential
from .base import IntArray
from .torchforce import frozen_copy

DTYPES = {"single": torch.float32, "double": torch.float64}

_SCRIPTS = ("__main__", "__mp_main__")


class Computation:
    """What OpenMM calls for energy and forces.

    OpenMM pickles it once, when the Force is made, and would go on writing the parameters of that
    day. So the pickle of an attached one holds only its number: within the process it leads back to
    the present parameters, elsewhere it is refused. One that ``portable`` made holds its network,
    as bytes until it is used: an exception while OpenMM unpickles would end the process.

    Parameters
    ----------
    potential : NetworkPotential
        Copied.
    type_of : int array [particles of the System]
        -1 for those left out.
    periodic : bool
    precision : "single", "double" or None
        None: of the platform, once there is a Context; until then double.
    """

    alive: ClassVar[weakref.WeakSet[Computation]] = weakref.WeakSet()
    interrupt: BaseException | None = None
    _pickled: bytes | None = None  # until it is used

    def __init__(
        self, potential: NetworkPotential, type_of: IntArray, periodic: bool, precision: str | None
    ) -> None:
        self.potential = frozen_copy(potential)
        self.type_of = type_of
        self.periodic = periodic
        self.precision = precision
        self.token = float(secrets.randbits(50))
        self.is_portable = False
        self.place(DTYPES[precision or "double"], torch.device("cpu"))
        self.alive.add(self)

    def portable(self) -> Computation:
        """A copy, with a number of its own, whose pickle holds the network as it is now."""
        twin = Computation(self.potential, self.type_of, self.periodic, self.precision)
        twin.place(self.dtype, torch.device("cpu"))
        twin.is_portable = True
        return twin

    @classmethod
    def sharing(cls, token: float | None) -> list[Computation]:
        """Those with this number: copies of a System share one."""
        return [c for c in cls.alive if c.token == token]

    def pickled(self) -> bytes:
        """All that it is, for ``unpack``."""
        return pickle.dumps(self.__dict__)

    def __getstate__(self) -> dict[str, Any]:
        if self.is_portable and self._pickled is None:
            return {"token": self.token, "pickled": self.pickled()}
        return {"token": self.token, "pickled": self._pickled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.token = state["token"]
        self._pickled = state["pickled"]
        self.is_portable = self._pickled is not None
        self.alive.add(self)

    def unpack(self) -> None:
        """After unpickling: take the network from the bytes, or from one with the same number.

        Raises
        ------
        AttachError
            If the class of the network cannot be imported here, or it never was in the bytes.
        """
        if hasattr(self, "potential"):
            return
        if self._pickled is None:
            living = next((c for c in self.sharing(self.token) if hasattr(c, "potential")), None)
            if living is None:
                raise AttachError(
                    "this System holds a network that another process attached, without its "
                    "parameters: serialize openmm_diffsim.portable_system(system) there instead"
                )
            twin = frozen_copy(living.potential)
            self.__dict__.update({**living.__dict__, "potential": twin})
            return
        try:
            self.__dict__.update(pickle.loads(self._pickled), _pickled=None)
        except Exception as error:  # whatever importing the user's module raises
            raise AttachError(
                f"the network in this System cannot be read: {type(error).__name__}: {error}; its "
                "class has to be in a module that can be imported here as where it was written"
            ) from error

    def place(self, dtype: torch.dtype, device: torch.device) -> None:
        """Compute in that precision, there."""
        self.dtype, self.device = dtype, device
        self.potential.to(dtype=dtype, device=device)
        self._types = torch.from_numpy(self.type_of[self.type_of >= 0]).to(device)

    @torch.no_grad()
    def take_over(self, potential: NetworkPotential) -> None:
        """The values of all its parameters and buffers."""
        mine, theirs = ([*p.parameters(), *p.buffers()] for p in (self.potential, potential))
        for own, other in zip(mine, theirs, strict=True):
            own.copy_(other)

    def __call__(self, state: openmm.State, positions: Tensor | None = None) -> tuple[Any, Any]:
        """Energy, kJ/mol, and forces, kJ/mol/nm: numbers for PythonForce, tensors for
        PythonTorchForce, which hands over positions as a tensor."""
        try:
            return self._compute(state, positions)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self.interrupt = interrupt
            raise

    def _compute(self, state: openmm.State, positions: Tensor | None) -> tuple[Any, Any]:
        self.unpack()
        if positions is None:
            array = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            x = torch.from_numpy(np.asarray(array, dtype=np.float64))
        else:
            x = positions.detach()
        x = x.to(dtype=self.dtype, device=self.device).clone().requires_grad_(True)
        with torch.enable_grad():
            energy = self.potential(x, self._box(state), self._types)
            (slope,) = torch.autograd.grad(energy, x)
        if positions is None:
            return float(energy.detach()), -slope.double().numpy(force=True)
        return energy.detach().to(positions.dtype), -slope.to(positions)

    def _box(self, state: openmm.State) -> Tensor | None:
        if not self.periodic:
            return None
        vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return torch.from_numpy(np.array(vectors, dtype=np.float64)).to(self.device, self.dtype)


def check_importable(computation: Computation) -> None:
    """AttachError where a class of the network is not in a module that others can import."""
    _Finder(io.BytesIO(computation.pickled())).load()


class _Finder(pickle.Unpickler):
    """Refuses what is of the running script, or of a file that is no module."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _SCRIPTS or not all(word.isidentifier() for word in module.split(".")):
            raise AttachError(
                f"the network holds a {name}, which only this process knows, from {module}: a "
                "System in a file could not be read again; put it into a module of its own that "
                "is imported, here and where the file is read"
            )
        return super().find_class(module, name)
