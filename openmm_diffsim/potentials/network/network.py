"""Any torch module that gives an energy, as a potential."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import PotentialError
from ..base import Array, Potential
from ..parameters import learned_parameters

_REPEATS = 1e4  # roundings: how far two energies of one configuration may be apart


class NetworkPotential(Potential):
    """The energy of a network that sees all particles, plus that of a pair potential.

    Parameters
    ----------
    network : nn.Module
        ``network(positions, box)`` or ``network(positions, box, types)``, from positions
        [particles, 3] in nm, box [3, 3] in nm or None, and types, int64 [particles], to a scalar
        energy in kJ/mol that torch differentiates (for segments, twice). A method
        ``network.energies(positions, boxes, types)`` for positions [frames, particles, 3] and
        boxes [frames, 3, 3] or None, with energies [frames], is used for several frames at once
        where there is one; its arguments are those of ``forward``. What a network says of itself
        in attributes ``cutoff`` (nm) and ``n_types`` is taken over.
    prior : PairPotential, optional
        Added to the network, which then has to learn what is left. Its parameters are learned
        with the rest: ``prior.requires_grad_(False)`` fixes them.
    n_types : int
        Number of particle types.
    name : str
        Name of the OpenMM Force. Two potentials in one System need different names.

    The network is put into evaluation mode (``network.eval()``), and back into it wherever its
    energy is asked for: with dropout, a configuration would have another energy each time. It is
    the user's own module, not a copy.

    Raises
    ------
    PotentialError
        If the network does not take positions and a box, takes no types where there are several,
        was made for another number of types than said here, or the prior was, or the prior
        depends on temperature.
    """

    __constants__ = ("takes_types",)
    __jit_unused_properties__ = (*Potential.__jit_unused_properties__, "cutoff", "dtype")

    def __init__(
        self,
        network: nn.Module,
        *,
        prior: Any = None,
        n_types: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(n_types, name)
        self.takes_types = _takes_types(network)
        if n_types > 1 and not self.takes_types:
            raise PotentialError(
                f"n_types: got {n_types}, but {_name(network)} takes no types: expected "
                "forward(positions, box, types)",
                n_types=n_types,
            )
        of_network = getattr(network, "n_types", n_types)
        of_prior = n_types if prior is None else prior.n_types
        for what, number in ((_name(network), of_network), ("prior", of_prior)):
            if number != n_types:
                raise PotentialError(
                    f"n_types: {what} was made for {number} type(s), the potential for {n_types}",
                    got=number,
                    expected=n_types,
                )
        self.network = network
        self.prior = None if prior is None else prior.in_torch()
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's parameters, and so of its energies."""
        for parameter in self.network.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
        return torch.float64

    @property
    def cutoff(self) -> float | None:
        """The longest range that network and prior say they have, nm, or None."""
        known = [float(c) for m in (self.network, self.prior) if (c := getattr(m, "cutoff", None))]
        return max(known, default=None)

    def energy(
        self, positions: Tensor, box: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """Energy, kJ/mol, a scalar with a graph to positions, box and parameters.

        Parameters
        ----------
        positions : Tensor [particles, 3], nm
            Converted to ``dtype``, in which all is computed.
        box : Tensor [3, 3], nm, optional
            Rows a, b, c. None: not periodic.
        types : int Tensor [particles], optional
            0 .. n_types - 1. Default: all 0.

        Raises
        ------
        PotentialError
            If the network gives anything but one number.
        """
        return self(self._cast(positions), None if box is None else self._cast(box), types)

    def energies(
        self, positions: Tensor, boxes: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """Energies of several frames at once, kJ/mol, [frames], with a graph like ``energy``.

        Parameters
        ----------
        positions : Tensor [frames, particles, 3], nm
        boxes : Tensor [frames, 3, 3], nm, optional
        types : int Tensor [particles], optional
            The same in all frames.

        Raises
        ------
        PotentialError
            If the network gives anything but one number for each frame.
        """
        x = self._cast(positions)
        cells = None if boxes is None else self._cast(boxes)
        self._evaluate_only()
        batched = getattr(self.network, "energies", None)
        if batched is None:
            each = range(len(x))
            return torch.stack(
                [self(x[f], None if cells is None else cells[f], types) for f in each]
            )
        kinds = _types(x[0], types)
        energies = batched(x, cells, kinds) if self.takes_types else batched(x, cells)
        if not isinstance(energies, Tensor) or energies.shape != (len(x),):
            raise PotentialError(
                f"{_name(self.network)}.energies: expected a tensor [{len(x)}], one energy for "
                f"each frame, got {_described(energies)}"
            )
        if self.prior is not None:
            energies = energies + self.prior.energies(x, cells, kinds).to(energies.dtype)
        return energies

    def forward(
        self, positions: Tensor, box: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """As ``energy``, for positions and box of ``dtype``: what ``torch.jit.script`` compiles."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._evaluate_only()
        kinds = _types(positions, types)
        if self.takes_types:
            energy = self.network(positions, box, kinds)
        else:
            energy = self.network(positions, box)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            _check_scalar(self.network, energy)
        energy = energy.reshape([])
        if self.prior is not None:
            energy = energy + self.prior(positions, box, kinds).to(energy.dtype)
        return energy

    def prior_blocks(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> list[tuple[slice, Array]]:
        """Of a linear pair potential that is learned in it, in place of a network or beside it."""
        found, start = [], 0
        for module in (self.network, self.prior):
            size = 0 if module is None else sum(p.numel() for p in learned_parameters(module))
            pair = getattr(module, "pair", None)
            if size and pair is not None and pair.is_linear:
                blocks = pair.prior_blocks(temperature, length, roughness, n_temperatures)
                for _, own in blocks:
                    chain = pair.pull_back(np.eye(len(own)), None, temperature)
                    found.append((slice(start, start + size), chain.T @ own @ chain))
            start += size
        return found

    @torch.no_grad()
    def check_repeats(
        self, positions: Tensor, box: Tensor | None = None, types: Tensor | None = None
    ) -> None:
        """Ask for the energy of a configuration twice; arguments are those of ``energy``.

        Raises
        ------
        PotentialError
            If there are two: with random numbers in ``forward`` there is no energy to learn.
        """
        first, second = (float(self.energy(positions, box, types)) for _ in range(2))
        noise = abs(first - second)
        if noise > _REPEATS * torch.finfo(self.dtype).eps * (abs(first) + 1):
            raise PotentialError(
                f"{_name(self.network)}: got two energies for one configuration, {first:.9g} and "
                f"{second:.9g} kJ/mol, though in evaluation mode: expected no random numbers in "
                "forward() (dropout is nn.Dropout, or functional.dropout(x, p, self.training))",
                got=(first, second),
            )

    def _evaluate_only(self) -> None:
        """The user's module may have been put into training mode since."""
        if any(module.training for module in self.modules()):
            self.eval()

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype)


def _types(positions: Tensor, types: Tensor | None) -> Tensor:
    if types is None:
        return torch.zeros(positions.shape[0], dtype=torch.int64, device=positions.device)
    return types.to(torch.int64)


def _takes_types(network: nn.Module) -> bool:
    """Does ``forward`` take types besides positions and box?"""
    names, required = _arguments(network)
    if len(names) < 2 or required > 3:
        raise PotentialError(
            f"expected a network with forward(positions, box) or forward(positions, box, types), "
            f"got {_name(network)} with forward({', '.join(names)})",
            got=names,
        )
    return len(names) > 2


def _arguments(network: nn.Module) -> tuple[list[str], int]:
    """Names of the positional arguments of ``forward``, and how many have no default."""
    if isinstance(network, torch.jit.ScriptModule):
        schema = network._c._get_method("forward").schema.arguments[1:]
        return [a.name for a in schema], sum(not a.has_default_value() for a in schema)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(network.forward).parameters.values()
    found = [p for p in parameters if p.kind in positional]
    return [p.name for p in found], sum(p.default is inspect.Parameter.empty for p in found)


def _check_scalar(network: nn.Module, energy: Any) -> None:
    if not isinstance(energy, Tensor) or energy.numel() != 1:
        raise PotentialError(
            f"{_name(network)}: expected a scalar tensor, the energy in kJ/mol, got "
            f"{_described(energy)}"
        )


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"


def _name(network: nn.Module) -> str:
    return str(getattr(network, "original_name", type(network).__name__))
