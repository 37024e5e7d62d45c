"""Samples at given parameters: weights once, and the live potential is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from networks import CUTOFF, Embedded, embedded, fluid
from systems import argon, assert_parameter_gradient
from torch import Tensor

from openmm_diffsim import (
    RDF,
    AngleDistribution,
    LennardJones,
    NetworkPotential,
    Pressure,
    Samples,
    SplinePair,
)
from openmm_diffsim.errors import ObservableError, OverlapError, PotentialError
from openmm_diffsim.potentials import Potential, flat_parameters, set_flat_parameters
from openmm_diffsim.samples import View
from openmm_diffsim.samples import view as module

RDF_ = RDF(0.5, 8)
PRESSURE = Pressure()


def scripted() -> NetworkPotential:
    return NetworkPotential(torch.jit.script(Embedded()), prior=argon(CUTOFF))


KINDS: dict[str, Callable[[], Potential]] = {
    "pair": lambda: argon(CUTOFF, 14),
    "network": embedded,
    "scripted network": scripted,
    "sum": lambda: embedded() + SplinePair(0.28, 0.5, 12),
}


def drawn(kind: str, seed: int = 1) -> tuple[Potential, Samples, Tensor]:
    """Two runs, and parameters that differ from those of both."""
    potential = KINDS[kind]()
    point = fluid(potential, seed=seed)
    parts = [point.sample(200, 10, [RDF_, PRESSURE], equilibration=50)]
    set_flat_parameters(potential, nearby(potential, 1))
    parts.append(point.sample(200, 10, [RDF_, PRESSURE]))
    return potential, Samples.pool(parts), nearby(potential, 2)


def nearby(potential: Potential, seed: int) -> Tensor:
    theta = flat_parameters(potential)
    noise = np.random.default_rng(seed).normal(size=len(theta))
    return theta + 0.002 * (0.2 + theta) * torch.from_numpy(noise)


def everything(view: View) -> dict[str, Any]:
    """All that a view says."""
    found: dict[str, Any] = {"weights": view.weights, "n_effective": view.n_effective}
    found["energies"] = view.reduced_energies()
    for name, observable in (("g", RDF_), ("p", PRESSURE)):
        estimate = view.estimate(observable)
        found[name] = view.average(observable)
        found[f"values of {name}"] = view.values(observable)
        found[f"covariance of {name}"] = estimate.covariance
        found[f"jacobian of {name}"] = view.jacobian(observable)
    return found


def assert_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        a, b = (torch.as_tensor(x).detach().numpy() for x in (value, other[name]))
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_at_other_parameters_is_as_if_they_were_the_present_ones(kind: str) -> None:
    potential, samples, theta = drawn(kind)
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    there = everything(samples.at(theta))
    here = everything(samples.at())
    assert np.abs(there["g"].detach().numpy() - here["g"].detach().numpy()).max() > 1e-4
    for name, value in potential.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in potential.parameters())
    set_flat_parameters(potential, theta)
    assert_the_same(everything(samples.at()), there)
    assert torch.equal(samples.average(RDF_), there["g"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_has_a_graph_to_the_parameters_given(kind: str) -> None:
    potential, samples, theta = drawn(kind)
    theta = theta.clone().requires_grad_(True)
    view = samples.at(theta)
    loss = view.average(RDF_).square().sum() + 1e-6 * view.average(PRESSURE)[0]
    (there,) = torch.autograd.grad(loss, theta)
    set_flat_parameters(potential, theta.detach())

    def again() -> Tensor:
        return samples.average(RDF_).square().sum() + 1e-6 * samples.average(PRESSURE)[0]

    live = torch.autograd.grad(again(), [p for p in potential.parameters() if p.requires_grad])
    flat = torch.cat([part.reshape(-1) for part in live])
    torch.testing.assert_close(there, flat, rtol=1e-9, atol=1e-9 * float(flat.abs().max()))
    if kind == "pair":
        assert_parameter_gradient(potential, again)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_computed_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, samples, theta = drawn(kind)
    calls = []
    counted = module.softmax_weights
    monkeypatch.setattr(module, "softmax_weights", lambda *a: (calls.append(1), counted(*a))[1])
    view = samples.at(theta)
    assert calls == []
    everything(view)
    everything(view)
    assert len(calls) == 1


def test_coefficients_are_computed_once() -> None:
    class Counting(LennardJones):
        calls = 0

        def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
            Counting.calls += 1
            return super().unbound_coefficients(temperature)

    potential = Counting(0.34, 0.996, cutoff=CUTOFF, knots=14)
    samples = fluid(potential).sample(200, 10, [RDF_, PRESSURE])
    for theta in (None, flat_parameters(potential)):
        Counting.calls = 0
        everything(samples.at(theta))
        assert Counting.calls == 1


@pytest.mark.parametrize("kind", ["pair", "network"])
def test_who_asks_first_without_gradients_leaves_them_to_others(kind: str) -> None:
    potential, samples, _ = drawn(kind)
    view = samples.at()
    with torch.no_grad():
        assert view.n_effective > 20
        view.estimate(RDF_)
    parameters = [p for p in potential.parameters() if p.requires_grad]
    found = torch.autograd.grad(view.average(RDF_)[5], parameters)
    expected = torch.autograd.grad(samples.average(RDF_)[5], parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_without_gradients_a_view_has_no_graph() -> None:
    _, samples, theta = drawn("pair")
    assert not samples.at(theta).average(RDF_).requires_grad
    with torch.no_grad():
        assert not samples.at().weights.requires_grad


def test_a_view_too_far_away_is_refused() -> None:
    _, samples, theta = drawn("pair")
    far = samples.at(1.1 * theta)
    for evaluate in (far.average, far.estimate, far.jacobian):
        with pytest.raises(OverlapError, match="sample again"):
            evaluate(RDF_)
    assert far.estimate(RDF_, check=False).n_effective == far.n_effective < 20


def test_what_was_not_recorded_is_named() -> None:
    _, samples, theta = drawn("pair")
    with pytest.raises(
        ObservableError, match=r"^AngleDistribution was not recorded: pass it to sample"
    ):
        samples.at(theta).average(AngleDistribution(0.4, 9))
    with pytest.raises(ObservableError, match=r"another RDF was.* the same object"):
        samples.at(theta).average(RDF(0.4, 3))


@pytest.mark.parametrize("theta", [torch.zeros(3), torch.tensor(0.3), np.zeros(2), 0.3])
def test_parameters_of_another_shape_are_refused(theta: Any) -> None:
    _, samples, _ = drawn("pair")
    with pytest.raises(PotentialError, match=r"expected a Tensor of shape \(\d+,\), got"):
        samples.at(theta)


def test_values_of_another_shape_are_refused() -> None:
    class Short(RDF):
        def values(self, records: Tensor, conditions: Any) -> Tensor:
            return super().values(records, conditions)[:2]

    _, samples, _ = drawn("pair")
    short, (record, *_) = Short(0.8, 5), samples.records.values()
    odd = replace(samples, records={short: record})
    with pytest.raises(
        ObservableError, match=r"Short.values\(\): expected a Tensor .* of 40 frames"
    ):
        odd.average(short)
