"""Some pairs of types are learned, all others stay as they are, to the last bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import liquids
import numpy as np
import pytest
import torch
from liquids import CUTOFF, EPSILON, SIGMA, Array
from systems import assert_parameter_gradient

from openmm_diffsim import (
    RDF,
    LennardJones,
    NeuralPair,
    PairPotential,
    PairSum,
    Refinement,
    SplinePair,
    StatePoint,
    Sum,
    Target,
    TemperatureDependent,
    TorchOptimizer,
)
from openmm_diffsim.errors import CheckpointError, PotentialError, TargetError
from openmm_diffsim.potentials import Potential, SplineBasis, flat_parameters

KNOTS, KELVIN = 16, liquids.kelvin(1.5)
TYPES = np.repeat([0, 1], 32)
KEPT, LEARNED = [0, 1], [2]  # pairs of types: (0,0) and (0,1), and (1,1)


def lennard_jones(scale: float = 1.0) -> LennardJones:
    epsilon = scale * EPSILON * np.array([1.0, 0.8, 0.9])
    return liquids.lennard_jones(SIGMA * np.array([1, 1.02, 1.05]), epsilon, knots=KNOTS, n_types=2)


def spline(scale: float = 1.0) -> SplinePair:
    pair = SplinePair(0.8 * SIGMA, CUTOFF, KNOTS, n_types=2)
    return pair.set_coefficients(lennard_jones(scale).spline_coefficients().detach())


def neural() -> NeuralPair:
    return NeuralPair(0.8 * SIGMA, CUTOFF, SIGMA, EPSILON, 60, n_types=2, centers=6, hidden=(8,))


KINDS: dict[str, Callable[[], PairPotential]] = {
    "spline": spline,
    "Lennard-Jones": lennard_jones,
    "neural": neural,
    "sum": lambda: PairSum([lennard_jones(), spline(0.1)]),
    "temperature-dependent": lambda: TemperatureDependent(spline(), spline(1e-4)),
}


def coefficients(pair: PairPotential, kelvin: float = KELVIN) -> Array:
    return pair.spline_coefficients(kelvin).detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_flows_to_what_stays(kind: str) -> None:
    pair = KINDS[kind]()
    before = coefficients(pair)
    assert pair.learn_only([(1, 1)]) is pair
    np.testing.assert_array_equal(coefficients(pair), before)
    np.testing.assert_array_equal(pair.learned_rows(), [False, False, True])
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=before.shape))

    def loss(rows: list[int]) -> torch.Tensor:
        return (weights * pair.spline_coefficients(KELVIN))[rows].sum()

    for p in pair.parameters():
        (slope,) = torch.autograd.grad(loss(KEPT), p, allow_unused=True)
        assert slope is None or not slope.any()
    assert_parameter_gradient(pair, lambda: loss([0, 1, 2]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_stays_is_the_same_to_the_last_bit_whatever_parameters_become(kind: str) -> None:
    pair = KINDS[kind]().learn_only([(1, 1)])
    at = (KELVIN, 1.3 * KELVIN)
    before = [coefficients(pair, kelvin) for kelvin in at]
    with torch.no_grad():
        for p in pair.parameters():
            p.mul_(1.05).add_(1e-3)
    for kelvin, old in zip(at, before, strict=True):
        now = coefficients(pair, kelvin)
        np.testing.assert_array_equal(now[KEPT], old[KEPT])
        assert np.abs(now[LEARNED] - old[LEARNED]).max() > 1e-3
    copy = pickle.loads(pickle.dumps(pair))
    np.testing.assert_array_equal(coefficients(copy), coefficients(pair))


def test_another_choice_keeps_what_was_learned_so_far() -> None:
    pair = neural().learn_only([(1, 1)])
    with torch.no_grad():
        for p in pair.parameters():
            p.add_(0.01)
    learned = coefficients(pair)
    pair.learn_only([(1, 0)])
    np.testing.assert_array_equal(coefficients(pair)[LEARNED], learned[LEARNED])
    np.testing.assert_array_equal(coefficients(pair)[0], learned[0])
    assert pair.learn_only(None).learned_rows().all()


def test_a_table_for_what_stays_is_taken() -> None:
    pair = spline().learn_only([(1, 1)])
    r = np.linspace(0.8 * SIGMA, CUTOFF, 50)
    u = liquids.lennard_jones(epsilon=2 * EPSILON).energy(r)[0].detach().numpy()
    pair.set_table(r, u, pair=0)
    np.testing.assert_allclose(
        pair.energy([1.1 * SIGMA])[0].item(), np.interp(1.1 * SIGMA, r, u), 0.1
    )
    pair.set_coefficients(spline(0.5).values.detach())
    np.testing.assert_array_equal(coefficients(pair), coefficients(spline(0.5)))


def test_only_what_is_learned_has_a_prior() -> None:
    pair = spline().learn_only([(0, 1)])
    n = pair.basis.n_coefficients
    precision = pair.prior_precision(KELVIN, SIGMA, 200.0)
    free = spline().prior_precision(KELVIN, SIGMA, 200.0)
    assert precision is not None and free is not None
    np.testing.assert_array_equal(precision[n : 2 * n], free[n : 2 * n])
    assert not precision[:n].any() and not precision[2 * n :].any()


@pytest.mark.parametrize("pairs", [[], [(0, 2)], [(-1, 0)], [0], [(0, 0.5)], [("a", "b")]])
def test_pairs_of_types_that_are_not_there_are_refused(pairs: Any) -> None:
    with pytest.raises(PotentialError, match=r"learn_only: got .* expected pairs of types 0 .. 1"):
        spline().learn_only(pairs)
    with pytest.raises(PotentialError, match="learn_only"):
        KINDS["sum"]().learn_only(pairs)


def test_a_kind_that_goes_round_it_is_refused() -> None:
    class Own(PairPotential):
        def spline_coefficients(self, temperature: float | None = None) -> torch.Tensor:
            return torch.zeros(3, KNOTS - 2, dtype=torch.float64)

    with pytest.raises(PotentialError, match="let it give unbound_coefficients"):
        Own(SplineBasis(0.3, 0.8, KNOTS), 2).learn_only([(0, 0)])


def test_knots_of_what_stays_are_not_refined() -> None:
    with pytest.raises(PotentialError, match="learn_only keeps splines on 60 knots"):
        neural().learn_only([(0, 0)]).refine_knots()


def test_the_energy_in_torch_has_what_stays() -> None:
    pair = neural().learn_only([(1, 1)])
    before = pair.energy([1.1 * SIGMA])[:, 0].detach()
    with torch.no_grad():
        for p in pair.parameters():
            p.add_(0.05)
    x = torch.tensor([[0.0, 0, 0], [1.1 * SIGMA, 0, 0]], dtype=torch.float64)
    for module in (pair.in_torch(), torch.jit.script(pair.in_torch())):
        for k, types in enumerate([(0, 0), (0, 1)]):
            energy = module(x, None, torch.tensor(types))
            torch.testing.assert_close(energy, before[k])
        assert abs(module(x, None, torch.tensor([1, 1])) - before[2]) > 1e-3


# In a fit -----------------------------------------------------------------------------------------


def point_of(pair: PairPotential, seed: int = 2) -> StatePoint:
    sim = liquids.simulation(pair, 64, 0.5, types=TYPES, seed=seed)
    return StatePoint(sim, pair)


def rdfs() -> list[RDF]:
    atoms = [np.flatnonzero(k == TYPES) for k in (0, 1)]
    return [
        RDF(1.02 * CUTOFF, 30, atoms=atoms[a], atoms2=atoms[b]) for a, b in ((0, 0), (0, 1), (1, 1))
    ]


@pytest.fixture(scope="module")
def measured() -> list[Array]:
    """g(r) of each pair of types at the truth, with their errors."""
    observables = rdfs()
    samples = point_of(lennard_jones(), 1).sample(6000, 20, observables, equilibration=1000)
    return [samples.average(rdf).detach().numpy() for rdf in observables]


def fit_of(pair: PairPotential, g: list[Array], method: Any, only: list[int]) -> Refinement:
    point = point_of(pair)
    chosen = [(rdf, y) for k, (rdf, y) in enumerate(zip(rdfs(), g, strict=True)) if k in only]
    targets = [Target(point, rdf, rdf.r, y, uncertainty=0.05) for rdf, y in chosen]
    return Refinement(pair, targets, method)


METHODS: dict[str, Any] = {
    "gauss-newton": "gauss-newton",
    "relative-entropy": "relative-entropy",
    "ibi": "ibi",
    "adam": "adam",
    "decay": TorchOptimizer(lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.5)),
}


FITS = [(k, m) for k in ("spline", "Lennard-Jones", "neural") for m in METHODS]
FITS = [fit for fit in FITS if fit[0] == "spline" or fit[1] != "ibi"]  # it is for splines


@pytest.mark.parametrize(("kind", "method"), FITS)
def test_a_fit_changes_what_is_learned_alone(measured: list[Array], kind: str, method: str) -> None:
    pair = KINDS[kind]().learn_only([(1, 1)])
    before = coefficients(pair)
    fit = fit_of(pair, measured, METHODS[method], LEARNED if kind == "spline" else [0, 1, 2])
    fit.run(2, 600, 20, progress=False)
    now = coefficients(pair)
    np.testing.assert_array_equal(now[KEPT], before[KEPT])
    assert np.abs(now[LEARNED] - before[LEARNED]).max() > 1e-4
    (force,) = fit.states[0].state_point.attached.forces
    if hasattr(force, "getCoefficients"):  # native
        np.testing.assert_array_equal(force.getCoefficients()[KEPT], before[KEPT])
    r = np.linspace(SIGMA, 0.95 * CUTOFF, 20)
    u, error = fit.potential_table(r)
    np.testing.assert_array_equal(u[KEPT], before[KEPT] @ pair.basis.values(r).T)
    if method == "gauss-newton":
        assert not error[KEPT].any() and np.all(error[LEARNED] > 0)


def test_what_is_learned_comes_to_the_truth_beside_what_is_given(measured: list[Array]) -> None:
    pair = lennard_jones()
    truth = flat_parameters(pair)
    with torch.no_grad():
        pair.epsilon[2] *= 0.7
    pair.learn_only([(1, 1)])
    fit = fit_of(pair, measured, "gauss-newton", LEARNED).run(3, 3000, 20, progress=False)
    assert fit.last_step is not None and fit.last_step.covariance is not None
    error = np.sqrt(np.diag(fit.last_step.covariance))
    np.testing.assert_array_equal(error > 0, [False, False, True] * 2)
    off = (flat_parameters(pair) - truth).numpy()
    assert not off[error == 0].any()
    assert np.abs(off[error > 0] / error[error > 0]).max() < 5


def test_a_pair_of_types_that_is_learned_needs_its_g(measured: list[Array]) -> None:
    pair = spline().learn_only([(1, 1), (0, 1)])
    with pytest.raises(TargetError, match=r"every pair of types.*\{1\}"):
        fit_of(pair, measured, "relative-entropy", LEARNED)


def test_a_fit_of_other_pairs_is_another_fit(measured: list[Array], tmp_path: Any) -> None:
    def fit(pairs: Any, scale: float = 1.0) -> Refinement:
        return fit_of(spline(scale).learn_only(pairs), measured, "gauss-newton", [0, 1, 2])

    first = fit([(1, 1)]).run(1, 600, 20, progress=False)
    first.save(tmp_path / "fit.npz")
    for other in (fit(None), fit([(0, 1)]), fit([(1, 1)], 0.9)):
        with pytest.raises(CheckpointError, match="another fit"):
            other.resume(tmp_path / "fit.npz")
    again = fit([(1, 1)]).resume(tmp_path / "fit.npz")
    np.testing.assert_array_equal(
        coefficients(again.potential),
        coefficients(first.potential),  # type: ignore[arg-type]
    )


# By name ------------------------------------------------------------------------------------------


def total() -> Sum:
    a, b = (liquids.lennard_jones(SIGMA, EPSILON, knots=KNOTS, name=name) for name in ("a", "b"))
    return a + b + SplinePair(0.8 * SIGMA, CUTOFF, KNOTS, name="table")


NAMES: dict[str, tuple[list[str], list[str]]] = {
    "a parameter": (["a.epsilon"], ["a.epsilon"]),
    "terms": (["b", "table"], ["b.sigma", "b.epsilon", "table.values"]),
    "a block": (["table.spline", "b.sigma"], ["b.sigma", "table.values"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_of_a_sum_only_what_is_named_is_learned(case: str) -> None:
    names, learned = NAMES[case]
    potential = total()
    before = potential.coefficients().detach().clone()
    assert potential.learn_only(names) is potential
    assert [n for n, p in potential.by_name().items() if p.requires_grad] == learned
    np.testing.assert_array_equal(potential.coefficients().detach(), before)
    theta = flat_parameters(potential)
    assert len(theta) == sum(p.numel() for p in potential.parameters() if p.requires_grad)
    moved = potential.coefficients_at(1.1 * theta + 0.01)
    changed = [bool((moved != before)[where].any()) for where in potential.slices()]
    assert changed == [any(n.startswith(f"{term.name}.") for n in learned) for term in potential]
    slopes = potential.pull_back(np.eye(len(before)))
    np.testing.assert_array_equal([slopes[where].any() for where in potential.slices()], changed)
    assert potential.learn_only(["a"]).learn_only(None) is potential
    assert all(p.requires_grad for p in potential.parameters())


def test_what_was_never_learned_stays_so() -> None:
    potential = total()
    first = next(iter(potential))
    first.sigma.requires_grad_(False)  # type: ignore[union-attr]
    potential.learn_only(["b"]).learn_only(None)
    assert not first.sigma.requires_grad  # type: ignore[union-attr]
    with pytest.raises(PotentialError, match=r"got 'a\.sigma', expected names of .*a\.epsilon"):
        potential.learn_only(["a.sigma"])


@pytest.mark.parametrize("names", [["c"], [], ["a.eps"], "x", ["spline"]])
def test_names_of_nothing_are_refused(names: Any) -> None:
    with pytest.raises(PotentialError, match="learn_only: got"):
        total().learn_only(names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_potential_takes_names_too(kind: str) -> None:
    pair = KINDS[kind]()
    name = next(iter(pair.by_name()))
    pair.learn_only([name])
    assert [n for n, p in pair.named_parameters() if p.requires_grad] == [name]
    assert pair.learned_rows().all()
    pair.learn_only(None)
    assert all(p.requires_grad for p in pair.parameters())


class Plain(Potential):
    """Whose coefficients are its parameters, as features know them."""

    energy_is_linear = is_linear = True

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        self.second = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))


def test_coefficients_of_what_stays_are_still_there() -> None:
    plain = Plain().learn_only(["second"])
    assert plain.blocks == {"first": (2,), "second": (1,)}
    c = plain.coefficients_at(torch.tensor([5.0], dtype=torch.float64))
    np.testing.assert_array_equal(c.detach(), [1.0, 2.0, 5.0])
    np.testing.assert_array_equal(plain.pull_back(np.eye(3)), [[0.0], [0.0], [1.0]])
