"""When a fit has converged: every target by its own error, the step by its own, and it moves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from liquids import Array

from openmm_diffsim import Comparison
from openmm_diffsim.refinement.convergence import (
    Verdict,
    apart,
    independent_points,
    judge,
    largest_mode,
)
from openmm_diffsim.refinement.low_rank import LowRank

RNG = np.random.default_rng(5)
NO_STEP: dict[str, Any] = {"step": 0.5}


def target(label: str, n: int, is_curve: bool) -> Any:
    observable = SimpleNamespace(label=label)
    return SimpleNamespace(
        observable=observable, values=np.zeros(n), weight=1.0, curve=object() if is_curve else None
    )


def comparison(targets: list[Any], z: Array, noise: float | Array = 0.3) -> Comparison:
    """Off by so many combined errors, where those of the targets are 1."""
    own = np.broadcast_to(np.asarray(noise, dtype=float) ** 2, z.shape)
    off = z * np.sqrt(1 + own)
    one, other = LowRank.made(own.copy()), LowRank.made(np.ones(len(z)))
    return Comparison(targets, off, np.zeros((len(z), 0)), one, other, 100.0)


CURVE, SCALAR = target("g(r)", 75, True), target("Pressure", 1, False)
BOTH = [CURVE, SCALAR]
GOOD = np.append(RNG.normal(size=75), 0.5) * 0.8


def verdict(z: Array, alone: Array | None = None, noise: Any = 0.3, **known: Any) -> Verdict:
    fresh = comparison(BOTH, GOOD if alone is None else alone, 1.0)
    return judge(BOTH, [comparison(BOTH, z, noise)], [fresh], **(NO_STEP | known))


def off(*, curve: float = 1.0, scalar: float = 0.5) -> Array:
    return np.append(GOOD[:-1] * curve, scalar)


def test_one_number_does_not_drown_among_the_points_of_a_curve() -> None:
    """Water: a pressure of -1015 +- 154 bar beside one of 1 +- 50 was called converged."""
    drowned = comparison(BOTH, off(scalar=4.0))
    assert drowned.misfit() < 1
    found = verdict(off(scalar=4.0))
    assert not found.converged and found.worst.name == "Pressure"
    assert "Pressure is off by 4 combined errors, at most 2 wanted" in found.sentence()
    assert verdict(off(scalar=1.9)).converged and not verdict(off(scalar=-2.1)).converged


def test_a_curve_does_not_hide_behind_numbers_that_agree() -> None:
    found = verdict(off(curve=1.6, scalar=0.0))
    assert not found.converged and found.worst.name == "g(r)"
    assert "(and" not in found.sentence()


def test_the_last_round_alone_has_to_agree_too() -> None:
    """Nothing was fitted to its frames; what was pooled may flatter itself."""
    assert verdict(off(), off(scalar=2.9)).converged
    found = verdict(off(), off(scalar=-3.1))
    assert "Pressure of the last round alone is off by 3.1 combined" in found.sentence()
    assert not verdict(off(), off(curve=2.0)).converged


def test_the_noise_has_to_be_small_for_each_target() -> None:
    """The median of all points says nothing of a single number."""
    of_scalar = np.append(np.full(75, 0.1), 2.0)
    assert comparison(BOTH, GOOD, of_scalar).noise_ratio() < 0.2
    found = verdict(GOOD, noise=of_scalar)
    assert "own error of Pressure is 2 of the target's, at most 0.5" in found.sentence()
    assert "about 16 times the frames" in found.sentence()
    close = verdict(GOOD, noise=np.append(np.full(75, 0.1), 0.502)).sentence()
    assert "is 0.502 of the target's, at most 0.5 wanted: about 1.01 times" in close
    assert not verdict(GOOD, noise=np.append(np.full(75, 1.1), 0.1)).converged
    assert verdict(GOOD, noise=np.append(np.full(75, 0.9), 0.45)).converged


@pytest.mark.parametrize(
    "found, wanted, texts",
    [
        (4.0, 2.0, ("4", "2")),
        (1.04, 1.0, ("1.04", "1")),
        (1.3812, 1.3804, ("1.381", "1.38")),
        (1.0000002, 1.0, ("1.0000002", "1")),
        (123.0, 1.0, ("123", "1")),
    ],
)
def test_numbers_that_differ_are_written_apart(
    found: float, wanted: float, texts: tuple[str, str]
) -> None:
    assert apart(found, wanted) == texts


def test_a_soft_mode_that_still_moves_is_no_convergence() -> None:
    assert not verdict(GOOD, step=1.1).converged
    assert "still moves by 3 of its standard errors" in verdict(GOOD, step=3.0).sentence()


def test_where_no_error_of_the_step_is_known_targets_have_to_agree_better() -> None:
    assert verdict(off(scalar=0.9), step=None).converged
    assert not verdict(off(scalar=1.1), step=None).converged


def test_a_target_that_the_method_does_not_use_counts() -> None:
    found = verdict(off(scalar=5.0), unused=[SCALAR])
    assert "the method does not use it: take the default method" in found.sentence()


def test_what_does_not_move_has_no_averages() -> None:
    assert verdict(GOOD, moved=0.3).converged
    assert "a glass or a crystal" in verdict(GOOD, moved=0.1).sentence()


def test_all_reasons_are_given_the_most_important_first() -> None:
    found = verdict(off(curve=3.0, scalar=9.0), step=4.0, moved=0.0, noise=2.0)
    said = found.reasons()
    assert [text.split()[0] for text in said] == ["the", "Pressure", "g(r)", "the", "the", "the"]
    assert found.sentence().endswith("(and 5 more)")
    assert found.as_data()["reasons"] == said


def test_targets_that_are_called_alike_are_numbered() -> None:
    same = [target("g(r)", 1, True), target("g(r)", 1, True)]
    both = comparison(same, np.array([0.1, 9.0]))
    found = judge(same, [both], [both], 0.1)
    assert [entry.name for entry in found.targets] == ["g(r) of target 1", "g(r) of target 2"]


# The limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlated", [0.0, 0.8])
def test_a_right_model_passes_as_often_as_is_said(correlated: float) -> None:
    """19 of 20, for one value and for many that hang together, within 4 standard errors."""
    for n in (1, 30):
        lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        noise = correlated**lags if correlated else np.eye(n)
        targets = [target("g(r)", n, True)]
        root = np.linalg.cholesky(noise)
        passed = []
        for _ in range(1000):
            z = root @ RNG.normal(size=n)
            seen = Comparison(
                targets,
                z,
                np.zeros((n, 0)),
                LowRank.made(0.5 * noise),
                LowRank.made(0.5 * noise),
                9.0,
            )
            passed.append(judge(targets, [seen], [seen], 0.0).targets[0].excess < 1)
        assert abs(np.mean(passed) - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 1000) + 0.005  # chi^2 of nu


def test_independent_points_are_counted() -> None:
    assert independent_points(LowRank.made(np.array([1.0, 4.0, 9.0]))) == pytest.approx(3)
    as_one = LowRank.made(np.full(5, 1e-12), np.ones((5, 1)), np.eye(1))
    assert independent_points(as_one) == pytest.approx(1)
    pair = LowRank.made(np.array([[1.0, 0.5], [0.5, 1.0]]))
    assert independent_points(pair) == pytest.approx(4 / 2.5)


def test_a_step_is_measured_along_the_modes_of_its_covariance() -> None:
    stiff, soft = np.array([1.0, 1.0]) / 2**0.5, np.array([1.0, -1.0]) / 2**0.5
    covariance = 1e-4 * np.outer(stiff, stiff) + np.outer(soft, soft)
    assert largest_mode(0.5 * soft, covariance) == pytest.approx(0.5)
    assert largest_mode(0.5 * stiff, covariance) == pytest.approx(50)
    units = np.array([1.0, 1e6])
    scaled = covariance * np.outer(units, units)
    assert largest_mode(0.5 * stiff * units, scaled) == pytest.approx(50)
    assert largest_mode(soft, None) is None


def test_a_target_that_is_not_reached_keeps_a_fit_from_converging() -> None:
    good = verdict(off())
    assert good.converged
    missed = replace(good, missed=("g(r) is not reached within its errors: chi^2 121.0",))
    assert not missed.converged and "chi^2 121.0" in missed.sentence()
    data = {**missed.as_data(), "missed": list(missed.missed)}  # as JSON has it
    del data["reasons"]
    assert Verdict.restore(data) == missed
