"""openmm-torch: which of its versions fit, and a compiled network as its TorchForce."""

import copy
import importlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import AttachError
from ...potentials import NetworkPotential

IntArray = NDArray[np.int64]

_INSTALL = 'pip install "openmm-diffsim[torchforce]" in an environment of its own'


def check() -> None:
    """Can TorchForce be used here?

    openmmtorch 1.5 was compiled against a CUDA build of torch 2.9 and needs its libraries, with or
    without a GPU. With another torch it loads, and fails when it is called.

    Raises
    ------
    AttachError
        With what is there, what is needed, and what to install.
    """
    reason = why_not()
    if reason is not None:
        raise AttachError(f"backend='torchforce': {reason}; {_INSTALL}, or take backend='python'")


@cache
def why_not() -> str | None:
    """Why TorchForce cannot be used here, or None."""
    try:
        version = metadata.version("openmmtorch")
    except metadata.PackageNotFoundError:
        return "openmmtorch is not installed"
    fits = torch.__version__.startswith("2.9.") and torch.version.cuda is not None
    if version.startswith("1.5") and not fits:
        build = "a CUDA" if torch.version.cuda else "a CPU"
        return (
            f"openmmtorch {version} needs a CUDA build of torch 2.9, and this is {build} build of "
            f"torch {torch.__version__}"
        )
    try:
        importlib.import_module("openmmtorch")
        _load_platforms()
    except (ImportError, openmm.OpenMMException) as error:
        return f"openmmtorch {version} does not load: {error}"
    return None


def _load_platforms() -> None:
    """What OpenMM could not load of openmm-torch because torch was imported after it.

    But for OpenCL: in openmmtorch 1.5 that library misses a symbol of OpenMM 8.6, and the process
    ends when it is used; without it, OpenMM says that the platform cannot run the force.
    """
    failed = " ".join(openmm.Platform.getPluginLoadFailures())
    folder = Path(openmm.version.openmm_library_path) / "plugins"
    for path in sorted(folder.glob("libOpenMMTorch*.so")):
        if path.name in failed and "OpenCL" not in path.name:
            openmm.Platform.loadPluginLibrary(str(path))


def check_python() -> None:
    """Can PythonTorchForce be used here? AttachError where not."""
    check()
    if not hasattr(library(), "PythonTorchForce"):
        raise AttachError(
            f"backend='pythontorchforce': openmmtorch {metadata.version('openmmtorch')} has no "
            "PythonTorchForce, which came after 1.5; take backend='python'"
        )


def library() -> Any:
    """The module openmmtorch, checked."""
    check()
    return importlib.import_module("openmmtorch")


def fastest() -> tuple[str, str]:
    """The backend that is fastest of those that work here, and why it was chosen."""
    reason = why_not()
    if reason is not None:
        return "python", f"TorchForce cannot be used ({reason})"
    return "torchforce", "a compiled network is the fastest; new parameters take a new Context"


def frozen_copy(potential: NetworkPotential) -> NetworkPotential:
    """A copy without gradients."""
    with torch.no_grad():  # else the copied parameters of a ScriptModule have a graph
        return copy.deepcopy(potential).requires_grad_(False).eval()


class _Compiled(nn.Module):
    """Energy as TorchForce asks for it, of some of the particles."""

    type_of: Tensor  # [particles of the System], -1 for those left out
    atoms: Tensor  # those that are not
    like: Tensor  # of the precision to compute in

    def __init__(self, potential: NetworkPotential, type_of: IntArray, dtype: torch.dtype) -> None:
        super().__init__()
        self.potential = frozen_copy(potential).to(dtype)
        self.register_buffer("type_of", torch.from_numpy(type_of))
        self.register_buffer("atoms", torch.from_numpy(np.flatnonzero(type_of >= 0)))
        self.register_buffer("like", torch.zeros(1, dtype=dtype))


class _InABox(_Compiled):
    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        x = positions.to(self.like.dtype)[self.atoms]
        energy = self.potential(x, box.to(self.like.dtype), self.type_of[self.atoms])
        return energy.to(positions.dtype)


class _Free(_Compiled):
    def forward(self, positions: Tensor) -> Tensor:
        x = positions.to(self.like.dtype)[self.atoms]
        return self.potential(x, None, self.type_of[self.atoms]).to(positions.dtype)


def make(
    potential: NetworkPotential, type_of: IntArray, periodic: bool, dtype: torch.dtype
) -> openmm.Force:
    """A TorchForce with the network's present parameters.

    Raises
    ------
    AttachError
        If ``torch.jit.script`` cannot compile the network.
    """
    wrapped = (_InABox if periodic else _Free)(potential, type_of, dtype)
    try:
        module = torch.jit.script(wrapped)
    except Exception as error:
        raise AttachError(
            f"backend='torchforce': torch.jit.script cannot compile {potential.name!r}: {error}; "
            "take backend='python'"
        ) from error
    force = library().TorchForce(module)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def replace(
    potential: NetworkPotential, force: openmm.Force, context: openmm.Context, dtype: torch.dtype
) -> openmm.Force:
    """A new TorchForce in the place of an old one, and the Context made anew with its state."""
    system = context.getSystem()
    index = [f.getName() for f in system.getForces()].index(force.getName())
    fresh = make(potential, types_in(force), force.usesPeriodicBoundaryConditions(), dtype)
    fresh.setName(force.getName())
    fresh.setForceGroup(force.getForceGroup())
    system.removeForce(index)
    system.addForce(fresh)
    context.reinitialize(preserveState=True)
    return fresh


def is_torch_force(force: openmm.Force) -> bool:
    """Is it one of ``make``?"""
    return why_not() is None and bool(library().TorchForce.isinstance(force))


def whole(force: openmm.Force) -> openmm.Force:
    """With the methods of its own class."""
    return library().TorchForce.cast(force)


def types_in(force: openmm.Force) -> IntArray:
    """Type of each particle, int [particles], -1 for those left out."""
    module = whole(force).getModule()
    return np.asarray(module.type_of.numpy(), dtype=np.int64)
