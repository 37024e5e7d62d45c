"""State points that are sampled in another process: the same fit, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import liquids
import numpy as np
import pytest
from liquids import EPSILON, SIGMA
from networks import embedded, fluid

from openmm_diffsim import (
    RDF,
    FitView,
    NetworkPotential,
    PairSum,
    Pressure,
    Refinement,
    StatePoint,
    Step,
    Target,
    TemperatureDependent,
)
from openmm_diffsim.errors import TargetError
from openmm_diffsim.potentials import flat_parameters

RDF_ = RDF(2.3 * SIGMA, 30)
R = np.linspace(0.9 * SIGMA, 2.2 * SIGMA, 20)


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


class Here(Executor):
    """Does everything at once."""

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*arguments, **options))
        return done


def pair_fit(*temperatures: float, method: Any = "gauss-newton", **options: Any) -> Refinement:
    """A g(r) and a pressure at reduced temperatures, on the Reference platform.

    That has one stream of random numbers for all Contexts of a process, which begins anew with each
    that is made.
    """
    pair = liquids.lennard_jones(epsilon=0.7 * EPSILON, knots=30)
    targets = []
    for seed, temperature in enumerate(temperatures, start=1):
        sim = liquids.simulation(pair, 32, 0.3, temperature, seed, platform="Reference")
        point = StatePoint(sim, pair)
        u = liquids.lennard_jones().energy(R).detach().numpy()[0]
        g = np.exp(-u / (temperature * EPSILON))
        targets.append(Target(point, RDF_, R, g, uncertainty=0.004))
        targets.append(Target(point, Pressure(), 200.0, uncertainty=20.0))
    return Refinement(pair, targets, method, **options)


def network_fit(**options: Any) -> Refinement:
    potential: NetworkPotential = embedded()
    rdf = RDF(0.6, 12)
    point = fluid(potential, backend="python")
    target = Target(point, rdf, rdf.r, np.ones(12), uncertainty=0.05)
    return Refinement(potential, [target], **options)


def where_it_is(point: StatePoint) -> tuple[bytes, bytes, int]:
    state = point.snapshot()
    x, v = (a._value.tobytes() for a in (state.getPositions(True), state.getVelocities(True)))
    return x, v, point.simulation.currentStep


def everything(fit: Refinement) -> list[Any]:
    """All that a fit is and has sampled, comparable to the last bit."""
    points = [state.state_point for state in fit.states]
    return [
        [asdict(entry) | {"seconds": 0} for entry in fit.history],
        flat_parameters(fit.potential).numpy().tobytes(),
        [where_it_is(point) for point in points],
        [run.coefficients.tobytes() for state in fit.states for run in state.frames.runs],
        [a.tobytes() for state in fit.states for a in state.frames.records.values()],
        [state.frames.run_energies().tobytes() for state in fit.states],
        [state.frames.floor for state in fit.states],
    ]


def run(fit: Refinement, rounds: int = 3) -> Refinement:
    return fit.run(rounds, 300, 10, progress=False)


def test_sampled_elsewhere_a_fit_is_the_same(workers: Executor) -> None:
    here = everything(run(pair_fit(1.5)))
    assert everything(run(pair_fit(1.5, executor=workers))) == here


def test_several_state_points_are_sampled_at_once(workers: Executor) -> None:
    """One after the other, the second would go on with the random numbers of the first."""
    here = everything(run(pair_fit(1.5, 2.5, executor=Here())))
    fit = pair_fit(1.5, 2.5, executor=workers)
    assert everything(run(fit)) == here
    assert fit.md_steps >= 2 * (450 + 330 + 330)


def test_a_network_leaves_its_frames_where_the_fit_looks_for_them(
    workers: Executor, tmp_path: Path
) -> None:
    here = everything(run(network_fit(checkpoint=tmp_path / "here.ckpt"), 2))
    elsewhere = network_fit(checkpoint=tmp_path / "elsewhere.ckpt", executor=workers)
    assert everything(run(elsewhere, 2)) == here
    files = sorted(path.name for path in (tmp_path / "elsewhere_frames").iterdir())
    assert files == ["state_0_round_0.dcd", "state_0_round_1.dcd"]
    assert len(network_fit().resume(tmp_path / "elsewhere.ckpt").history) == 2
    with pytest.raises(TargetError, match=r"need a place: give checkpoint="):
        network_fit(executor=workers)


class Harder:
    """Multiplies epsilon, once."""

    def propose(self, view: FitView) -> Step:
        times = 1e6 if len(view.states[0].frames.runs) == 1 else 1.0
        return Step(np.array([0.0, (times - 1) * float(view.parameters[1])]))


def test_an_explosion_elsewhere_is_rolled_back(workers: Executor) -> None:
    fit = pair_fit(1.5, 2.5, method=Harder(), executor=workers, largest_step=np.inf)
    run(fit, 1)
    before = [where_it_is(state.state_point) for state in fit.states]
    run(fit, 2)
    assert "exploded" in fit.history[1].event
    assert [where_it_is(state.state_point) for state in fit.states] == before
    assert [len(state.frames.runs) for state in fit.states] == [1, 1]


def test_state_points_of_a_potential_without_temperature_share_work() -> None:
    """The step is that which each would make by itself."""
    shared = run(pair_fit(1.5, 2.5), 1)
    alone = pair_fit(1.5, 2.5)
    alone.potential.depends_on_temperature = True
    found = [flat_parameters(fit.potential).numpy() for fit in (run(alone, 1), shared)]
    before = flat_parameters(pair_fit(1.5).potential).numpy()
    assert np.abs(found[0] - before).max() > 1e-3
    np.testing.assert_allclose(*found, rtol=1e-7)
    assert len({id(shared.result.view.chain(k)) for k in range(2)}) == 1
    assert len({id(alone.result.view.chain(k)) for k in range(2)}) == 2


def test_what_depends_on_temperature_says_so() -> None:
    pair = liquids.lennard_jones()
    hot = TemperatureDependent(liquids.lennard_jones(), liquids.lennard_jones())
    assert not pair.depends_on_temperature
    assert hot.depends_on_temperature
    assert PairSum([pair, hot]).depends_on_temperature
    assert not PairSum([pair, liquids.lennard_jones()]).depends_on_temperature
