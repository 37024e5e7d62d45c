"""First guesses of a potential, from the measured g(r) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..curve import Curve
from ..errors import TargetError
from ..io import tidy
from ..limits import Limit, checked_number, shown
from ..observables.plausible import check_rdf
from ..observables.structure import RDF, rise_of
from ..potentials import (
    PairPotential,
    SplinePair,
    flat_parameters,
    learned_parameters,
    set_flat_parameters,
)
from ..units import COULOMB, MOLAR_GAS_CONSTANT, number_in_md_units

Array = NDArray[np.float64]


def boltzmann_inversion(
    potential: SplinePair,
    r: Any,
    g: Any,
    temperature: Any,
    pair: int = 0,
    least_g: float = 0.05,
    as_it_is: bool = False,
    charges: tuple[Any, Any] | None = None,
) -> SplinePair:
    """Set one pair of types to the potential of mean force, w(r) = -R T ln g(r).

    Where g < ``least_g`` the noise of ln g takes over: from its contact r_0 inwards w goes on
    as a parabola c + a (r_0 - r) + b (r_0 - r)^2 with the slope found just outside and b > 0, and
    r_0 becomes the core radius. w is shifted to zero at the cutoff, and flat beyond the data.
    Particles that are found at any distance, from r = 0 on, have no core.

    w is all that acts between two particles. Beside another force between the same ones, the
    Lennard-Jones part of a NonbondedForce say, it describes them twice: learn a correction there,
    which begins at zero.

    Ions are an exception: others screen their ``charges``, so that next to nothing of these is left
    in w, and without a core they fall into each other. So u begins at what the hypernetted-chain
    closure says, RT ln g = RT (h - c) - u_all with h = g - 1, where c, the direct correlation, is
    that of point charges for r > d, and of charges smeared over a shell for r < d, as in the mean
    spherical approximation in the limit of strong coupling (Waisman and Lebowitz, J. Chem. Phys.
    56, 3086 (1972), doi:10.1063/1.1677644):

        u(r) = R T (g - 1 - ln g) - q_a q_b / (4 pi eps_0 r) (1 - r / d)^2,

    the last for r < d and unlike charges alone, d being where g falls to 1 behind its peak. Their
    attraction is what the core withstands from now on, whatever is learned (``SplinePair``). Below
    r_min u is a straight line: let that be well below contact.

    Parameters
    ----------
    r, g : arrays [points], nm, or Quantities; as measured: unsorted, with holes, see ``io.tidy``
    temperature : float, K, or Quantity
    pair : int
        Of types: the upper triangle row by row, (0,0), (0,1), ..., (1,1), ...
    least_g : float
        Smaller g are noise.
    as_it_is : bool
        Take a g that looks as if its unit or its norm were another one, as ``Target`` does; see
        ``observables.plausible``.
    charges : (float, float), e, or Quantities, optional
        Of particles of both types, where a NonbondedForce acts between these too, with its charges
        alone.

    Raises
    ------
    TargetError
        If g does not rise below the cutoff or is no g(r), or the temperature is not positive.
    PotentialError
        If there is no such pair of types.
    UnitError
        If one of them is not a number, or has another dimension.
    """
    curve = tidy(r, g, None, RDF.rules)
    kelvin = number_in_md_units(temperature, "temperature")
    kelvin = checked_number("temperature", kelvin, TargetError)
    checked_number("least_g", least_g, TargetError, Limit(1e-6, 0.5, "of a g that goes to 1"))
    _check_rise(curve, potential.basis.cutoff, least_g)
    if not as_it_is:
        check_rdf(curve, reach=potential.basis.cutoff)
    return invert(potential, curve, kelvin, pair, least_g, _checked_charges(charges))


def _checked_charges(given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple | np.ndarray) or len(given) != 2:
        raise TargetError(
            f"charges: got {shown(given)}, expected two, e, as (1, -1)", got=given, expected=2
        )
    first, second = (
        checked_number("charges", number_in_md_units(q, "charge"), TargetError) for q in given
    )
    return first, second


def _check_rise(curve: Curve, cutoff: float, least_g: float) -> None:
    """Raise TargetError where g rises beyond the cutoff only, so that nothing can be inverted."""
    rise = curve.x[rise_of(curve.y, least_g)]
    if rise >= cutoff:
        raise TargetError(
            f"g(r) rises only at {rise:.4f} nm, beyond the cutoff, {cutoff:.4f} nm: cannot invert "
            "it; is r in angstrom?"
        )


def invert(
    potential: SplinePair,
    curve: Curve,
    temperature: float,
    pair: int,
    least_g: float = 0.05,
    charges: tuple[float, float] | None = None,
) -> SplinePair:
    """As ``boltzmann_inversion``, of a curve that was checked already; ``temperature`` in K."""
    _check_rise(curve, potential.basis.cutoff, least_g)
    r, g = curve.x, curve.y
    first = rise_of(g, least_g)
    r_out = r[first:]
    thermal = MOLAR_GAS_CONSTANT * temperature
    w_out = -thermal * np.log(np.maximum(g[first:], least_g))
    if charges is not None:
        w_out += thermal * (g[first:] - 1)
    slope = _wall_slope(r_out, w_out)
    inner = potential.basis.centers
    inner = inner[inner < r_out[0] - 0.25 * potential.basis.spacing]
    depth = r_out[0] - inner
    curvature = slope / max(0.1 * r_out[0], potential.basis.spacing)
    w_in = w_out[0] + slope * depth + 0.5 * curvature * depth**2
    if r_out[-1] < potential.basis.cutoff:  # flat beyond what is known
        r_out, w_out = np.append(r_out, potential.basis.cutoff), np.append(w_out, w_out[-1])
    r_all, w = np.concatenate([inner, r_out]), np.concatenate([w_in, w_out])
    attraction, shell = _attraction(curve, charges)
    unscreened = attraction / r_all * np.maximum(1 - r_all / shell, 0.0) ** 2
    potential.set_table(r_all, w + unscreened, pair)
    radius, withstands = potential.core_radius.clone(), potential.core_attraction.clone()
    is_soft = first == 0 and r[0] < 1.5 * (r[1] - r[0])
    radius[pair] = 0.0 if is_soft else r_out[0]
    withstands[pair] = attraction
    potential.set_core(radius.numpy(), withstands.numpy())
    return potential


def _attraction(curve: Curve, charges: tuple[float, float] | None) -> tuple[float, float]:
    """-q_a q_b / (4 pi eps_0) of unlike charges, else 0, kJ/mol nm; radius of the shell, nm."""
    product = 0.0 if charges is None else charges[0] * charges[1]
    peak = int(np.argmax(curve.y))
    shell = curve.x[peak:][np.argmax(curve.y[peak:] <= 1)]  # the peak itself, if g stays above
    return COULOMB * max(-product, 0.0), float(shell)


def match_potential(
    potential: PairPotential, reference: SplinePair, r_low: float, temperature: float
) -> PairPotential:
    """Set a potential's parameters so that u(r) is as near as can be to ``reference``.

    Least squares over the knots beyond ``r_low`` (nm), by L-BFGS; for one that has too few
    parameters, or a network, to start where Boltzmann inversion says. Where that would take the
    core away (a soft sphere cannot follow a well), the parameters stay. Returns the potential.
    """
    before = flat_parameters(potential)
    r = potential.basis.centers
    weight = torch.from_numpy((r > r_low).astype(np.float64)) / (MOLAR_GAS_CONSTANT * temperature)
    wanted = reference.energy(r, temperature).detach()
    parameters = learned_parameters(potential)
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = ((weight * (potential.energy(r, temperature) - wanted)) ** 2).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    u = potential.energy(r, temperature)
    if not bool(torch.isfinite(u).all() and (u[:, 0] > 0).all() and (u[:, 0] > u[:, 1]).all()):
        set_flat_parameters(potential, before)
    return potential


def _wall_slope(r: Array, w: Array) -> float:
    """Steepness of the wall, kJ/mol/nm, over the first points that fall."""
    peak = int(np.argmin(w[: max(3, len(w) // 2)]))
    last = max(1, peak // 2)
    return float(max((w[0] - w[last]) / (r[last] - r[0]), 1.0))
