"""Averages over samples and their gradients: finite differences, exact cases, pymbar."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pymbar
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from systems import FreePair, argon, assert_parameter_gradient, numerical_derivative
from torch import Tensor

from openmm_diffsim import RDF, Observable, PairPotential, Pressure, Samples
from openmm_diffsim.errors import (
    FramesError,
    ObservableError,
    OverlapError,
    StatePointError,
    UnitError,
)
from openmm_diffsim.observables import Conditions
from openmm_diffsim.potentials import SplineBasis
from openmm_diffsim.samples import Features, Run, View
from openmm_diffsim.statistics.weights import log_mixture, n_effective
from openmm_diffsim.units import BAR, MOLAR_GAS_CONSTANT, beta

Array = NDArray[np.float64]

TINY = SplineBasis(0.2, 0.7, 6)  # four coefficients


class Recorded(Observable):
    """What was recorded is the value."""

    def __init__(self, n_values: int = 1) -> None:
        self.n_values = n_values

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        return records


# Synthetic frames: the algebra of averages does not ask where the numbers come from -------------

STATES: dict[str, list[dict[str, Any]]] = {
    "one run": [{}],
    "three sets of coefficients": [{}, {"change": 0.03}, {"change": -0.05}],
    "three temperatures": [{"temperature": t} for t in (100.0, 115.0, 130.0)],
    "NPT": [{"pressure": 200.0}],
    "NPT, other pressures and temperatures": [
        {"pressure": 200.0, "temperature": 100.0},
        {"pressure": 230.0, "temperature": 110.0, "change": 0.02},
        {"pressure": 215.0, "temperature": 120.0},
    ],
}


def synthetic(
    potential: PairPotential,
    observables: Sequence[Observable],
    states: Sequence[dict[str, Any]],
    n_frames: int = 40,
    seed: int = 0,
) -> Samples:
    """Frames with random basis sums, virials, volumes and records, pooled over states."""
    rng = np.random.default_rng(seed)
    present = potential.coefficients().detach().numpy()
    shape = (n_frames, len(present))
    parts = []
    for state in states:
        pressure = state.get("pressure")
        volume = np.full(n_frames, 5.0) if pressure is None else rng.normal(5.0, 0.3, n_frames)
        run = Run(
            present * (1 + state.get("change", 0.0)),
            state.get("temperature", 120.0),
            pressure,
            n_frames,
            every=10,
        )
        records = {
            o: rng.random((n_frames, o.n_values))
            if not isinstance(o, Pressure)
            else np.stack([np.full(n_frames, 50.0), rng.normal(30, 40, n_frames)], axis=1)
            for o in observables
        }
        parts.append(
            Samples(
                potential=potential,
                runs=(run,),
                learned=Features(
                    0.3 * rng.normal(size=shape) / (1 + np.abs(present)),
                    10 * rng.normal(size=shape) / (1 + np.abs(present)),
                ),
                volume=volume,
                rest_energy=rng.normal(-100.0, 2.0, n_frames),
                records=records,
                temperature=run.temperature,
                pressure=pressure,
                floor=5.0,
            )
        )
    return Samples.pool(parts)


def potentials() -> dict[str, PairPotential]:
    return {"analytic": argon(knots=12), "free, two types": FreePair(TINY, 2, seed=1)}


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("name", potentials())
@pytest.mark.parametrize("kind", ["RDF", "Pressure"])
def test_gradient_of_an_average_equals_finite_differences(
    kind: str, name: str, states: str
) -> None:
    potential = potentials()[name]
    observable = RDF(0.6, 7) if kind == "RDF" else Pressure()
    samples = synthetic(potential, [observable], STATES[states])
    start = potential.coefficients().detach() + 0.0
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=observable.n_values))
    for parameter in potential.parameters():  # away from what was sampled
        parameter.data.mul_(1.01)
    assert not torch.equal(potential.coefficients(), start)
    assert_parameter_gradient(potential, lambda: samples.average(observable) @ direction)


@pytest.mark.parametrize("states", ["one run", "NPT, other pressures and temperatures"])
def test_gradient_after_reweighting_to_another_state_equals_finite_differences(
    states: str,
) -> None:
    potential, observable = argon(knots=12), Pressure()
    samples = synthetic(potential, [observable], STATES[states])
    pressure = None if samples.pressure is None else 220.0
    elsewhere = samples.reweight(114.0, pressure)
    assert_parameter_gradient(potential, lambda: elsewhere.average(observable).sum())


@pytest.mark.parametrize("kind", ["RDF", "Pressure"])
def test_jacobian_equals_finite_differences_and_the_gradient(kind: str) -> None:
    potential = argon(knots=12)
    observable = RDF(0.6, 4) if kind == "RDF" else Pressure()
    samples = synthetic(potential, [observable], STATES["three sets of coefficients"])
    jacobian = samples.at().jacobian(observable)
    c = potential.coefficients()
    assert jacobian.shape == (observable.n_values, *c.shape)

    def average(x: Array) -> Array:
        return View(samples, torch.from_numpy(x)).average(observable).numpy()

    expected = numerical_derivative(average, c.detach().numpy())
    scale = 1e-9 * np.abs(expected).max()
    np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=scale)
    direction = torch.ones(observable.n_values, dtype=torch.float64)
    through = torch.autograd.grad((direction @ torch.from_numpy(jacobian)) @ c, potential.sigma)
    direct = torch.autograd.grad(samples.average(observable) @ direction, potential.sigma)
    torch.testing.assert_close(through, direct, rtol=1e-9, atol=0.0)


def test_gradient_of_an_average_is_the_covariance_formula() -> None:
    potential, pressure = FreePair(TINY, seed=1), Pressure()
    samples = synthetic(potential, [pressure], STATES["one run"])
    w = samples.weights().detach().numpy()
    s = samples.features
    value = samples.at().values(pressure).detach().numpy()[:, 0]
    covariance = w @ (value[:, None] * s) - (w @ value) * (w @ s)
    explicit = w @ (BAR * samples.virial_features / (3 * samples.volume[:, None]))
    expected = explicit - beta(120.0) * covariance
    np.testing.assert_allclose(samples.at().jacobian(pressure)[0], expected, rtol=1e-10)


def test_gradient_of_a_loss_is_that_of_autograd_with_an_error_bar() -> None:
    potential, rdf = FreePair(TINY, 2, seed=1), RDF(0.6, 5)
    samples = synthetic(potential, [rdf], STATES["three sets of coefficients"], 60)

    def loss(s: Samples) -> Tensor:
        return ((s.average(rdf) - 0.4) ** 2).sum()

    gradient, error = samples.gradient(loss)
    (expected,) = torch.autograd.grad(loss(samples), potential.c)
    np.testing.assert_allclose(gradient, expected.numpy().ravel(), rtol=1e-12)
    assert error.shape == gradient.shape
    assert np.all(error > 0)
    assert np.all(np.isfinite(error))


def test_gradient_is_flat_over_the_parameters_in_their_order() -> None:
    potential, rdf = argon(knots=12), RDF(0.6, 5)
    potential.sigma.requires_grad_(False)
    samples = synthetic(potential, [rdf], STATES["one run"], 60)
    gradient, error = samples.gradient(lambda s: s.average(rdf).sum())
    assert gradient.shape == error.shape == (1,)


# Weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", STATES)
def test_weights_sum_to_one(states: str) -> None:
    potential = argon(knots=12)
    samples = synthetic(potential, [], STATES[states])
    potential.sigma.data.mul_(1.02)
    w = samples.weights().detach().numpy()
    assert w.shape == (len(samples),)
    assert w.min() > 0
    assert w.sum() == pytest.approx(1.0, abs=1e-12)
    assert w.max() > 1.05 * w.min(), "the weights are to differ"


@pytest.mark.parametrize("states", ["one run", "NPT"])
def test_frames_of_the_present_state_count_alike(states: str) -> None:
    samples = synthetic(argon(knots=12), [], STATES[states])
    np.testing.assert_allclose(samples.weights().detach().numpy(), 1 / len(samples), rtol=1e-12)
    assert samples.n_effective() == pytest.approx(len(samples), rel=1e-12)


def test_n_effective_is_the_exponential_of_the_entropy() -> None:
    w = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0], dtype=torch.float64)
    entropy = 0.5 * np.log(2) + 0.25 * np.log(4) + 0.25 * np.log(8)
    assert n_effective(w) == pytest.approx(np.exp(entropy), rel=1e-12)
    assert n_effective(torch.full((7,), 1 / 7, dtype=torch.float64)) == pytest.approx(7)
    assert n_effective(torch.tensor([1.0, 0.0], dtype=torch.float64)) == 1.0


def test_too_little_overlap_is_refused_with_its_numbers() -> None:
    potential, rdf = FreePair(TINY, seed=1), RDF(0.6, 5)
    samples = replace(synthetic(potential, [rdf], STATES["one run"], 100), floor=80.0)
    samples.average(rdf)
    potential.c.data.add_(4.0)
    w = samples.weights().detach().numpy()
    expected = float(np.exp(-np.sum(w * np.log(w))))
    floor = 50.0  # half the frames, where that is less than the floor
    assert expected < floor
    for evaluate in (samples.average, samples.estimate, samples.at().jacobian):
        with pytest.raises(OverlapError, match=f"{expected:.1f} of 100.* 50") as error:
            evaluate(rdf)
        assert error.value.n_effective == pytest.approx(expected)
        assert error.value.floor == floor
        assert error.value.n_frames == 100
    assert samples.at().estimate(rdf, check=False).n_effective == pytest.approx(expected)


def test_floor_itself_is_trusted() -> None:
    potential, rdf = FreePair(TINY, seed=1), RDF(0.6, 5)
    samples = synthetic(potential, [rdf], STATES["one run"], 100)
    potential.c.data.add_(0.3)
    effective = samples.n_effective()
    assert 20 < effective < 99.9
    replace(samples, floor=min(effective, 50) - 1e-9).average(rdf)
    for floor in (10.0, 49.0):
        assert (effective < min(floor, 50)) == raises_overlap(replace(samples, floor=floor), rdf)


def raises_overlap(samples: Samples, observable: Observable) -> bool:
    try:
        samples.average(observable)
    except OverlapError:
        return True
    return False


def test_not_a_number_is_never_an_average() -> None:
    potential, rdf = FreePair(TINY, seed=1), RDF(0.6, 5)
    samples = synthetic(potential, [rdf], STATES["one run"])
    potential.c.data[0, 0] = float("nan")
    with pytest.raises(OverlapError):
        samples.average(rdf)


# Pools ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "states",
    ["three sets of coefficients", "three temperatures", "NPT, other pressures and temperatures"],
)
def test_average_over_a_pool_is_that_of_pymbar(states: str) -> None:
    potential, recorded = FreePair(TINY, seed=1), Recorded(2)
    samples = synthetic(potential, [recorded], STATES[states], 60)
    potential.c.data.mul_(1.5)
    target = Run(
        potential.c.detach().numpy().ravel(), samples.temperature, samples.pressure, 0, every=1
    )
    u_kn = np.array(
        [
            beta(run.temperature)
            * (
                samples.features @ run.coefficients
                + samples.rest_energy
                + (run.pressure or 0.0) / BAR * samples.volume
            )
            for run in (*samples.runs, target)
        ]
    )
    mbar = pymbar.MBAR(u_kn, [run.n_frames for run in samples.runs] + [0])
    expected = mbar.W_nk[:, -1]
    assert expected.max() > 1.5 * expected.min()
    np.testing.assert_allclose(samples.weights().detach().numpy(), expected, rtol=1e-5)
    average = samples.average(recorded).detach().numpy()
    np.testing.assert_allclose(average, expected @ samples.records[recorded], rtol=1e-6)


def test_a_constant_energy_changes_nothing() -> None:
    potential, recorded = FreePair(TINY, seed=1), Recorded()
    samples = synthetic(potential, [recorded], STATES["three temperatures"])
    potential.c.data.mul_(1.1)
    shifted = replace(samples, rest_energy=samples.rest_energy - 1e6)
    np.testing.assert_allclose(
        shifted.weights().detach().numpy(), samples.weights().detach().numpy(), rtol=1e-5
    )


def test_rest_energy_matters_only_between_temperatures() -> None:
    potential, recorded = FreePair(TINY, seed=1), Recorded()
    samples = synthetic(potential, [recorded], STATES["three sets of coefficients"])
    without = replace(samples, rest_energy=1e9 * samples.rest_energy)
    assert torch.equal(without.average(recorded), samples.average(recorded))  # no digit is lost
    warmer, without = samples.reweight(125.0), replace(samples, rest_energy=0 * samples.rest_energy)
    assert not torch.allclose(warmer.weights(), without.reweight(125.0).weights(), rtol=1e-3)


def test_state_to_reweight_to_may_be_quantities() -> None:
    samples = synthetic(FreePair(TINY, seed=1), [], STATES["NPT"])
    elsewhere = samples.reweight(125 * unit.kelvin, 1 * unit.atmosphere)
    assert elsewhere.temperature == 125.0
    assert elsewhere.pressure == pytest.approx(1.01325)
    assert elsewhere.weights().sum().item() == pytest.approx(1.0)


def test_pool_of_one_state_twice_is_one_longer_run() -> None:
    potential, recorded = FreePair(TINY, seed=1), Recorded()
    parts = [synthetic(potential, [recorded], [{}], seed=seed) for seed in (1, 2)]
    pool = parts[0] + parts[1]
    assert len(pool) == 80
    assert len(pool.runs) == 2
    potential.c.data.mul_(1.1)
    one_run = replace(pool, runs=(replace(pool.runs[0], n_frames=80),))
    np.testing.assert_allclose(
        pool.weights().detach().numpy(), one_run.weights().detach().numpy(), rtol=1e-9
    )


def test_pool_takes_its_state_from_the_last_part_and_what_all_recorded() -> None:
    potential, shared, extra = FreePair(TINY, seed=1), Recorded(), Recorded()
    first = synthetic(potential, [shared, extra], [{"temperature": 100.0}])
    last = synthetic(potential, [shared], [{"temperature": 130.0}], seed=1)
    pool = Samples.pool([first, last])
    assert pool.temperature == 130.0
    assert set(pool.records) == {shared}
    np.testing.assert_array_equal(pool.last_runs().features, last.features)
    assert pool.last_runs().runs == last.runs
    with pytest.raises(ObservableError, match="was not recorded"):
        pool.average(extra)


def test_cutting_the_start_of_a_run_keeps_its_end() -> None:
    potential, recorded = FreePair(TINY, seed=1), Recorded()
    samples = synthetic(potential, [recorded], [{}])
    late = samples.after(15)
    assert len(late) == late.runs[0].n_frames == 25
    np.testing.assert_array_equal(late.records[recorded], samples.records[recorded][15:])
    np.testing.assert_array_equal(late.rest_energy, samples.rest_energy[15:])
    with pytest.raises(StatePointError, match="single run"):
        (samples + samples).after(3)


def test_samples_that_do_not_belong_together_are_refused() -> None:
    potential = FreePair(TINY, seed=1)
    samples = synthetic(potential, [], [{}])
    with pytest.raises(StatePointError, match="different potentials"):
        samples + synthetic(FreePair(TINY, seed=1), [], [{}])
    with pytest.raises(StatePointError, match="constant pressure"):
        samples + synthetic(potential, [], [{"pressure": 1.0}])
    with pytest.raises(StatePointError, match=r"got a pressure of 1\.0.* at constant volume"):
        samples.reweight(120.0, 1.0)
    with pytest.raises(UnitError, match=r"temperature: got -10\.0"):
        samples.reweight(-10)


def test_frames_keep_their_pressure_where_none_is_given() -> None:
    samples = synthetic(FreePair(TINY, seed=1), [], [{"pressure": 7.0}])
    assert samples.reweight(121.0).pressure == 7.0
    assert samples.reweight(121.0, 8.0).pressure == 8.0


# Files ------------------------------------------------------------------------------------------

KEPT = RDF(0.6, 5)


def kept(folder: Path) -> tuple[PairPotential, Samples, Path]:
    potential = FreePair(TINY, 2, seed=1)
    samples = synthetic(potential, [KEPT], STATES["NPT, other pressures and temperatures"], 6)
    samples.save(folder / "kept.npz")
    return potential, samples, folder / "kept.npz"


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    potential, samples, path = kept(tmp_path)
    again = Samples.load(path, potential, [KEPT])
    one, other = (s.arrays([KEPT], tmp_path) for s in (samples, again))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    with np.load(path) as plain:  # anyone can read it
        np.testing.assert_array_equal(plain["volume"], samples.volume)


def test_any_byte_that_was_altered_is_found(tmp_path: Path) -> None:
    potential, _, path = kept(tmp_path)
    data = path.read_bytes()
    for k in [*range(0, len(data), 89), len(data) - 1]:
        path.write_bytes(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :])
        with pytest.raises(FramesError, match=r"is damaged|is not a samples file"):
            Samples.load(path, potential, [KEPT])


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("code from a file was run",)


def test_what_is_no_file_of_samples_is_refused(tmp_path: Path) -> None:
    potential, _, path = kept(tmp_path)
    data = path.read_bytes()
    pickled = io.BytesIO()
    np.savez(pickled, settings=np.array([Evil()], dtype=object))
    for other in (b"", b"hello", data[:-1], data[: len(data) // 2], data * 2, pickled.getvalue()):
        path.write_bytes(other)
        with pytest.raises(FramesError, match=r"is no(t a)? samples file"):
            Samples.load(path, potential, [KEPT])
    for missing in (tmp_path, tmp_path / "missing.npz"):
        with pytest.raises(FramesError, match="cannot read the samples file"):
            Samples.load(missing, potential, [KEPT])


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (FreePair(SplineBasis(0.2, 0.7, 7), 2), "structure"),  # other knots
        (FreePair(SplineBasis(0.21, 0.7, 6), 2), "structure"),  # as many coefficients
        (FreePair(TINY, 1), "options"),
        (argon(0.7, 6, n_types=2), "kind"),
    ],
)
def test_samples_of_another_potential_are_refused_by_what_differs(
    other: PairPotential, name: str, tmp_path: Path
) -> None:
    _, _, path = kept(tmp_path)
    with pytest.raises(StatePointError, match=f"another potential than {other.name}: its {name} "):
        Samples.load(path, other, [KEPT])


def test_records_of_other_observables_are_refused(tmp_path: Path) -> None:
    potential, _, path = kept(tmp_path)
    with pytest.raises(StatePointError, match="records of 1 observables, got 0"):
        Samples.load(path, potential, [])
    with pytest.raises(StatePointError, match="RDF: what was recorded is"):
        Samples.load(path, potential, [RDF(0.6, 6)])


# Exact cases ------------------------------------------------------------------------------------


def oscillator(
    runs: Sequence[tuple[float, float, int]], rest_constant: float, seed: int, now: float
) -> tuple[Samples, Observable]:
    """Independent frames of two oscillators, U = c x^2 / 2 + k y^2 / 2, with x^2 and y^2 recorded.

    ``runs`` holds c, the temperature and the number of frames of each; k is not learned; the
    average is taken at c = ``now`` and the temperature of the last run.
    """
    rng = np.random.default_rng(seed)
    potential, squares = FreePair(TINY), Recorded(2)
    parts = []
    for c, temperature, n in runs:
        kt = MOLAR_GAS_CONSTANT * temperature
        x = rng.normal(scale=np.sqrt(kt / c), size=n)
        y = rng.normal(scale=np.sqrt(kt / rest_constant), size=n)
        sums = np.zeros((n, TINY.n_coefficients))
        sums[:, 1] = 0.5 * x**2
        coefficients = np.zeros(sums.shape[1])
        coefficients[1] = c
        parts.append(
            Samples(
                potential=potential,
                runs=(Run(coefficients, temperature, None, n, every=1),),
                learned=Features(sums, np.zeros_like(sums)),
                volume=np.full(n, np.nan),
                rest_energy=0.5 * rest_constant * y**2,
                records={squares: np.stack([x**2, y**2], axis=1)},
                temperature=temperature,
            )
        )
    potential.c.data[0, 1] = now
    return Samples.pool(parts), squares


OSCILLATORS: dict[str, list[tuple[float, float, int]]] = {
    "one run": [(4.0, 300.0, 4000)],
    "three constants": [(3.0, 300.0, 1500), (4.0, 300.0, 1000), (6.0, 300.0, 1500)],
    "three temperatures": [(4.0, 250.0, 1500), (5.0, 350.0, 1000), (4.5, 300.0, 1500)],
}


@pytest.mark.parametrize("runs", OSCILLATORS)
@pytest.mark.parametrize("now", [4.0, 4.6])
def test_average_and_gradient_of_an_oscillator_are_exact_within_their_errors(
    runs: str, now: float
) -> None:
    samples, squares = oscillator(OSCILLATORS[runs], 2.0, seed=7, now=now)
    kt = MOLAR_GAS_CONSTANT * 300.0
    estimate = samples.estimate(squares)
    deviation = (estimate.value - [kt / now, kt / 2.0]) / estimate.standard_error
    assert np.abs(deviation).max() < 3, f"{deviation} standard errors"
    assert np.all(estimate.standard_error < 0.05 * estimate.value)

    # d<x^2>/dc = -kT/c^2; y^2 does not depend on c.
    for index, exact in ((0, -kt / now**2), (1, 0.0)):
        gradient, error = samples.gradient(lambda s, i=index: s.average(squares)[i])
        deviation = (gradient[1] - exact) / error[1]
        assert abs(deviation) < 3, f"d<A{index}>/dc is off by {deviation} standard errors"
        assert error[1] < 0.15 * kt / now**2


def test_another_temperature_is_reached_exactly_within_the_errors() -> None:
    samples, squares = oscillator([(4.0, 300.0, 6000)], 2.0, seed=9, now=4.0)
    estimate = samples.reweight(330.0).estimate(squares)
    kt = MOLAR_GAS_CONSTANT * 330.0
    deviation = (estimate.value - [kt / 4.0, kt / 2.0]) / estimate.standard_error
    assert np.abs(deviation).max() < 3, f"{deviation} standard errors"
    # Without reweighting the same frames are further off than they can be by chance.
    cold = samples.estimate(squares)
    assert np.all((kt / np.array([4.0, 2.0]) - cold.value) / cold.standard_error > 3)


def test_another_pressure_is_reached_exactly_within_the_errors() -> None:
    """An ideal gas of N particles: p(V) = V^N exp(-beta p V), <V> = (N + 1) kT / p."""
    rng = np.random.default_rng(9)
    n_particles, n, temperature, pressure = 10, 4000, 300.0, 500.0
    kt = MOLAR_GAS_CONSTANT * temperature
    volume = rng.gamma(n_particles + 1, kt * BAR / pressure, n)
    volumes = Recorded()
    sums = np.zeros((n, TINY.n_coefficients))
    samples = Samples(
        potential=FreePair(TINY),
        runs=(Run(sums[0], temperature, pressure, n, every=1),),
        learned=Features(sums, sums),
        volume=volume,
        rest_energy=np.zeros(n),
        records={volumes: volume[:, None]},
        temperature=temperature,
        pressure=pressure,
    )
    for new_temperature, new_pressure in ((300.0, 540.0), (320.0, 500.0)):
        estimate = samples.reweight(new_temperature, new_pressure).estimate(volumes)
        exact = (n_particles + 1) * MOLAR_GAS_CONSTANT * new_temperature * BAR / new_pressure
        deviation = (estimate.value[0] - exact) / estimate.standard_error[0]
        assert abs(deviation) < 3, f"{deviation} standard errors"
        assert abs(samples.estimate(volumes).value[0] - exact) > 3 * estimate.standard_error[0]


def test_free_energies_of_oscillators_are_exact_within_their_errors() -> None:
    runs = OSCILLATORS["three constants"]
    samples, _ = oscillator(runs, 2.0, seed=7, now=4.0)
    u_kn = np.array([beta(300.0) * samples.features @ r.coefficients for r in samples.runs])
    n_k = np.array([n for _, _, n in runs])
    mixture, _ = log_mixture(u_kn, n_k)
    # sum_n exp(-u_k - mixture) = exp(-f_k), and f_k = ln(c_k / c_0) / 2 for an oscillator.
    f_k = -np.log(np.exp(-u_kn - mixture).sum(axis=1))
    exact = 0.5 * np.log([c / runs[0][0] for c, _, _ in runs])
    error = pymbar.MBAR(u_kn, n_k).compute_free_energy_differences()["dDelta_f"][0]
    assert f_k[0] == pytest.approx(0.0, abs=1e-6)
    deviation = (f_k - exact)[1:] / error[1:]
    assert np.abs(deviation).max() < 3, f"{deviation} standard errors"


def test_a_run_has_at_least_its_own_frames_however_far_the_others_are() -> None:
    """Of the rounds of a short fit: in the state of run k no weight is above 1 / N_k.

    exp(-u_k - mixture + f_k) = p_k(n) / N_k, the chance that frame n is of run k, over its frames.
    """
    u_kn = np.loadtxt(Path(__file__).with_name("runs_apart.txt"))
    n_k = np.array([15, 10, 10, 10, 13, 11, 20, 10])
    mixture, _ = log_mixture(u_kn, n_k)
    for u, n in zip(u_kn, n_k, strict=True):
        weights = torch.softmax(torch.from_numpy(-u - mixture), dim=0)
        assert float(weights.max()) < (1 + 1e-6) / n
        assert n_effective(weights) > (1 - 1e-6) * n


def test_estimate_is_the_average_with_its_covariance() -> None:
    samples, squares = oscillator(OSCILLATORS["three constants"], 2.0, seed=3, now=4.2)
    estimate = samples.estimate(squares)
    np.testing.assert_allclose(estimate.value, samples.average(squares).detach().numpy())
    np.testing.assert_allclose(estimate.standard_error**2, np.diag(estimate.covariance))
    np.testing.assert_allclose(estimate.covariance, estimate.covariance.T)
    assert estimate.n_effective == pytest.approx(samples.n_effective())
    assert 4 <= estimate.n_blocks <= len(samples.blocks) + 1


def test_energies_of_runs_are_those_they_ran_with() -> None:
    potential = FreePair(TINY, seed=1)
    samples = synthetic(potential, [], STATES["three sets of coefficients"])
    potential.c.data.zero_()
    energies = samples.run_energies()
    first = 0
    for run in samples.runs:
        for n in range(first, first + run.n_frames):
            learned = np.sum(samples.features[n] * run.coefficients)
            assert energies[n] == pytest.approx(learned + samples.rest_energy[n])
        first += run.n_frames
