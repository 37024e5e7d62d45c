"""How far a step is followed, which rounds are believed, and how long rounds are."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import liquids
import numpy as np
import pytest
import torch
from liquids import EPSILON, SIGMA, Array
from networks import embedded

from openmm_diffsim import FitView, LennardJones, Step
from openmm_diffsim.errors import SamplingError
from openmm_diffsim.potentials import flat_parameters
from openmm_diffsim.refinement.convergence import TargetVerdict, Verdict
from openmm_diffsim.refinement.progress import Progress
from openmm_diffsim.refinement.schedule import Schedule
from openmm_diffsim.refinement.trust import Trust
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

KELVIN = 150.0
KT = MOLAR_GAS_CONSTANT * KELVIN


# Trust --------------------------------------------------------------------------------------------


def test_trust_is_halved_by_a_bad_round_and_comes_back() -> None:
    trust = Trust()
    trust.reject("bad")
    trust.reject("bad")
    assert (trust.factor, trust.rollbacks) == (0.25, 2)
    trust.accept()
    assert (trust.factor, trust.rollbacks) == (0.375, 0)
    for _ in range(3):
        trust.accept()
    assert trust.factor == 1.0
    assert Trust(**trust.state_dict()) == trust


def test_the_fourth_bad_round_in_a_row_is_one_too_many() -> None:
    trust = Trust()
    for _ in range(3):
        trust.reject("bad")
    with pytest.raises(SamplingError, match=r"4 rounds in a row .*; the last: worse") as caught:
        trust.reject("worse")
    assert caught.value.reason == "rollbacks"


@dataclass
class Frames:
    """Of one round: its g(r), and how far particles moved."""

    g: Array
    moved: float = 1.0

    @property
    def runs(self) -> list[Any]:
        return [SimpleNamespace(rms_displacement=self.moved)]

    def at(self) -> Frames:
        return self

    def average(self, observable: Any) -> torch.Tensor:
        return torch.from_numpy(self.g)


def state_with(is_structure: bool = True) -> Any:
    target = SimpleNamespace(
        observable=SimpleNamespace(is_structure=is_structure),
        response=lambda own: own,
        values=np.ones(4),
        uncertainty=np.full(4, 0.01),
    )
    return SimpleNamespace(targets=[target], nearest_distance=lambda: 0.4)


def problem_of(trust: Trust, rms: float, moved: float = 1.0, state: Any = None) -> str:
    frames: Any = Frames(1 + rms * np.array([1.0, -1.0, 1.0, -1.0]), moved)
    return trust.problem([state or state_with()], [frames])


@pytest.mark.parametrize(
    ("best", "rms", "moved", "said"),
    [
        (0.1, 0.24, 1.0, ""),
        (0.1, 0.31, 1.0, "g(r) got far worse: its rms went from 0.100 to 0.310"),
        (0.01, 0.15, 1.0, ""),  # three times as much, but of little
        (0.01, 0.17, 1.0, "g(r) got far worse: its rms went from 0.010 to 0.170"),
        (0.1, 0.21, 0.09, "the fluid froze: particles moved 0.090 nm in the whole round, and the "),
        (0.1, 0.21, 0.11, ""),  # more than a quarter of the distance of neighbours
        (0.1, 0.19, 0.0, ""),  # sticks, but is right
    ],
)
def test_a_round_is_judged_by_the_best_so_far(
    best: float, rms: float, moved: float, said: str
) -> None:
    trust = Trust()
    assert problem_of(trust, 2 * best) == ""  # the first round has nothing to be held against
    assert problem_of(trust, best) == ""
    found = problem_of(trust, rms, moved)
    assert found.startswith(said) if said else found == ""
    assert trust.best_rms == pytest.approx(min(best, rms))


def test_without_a_structure_nothing_can_be_seen() -> None:
    trust = Trust()
    assert problem_of(trust, 1e3, 0.0, state_with(is_structure=False)) == ""
    assert trust.best_rms == np.inf


# Steps --------------------------------------------------------------------------------------------


@dataclass
class Point:
    """What a step is measured by."""

    temperature: float = KELVIN
    first: float = 0.9 * SIGMA
    frames: Any = None

    def contact(self) -> float:
        return self.first


def view_of(pair: Any, *points: Point) -> FitView:
    states: Any = points or (Point(),)
    return FitView(pair, states, flat_parameters(pair))


def largest_change(pair: LennardJones, theta: torch.Tensor, kelvin: float = KELVIN) -> float:
    """Of u(r) beyond contact, kT."""
    r = np.linspace(0.9 * SIGMA, pair.basis.cutoff, 200)
    c = pair.coefficients_at(theta, kelvin) - pair.coefficients()
    u = pair.basis.values(r) @ c.detach().numpy()
    return float(np.abs(u).max() / (MOLAR_GAS_CONSTANT * kelvin))


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_too_long_a_step_is_shortened_along_its_direction(factor: float) -> None:
    pair = liquids.lennard_jones()
    start = flat_parameters(pair)
    step = Step(np.array([0.03, 5.0]))
    theta, size = Trust(factor).follow(view_of(pair), step, 0.8)
    assert 0.7 * 0.8 * factor < size <= 0.8 * factor * (1 + 1e-6)
    assert size == pytest.approx(largest_change(pair, theta))
    moved = (theta - start).numpy()
    np.testing.assert_allclose(moved / moved[1], step.change / step.change[1], rtol=1e-12)
    assert torch.equal(flat_parameters(pair), start)


@pytest.mark.parametrize(("first", "expected"), [(0.3, 0.3), (0.0, 0.34), (5.0, 0.9 * 0.8)])
def test_a_step_counts_from_contact_on_or_from_where_the_knots_begin(
    first: float, expected: float
) -> None:
    pair = LennardJones(SIGMA, EPSILON, 0.8, 0.34, 40)
    change = np.array([0.0, 0.1])
    size = view_of(pair, Point(first=first)).step_size(change)
    r = np.linspace(expected, 0.8, 200)
    u = pair.energy(r) * 0.1 / EPSILON
    assert size == pytest.approx(float(u.detach().abs().max()) / KT)


def test_a_short_step_is_followed_as_it_is() -> None:
    pair = liquids.lennard_jones()
    step = Step(np.array([0.0, 1e-3 * EPSILON]))
    theta, size = Trust(0.5).follow(view_of(pair), step, 1.0)
    np.testing.assert_array_equal(theta.numpy(), flat_parameters(pair).numpy() + step.change)
    assert 0 < size < 0.5


def test_the_coldest_state_point_counts() -> None:
    pair = liquids.lennard_jones()
    step = Step(np.array([0.0, 0.1]))
    sizes = [
        Trust().follow(view_of(pair, *map(Point, kelvins)), step, np.inf)[1]
        for kelvins in ((KELVIN,), (KELVIN, 0.5 * KELVIN), (0.5 * KELVIN, KELVIN))
    ]
    np.testing.assert_allclose(sizes, sizes[0] * np.array([1, 2, 2]))


@pytest.mark.parametrize("change", [[np.nan, 0.0], [0.0, np.inf]])
def test_a_step_that_is_no_number_is_refused(change: list[float]) -> None:
    pair = liquids.lennard_jones()
    with pytest.raises(SamplingError, match="not finite") as caught:
        Trust().follow(view_of(pair), Step(np.array(change)), 1.0)
    assert caught.value.reason == "update"


class Brittle(LennardJones):
    """No number where it is cold and epsilon is no longer its first."""

    def unbound_coefficients(self, temperature: float | None = None) -> torch.Tensor:
        c = super().unbound_coefficients(temperature)
        broken = temperature == KELVIN and float(self.epsilon.detach()) > 1.05 * EPSILON
        return c * np.nan if broken else c


@pytest.mark.parametrize("kelvins", [(KELVIN, 2 * KELVIN), (2 * KELVIN, KELVIN)])
def test_a_potential_that_is_none_at_one_temperature_is_left_half_way(
    kelvins: tuple[float, float],
) -> None:
    pair = Brittle(SIGMA, EPSILON, liquids.CUTOFF, 0.8 * SIGMA, 40)
    theta, size = Trust().follow(
        view_of(pair, *map(Point, kelvins)), Step(np.array([0.0, 0.2 * EPSILON])), 1.0
    )
    assert np.isfinite(size) and EPSILON < float(theta[1]) <= 1.05 * EPSILON


class Spread:
    """Frames whose energies, in kT, are proportional to the parameters' first."""

    def at(self, theta: torch.Tensor) -> Any:
        energies = float(theta[0]) * np.array([0.0, 1.0, 2.0, 1.0])
        return SimpleNamespace(reduced_energies=lambda: energies)


def test_where_only_frames_tell_a_rollback_shortens_the_step() -> None:
    network = embedded()
    start = flat_parameters(network)
    step = Step(np.linspace(0.1, 1.0, len(start)))
    theta, size = Trust(0.25).follow(view_of(network, Point(frames=Spread())), step, 1e-9)
    np.testing.assert_allclose(theta.numpy(), start.numpy() + 0.25 * step.change)
    assert size == pytest.approx(0.25 * 0.1 * np.std([0, 1, 2, 1]))


def test_a_network_beside_a_pair_potential_is_shortened_for_both() -> None:
    """By a roll-back what the network does, by the largest step what the pair potential does."""
    both = embedded() + liquids.lennard_jones()
    start = flat_parameters(both)
    small = np.full(len(start), 1e-4)
    theta, size = Trust(0.25).follow(view_of(both), Step(small), 1.0)
    np.testing.assert_allclose((theta - start).numpy(), 0.25 * small, rtol=1e-9)
    large = small.copy()
    large[-1] = 10.0  # epsilon
    theta, size = Trust(0.25).follow(view_of(both), Step(large), 1.0)
    assert 0.2 < size <= 0.25 * (1 + 1e-6)
    moved = (theta - start).numpy()
    np.testing.assert_allclose(moved / moved[-1], large / large[-1], rtol=1e-9)


# Rounds -------------------------------------------------------------------------------------------


def test_the_first_round_is_led_in_for_longer() -> None:
    schedule = Schedule(rounds=3, steps=1000, every=10)
    assert [schedule.lead(n) for n in range(3)] == [500, 100, 100]
    assert [schedule.steps_after(n) for n in range(4)] == [3700, 2200, 1100, 0]
    given = Schedule(3, 1000, 10, equilibration=7)
    assert [given.lead(n) for n in range(3)] == [7, 7, 7]
    assert given.steps_after(1) == 2014


@pytest.mark.parametrize("change", [0.001, [0.001], [0.1, 0.1, 0.1], [[0.001], [0.001]]])
def test_a_step_of_another_shape_is_refused(change: Any) -> None:
    with pytest.raises(SamplingError, match=r"change of shape .*, expected that of .*, \(2,\)"):
        Trust().follow(view_of(LennardJones(SIGMA, EPSILON, 3 * SIGMA)), Step(change), 1.0)


def test_what_is_no_step_is_refused() -> None:
    no_step: Any = np.zeros(2)
    with pytest.raises(SamplingError, match="returned a ndarray, expected a Step"):
        Trust().follow(view_of(LennardJones(SIGMA, EPSILON, 3 * SIGMA)), no_step, 1.0)


# Rounds without a gain ----------------------------------------------------------------------------


def verdict_of(excess: float, limit: float = 1.3) -> Verdict:
    return Verdict((TargetVerdict("g(r)", excess * limit, limit, 0.0, 1.0, 0.1, 1.0),), 0.5)


def progress_of(excesses: list[float]) -> Progress:
    found = Progress([], Trust())
    numbers = {"misfit": 1.0, "rdf_rms": 0.1, "n_effective": 100.0, "theory_weight": 0.8}
    for excess in excesses:
        found.record(numbers, 1.0, verdict_of(excess))
        found.mark_stall()
    return found


@pytest.mark.parametrize(
    ("excesses", "stalled"),
    [
        ([4.7, 4.3, 3.7, 4.1, 4.2, 4.3, 4.3], 7),  # a network on a soft sphere, as it was
        ([4.7, 4.3, 4.2, 4.1, 4.0, 3.9, 3.8, 3.7, 3.6], None),  # slow, but on its way
        ([2.0, 1.0, 0.9, 1.0, 0.9, 0.95, 1.0], None),  # there: its noise decides
        ([1.32, 1.15, 0.83, 1.71, 1.15, 0.85, 1.36], None),  # of 20 frames a round: noise
        ([2.0, 1.5, 1.45, 1.45, 1.45, 1.45], 6),
        ([2.0, 2.0, 2.0, 2.0], None),  # too few to tell
    ],
)
def test_a_fit_that_no_longer_comes_nearer_says_so(
    excesses: list[float], stalled: int | None
) -> None:
    """Of the target that is off most, whatever the misfit of all points is."""
    history = progress_of(excesses).history
    found = [number for number, entry in enumerate(history, 1) if entry.has_stalled]
    assert found == ([] if stalled is None else [stalled])
    assert not any(entry.was_rolled_back for entry in history)
    if stalled is not None:
        best = min(excesses[-4:])
        said = f"{best:.2f} of its limit at best, has come no nearer for 4 rounds; it is g"
        assert said in history[-1].event


def test_rounds_that_were_taken_back_do_not_count_as_stalled() -> None:
    found = progress_of([4.0, 3.0])
    for _ in range(6):
        found.record_rollback("the run exploded")
        assert not found.mark_stall()
    assert all(entry.was_rolled_back for entry in found.history[2:])
