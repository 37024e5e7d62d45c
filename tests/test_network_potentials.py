"""Potentials evaluated in torch: neighbour lists, pair potentials, networks of any kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import fluid as fluid_of
from systems import BOXES, SIGMA, argon, assert_parameter_gradient, lattice
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim import (
    LennardJones,
    Mie,
    NetworkPotential,
    NeuralPair,
    PairSum,
    SplinePair,
    TemperatureDependent,
    TorchMDNet,
)
from openmm_diffsim.errors import PotentialError
from openmm_diffsim.potentials import (
    NeighborPairs,
    PairPotential,
    pair_index,
    parameter_vector,
)
from openmm_diffsim.statistics.kernels import SplineInteraction, pair_sums

PERIODIC = {"none": None, **{name: BOXES[name] for name in ("cubic", "skewed")}}


def tensor(array: Any) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float64))


def frame(box_name: str = "skewed", n: int = 27, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Jittered lattice positions, spread over several periodic images, and their box."""
    box = BOXES["cubic"] if PERIODIC[box_name] is None else PERIODIC[box_name]
    assert box is not None
    x = lattice(n, box, 0.1, seed)
    if PERIODIC[box_name] is None:
        return tensor(x), None
    images = np.random.default_rng(seed).integers(-2, 3, (n, 3))
    return tensor(x + images @ box), tensor(box)


def two_kinds(n: int = 27) -> Tensor:
    return torch.arange(n) % 3 % 2


def forces(energy: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False) -> Tensor:
    x = x if x.requires_grad else x.clone().requires_grad_()
    return -torch.autograd.grad(energy(x), x, create_graph=create_graph)[0]


def assert_slopes(energy: Callable[[Tensor], Tensor], x: Tensor, rtol: float = 1e-6) -> None:
    """First derivatives along a direction, and Hessian-vector products, against differences."""
    rng = np.random.default_rng(5)
    w, v = (tensor(rng.normal(size=tuple(x.shape))) for _ in range(2))

    def difference(function: Callable[[Tensor], Tensor], h: float = 3e-5) -> Tensor:
        near, far = (function(x + s * h * v) - function(x - s * h * v) for s in (1, 2))
        return ((8 * near - far) / (12 * h)).detach()

    leaf = x.clone().requires_grad_()
    force = forces(energy, leaf, create_graph=True)
    slope, expected = -(force.detach() * v).sum(), difference(energy)
    size = float((force.detach() * v).abs().sum())
    assert size > 0 and abs(float(slope - expected)) <= rtol * size
    product = torch.autograd.grad((force * w).sum(), leaf)[0]
    by_difference = difference(lambda y: (forces(energy, y) * w).sum())
    size = float((product * v).abs().sum())
    assert size > 0 and abs(float((product * v).sum() - by_difference)) <= rtol * size


# Neighbour lists ---------------------------------------------------------------------------------


def all_images(x: Tensor, box: Tensor | None, cutoff: float) -> list[tuple[int, int, Any]]:
    """Every pair and image in range, by trying three boxes in each direction."""
    shifts = np.zeros((1, 3))
    if box is not None:
        around = np.arange(-6, 7)
        shifts = np.stack(np.meshgrid(around, around, around), axis=-1).reshape(-1, 3) @ box.numpy()
    found = []
    for i, x_i in enumerate(x.numpy()):
        for j, x_j in enumerate(x.numpy()):
            vectors = x_j - x_i + shifts
            r = np.linalg.norm(vectors, axis=1)
            found += [(i, j, v) for v in vectors[(r < cutoff) & ((i != j) | (r > 1e-9))]]
    return sorted((i, j, tuple(np.round(v, 9))) for i, j, v in found)


def as_list(i: Tensor, j: Tensor, vectors: Tensor) -> list[tuple[int, int, Any]]:
    rows = np.round(vectors.detach().numpy(), 9)
    return sorted(zip(i.tolist(), j.tolist(), map(tuple, rows), strict=True))


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("box_name", PERIODIC)
@pytest.mark.parametrize("cutoff", [0.8, 1.5, 2.3])
def test_every_image_in_range_is_found(box_name: str, cutoff: float, scripted: bool) -> None:
    """Also in a box smaller than the cutoff, with pairs of a particle and its own image."""
    x, box = frame(box_name, n=8)
    pairs = NeighborPairs(cutoff)
    found = as_list(*(torch.jit.script(pairs) if scripted else pairs)(x, box))
    assert found == all_images(x, box, cutoff)
    if box is not None and cutoff > 2.0:
        assert any(i == j for i, j, _ in found)


def test_without_its_library_a_neighbour_list_says_what_to_do(monkeypatch) -> None:
    """The package itself does without it."""
    monkeypatch.setitem(sys.modules, "vesin_torch", None)
    with pytest.raises(PotentialError, match="pip install vesin-torch"):
        NeighborPairs(0.9)


def test_half_list_has_each_pair_once() -> None:
    x, box = frame()
    full, half = (NeighborPairs(0.9, both)(x, box)[2].norm(dim=1) for both in (True, False))
    assert len(full) > 0
    np.testing.assert_allclose(full.sort()[0][::2], half.sort()[0], rtol=1e-12)


def test_neighbours_of_a_batch_are_those_of_its_frames() -> None:
    frames = [frame("skewed", seed=seed) for seed in range(3)]
    boxes = torch.stack([(1 + 0.1 * f) * box for f, (_, box) in enumerate(frames)])  # type: ignore[operator]
    pairs = NeighborPairs(0.8)
    i, j, vectors = pairs.batch(torch.stack([x for x, _ in frames]), boxes)
    for f, (x, _) in enumerate(frames):
        here = i // len(x) == f
        assert as_list(i[here] - f * len(x), j[here] - f * len(x), vectors[here]) == as_list(
            *pairs(x, boxes[f])
        )


def test_vectors_follow_positions_and_box() -> None:
    x, box = frame()
    assert box is not None
    pairs = NeighborPairs(0.8)
    x, box = x.requires_grad_(), box.requires_grad_()
    i, j, vectors = pairs(x, box)
    shifts = (vectors - x[j] + x[i]).detach() @ torch.linalg.inv(box).detach()
    w = torch.randn(vectors.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    by_x, by_box = torch.autograd.grad((w * vectors).sum(), (x, box))
    expected = torch.zeros_like(x).index_add(0, j, w).index_add(0, i, -w)
    np.testing.assert_allclose(by_x, expected.detach(), atol=1e-12)
    np.testing.assert_allclose(by_box, shifts.T @ w, atol=1e-9)


def test_neighbours_refuse_what_is_no_cutoff_and_no_box() -> None:
    for cutoff in (0.0, -1.0, float("nan")):
        with pytest.raises(PotentialError, match=r"cutoff: expected a positive number"):
            NeighborPairs(cutoff)
    x, box = frame()
    assert box is not None
    with pytest.raises(PotentialError, match="box is not finite"):
        NeighborPairs(0.5)(x, box * float("nan"))


# Pair potentials in torch ------------------------------------------------------------------------


def neural(**arguments: Any) -> NeuralPair:
    pair = NeuralPair(0.25, 0.8, 0.3, hidden=(8,), centers=10, seed=3, **arguments)
    with torch.no_grad():
        for parameter in pair.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    return pair


def spline_pair(n_types: int = 1) -> SplinePair:
    pair = SplinePair(0.3, 0.8, 20, n_types=n_types, core_radius=0.35)
    values = np.random.default_rng(2).normal(size=tuple(pair.values.shape))
    return pair.set_coefficients(values)


PAIRS: dict[str, Callable[[], PairPotential]] = {
    "LennardJones": lambda: argon(0.8),
    "Mie": lambda: Mie(SIGMA, 1.0, 0.8),
    "NeuralPair": neural,
    "SplinePair": spline_pair,
    "PairSum": lambda: PairSum([argon(0.8, r_min=0.25), neural(knots=30)]),
    "two types": lambda: spline_pair(2),
    "closed form of two types": lambda: LennardJones(
        [0.30, 0.34, 0.38], [0.9, 1.0, 1.2], 0.8, n_types=2
    ),
}


def native_sums(pair: PairPotential, x: Tensor, box: Tensor | None, types: Tensor) -> Any:
    basis = pair.basis
    interaction = SplineInteraction(
        basis.r_min,
        basis.spacing,
        basis.cutoff,
        basis.n_coefficients,
        types.numpy(),
        pair_index(pair.n_types),
        np.empty((0, 2), dtype=np.int64),
        np.arange(len(x)),
    )
    cells = None if box is None else box.numpy()[None]
    return pair_sums(x.numpy()[None], cells, interaction=interaction).basis[0]


@pytest.mark.parametrize("n_types", [1, 2])
@pytest.mark.parametrize("box_name", PERIODIC)
def test_spline_in_torch_is_the_native_spline(box_name: str, n_types: int) -> None:
    pair = spline_pair(n_types)
    x, box = frame(box_name, n=64)
    x[1] = x[0] + tensor([0.15, 0.1, 0.1])
    assert float(NeighborPairs(0.8)(x, box)[2].norm(dim=1).min()) < pair.basis.r_min
    types = two_kinds(64) if n_types == 2 else torch.zeros(64, dtype=torch.int64)
    expected = float((pair.spline_coefficients() * tensor(native_sums(pair, x, box, types))).sum())
    energy = pair.as_network().energy(x, box, types)
    assert float(energy.detach()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", PAIRS)
def test_pair_in_torch_is_what_its_energy_says(name: str) -> None:
    """Two particles at a time, from below r_min to beyond the cutoff."""
    pair = PAIRS[name]()
    network = pair.as_network()
    types = torch.tensor([pair.n_types - 1, 0])
    row = pair_index(pair.n_types)[pair.n_types - 1, 0]
    for r in (0.2, 0.31, 0.35, 0.5, 0.77, 0.795, 0.81):
        x = tensor([[0, 0, 0], [r, 0, 0]])
        if isinstance(pair, diffsim.potentials.AnalyticPair) and r > pair.basis.r_min:
            expected = pair.switched_form(tensor([r]))[row, 0]
        else:
            expected = pair.energy(r)[row, 0]
        found = network.energy(x, None, types)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_closed_form_goes_through_what_the_spline_interpolates() -> None:
    pair = neural()
    centers = tensor(pair.basis.centers)
    np.testing.assert_allclose(
        pair.switched_form(centers).detach(), pair.energy(pair.basis.centers).detach(), atol=1e-11
    )


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("box_name", PERIODIC)
def test_derivatives_of_a_pair_in_torch(name: str, box_name: str) -> None:
    pair = PAIRS[name]()
    network = pair.as_network()
    x, box = frame(box_name)
    types = two_kinds() if pair.n_types == 2 else None
    assert_slopes(lambda y: network.energy(y, box, types), x)
    assert_parameter_gradient(pair, lambda: network.energy(x, box, types), rtol=1e-6)


def test_parameters_are_those_of_the_pair() -> None:
    pair = argon()
    network = pair.as_network()
    assert [id(p) for p in network.parameters()] == [id(p) for p in pair.parameters()]
    assert network.name == pair.name and network.cutoff == pair.basis.cutoff


def test_virial_from_the_box_gradient() -> None:
    """dU/d(strain), by scaling box and positions, for a triclinic box."""
    x, box = frame("skewed")
    assert box is not None
    network = argon(0.8).as_network()

    def strained(scale: Tensor) -> Tensor:
        return network.energy(x * scale, box * scale)

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(strained(scale), scale)
    h = 1e-5
    expected = (strained(tensor(1 + h)) - strained(tensor(1 - h))) / (2 * h)
    assert float(slope) == pytest.approx(float(expected.detach()), rel=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_scripted_pair_is_the_same(name: str) -> None:
    pair = PAIRS[name]()
    network = pair.as_network()
    scripted = torch.jit.script(network)
    assert [n for n, _ in scripted.named_parameters()] == [n for n, _ in network.named_parameters()]
    types = two_kinds() if pair.n_types == 2 else None
    for box_name in PERIODIC:
        x, box = frame(box_name)
        for _ in range(3):  # the first two calls are profiled, the third is optimized
            found = forces(lambda y, b=box: scripted(y, b, types), x)  # type: ignore[misc]
        expected = forces(lambda y, b=box: network.energy(y, b, types), x)  # type: ignore[misc]
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-12 * float(expected.abs().max())
        )


def test_temperature_dependent_pair() -> None:
    pair = TemperatureDependent(argon(0.8), argon(0.8))
    x, box = frame()
    cold, hot = (float(pair.as_network(t).energy(x, box).detach()) for t in (0.25, 0.75))
    assert cold == pytest.approx(3 * hot, rel=1e-12)
    with pytest.raises(PotentialError, match="depends on temperature"):
        pair.as_network()
    with pytest.raises(PotentialError, match="depends on temperature"):
        NetworkPotential(Trap(), prior=pair)


# Any network -------------------------------------------------------------------------------------


class Trap(nn.Module):
    """A harmonic trap: the smallest network there is."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        return 0.5 * self.k * (positions**2).sum()


class TypedTrap(Trap):
    """A trap in which types differ; its energy has shape [1], and batches go in one call."""

    cutoff = 1.5

    def forward(self, positions: Tensor, box: Tensor | None, types: Tensor) -> Tensor:
        return 0.5 * self.k * ((1 + types)[:, None] * positions**2).sum().reshape(1)

    def energies(self, positions: Tensor, boxes: Tensor | None, types: Tensor) -> Tensor:
        return 0.5 * self.k * ((1 + types)[:, None] * positions**2).sum(dim=(1, 2))


def test_any_module_is_a_potential() -> None:
    x, box = frame(n=5)
    expected = float((x**2).sum())
    for network in (Trap(), torch.jit.script(Trap())):
        potential = NetworkPotential(network)
        assert not potential.takes_types and potential.cutoff is None
        assert float(potential.energy(x, box).detach()) == pytest.approx(expected, rel=1e-12)
        assert potential.energy(x).shape == ()
    typed = NetworkPotential(TypedTrap(), n_types=2)
    assert typed.takes_types and typed.cutoff == 1.5
    assert float(typed.energy(x).detach()) == pytest.approx(expected, rel=1e-12)
    ones = torch.ones(5, dtype=torch.int32)
    assert float(typed.energy(x, None, ones).detach()) == pytest.approx(2 * expected, rel=1e-12)


@pytest.mark.parametrize("network", [Trap, TypedTrap])
def test_energies_are_those_of_the_frames(network: type[Trap]) -> None:
    prior = argon(0.8)
    potential = NetworkPotential(network(), prior=prior)
    x = torch.stack([frame(seed=seed)[0] for seed in range(3)])
    box = frame()[1]
    assert box is not None
    boxes = torch.stack([box, 1.1 * box, 1.2 * box])
    for cells in (None, boxes):
        one_by_one = [potential.energy(x[f], None if cells is None else cells[f]) for f in range(3)]
        np.testing.assert_allclose(
            potential.energies(x, cells).detach(), torch.stack(one_by_one).detach(), rtol=1e-12
        )


def test_prior_is_added_and_learned_unless_it_is_fixed() -> None:
    x, box = frame()
    prior = argon(0.8)
    potential = NetworkPotential(Trap(), prior=prior, name="both")
    total = potential.energy(x, box)
    expected = Trap()(x, box) + prior.as_network().energy(x, box)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert {id(p) for p in prior.parameters()} < {id(p) for p in potential.parameters()}
    assert_parameter_gradient(potential, lambda: potential.energy(x, box))
    prior.requires_grad_(False)
    assert [n for n, p in potential.named_parameters() if p.requires_grad] == ["network.k"]
    assert potential.cutoff == 0.8 and potential.name == "both"


def test_computes_in_the_precision_of_its_parameters() -> None:
    x, box = frame()
    potential = NetworkPotential(Trap(), prior=argon(0.8))
    assert potential.dtype == torch.float64
    assert potential.energy(x.float()).dtype == torch.float64
    double = float(potential.energy(x, box).detach())
    single = potential.float().energy(x, box)
    assert single.dtype == torch.float32
    assert float(single.detach()) == pytest.approx(double, rel=1e-5)


class Wrong(nn.Module):
    """Gives back what it is told to."""

    def __init__(self, output: Any, batch: Any = None) -> None:
        super().__init__()
        self.output = output
        self.batch = batch

    def forward(self, positions: Tensor, box: Tensor | None) -> Any:
        return self.output

    def energies(self, positions: Tensor, boxes: Tensor | None) -> Any:
        return self.batch


class NoBox(nn.Module):
    def forward(self, positions: Tensor) -> Tensor:
        return positions.sum()


class TooMany(nn.Module):
    def forward(self, positions: Tensor, box: Tensor, types: Tensor, charges: Tensor) -> Tensor:
        return positions.sum()


@pytest.mark.parametrize(
    ("output", "said"),
    [(torch.zeros(5, 3), r"shape \(5, 3\)"), (1.0, "a float"), (None, "a NoneType")],
)
def test_output_that_is_no_energy_is_named(output: Any, said: str) -> None:
    with pytest.raises(PotentialError, match=f"Wrong: expected a scalar tensor.*{said}"):
        NetworkPotential(Wrong(output)).energy(torch.zeros(5, 3))
    with pytest.raises(PotentialError, match=rf"Wrong.energies: expected a tensor \[2\].*{said}"):
        NetworkPotential(Wrong(None, output)).energies(torch.zeros(2, 5, 3))


@pytest.mark.parametrize("network", [NoBox(), TooMany(), torch.jit.script(NoBox())])
def test_network_with_other_arguments_is_refused(network: nn.Module) -> None:
    with pytest.raises(PotentialError, match=r"expected a network with forward\(positions, box\)"):
        NetworkPotential(network)


def test_types_that_do_not_fit_are_refused() -> None:
    for network in (Trap(), torch.jit.script(Trap())):
        with pytest.raises(PotentialError, match="got 2, but Trap takes no types"):
            NetworkPotential(network, n_types=2)
    with pytest.raises(PotentialError, match="prior was made for 1 type"):
        NetworkPotential(TypedTrap(), prior=argon(), n_types=2)
    with pytest.raises(PotentialError, match="TorchMDNet was made for 2 type"):
        NetworkPotential(torchmd_net(n_types=2))


# Networks of torchmd-net -------------------------------------------------------------------------

ARCHITECTURES = ("equivariant-transformer", "graph-network")
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def torchmd_net(
    architecture: str = ARCHITECTURES[0], n_types: int = 1, trained: bool = True, **options: Any
) -> TorchMDNet:
    """A small network, by default with weights and biases as they may be after training."""
    options = {"hidden": 8, "rbf": 6, "seed": 1, **options}
    net = TorchMDNet(0.8, n_types, architecture=architecture, **options)
    generator = torch.Generator().manual_seed(2)
    if trained:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(
                    0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                )
    return net


def rotation() -> Tensor:
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return tensor(q * np.sign(np.linalg.det(q)))


def same(a: Tensor, b: Tensor, rtol: float = 1e-12) -> bool:
    return bool((a - b).abs().max() <= rtol * b.abs().max())


@architectures
@pytest.mark.parametrize("box_name", PERIODIC)
def test_torchmd_net_has_the_symmetries_of_a_fluid(architecture: str, box_name: str) -> None:
    net = torchmd_net(architecture, n_types=2)
    x, box = frame(box_name)
    types = two_kinds()
    energy = net(x, box, types)
    turn = rotation()
    order = torch.from_numpy(np.random.default_rng(3).permutation(len(x)))
    assert same(net(x @ turn, None if box is None else box @ turn, types), energy)
    assert same(net(x + tensor([0.3, -4.0, 1.1]), box, types), energy)
    assert same(net(x[order], box, types[order]), energy)
    assert not same(net(x, box, types[order]), energy, 1e-6)
    if box is not None:
        images = tensor(np.random.default_rng(4).integers(-3, 4, (len(x), 3)))
        assert same(net(x + images @ box, box, types), energy)


@architectures
@pytest.mark.parametrize("length", [2.0, 1.2, 0.7])
def test_torchmd_net_is_extensive(architecture: str, length: float) -> None:
    """The shorter boxes hold two images of a pair, and an image of each particle itself."""
    net = torchmd_net(architecture)
    x = tensor(lattice(8, np.eye(3) * length, 0.05))
    box = torch.eye(3, dtype=torch.float64) * length
    types = torch.zeros(16, dtype=torch.int64)
    doubled = torch.cat([x, x + box[0]])
    wide = torch.diag(tensor([2 * length, length, length]))
    assert same(net(doubled, wide, types), 2 * net(x, box, types[:8]), 1e-11)


@architectures
@pytest.mark.parametrize("box_name", PERIODIC)
def test_derivatives_of_torchmd_net(architecture: str, box_name: str) -> None:
    net = torchmd_net(architecture, n_types=2)
    x, box = frame(box_name)
    assert_slopes(lambda y: net(y, box, two_kinds()), x)


@architectures
def test_parameter_gradient_of_torchmd_net(architecture: str) -> None:
    """Of the energy, and of a force along a direction, each along random directions."""
    net = torchmd_net(architecture, n_types=2)
    x, box = frame()
    w = tensor(np.random.default_rng(1).normal(size=tuple(x.shape)))

    def force(create_graph: bool = True) -> Tensor:
        return (w * forces(lambda y: net(y, box, two_kinds()), x, create_graph)).sum()

    parameters = list(net.parameters())
    start = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(7)
    for function in (lambda: net(x, box, two_kinds()), force):
        found = torch.autograd.grad(function(), parameters, allow_unused=True)
        gradient = [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]
        for _ in range(3):
            along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

            def moved(step: float, along: list[Tensor] = along) -> float:
                with torch.no_grad():
                    for p, p_0, d in zip(parameters, start, along, strict=True):
                        p.copy_(p_0 + step * d)
                return float(function().detach())  # noqa: B023

            h = 1e-4
            expected = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
            moved(0.0)
            slope = sum(float((g * d).sum()) for g, d in zip(gradient, along, strict=True))
            assert slope == pytest.approx(expected, rel=1e-6)


@architectures
def test_a_batch_is_its_frames(architecture: str) -> None:
    potential = NetworkPotential(torchmd_net(architecture, n_types=2), n_types=2)
    x = torch.stack([frame(seed=seed)[0] for seed in range(4)])
    box = frame()[1]
    assert box is not None
    for boxes in (None, torch.stack([box, 1.1 * box, 0.9 * box, box])):
        batch = potential.energies(x, boxes, two_kinds())
        each = [
            potential.energy(x[f], None if boxes is None else boxes[f], two_kinds())
            for f in range(4)
        ]
        assert same(batch, torch.stack(each))


@architectures
def test_scripted_torchmd_net_is_the_same(architecture: str, tmp_path: Path) -> None:
    net = torchmd_net(architecture, n_types=2)
    potential = NetworkPotential(net, prior=LennardJones(0.3, 1.0, 0.8, n_types=2), n_types=2)
    torch.jit.script(potential).save(tmp_path / "potential.pt")
    scripted = torch.jit.load(tmp_path / "potential.pt")
    for box_name in PERIODIC:
        x, box = frame(box_name)
        for _ in range(3):
            found = forces(lambda y, b=box: scripted(y, b, two_kinds()), x)  # type: ignore[misc]
        expected = forces(lambda y, b=box: potential(y, b, two_kinds()), x)  # type: ignore[misc]
        assert same(found, expected)
    boxes = None if box is None else box[None]
    assert same(
        torch.jit.script(net).energies(x[None], boxes, two_kinds()), net(x, box, two_kinds())
    )


@architectures
def test_single_precision_of_torchmd_net(architecture: str) -> None:
    x, box = frame()
    assert box is not None
    types = torch.zeros(len(x), dtype=torch.int64)
    double = torchmd_net(architecture)
    single = torchmd_net(architecture).float()
    expected = forces(lambda y: double(y, box, types), x)
    found = forces(lambda y: single(y, box.float(), types), x.float())
    assert found.dtype == torch.float32
    assert same(found.double(), expected, 1e-5)
    assert TorchMDNet(0.5, hidden=8, dtype=torch.float32).head[0].weight.dtype == torch.float32


@architectures
def test_force_is_continuous_where_a_neighbour_comes_into_range(architecture: str) -> None:
    """A fourth particle at the cutoff of the first: nobody's force jumps, nor does the energy."""
    net = torchmd_net(architecture)
    types = torch.zeros(4, dtype=torch.int64)

    def at(inside: float) -> tuple[Tensor, Tensor]:
        x = tensor([[0, 0, 0], [0.3, 0.1, 0], [0, 0.3, 0.2], [0, 0, inside - 0.8]])
        return net(x, None, types).detach(), forces(lambda y: net(y, None, types), x)

    beyond, closer, much_closer = at(-1e-9), at(1e-6), at(0.1)
    assert same(closer[0], beyond[0], 1e-9)
    assert same(closer[1], beyond[1], 1e-4)  # in proportion to the distance from the cutoff
    assert not same(much_closer[1], beyond[1], 1e-3)
    assert torch.equal(beyond[1][3], torch.zeros(3, dtype=torch.float64))


@architectures
def test_torchmd_net_starts_near_zero_and_from_its_seed(architecture: str) -> None:
    x, box = frame(n=64)
    types = torch.zeros(64, dtype=torch.int64)
    state = torch.random.get_rng_state()
    net, again, other = (torchmd_net(architecture, trained=False, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    energy = net(x, box, types)
    assert torch.equal(energy, again(x, box, types)) and not torch.equal(
        energy, other(x, box, types)
    )
    assert 0 < float(energy.detach().abs()) / 64 < 0.1
    assert 0 < float(forces(lambda y: net(y, box, types), x).abs().max()) < 1.0


@architectures
def test_lone_particle_has_the_constant_of_its_type(architecture: str) -> None:
    net = torchmd_net(architecture, n_types=2)
    x = tensor([[0, 0, 0], [5, 0, 0], [10, 0, 0]])
    apart = net(x, None, torch.tensor([0, 1, 0]))
    alone = [net(x[:1], None, torch.tensor([kind])) for kind in (0, 1)]
    assert same(apart, 2 * alone[0] + alone[1])


def test_arguments_of_torchmd_net_are_checked() -> None:
    with pytest.raises(PotentialError, match="architecture: expected one of equivariant-tr"):
        TorchMDNet(0.5, architecture="transformer")
    with pytest.raises(PotentialError, match="hidden: expected a multiple of heads = 3, got 16"):
        TorchMDNet(0.5, heads=3)
    with pytest.raises(PotentialError, match="layers: expected a positive number, got 0"):
        TorchMDNet(0.5, layers=0)
    with pytest.raises(PotentialError, match="cutoff: expected a positive number"):
        TorchMDNet(0.0)


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmdnet.models.torchmd_et", None)
    with pytest.raises(PotentialError, match=r'pip install "openmm-diffsim\[networks\]"'):
        TorchMDNet(0.5)


def test_the_library_says_nothing() -> None:
    script = "import sys, openmm_diffsim as d; d.TorchMDNet(0.5); print('said', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "said\n")


# One energy for one configuration -----------------------------------------------------------------


class Forgetful(nn.Module):
    """Springs to the origin, some of which are dropped."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always
        self.k = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.inner = nn.Sequential(nn.Dropout(0.3))

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        if self.always:
            positions = nn.functional.dropout(positions, 0.3)
        return self.k * self.inner(positions).square().sum()


def test_dropout_is_switched_off_and_stays_so() -> None:
    network = Forgetful()
    potential = NetworkPotential(network)
    x, _ = frame("none")
    exact = float(2 * x.square().sum())
    for module in (network, network.inner, potential):
        module.train()  # as a loop of torch begins
        assert float(potential.energy(x).detach()) == pytest.approx(exact, rel=1e-14)
        assert not network.training
        module.train()
        found = potential.energies(x[None].expand(3, -1, -1)).detach().numpy()
        np.testing.assert_allclose(found, exact, rtol=1e-14)


def test_dropout_is_off_in_the_simulation_and_in_reweighting() -> None:
    network = Forgetful()
    potential = NetworkPotential(network)
    point = fluid_of(potential, periodic=False)
    network.train()
    samples = point.sample(200, 50)
    energies = [samples.learned.energy(parameter_vector(potential).detach()) for _ in range(3)]
    torch.testing.assert_close(energies[0], energies[2], rtol=0, atol=0)
    state = point.simulation.context.getState(getEnergy=True, getPositions=True)
    x = torch.from_numpy(np.array(state.getPositions(asNumpy=True)._value))
    assert state.getPotentialEnergy()._value == pytest.approx(float(2 * x.square().sum()), rel=1e-9)


def test_random_numbers_in_forward_are_refused() -> None:
    potential = NetworkPotential(Forgetful(always=True))
    x, _ = frame("none")
    with pytest.raises(PotentialError, match="two energies for one configuration"):
        potential.check_repeats(x)
    with pytest.raises(PotentialError, match="two energies for one configuration"):
        fluid_of(potential, periodic=False)


# A fresh network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["equivariant-transformer", "graph-network"])
def test_a_fresh_network_sees_its_neighbors(architecture: str) -> None:
    """Else no weight changes U of a frame by more than a constant, and nothing can be learned."""
    network = TorchMDNet(cutoff=0.6, architecture=architecture)
    box = tensor(BOXES["cubic"])
    frames = torch.stack([tensor(lattice(27, BOXES["cubic"], 0.1, seed)) for seed in range(12)])
    boxes = box.expand(12, 3, 3)
    parameters = list(network.parameters())
    energies = network.energies(frames, boxes, torch.zeros(27, dtype=torch.int64))
    assert float(energies.detach().abs().max()) < 0.1 * 27  # kJ/mol: it starts near zero
    rows = []
    for energy in energies:
        slopes = torch.autograd.grad(energy, parameters, retain_graph=True)
        rows.append(torch.cat([slope.reshape(-1) for slope in slopes]))
    matrix = torch.stack(rows)
    sizes = torch.linalg.svdvals(matrix - matrix.mean(dim=0)) / 12**0.5  # kJ/mol per unit of weight
    assert float(sizes[0]) > 0.01 and float(sizes[3]) > 0.01 * float(sizes[0]), sizes
