"""A target is a function of averages at one or several state points, with an exact Jacobian."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from liquids import lennard_jones, simulation
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim import RDF, FunctionOfAverages, Pressure, Target
from openmm_diffsim.curve import Curve
from openmm_diffsim.errors import ObservableError, TargetError
from openmm_diffsim.refinement.comparison import _target_noise

A, B = RDF(0.6, 3), RDF(0.8, 2)
HERE: Any = SimpleNamespace(check_observable=lambda o: None, timestep=0.002, place=lambda: None)
THERE: Any = SimpleNamespace(check_observable=lambda o: None, timestep=0.002, place=lambda: None)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    return a.sum() / (1 + b).prod()


def jacobian(target: Target, *averages: Tensor) -> list[Tensor]:
    return list(torch.autograd.functional.jacobian(target.predict, averages))


def differences(target: Target, *averages: Tensor, step: float = 1e-6) -> list[Tensor]:
    """Central differences of ``predict`` with respect to each number of each average."""
    found = []
    for which, average in enumerate(averages):
        columns = []
        for index in range(len(average)):
            ends = []
            for sign in (1, -1):
                moved = [a.clone() for a in averages]
                moved[which][index] += sign * step
                ends.append(target.predict(*moved))
            columns.append((ends[0] - ends[1]) / (2 * step))
        found.append(torch.stack(columns, dim=-1))
    return found


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_plain_observable_is_the_identity() -> None:
    x = np.array([0.15, 0.2, 0.3, 0.4, 0.5])
    target = Target(HERE, A, x, np.full(5, 1.0), uncertainty=0.1)
    assert target.terms == ((HERE, A),) and target.state_points == (HERE,)
    average = numbers(0.3, 1.2, 0.9)
    np.testing.assert_allclose(target.predict(average), target.response.matrix @ average.numpy())
    (own,) = jacobian(target, average)
    np.testing.assert_allclose(own, target.response.matrix)


def test_a_ratio_at_one_state_point() -> None:
    target = Target(HERE, FunctionOfAverages(ratio, [A, B]), 0.5, uncertainty=0.1)
    assert target.terms == ((HERE, A), (HERE, B)) and target.x is None and target.curve is None
    averages = numbers(0.3, 1.2, 0.9), numbers(0.2, 1.1)
    np.testing.assert_allclose(target.predict(*averages), [2.4 / (1.2 * 2.1)], rtol=1e-12)
    for exact, found in zip(
        jacobian(target, *averages), differences(target, *averages), strict=True
    ):
        np.testing.assert_allclose(exact, found, rtol=1e-7)


def test_a_difference_between_two_state_points() -> None:
    made = FunctionOfAverages(lambda hot, cold: hot**2 - cold, [A, A], n_values=3)
    target = Target([HERE, THERE], made, [1.0, 2.0, 3.0], uncertainty=0.1)
    assert target.terms == ((HERE, A), (THERE, A)) and target.state_points == (HERE, THERE)
    assert target.state_point is HERE
    averages = numbers(0.3, 1.2, 0.9), numbers(0.2, 1.1, 0.7)
    np.testing.assert_allclose(target.predict(*averages), [-0.11, 0.34, 0.11], rtol=1e-12)
    for exact, found in zip(
        jacobian(target, *averages), differences(target, *averages), strict=True
    ):
        np.testing.assert_allclose(exact, found, rtol=1e-7, atol=1e-9)


def test_states_say_where_each_observable_is_measured() -> None:
    made = FunctionOfAverages(
        lambda a, b, c: a[:1] + b[:1] * c, [A, B, Pressure()], states=[1, 0, 1]
    )
    target = Target([HERE, THERE], made, 1.0, uncertainty=0.1)
    assert [point is THERE for point, _ in target.terms] == [True, False, True]


def test_names_and_units_are_ones_own() -> None:
    made = FunctionOfAverages(ratio, [A, B], kind="energy", symbol="Ratio")
    assert (made.name, made.label, made.unit) == ("ratio", "Ratio", "kJ/mol")
    assert FunctionOfAverages(ratio, A).label == "ratio"
    target = Target(HERE, made, 1.0, uncertainty=0.1)
    assert target.identity()["observable"]["symbol"] == "Ratio"
    other = FunctionOfAverages(ratio, [A, B], kind="energy", symbol="Ratio", states=[0, 0])
    assert Target(HERE, other, 1.0, uncertainty=0.1).identity() != target.identity()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FunctionOfAverages(3, A), "expected a function"),  # type: ignore[arg-type]
        (lambda: FunctionOfAverages(ratio, []), "one observable at least"),
        (lambda: FunctionOfAverages(ratio, [A, B], states=[0]), "one index for each of 2"),
        (lambda: FunctionOfAverages(ratio, [A, B], states=[0, -1]), "states: expected a whole"),
        (
            lambda: Target(
                HERE, FunctionOfAverages(ratio, [A, B], states=[0, 1]), 1, uncertainty=1
            ),
            r"at state points \[0, 1\], got 1 state points",
        ),
        (
            lambda: Target([HERE] * 3, FunctionOfAverages(ratio, [A, B]), 1.0, uncertainty=1),
            "got 3 state points",
        ),
        (
            lambda: Target([HERE, THERE], Pressure(), 1.0, uncertainty=1),
            "at one state point, got 2",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ObservableError, match=words):
        make()


@pytest.mark.parametrize("wrong", [lambda a, b: a, lambda a, b: 1.0, lambda a, b: a[:0]])
def test_a_function_of_the_wrong_shape_is_refused(wrong: Any) -> None:
    target = Target(HERE, FunctionOfAverages(wrong, [A, B]), 1.0, uncertainty=0.1)
    with pytest.raises(ObservableError, match=r"must return a Tensor of shape \[1\], got"):
        target.predict(numbers(1, 2, 3), numbers(1, 2))


def test_a_file_for_what_is_no_curve_is_refused() -> None:
    with pytest.raises(TargetError, match=r"Pressure is no curve: give its value, not p\.csv"):
        Target.from_file(HERE, Pressure(), "p.csv")


def test_the_derivative_reaches_the_parameters_through_both_state_points() -> None:
    """Of a ratio and a difference, by autograd and by central differences on the same frames."""
    pair = lennard_jones()
    rdf, pressure = RDF(0.6, 6), Pressure()
    points = [
        diffsim.StatePoint(simulation(pair, n=40, density=0.4, temperature=t, seed=2), pair)
        for t in (1.5, 2.0)
    ]
    assert points[0].timestep == pytest.approx(points[0].simulation.integrator.getStepSize()._value)
    samples = [p.sample(1500, 50, record=[rdf, pressure], equilibration=300) for p in points]
    of_ratio = FunctionOfAverages(lambda g, p: g[3:] / p, [rdf, pressure], n_values=3)
    of_points = FunctionOfAverages(lambda p, q: q - p, [pressure, pressure], kind="pressure")
    targets = [
        Target(points[0], of_ratio, [1.0, 1.0, 1.0], uncertainty=1.0),
        Target(points, of_points, 100.0, uncertainty=1.0),
    ]
    pool = dict(zip(points, samples, strict=True))

    def predicted(target: Target) -> Tensor:
        return target.predict(*(pool[point].average(o) for point, o in target.terms))

    for target in targets:
        for row in range(len(target.values)):
            (exact,) = torch.autograd.grad(predicted(target)[row], pair.epsilon)
            ends = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    pair.epsilon.add_(step)
                    ends.append(float(predicted(target)[row]))
                    pair.epsilon.sub_(step)
            found = (ends[0] - ends[1]) / 2e-5
            assert float(exact.sum()) == pytest.approx(found, rel=1e-5) and found != 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a: torch.log(-a.sum()), r"gives \[nan\] of the averages"),
        (lambda a: (a.sum() - a.sum()).sqrt(), "a derivative that is not finite"),
        (lambda a: a.detach().sum(), "torch cannot follow"),
        (lambda a: torch.tensor(1.0), "torch cannot follow"),
    ],
)
def test_what_has_no_finite_value_or_slope_is_refused(function: Any, message: str) -> None:
    target = Target(HERE, FunctionOfAverages(function, A), 1.0, uncertainty=0.1)
    with pytest.raises(ObservableError, match=message):
        target.linearized(numbers(0.3, 1.2, 0.9))


def test_it_is_not_recorded_in_frames() -> None:
    with pytest.raises(ObservableError, match="ratio is a function of averages, with no value in"):
        FunctionOfAverages(ratio, [A, B]).recorder(Any)


def test_the_covariance_of_a_curve_is_that_of_its_target() -> None:
    random = np.random.default_rng(3)
    root = random.normal(size=(5, 5))
    covariance = root @ root.T / 100
    curve = Curve(np.array([0.15, 0.2, 0.3, 0.4, 0.5]), np.ones(5), None, covariance)
    correlated = Target(HERE, A, curve)
    plain = Target(HERE, A, curve, uncertainty=0.1)
    found = _target_noise([plain, correlated], np.eye(10), np.eye(10))[0].dense()
    np.testing.assert_allclose(found[:5, :5], 0.01 * np.eye(5))
    np.testing.assert_allclose(found[5:, 5:], covariance)
    assert not found[:5, 5:].any()
    np.testing.assert_allclose(correlated.uncertainty**2, np.diag(covariance))
