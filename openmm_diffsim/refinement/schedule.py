"""How long each round of a fit is."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TargetError
from ..limits import checked_whole


@dataclass(frozen=True)
class Schedule:
    """Rounds of equal length, with a lead that is not recorded.

    Parameters
    ----------
    rounds : int
        In all.
    steps, every : int
        MD steps recorded per round and state point, and between frames.
    equilibration : int, optional
        Steps before each round's recording. Default: a tenth of ``steps``, five times as much
        before the first.
    """

    rounds: int
    steps: int
    every: int
    equilibration: int | None = None

    def __post_init__(self) -> None:
        """Raises TargetError where a number is none that a run can have."""
        for name in ("rounds", "steps", "every"):
            checked_whole(name, getattr(self, name), TargetError)
        if self.equilibration is not None:
            checked_whole("equilibration", self.equilibration, TargetError)

    def lead(self, round_number: int) -> int:
        """Unrecorded steps before a round; the first has number 0."""
        if self.equilibration is not None:
            return self.equilibration
        return self.steps // 10 if round_number else self.steps // 2

    def steps_after(self, done: int) -> int:
        """MD steps of one state point that are left after so many rounds."""
        return sum(self.steps + self.lead(n) for n in range(done, self.rounds))
