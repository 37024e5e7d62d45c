"""What can be tuned of Gauss-Newton."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...errors import TargetError
from ...limits import checked_number, checked_whole
from ..averages import Knowledge
from ..comparison import Comparison


@dataclass(frozen=True)
class GaussNewtonOptions(Knowledge):
    """What can be tuned; the defaults need no tuning.

    In a configuration they stand in ``[refine.gauss_newton]``.

    Raises
    ------
    TargetError
        If a number is beyond the range of that name, see ``limits``.
    """

    digitised_roughness: float = 2e3  # at most, where points of g(r) are independent
    roughness: float = 2e5  # q, (kT)^2 / (distance of nearest neighbours)^3
    network_steps: int = 5  # most steps of an update of a network
    stride: float = 0.03  # variance of the change of U/kT of a network in a round, per particle

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                _check_flag(field.name, value)
            elif isinstance(field.default, int):
                checked_whole(field.name, value, TargetError)
            elif isinstance(field.default, float):
                checked_number(field.name, value, TargetError)


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TargetError(f"{name}: got {value!r}, expected True or False", got=value)


def roughness_of(view: Comparison, options: GaussNewtonOptions) -> float:
    """That of a group: digitised points may be far apart, and say little of what is between."""
    like_frames = view.like_frames or [True] * len(view.targets)
    pairs = zip(view.targets, like_frames, strict=True)
    known = [like for target, like in pairs if target.observable.is_structure]
    if all(known):
        return options.roughness
    return min(options.roughness, options.digitised_roughness)
