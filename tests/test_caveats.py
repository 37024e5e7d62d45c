"""What has to be known of a fit besides whether it has converged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import liquids
import numpy as np
import pytest
from fake_statepoint import FakeStatePoint
from liquids import CUTOFF, SIGMA, Array

from openmm_diffsim import RDF, Curve, Refinement, SplinePair, Target
from openmm_diffsim.configuration.potentials import Structure, _first_knot
from openmm_diffsim.refinement import caveats
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

KELVIN = liquids.kelvin(1.5)
KT = MOLAR_GAS_CONSTANT * KELVIN
LENGTH = 2.05 * CUTOFF


def fit_of(
    pair: SplinePair, truth: SplinePair, uncertainty: float = 0.1, **measured: Any
) -> Refinement:
    rdf = RDF(1.02 * CUTOFF, 60, r_min=0.3 * SIGMA)
    g = FakeStatePoint(truth, KELVIN, LENGTH).g(rdf)
    point: Any = FakeStatePoint(pair, KELVIN, LENGTH)
    return Refinement(pair, [Target(point, rdf, rdf.r, g, uncertainty=uncertainty, **measured)])


def shallow(r_min: float) -> SplinePair:
    """A core that pairs enter: g is about 0.01 at 0.8 sigma."""
    pair = SplinePair(r_min, CUTOFF, 40)
    r = np.linspace(r_min, CUTOFF, 400)
    return pair.set_table(r, 4.5 * KT * np.exp(-(((r / SIGMA - 0.8) / 0.25) ** 2)))


def test_pairs_below_the_first_knot_are_told_of_before_any_md() -> None:
    with pytest.warns(UserWarning, match=r"g\(r\) of the target is still 0\.0.* at r_min = 0\.27"):
        fit = fit_of(shallow(0.8 * SIGMA), shallow(0.3 * SIGMA))
    (said,) = fit.warnings()
    assert "goes on as a straight line: take r_min below" in said


@pytest.mark.parametrize(
    "measured",
    [{"offset": 0.1}, {"background": (0.1, 0.2)}, {"systematic": np.full(60, 0.1)}],
    ids=["offset", "background", "systematic"],
)
def test_pairs_that_may_be_an_offset_are_not_told_of(measured: dict[str, Any]) -> None:
    assert fit_of(shallow(0.8 * SIGMA), shallow(0.3 * SIGMA), **measured).warnings() == []


def test_a_first_knot_below_all_pairs_is_not_told_of(recwarn: pytest.WarningsRecorder) -> None:
    assert fit_of(liquids_spline(0.8 * SIGMA), liquids_spline(0.8 * SIGMA)).warnings() == []
    assert fit_of(shallow(0.31 * SIGMA), shallow(0.3 * SIGMA)).warnings() == []
    assert not list(recwarn)


def liquids_spline(r_min: float) -> SplinePair:
    pair = SplinePair(r_min, CUTOFF, 40)
    truth = liquids.lennard_jones(knots=40)
    r = np.linspace(r_min, CUTOFF, 400)
    return pair.set_table(r, truth.energy(r)[0].detach().numpy())


def test_pairs_of_the_model_below_the_first_knot_are_told_of() -> None:
    """The target has none there, but what was learned lets them in."""
    pair = liquids_spline(0.8 * SIGMA)
    view, (comparison,) = view_of(fit_of(pair, pair))
    assert caveats.after_sampling(view, [comparison], error_where(0, 0, 0)) == []
    rdf = comparison.targets[0].observable
    g = FakeStatePoint(shallow(0.3 * SIGMA), KELVIN, LENGTH).g(rdf)
    lets_in = replace(comparison, prediction=g)
    (said,) = caveats.after_sampling(view, [lets_in], error_where(0, 0, 0))
    assert said.startswith("g(r) of the model is still 0.0")


def view_of(fit: Refinement) -> Any:
    fit.run(1, 4000, 1, progress=False)
    return fit.view(), fit.comparisons()


def error_where(low: float, high: float, size: float) -> Any:
    """u(r) that fades, with so large an error between, and a small one elsewhere."""

    def table(r: Array, term: int) -> tuple[Array, Array]:
        assert term == 0
        error = np.where((r > low) & (r < high), size, 0.01)
        return np.zeros((1, len(r))), error[None]

    return table


def test_a_potential_that_is_not_determined_where_pairs_are_is_told_of() -> None:
    view, comparisons = view_of(fit_of(liquids_spline(0.8 * SIGMA), liquids_spline(0.8 * SIGMA)))
    wide = error_where(1.05 * SIGMA, 1.5 * SIGMA, 0.7 * KT)
    (said,) = caveats.after_sampling(view, comparisons, wide)
    assert "not determined from 0.358 to 0.509 nm" in said and "0.7 kT" in said
    assert "a pressure, a second state point or longer rounds" in said
    small = error_where(1.05 * SIGMA, 1.5 * SIGMA, 0.4 * KT)
    core = error_where(0.0, 0.85 * SIGMA, 30 * KT)  # where no pairs are, nobody knows
    for table in (small, core, error_where(0.0, 9.0, np.nan)):
        assert caveats.after_sampling(view, comparisons, table) == []


def test_a_potential_that_is_cut_off_while_it_acts_is_told_of() -> None:
    view, comparisons = view_of(fit_of(liquids_spline(0.8 * SIGMA), liquids_spline(0.8 * SIGMA)))

    def table(size: float, error: float) -> Any:
        return lambda r, term: (np.full((1, len(r)), size), np.full((1, len(r)), error))

    (said,) = caveats.after_sampling(view, comparisons, table(-0.1 * KT, 0.01 * KT))
    assert "before its cutoff" in said and "take a longer cutoff" in said
    for size, error in ((0.1, 0.05), (0.005, 0.0001), (0.1, 0)):  # unclear; nothing; not learned
        assert caveats.after_sampling(view, comparisons, table(size * KT, error * KT)) == []


def test_where_pairs_are_is_told_from_the_sums_over_them() -> None:
    pair = liquids_spline(0.8 * SIGMA)
    fit = fit_of(pair, pair)
    view, _ = view_of(fit)
    r = np.linspace(1.1 * SIGMA, 0.9 * CUTOFF, 20)
    found = caveats.pair_structure(view, 0, 0, r)
    exact = np.exp(-pair.energy(r)[0].detach().numpy() / KT)
    np.testing.assert_allclose(found[0], exact * np.mean(found[0] / exact), rtol=0.35)
    assert 0.8 < np.mean(found[0] / exact) < 1.2  # V / Z


# Where pairs begin --------------------------------------------------------------------------------


def test_ripples_in_the_core_are_no_pairs() -> None:
    """Of a measured curve, within its errors; what is beyond them is a particle within another."""
    rdf = RDF(1.0, 100)
    g = np.where(rdf.r < 0.3, 0.0, 1.0)
    rippled = g + np.where(rdf.r < 0.3, 0.01 * np.cos(40 * rdf.r) ** 2, 0.0)
    assert rdf.first_pairs(Curve(rdf.r, g)) == pytest.approx(0.305)
    assert rdf.first_pairs(Curve(rdf.r, rippled, 0.02 + 0 * g)) == pytest.approx(0.305)
    assert rdf.first_pairs(Curve(rdf.r, rippled, 1e-4 + 0 * g)) == pytest.approx(0.285, abs=0.03)
    inside = 1 - 0.98 * np.exp(-((rdf.r / 0.2) ** 2))  # 0.02 at r = 0
    assert rdf.first_pairs(Curve(rdf.r, inside, 1e-3 + 0 * g)) == pytest.approx(0.005)


@pytest.mark.parametrize("core", [0.02, 0.08])
def test_a_spline_that_is_given_no_first_knot_begins_below_all_pairs(core: float) -> None:
    """However slowly g(r) rises."""
    rdf = RDF(1.0, 200)
    g = 1 / (1 + np.exp((0.4 - rdf.r) / core))
    curve = Curve(rdf.r, g, 0.002 + 0 * g)
    first = rdf.first_pairs(curve)
    assert first is not None
    knot = _first_knot([Structure(rdf, curve)], Structure(rdf, curve).rise, 0.9)
    assert 0 < knot < max(first, 0.02 * 0.9) and knot <= 0.88 * Structure(rdf, curve).rise
