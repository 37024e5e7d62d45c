"""Any optimizer of torch on the reweighted misfit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import OverlapError
from ...observables.identity import plain
from ...potentials.parameters import split
from ..low_rank import LowRank
from ..state import FitView
from ..target import Target
from .base import Step


class TorchOptimizer:
    """Any ``torch.optim`` optimizer on the reweighted misfit.

    The loss is ``reweighted_loss``, differentiated by the covariance formula; each round takes up
    to ``steps`` steps, until the frames no longer overlap.

    Parameters
    ----------
    factory : callable
        From parameters to an optimizer: ``lambda p: torch.optim.Adam(p, lr=0.05)``.
    steps : int
        Most optimizer steps per round.
    least_overlap : float
        Stop a round's steps when n_effective falls below this share of its value at the start.
    """

    def __init__(
        self,
        factory: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        steps: int = 20,
        least_overlap: float = 0.5,
    ) -> None:
        self.factory = factory
        self.steps = steps
        self.least_overlap = least_overlap

    def propose(self, view: FitView) -> Step:
        """Steps of the optimizer, as far as the frames reach; its moments are remembered."""
        leaves = [
            part.detach().clone().requires_grad_(True)
            for part in split(view.potential, view.parameters)
        ]
        optimizer = self.factory(leaves)
        _restore(optimizer, view.memory)
        memory = view.memory
        enough = view.enough(self.least_overlap)

        def loss() -> Tensor:
            optimizer.zero_grad()
            total = reweighted_loss(_at(view, leaves))
            total.backward()  # type: ignore[no-untyped-call]
            return total

        for _ in range(self.steps):
            try:
                optimizer.step(loss)  # type: ignore[arg-type]
            except OverlapError:  # it tried a step of its own that the frames do not reach
                memory = {}  # and was interrupted in the middle of it
                break
            memory = optimizer.state_dict()["state"]
            # with a graph: these weights are those of the next step
            if not _at(view, leaves).reaches(enough):
                break
        return Step(_at(view, leaves).change.numpy(force=True), None, memory)

    def identity(self) -> dict[str, Any]:
        """What it is, as plain data: what the factory makes, and how it is used."""
        made = self.factory([torch.zeros(1, requires_grad=True)])
        return {
            "optimizer": type(made).__name__,
            "options": plain(made.defaults),
            "steps": self.steps,
            "least_overlap": self.least_overlap,
        }


def reweighted_loss(view: FitView) -> Tensor:
    """The misfit of all targets, with a graph to the view's parameters.

        sum_t weight_t r^T C^-1 r / n,    C = D + P P^T

    with the residuals r of the n points of a target, D its ``uncertainty`` squared, or its
    ``covariance``, and P what was said to be unknown of all its points together (scale, offset,
    ...): marginalised as in Gauss-Newton, at the present averages. A scale of digitised points that
    nobody spoke of is left out; without P, points count by their own errors alone.
    """
    total = torch.zeros((), dtype=torch.float64)
    for target in view.targets:
        averages = view.averages(target)
        prediction = target.predict(*averages)
        off = prediction - torch.from_numpy(target.values)
        weighted = _precision(target, prediction, averages) @ off
        total = total + target.weight * (off @ weighted) / len(off)
    return total


def _precision(target: Target, prediction: Tensor, averages: Sequence[Tensor]) -> Tensor:
    """C^-1, [points, points], without a graph."""
    with torch.no_grad():
        values = target.observable.combine(*averages).double().numpy(force=True)
    unknown = target.unknowns.at(prediction.numpy(force=True), values, is_sampled=True)
    modes = np.concatenate([np.zeros((len(prediction), 0)), *(u.modes for u in unknown)], axis=1)
    own = target.uncertainty**2 if target.covariance is None else target.covariance
    noise = LowRank.made(own, modes, np.eye(modes.shape[1]))
    return torch.from_numpy(noise.inverse().dense())


def _at(view: FitView, leaves: list[Tensor]) -> FitView:
    return view.at(torch.cat([leaf.reshape(-1).double().cpu() for leaf in leaves]))


def _restore(optimizer: torch.optim.Optimizer, memory: Any) -> None:
    """Give it the moments that it had."""
    if memory:
        full = optimizer.state_dict()
        own = copy.deepcopy(dict(memory))  # an optimizer changes its moments in place
        optimizer.load_state_dict({**full, "state": own})
