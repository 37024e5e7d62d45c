"""A round that explodes, freezes or goes astray is taken back, and the fit goes on or says why."""

from __future__ import annotations

from typing import Any

import liquids
import numpy as np
import openmm
import pytest
import torch
from liquids import EPSILON, SIGMA, Array

from openmm_diffsim import RDF, Mie, Pressure, Refinement, StatePoint, Target
from openmm_diffsim.errors import EquilibrationError, SamplingError
from openmm_diffsim.refinement import FitView, Step

N, DENSITY, TEMPERATURE = 64, 0.5, 3.0
STEPS, EVERY = 600, 20


class Watched(StatePoint):
    """Notes the parameter and the positions that each run starts from."""

    def __init__(self, pair: Any, seed: int = 3, prepare: Any = None, step: float = 0.014) -> None:
        sim = liquids.simulation(
            pair, N, DENSITY, TEMPERATURE, seed=seed, step=step, prepare=prepare
        )
        super().__init__(sim, pair)
        self.epsilons: list[float] = []
        self.starts: list[Array] = []

    @property
    def epsilon(self) -> float:
        pair: Any = self.potential
        return float(pair.epsilon.detach())

    def positions(self) -> Array:
        state = self.simulation.context.getState(getPositions=True)
        return np.array(state.getPositions(asNumpy=True)._value)

    def sample(self, *args: Any, **options: Any) -> Any:
        self.epsilons.append(self.epsilon / EPSILON)
        self.starts.append(self.positions())
        return super().sample(*args, **options)


def to_epsilon(view: FitView, epsilon: float) -> Step:
    """From sigma and epsilon to the same sigma and another epsilon."""
    _, now = view.parameters.tolist()
    return Step(np.array([0.0, epsilon - now]))


class Scripted:
    """Sets epsilon, in units of the truth's, to the next number of a list; then leaves it."""

    def __init__(self, *epsilons: float) -> None:
        self.left = list(epsilons)
        self.calls = 0

    def propose(self, view: FitView) -> Step:
        self.calls += 1
        now = float(view.parameters[1])
        return to_epsilon(view, EPSILON * self.left.pop(0) if self.left else now)


def by_pressure(point: StatePoint, method: Any, **options: Any) -> Refinement:
    """A fit without a g(r): nothing but an explosion can be wrong with a round."""
    target = Target(point, Pressure(), 1000.0, uncertainty=0.01)
    options.setdefault("largest_step", np.inf)
    return Refinement(point.potential, [target], method, **options)


@pytest.fixture(scope="module")
def g() -> tuple[RDF, Array]:
    rdf = RDF(2.4 * SIGMA, 40)
    point = Watched(liquids.lennard_jones(), 8)
    return rdf, point.sample(8000, 20, [rdf], equilibration=500).average(rdf).detach().numpy()


def by_g(point: StatePoint, g: tuple[RDF, Array], method: Any, **options: Any) -> Refinement:
    target = Target(point, g[0], g[0].r, g[1], uncertainty=0.001)
    options.setdefault("largest_step", np.inf)
    return Refinement(point.potential, [target], method, **options)


def run(fit: Refinement, rounds: int) -> Refinement:
    return fit.run(rounds, STEPS, EVERY, progress=False)


# Explosions -------------------------------------------------------------------------------------


def test_a_run_that_explodes_is_taken_back_and_the_fit_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    point = Watched(liquids.lennard_jones())
    method = Scripted(15.0)  # far too stiff for the time step
    fit = run(by_pressure(point, method), 6)
    events = [entry.event for entry in fit.history]
    bad = [number for number, event in enumerate(events) if event]
    assert bad == list(range(1, 1 + len(bad))) and 1 <= len(bad) <= 3
    assert all("exploded" in events[number] for number in bad)
    # half way back towards what was good, each time
    expected = [1.0, *(1 + 14 / 2**n for n in range(len(bad) + 1))]
    np.testing.assert_allclose(point.epsilons[: len(expected)], expected, rtol=1e-12)
    # from the positions before the explosion, to the last bit
    for number in bad:
        np.testing.assert_array_equal(point.starts[number + 1], point.starts[number])
    assert not np.array_equal(point.starts[bad[-1] + 2], point.starts[bad[-1] + 1])
    assert len(fit.history) == 6 and method.calls == 6 - len(bad)
    last_good = fit.history[0]
    for number in bad:
        entry = fit.history[number]
        assert entry.largest_change == 0.0
        assert (entry.misfit, entry.n_effective) == (last_good.misfit, last_good.n_effective)
        assert entry.md_steps >= fit.history[number - 1].md_steps
    # no frame of a bad round is kept
    assert len(fit.states[0].frames.runs) == 6 - len(bad)
    assert np.isfinite(fit.states[0].frames.features).all()
    assert "round 2 rolled back" in capsys.readouterr().err
    assert np.isfinite(fit.summary()["misfit"])


def test_steps_are_shorter_after_an_explosion() -> None:
    class Bounded(Scripted):
        def propose(self, view: FitView) -> Step:
            step = super().propose(view)
            fit.largest_step = np.inf if self.calls == 1 else 0.2
            return step

    point = Watched(liquids.lennard_jones())
    fit = by_pressure(point, Bounded(15.0, 0.01, 0.01))
    run(fit, 6)
    good = [n for n, entry in enumerate(fit.history) if not entry.event]
    bad = good[1] - 1  # explosions between the first update and the second that was kept
    changes = [fit.history[n].largest_change for n in good]
    assert bad >= 1
    assert changes[1] == pytest.approx(0.2 * min(1.0, 1.5 * 0.5**bad))
    assert changes[2] == pytest.approx(0.2 * min(1.0, 1.5**2 * 0.5**bad))


def test_several_rounds_in_a_row_that_explode_end_the_fit() -> None:
    point = Watched(liquids.lennard_jones())
    fit = by_pressure(point, Scripted(1e6))
    with pytest.raises(SamplingError, match=r"4 rounds in a row.*the last: .*exploded") as caught:
        run(fit, 10)
    assert caught.value.reason == "rollbacks"
    assert [bool(entry.event) for entry in fit.history] == [False, True, True, True]
    np.testing.assert_allclose(point.epsilons[1:], [1 + (1e6 - 1) / 2**n for n in range(4)])
    # the user's Simulation is as it was before the last of them
    np.testing.assert_array_equal(point.positions(), point.starts[1])


def test_good_rounds_between_explosions_are_forgiven() -> None:
    point = Watched(liquids.lennard_jones())
    fit = by_pressure(point, Scripted(15.0, 1.0, 15.0, 1.0))
    run(fit, 10)
    events = [bool(entry.event) for entry in fit.history]
    assert len(fit.history) == 10
    assert sum(events) >= 2 and not all(events[1:5])


def test_a_first_guess_that_explodes_is_reported_at_once() -> None:
    point = Watched(liquids.lennard_jones(epsilon=1e6 * EPSILON))
    fit = by_pressure(point, Scripted())
    with pytest.raises(SamplingError, match=r"the run at 359.* K exploded.* step") as caught:
        run(fit, 3)
    assert caught.value.reason == "exploded"
    assert fit.history == []
    assert point.epsilon == 1e6 * EPSILON


class Drifting(Watched):
    """Never comes to rest while the attraction is strong."""

    def sample(self, *args: Any, **options: Any) -> Any:
        found = super().sample(*args, **options)
        if self.epsilon > 2 * EPSILON:
            raise EquilibrationError("the energy still drifts", drift=9.0)
        return found


def test_a_run_that_never_equilibrates_is_taken_back() -> None:
    point = Drifting(liquids.lennard_jones())
    fit = run(by_pressure(point, Scripted(2.8)), 4)
    assert [entry.event for entry in fit.history] == ["", "the energy still drifts", "", ""]
    np.testing.assert_allclose(point.epsilons, [1.0, 2.8, 1.9, 1.9], rtol=1e-12)
    np.testing.assert_array_equal(point.starts[2], point.starts[1])
    with pytest.raises(EquilibrationError):
        run(by_pressure(Drifting(liquids.lennard_jones(epsilon=3 * EPSILON)), Scripted()), 2)


# Freezing, and worse ----------------------------------------------------------------------------


class Sticky(Watched):
    """Particles that attract each other too much hardly get on, as in a glass."""

    limit = 1.5  # epsilon

    def __init__(self, pair: Any) -> None:
        super().__init__(pair, step=0.007)
        self.step_size = self.simulation.integrator.getStepSize()

    def sample(self, *args: Any, **options: Any) -> Any:
        stuck = self.epsilon > self.limit * EPSILON
        self.simulation.integrator.setStepSize(self.step_size * (0.01 if stuck else 1.0))
        return super().sample(*args, **options)


class Glass(Watched):
    """Particles that vibrate about where they are."""

    def __init__(self, pair: Any) -> None:
        tether = openmm.CustomExternalForce("k * periodicdistance(x, y, z, x0, y0, z0)^2")
        tether.addGlobalParameter("k", 4000 * EPSILON / SIGMA**2)
        for name in ("x0", "y0", "z0"):
            tether.addPerParticleParameter(name)

        def tie(system: openmm.System) -> None:
            for i, x in enumerate(Watched(pair, step=0.007).positions()):
                tether.addParticle(i, x)
            system.addForce(tether)

        super().__init__(pair, prepare=tie, step=0.007)


def test_a_fluid_that_freezes_is_thawed(g: tuple[RDF, Array]) -> None:
    point = Sticky(liquids.lennard_jones())
    fit = run(by_g(point, g, Scripted(1.8)), 4)
    events = [entry.event for entry in fit.history]
    assert "the fluid froze: particles moved 0." in events[1]
    assert not any([events[0], *events[2:]])
    np.testing.assert_allclose(point.epsilons, [1.0, 1.8, 1.4, 1.4], rtol=1e-12)
    np.testing.assert_array_equal(point.starts[2], point.starts[1])
    assert fit.history[1].rdf_rms == fit.history[0].rdf_rms  # that of the last good round
    moved = [entry.rms_displacement for entry in fit.states[0].frames.runs]
    assert len(moved) == 3 and min(moved) > 0.3 * SIGMA


def test_a_solid_that_drifts_as_a_whole_has_not_moved() -> None:
    """A thermostat's noise moves the whole further than particles move in a crystal."""
    pair = liquids.lennard_jones(epsilon=1e-9 * EPSILON)  # particles that do not feel each other
    point = Watched(pair)
    point.simulation.integrator.setFriction(0.0)
    point.simulation.context.setVelocities(np.tile([3.0, 0.0, 0.0], (N, 1)))
    before = point.positions()
    point.simulation.integrator.setTemperature(1e6)  # that much kinetic energy
    samples = point.sample(200, 20)
    assert np.abs(point.positions() - before).max() > SIGMA
    assert samples.runs[0].rms_displacement < 0.01 * SIGMA


def test_a_fluid_that_sticks_but_is_right_is_left_alone(g: tuple[RDF, Array]) -> None:
    """Nothing moves, but g(r) is no worse: a viscous liquid is not a mistake."""
    point = Glass(liquids.lennard_jones(epsilon=1.1 * EPSILON))
    fit = run(by_g(point, g, Scripted()), 3)
    assert [entry.event for entry in fit.history] == ["", "", ""]
    assert max(r.rms_displacement for r in fit.states[0].frames.runs) < 0.25 * SIGMA


def test_a_g_that_gets_far_worse_is_taken_back(g: tuple[RDF, Array]) -> None:
    point = Watched(liquids.lennard_jones(), step=0.007)
    fit = run(by_g(point, g, Scripted(4.0)), 5)
    events = [entry.event for entry in fit.history]
    assert "g(r) got far worse: its rms went from 0.0" in events[1]
    assert events[-1] == ""
    bad = sum(map(bool, events))
    assert point.epsilons[bad + 1] == pytest.approx(1 + 3 / 2**bad)
    assert fit.summary()["rdf_rms"] < 0.15


def test_a_good_method_recovers_after_a_bad_step(g: tuple[RDF, Array]) -> None:
    from openmm_diffsim import GaussNewton

    class OnceBad(GaussNewton):
        def propose(self, view: FitView) -> Step:
            if len(view.states[0].frames.runs) == 1:
                return to_epsilon(view, 6 * EPSILON)
            return super().propose(view)

    point = Watched(liquids.lennard_jones(epsilon=0.8 * EPSILON), step=0.007)
    target = Target(point, g[0], g[0].r, g[1], uncertainty=0.01)
    fit = Refinement(point.potential, [target], OnceBad(), largest_step=np.inf)
    fit.run(8, 1500, EVERY, progress=False)
    assert any(entry.event for entry in fit.history)
    assert point.epsilon == pytest.approx(EPSILON, rel=0.15)
    assert fit.summary()["rdf_rms"] < 0.05


# Updates that are no numbers --------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_is_no_number_is_refused_and_undone(value: float) -> None:
    class Spoiled:
        def propose(self, view: FitView) -> Step:
            return Step(np.array([0.1 * SIGMA, value]))

    pair = liquids.lennard_jones()
    point = Watched(pair)
    fit = by_pressure(point, Spoiled(), largest_step=1.0)
    with pytest.raises(SamplingError, match="not finite") as caught:
        run(fit, 1)
    assert caught.value.reason == "update"
    assert float(pair.sigma.detach()) == SIGMA and point.epsilon == EPSILON
    point.sample(100, 20)  # the user's Simulation still runs
    assert np.isfinite(point.positions()).all()


def test_parameters_without_a_potential_are_left_half_way() -> None:
    """Equal exponents of a Mie potential: finite numbers, but u(r) = 0/0."""

    class Equal:
        def propose(self, view: FitView) -> Step:
            repulsive, attractive = view.parameters[2:].tolist()
            return Step(np.array([0.0, 0.0, attractive - repulsive, 0.0]))

    pair = Mie(SIGMA, EPSILON, liquids.CUTOFF, r_min=0.8 * SIGMA, knots=40)
    fit = by_pressure(Watched(pair), Equal(), largest_step=1.0)
    run(fit, 1)
    assert 6.0 < float(pair.repulsive.detach()) < 12.0
    assert torch.isfinite(pair.coefficients()).all()
    assert 0 < fit.history[0].largest_change < 1.0 + 1e-5


def test_an_absurd_update_is_bounded_by_the_largest_step(g: tuple[RDF, Array]) -> None:
    point = Watched(liquids.lennard_jones())
    fit = by_g(point, g, Scripted(1e12, -1e12), largest_step=0.3)
    run(fit, 3)
    assert [entry.event for entry in fit.history] == ["", "", ""]
    changes = [entry.largest_change for entry in fit.history]
    assert changes == [pytest.approx(0.3), pytest.approx(0.3), 0.0]
    assert point.epsilons[1] > 1.0 > point.epsilons[2] - 0.01
