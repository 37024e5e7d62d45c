"""What every learnable potential is, as a torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..errors import PotentialError
from .pair.basis import SplineBasis, n_pairs_of_types
from .parameters import learned_parameters, parameter_vector

if TYPE_CHECKING:
    from .network.network import NetworkPotential


class Potential(nn.Module):
    """Something that is learned and that OpenMM can run: a name, particle types, ``attach``.

    Parameters
    ----------
    n_types : int
        Number of particle types.
    name : str
        Name of the OpenMM Force. Two potentials in one System need different names.
    """

    # What ``attach`` calls: supplied by the layer that knows OpenMM (``forces``).
    force_builder: ClassVar[Callable[..., Any] | None] = None

    def __init__(self, n_types: int = 1, name: str | None = None) -> None:
        super().__init__()
        if n_types < 1:
            raise PotentialError(f"expected n_types >= 1, got {n_types}", n_types=n_types)
        self.n_types = n_types
        self.name = name or type(self).__name__

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """What the energy depends on, with a graph to the parameters: [1, parameters], flat.

        Of a pair potential, the coefficients of its spline. ``temperature`` (K) matters only to a
        temperature-dependent potential.
        """
        return parameter_vector(self)[None]

    def attach(
        self,
        system: Any,
        atoms: ArrayLike | None = None,
        types: ArrayLike | None = None,
        exclusions: Any = None,
        periodic: bool | None = None,
        temperature: float | None = None,
        backend: str | None = None,
        precision: str | None = None,
    ) -> Any:
        """Add this potential to an OpenMM System as one Force.

        Call it before the Context (the Simulation) is made.

        Parameters
        ----------
        system : openmm.System
            The user's System; nothing else in it changes.
        atoms : sequence of int, optional
            Particles that interact through this potential. Default: all.
        types : sequence of int, optional
            Type of each of ``atoms``, 0 .. n_types - 1. Default: all 0.
        exclusions : sequence of (int, int), optional
            Pairs that do not interact, for a pair potential. Default: the exclusions of the
            System's own nonbonded force, which OpenMM wants to be the same for all.
        periodic : bool, optional
            Default: as the System's nonbonded forces; periodic if it has none.
        temperature : float or Quantity, optional
            K, for a temperature-dependent potential.
        backend : str, optional
            Which Force. For a pair potential "native", the plugin's SplinePairForce, on the
            platforms Reference, CPU, OpenCL and CUDA, or "table", a CustomNonbondedForce with a
            table, slower and on every platform, with the same energy. Default: native where the
            plugin is there. Take "table" for a platform that OpenMM says lacks
            CalcSplinePairForce when the Context is made, such as HIP, and for a System that is to
            run without the plugin (or see ``portable_system``).

            For a network "python", OpenMM's own PythonForce; "torchforce", the TorchForce of
            openmm-torch, which needs a network that ``torch.jit.script`` compiles;
            "pythontorchforce", its PythonTorchForce; or "auto", the fastest that works here, which
            is logged. Default: "auto". TorchForce runs on Reference, CPU and CUDA, and its System
            cannot be kept in a file.
        precision : "single" or "double", optional
            Of a network in the simulation. Default: that of the platform, once there is a
            StatePoint; before, double.

        Returns
        -------
        openmm.Force
            SplinePairForce or openmm.CustomNonbondedForce for a pair potential, that of the
            backend for a network.

        Raises
        ------
        AttachError
            If an index or type is out of range, the System already has a force of this name, the
            exclusions disagree with those of another nonbonded force, there is no plugin for the
            backend, or an argument is not one of this kind of potential.
        """
        if Potential.force_builder is None:
            raise RuntimeError("import openmm_diffsim, which connects potentials to OpenMM")
        return Potential.force_builder(
            self,
            system,
            atoms=atoms,
            types=types,
            exclusions=exclusions,
            periodic=periodic,
            temperature=temperature,
            backend=backend,
            precision=precision,
        )


class PairPotential(Potential):
    """A pair potential u(r) per pair of types, as coefficients on a cubic B-spline basis.

    U(x) = sum over pairs of u_{type_i type_j}(r_ij),  u_p(r) = sum_k c_pk B_k(r).

    The spline *is* the potential that OpenMM runs: an analytic or neural form enters through its
    coefficients, which are a differentiable function of the module's parameters.

    Parameters
    ----------
    basis : SplineBasis
        Knots, shared by all pairs of types.
    n_types : int
        Number of particle types; there are n_types (n_types + 1) / 2 pairs of types, ordered as
        the upper triangle row by row: (0,0), (0,1), ..., (1,1), ...
    name : str
        Name of the OpenMM Force. Two potentials in one System need different names.
    """

    if TYPE_CHECKING:  # torch.jit cannot read it as a string
        centers: Tensor

    def __init__(self, basis: SplineBasis, n_types: int = 1, name: str | None = None) -> None:
        super().__init__(n_types, name)
        self.basis = basis
        self.n_pairs = n_pairs_of_types(n_types)
        self.register_buffer("centers", torch.from_numpy(basis.centers), persistent=False)

    def extra_repr(self) -> str:
        """The basis, for ``repr``."""
        return repr(self.basis)

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """Spline coefficients, kJ/mol, shape [pairs of types, coefficients], differentiable.

        ``temperature`` (K) matters only to a temperature-dependent potential.
        """
        raise NotImplementedError

    def energy(self, r: ArrayLike, temperature: float | None = None) -> Tensor:
        """u(r) in kJ/mol, shape [pairs of types, len(r)], for r in nm; differentiable."""
        return self.coefficients(temperature) @ torch.from_numpy(self.basis.values(r)).T

    def force(self, r: ArrayLike, temperature: float | None = None) -> Tensor:
        """-du/dr in kJ/mol/nm, shape [pairs of types, len(r)], for r in nm; differentiable."""
        return -self.coefficients(temperature) @ torch.from_numpy(self.basis.derivatives(r)).T

    def as_network(self, temperature: float | None = None) -> NetworkPotential:
        """The same potential with the same parameters, evaluated in torch pair by pair.

        An analytic or neural form is evaluated itself, not its spline. ``temperature`` (K) matters
        only to a temperature-dependent potential.
        """
        from .network.network import NetworkPotential
        from .network.pair_energy import PairEnergy

        return NetworkPotential(PairEnergy(self, temperature), n_types=self.n_types, name=self.name)

    def per_pair(self, name: str, value: ArrayLike) -> nn.Parameter:
        """A parameter of shape [pairs of types] from a number or one number per pair of types."""
        array = np.asarray(value, dtype=np.float64)
        if array.ndim > 1 or (array.ndim == 1 and array.shape != (self.n_pairs,)):
            raise PotentialError(
                f"{name}: expected one number or {self.n_pairs} (one per pair of types), "
                f"got shape {array.shape}",
                expected=self.n_pairs,
                got=array.shape,
            )
        if not np.all(np.isfinite(array)):
            raise PotentialError(f"{name}: expected finite numbers, got {array}", got=value)
        return nn.Parameter(torch.tensor(np.broadcast_to(array, (self.n_pairs,)).copy()))

    def __add__(self, other: PairPotential) -> PairPotential:
        from .pair.composite import PairSum

        return PairSum([self, other])


def parameter_chain(potential: PairPotential, temperature: float) -> NDArray[np.float64]:
    """dc/dtheta at a temperature, [pairs * coefficients, parameters that require a gradient]."""
    parameters = learned_parameters(potential)
    c = potential.coefficients(temperature).reshape(-1)
    rows = torch.autograd.grad(
        c, parameters, torch.eye(len(c), dtype=c.dtype), is_grads_batched=True, allow_unused=True
    )
    flat = [
        torch.zeros(len(c), p.numel(), dtype=c.dtype) if row is None else row.reshape(len(c), -1)
        for row, p in zip(rows, parameters, strict=True)
    ]
    return torch.cat(flat, dim=1).detach().numpy()
