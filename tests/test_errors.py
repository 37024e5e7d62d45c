"""What a fit says of its errors, on frames that are drawn exactly: claimed, and by a bootstrap."""

from __future__ import annotations

import signal
from typing import Any

import liquids
import numpy as np
import pytest
import torch
from fake_statepoint import FakeStatePoint
from liquids import CUTOFF, SIGMA, Array
from test_loop import point_of, spline

from openmm_diffsim import (
    RDF,
    FitView,
    GaussNewton,
    GaussNewtonOptions,
    PairPotential,
    Refinement,
    Step,
    Target,
)
from openmm_diffsim.errors import OverlapError, StatePointError, TargetError
from openmm_diffsim.potentials import flat_parameters
from openmm_diffsim.refinement import Bootstrap
from openmm_diffsim.refinement.bootstrap import minimum
from openmm_diffsim.refinement.errors import parameter_table
from openmm_diffsim.samples import View

WEAK = GaussNewtonOptions(roughness=2e5)


def fit_of(pair: PairPotential, seed: int, method: Any, rounds: int = 2) -> Refinement:
    """To a g(r) of 4000 frames of the truth, in rounds of 1000."""
    rdf = RDF(1.02 * CUTOFF, 40, r_min=0.8 * SIGMA)
    measured = point_of(liquids.lennard_jones(), 1000 + seed).sample(4000, 1, [rdf]).estimate(rdf)
    point: Any = point_of(pair, seed)
    target = Target(point, rdf, rdf.r, measured.value, uncertainty=measured.standard_error)
    return Refinement(pair, [target], method=method).run(rounds, 1000, 1, progress=False)


def lj() -> PairPotential:
    return liquids.lennard_jones(1.02 * SIGMA, 0.8 * liquids.EPSILON, knots=30)


def off(fit: Refinement) -> Array:
    """u(r) less the truth in claimed errors, where g(r) is large."""
    r = np.linspace(SIGMA, 0.9 * CUTOFF, 25)
    u, error = fit.potential_table(r)
    return np.asarray((u - liquids.lennard_jones().energy(r).numpy(force=True)) / error)[0]


@pytest.mark.parametrize("method", ["ibi", "relative-entropy", "adam", GaussNewton(WEAK)])
def test_two_errors_hold_the_potential_wherever_a_method_stopped(method: Any) -> None:
    """Pooled over five seeds; with Gauss-Newton's error alone, of adam it was a tenth."""
    found = [off(fit_of(spline(), seed, method)) for seed in range(5)]
    assert np.mean(np.abs(found) < 2) > 0.85


def test_error_has_what_a_fit_has_still_to_go_in_it() -> None:
    fit = fit_of(lj(), 1, "adam", rounds=1)
    step = GaussNewton(fit._options).propose(fit.view())
    table = fit.parameter_table()
    assert step.covariance is not None
    expected = np.diag(step.covariance) + step.change**2
    np.testing.assert_allclose(table.standard_error**2, expected)
    assert np.any(step.change**2 > 0.05 * np.diag(step.covariance))


def test_parameters_have_names_and_correlations() -> None:
    fit = fit_of(lj(), 2, GaussNewton(WEAK))
    table = fit.parameter_table()
    assert table.names == ["sigma", "epsilon"] or table.names == ["epsilon", "sigma"]
    np.testing.assert_array_equal(table.values, flat_parameters(fit.potential).numpy())
    np.testing.assert_allclose(np.diag(table.correlation), 1.0)
    assert np.abs(table.correlation[0, 1]) < 1
    truth = flat_parameters(liquids.lennard_jones()).numpy()
    assert np.all(np.abs(table.values - truth) < 3.5 * table.standard_error)


def test_a_network_has_no_known_errors() -> None:
    potential = liquids.lennard_jones().as_network()
    n = len(flat_parameters(potential))
    view = FitView(potential, (), torch.zeros(n, dtype=torch.float64))
    table = parameter_table(view, WEAK)
    assert np.isnan(table.standard_error).all() and len(table.names) == n


def test_bootstrap_agrees_with_the_claim_and_is_seeded() -> None:
    fit = fit_of(lj(), 3, GaussNewton(WEAK), rounds=3)
    before = flat_parameters(fit.potential)
    found = fit.bootstrap(40, seed=1, progress=False)
    assert found.parameters.shape == (40, 2) and found.reached.mean() > 0.8
    # each spread to 11 %; the claim has the last step in it, too
    assert np.all((found.ratio > 0.4) & (found.ratio < 1.5)), str(found)
    assert torch.equal(flat_parameters(fit.potential), before)
    r = np.array([1.1, 1.3]) * SIGMA
    spread = found.potential_spread(r, fit.states[0].temperature)
    claimed = fit.potential_table(r)[1]
    assert np.all((spread / claimed > 0.4) & (spread / claimed < 1.5))
    again = fit.bootstrap(3, seed=1, progress=False)
    np.testing.assert_array_equal(again.parameters, found.parameters[:3])
    assert "sigma: spread" in str(found)


def test_bootstrap_says_where_frames_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(view: View) -> None:
        raise OverlapError("too few")

    fit = fit_of(lj(), 6, GaussNewton(WEAK), rounds=1)
    with monkeypatch.context() as patched:
        patched.setattr("openmm_diffsim.refinement.bootstrap.FitView.step_size", lambda *a: None)
        patched.setattr(GaussNewton, "propose", lambda *a: Step(np.ones(2)))
        patched.setattr(View, "check_overlap", refuse)
        theta, reached_it = minimum(fit.view(), WEAK, np.ones(2))
    assert not reached_it
    np.testing.assert_array_equal(theta, flat_parameters(fit.potential).numpy())
    reached = np.array([True, False])
    found = Bootstrap(fit.potential, ["a"], np.zeros(1), np.ones((2, 1)), reached, np.ones(1))
    assert "1 of which the frames did not reach" in str(found)


def test_an_interrupted_bootstrap_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fit_of(lj(), 4, GaussNewton(WEAK))
    done: list[Any] = []
    original = minimum

    def counted(*arguments: Any) -> Any:
        if len(done) == 3:
            signal.raise_signal(signal.SIGINT)
        done.append(original(*arguments))
        return done[-1]

    monkeypatch.setattr("openmm_diffsim.refinement.bootstrap.minimum", counted)
    assert len(fit.bootstrap(50, progress=False).parameters) == 3


@pytest.mark.parametrize("n", [0, 1, 2.5])
def test_bootstrap_wants_two_replicates(n: Any) -> None:
    fit = fit_of(lj(), 5, GaussNewton(WEAK), rounds=1)
    with pytest.raises(TargetError, match=r"^n: "):
        fit.bootstrap(n)


def test_bootstrap_before_any_frame_is_refused() -> None:
    pair = lj()
    point: FakeStatePoint = point_of(pair)
    rdf = RDF(1.02 * CUTOFF, 40, r_min=0.8 * SIGMA)
    target = Target(point, rdf, rdf.r, point.g(rdf), uncertainty=0.1)  # type: ignore[arg-type]
    with pytest.raises(StatePointError, match="nothing was sampled"):
        Refinement(pair, [target]).bootstrap(3)
