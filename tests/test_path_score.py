"""The path score: noise and velocities that keep the positions when the forces change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oscillators import KELVIN, MASS, Oscillators, oscillators
from segment_systems import fluid

from openmm_diffsim.engine.segments import (
    Scheme,
    SegmentOptions,
    SegmentRunner,
    langevin,
    langevin_middle,
    leapfrog,
    nose_hoover,
)
from openmm_diffsim.engine.segments.score import check_has_score, explicit_weights, score_weights
from openmm_diffsim.engine.segments.stepping import Noise
from openmm_diffsim.errors import SegmentError
from openmm_diffsim.observables import Segment
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("plugin")

N, STEPS, DT, FRICTION = 3, 25, 0.02, 1.5  # oscillators, steps, ps, 1/ps
SCHEMES = {
    "LangevinMiddle": langevin_middle(DT, KELVIN, FRICTION),
    "Langevin": langevin(DT, KELVIN, FRICTION),
}
THERMAL = MOLAR_GAS_CONSTANT * KELVIN


class Start:
    """Oscillators, where they start, and the noise that acts on them."""

    def __init__(self, scheme: Scheme) -> None:
        self.system: Oscillators = oscillators(N)
        self.scheme = scheme
        self.runner = SegmentRunner(self.system.potential, self.system.context, KELVIN)
        self.x = self.system.draw(np.random.default_rng(1))
        self.v = self.runner.draw_velocities(2)
        noise = Noise(scheme.noise_scale(self.runner.masses), (3,)).steps(0, STEPS)
        assert noise is not None
        self.noise = noise
        self.moves = self.runner.masses > 0

    def run(self, noise: Array | None = None, v: Array | None = None) -> Segment:
        """With these, and the stiffness that the potential has."""
        with torch.no_grad():
            return self.runner.run(
                STEPS,
                self.x,
                self.v if v is None else v,
                SegmentOptions(
                    integrator=self.scheme,
                    noise=torch.from_numpy(self.noise if noise is None else noise),
                ),
            )

    def set_stiffness(self, stiffness: float) -> None:
        with torch.no_grad():
            self.system.potential.stiffness.fill_(stiffness)

    def force_slopes(self, segment: Segment) -> Array:
        """dF/dk along the positions of a segment, [steps, particles, 3]; F is linear in k."""
        context = self.system.context
        forces = []
        for x in segment.positions[:-1].numpy():
            context.setPositions(x)
            forces.append(context.getState(getForces=True).getForces(asNumpy=True)._value)
        return np.array(forces) / float(self.system.potential.stiffness.detach())


def shifts(scheme: Scheme, masses: Array, force_change: Array) -> tuple[Array, Array]:
    """What keeps the positions, as the docstring of ``segments.score`` has it.

    The change of the noise, [steps, particles, 3], and of velocities, [steps + 1, particles, 3].
    """
    kick1, drift1, scale, drift2, _ = scheme.splitting
    h = drift1 / drift2
    inverse = np.divide(1, masses, out=np.zeros_like(masses), where=masses > 0)[:, None]
    kicks = kick1 * inverse * force_change
    by_velocity = [-scheme.lag / kick1 * kicks[0]]
    by_noise, q = [], kicks[0] + by_velocity[0]
    for step in range(len(kicks)):
        by_noise.append(-(h + scale) * q)
        by_velocity.append(-h * q)
        if step + 1 < len(kicks):
            q = -h * q + kicks[step + 1]
    return np.array(by_noise), np.array(by_velocity)


@pytest.mark.parametrize("name", SCHEMES)
def test_shifted_noise_and_velocities_keep_the_positions(name: str) -> None:
    """To 1e-11 though the stiffness changes by a tenth: what is linear in dF has no error."""
    start = Start(SCHEMES[name])
    before = start.run()
    k = float(start.system.potential.stiffness.detach())
    change = 0.1 * k * start.force_slopes(before)
    by_noise, by_velocity = shifts(start.scheme, start.runner.masses, change)
    start.set_stiffness(1.1 * k)
    moved = start.run().positions - before.positions
    assert float(moved.abs().max()) > 1e-3
    after = start.run(start.noise + by_noise, start.v + by_velocity[0])
    np.testing.assert_allclose(after.positions, before.positions, rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        after.velocities.numpy() - before.velocities.numpy(), by_velocity, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("steps", [1, 2, 10, STEPS])
@pytest.mark.parametrize("name", SCHEMES)
def test_score_is_the_change_of_the_probability(name: str, steps: int) -> None:
    """Of the noise of so many steps, by four-point differences.

    -log p = sum noise^2 / (2 var) at what keeps the positions; that of drawn velocities
    stays, as they do not change.
    """
    start = Start(SCHEMES[name])
    slopes = start.force_slopes(start.run())[:steps]
    by_noise, _ = shifts(start.scheme, start.runner.masses, slopes)
    moves = start.moves
    variance = THERMAL * (1 - start.scheme.splitting[2] ** 2) / MASS

    def log_probability(dk: float) -> float:
        noise = (start.noise[:steps] + dk * by_noise)[:, moves]
        return -np.sum(noise**2) / (2 * variance)

    h = 1.0
    near = log_probability(h) - log_probability(-h)
    far = log_probability(2 * h) - log_probability(-2 * h)
    expected = (8 * near - far) / (12 * h)
    weights = score_weights(start.scheme, start.noise[:steps])
    assert weights.shape == slopes.shape
    assert np.sum(weights * slopes) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("steps", [1, 2, STEPS])
@pytest.mark.parametrize("name", SCHEMES)
def test_explicit_part_is_the_change_of_the_velocities(name: str, steps: int) -> None:
    """sum_t dA/dv_t . dv_t for any dA/dv, of velocities that follow from the positions."""
    start = Start(SCHEMES[name])
    before = start.run()
    slopes = start.force_slopes(before)[:steps]
    _, by_velocity = shifts(start.scheme, start.runner.masses, slopes)
    factors = np.random.default_rng(5).normal(size=(steps + 1, 2 * N, 3))
    weights = explicit_weights(start.scheme, factors, start.runner.masses)
    assert weights.shape == slopes.shape
    scale = np.sum(np.abs(factors * by_velocity))
    assert np.sum(weights * slopes) == pytest.approx(
        np.sum(factors * by_velocity), rel=1e-12, abs=1e-14 * scale
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_a_value_of_the_first_time_has_no_score(name: str) -> None:
    """No noise acts before it, and its velocities lag behind those drawn by lag F_0/m."""
    scheme = SCHEMES[name]
    factors = np.random.default_rng(1).normal(size=(1, 4, 3))
    assert score_weights(scheme, np.zeros((0, 4, 3))).shape == (0, 4, 3)
    found = explicit_weights(scheme, factors, np.array([1.0, 2.0, 0.0, 4.0]))
    inverse = np.array([1.0, 0.5, 0.0, 0.25])[:, None]
    np.testing.assert_allclose(found, -scheme.lag * inverse * factors, rtol=1e-14)


@pytest.mark.parametrize("name", SCHEMES)
def test_velocities_lag_behind_those_drawn(name: str) -> None:
    """By lag F_0/m, and with the graph of the force."""
    start = Start(SCHEMES[name])
    runner, k = start.runner, start.system.potential.stiffness
    segment = runner.run(1, start.x, None, SegmentOptions(start.scheme, 7))
    still = start.run().positions  # of the same start
    slope = start.force_slopes(Segment(still[:2], still[:2], np.zeros(2), runner.masses, None))[0]
    inverse = np.where(start.moves, 1 / MASS, 0.0)[:, None]
    lag = start.scheme.lag * inverse * slope
    drawn = runner.draw_velocities((7, 0))
    found = segment.velocities[0]
    expected = drawn - lag * float(k.detach())
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), k)
    assert float(gradient) == pytest.approx(-lag.sum(), rel=1e-9)


def test_score_has_mean_zero() -> None:
    """As every score, within four standard errors of 400 segments."""
    start = Start(SCHEMES["LangevinMiddle"])
    scores = []
    for seed in range(400):
        start.v = start.runner.draw_velocities((seed, 0))
        noise = Noise(start.scheme.noise_scale(start.runner.masses), (seed, 1)).steps(0, STEPS)
        assert noise is not None
        start.noise = noise
        weights = score_weights(start.scheme, noise)
        scores.append(np.sum(weights * start.force_slopes(start.run())))
    assert abs(np.mean(scores)) < 4 * np.std(scores) / len(scores) ** 0.5


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_of_coefficients(name: str) -> None:
    """sum_t w_t . dF_t/dc of the field, against differences of the forces, in a fluid."""
    liquid = fluid()
    runner = SegmentRunner(liquid.potential, liquid.simulation.context, KELVIN)
    segment = runner.run(4, None, None, SegmentOptions(SCHEMES[name]))
    x = segment.positions.detach().numpy()[:-1]
    w = np.random.default_rng(1).normal(size=x.shape)
    c = liquid.potential.coefficients().detach()
    found = runner.field(segment.box).parameter_product(x, w)
    for k in (3, 10):
        change = torch.zeros_like(c)
        change[k] = 1.0
        fields = [runner.field(segment.box, c + sign * change) for sign in (1, -1)]
        expected = 0.0
        for time in range(len(x)):
            forces = [f.forces(x[time], []) for f in fields]
            expected += np.sum(w[time] * (forces[0] - forces[1])) / 2
        assert found[k] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("scheme", [leapfrog(0.001), nose_hoover(0.001, 300, 20)])
def test_dynamics_without_noise_has_no_score(scheme: Scheme) -> None:
    check_has_score(SCHEMES["Langevin"])
    with pytest.raises(SegmentError, match=f"{scheme.name} has none"):
        check_has_score(scheme)
