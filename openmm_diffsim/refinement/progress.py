"""How far a fit came, round by round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from .trust import Trust

_T = TypeVar("_T")

_STALLED = "stalled"
_PATIENCE = 4  # rounds
_PROGRESS = 0.95  # of the misfit: what is more is none
_CLEARLY = 1.3  # what the misfit of a model that is right may be, of few points and short rounds


@dataclass(frozen=True)
class Round:
    """What one round of the fit found, at the parameters that it sampled with."""

    misfit: float  # rms of residual / combined uncertainty
    rdf_rms: float  # of all g(r) targets, pooled; NaN without one
    n_effective: float  # entropy form, least of all state points
    md_steps: int  # cumulative, equilibration included
    seconds: float  # cumulative
    largest_change: float  # kT, of u(r) where g > 0.1, in the update that followed
    event: str = ""  # why the round was rolled back, if it was, or that the fit has stalled

    @property
    def has_stalled(self) -> bool:
        """Did the fit no longer come nearer?"""
        return self.event.startswith(_STALLED)

    @property
    def was_rolled_back(self) -> bool:
        """Was the round not believed?"""
        return bool(self.event) and not self.has_stalled


@dataclass
class Progress:
    """How far a fit came: what a checkpoint keeps besides parameters and frames."""

    history: list[Round]
    trust: Trust
    converged: bool = False
    md_steps: int = 0
    seconds: float = 0.0

    def record(self, misfit: float, rms: float, effective: float, change: float = 0.0) -> None:
        """A round that was believed."""
        self.history.append(Round(misfit, rms, effective, self.md_steps, self.seconds, change))

    def mark_stall(self) -> bool:
        """Say so in the last round's event where the fit no longer comes nearer; does it?

        It is not there, and the best misfit of some rounds is no better than that before them.
        """
        believed = [entry.misfit for entry in self.history if not entry.was_rolled_back]
        before, since = believed[:-_PATIENCE], believed[-_PATIENCE:]
        if self.converged or not before or min(since) < max(_PROGRESS * min(before), _CLEARLY):
            return False
        event = (
            f"{_STALLED}: the misfit, {min(believed):.2f} at best, has not fallen for {_PATIENCE} "
            "rounds. The potential may not be able to follow the targets as it is, or they "
            "exclude each other: take a freer one (a network on a spline from "
            "boltzmann_inversion, say), longer "
            "rounds, or larger uncertainties"
        )
        self.history[-1] = replace(self.history[-1], event=event)
        return True

    def record_rollback(self, problem: str) -> None:
        """A round that was not, with the numbers of the one before."""
        own = {"md_steps": self.md_steps, "seconds": self.seconds, "event": problem}
        self.history.append(replace(self.history[-1], largest_change=0.0, **own))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "trust": self.trust.state_dict()}

    @staticmethod
    def restore(state: dict[str, Any]) -> Progress:
        """From what ``state_dict`` gave.

        Raises
        ------
        LookupError, TypeError
            If anything is missing, or unknown.
        """
        history = [_exactly(Round, entry) for entry in state["history"]]
        trust = _exactly(Trust, state["trust"])
        return _exactly(Progress, {**state, "history": history, "trust": trust})


def _exactly(kind: type[_T], values: dict[str, Any]) -> _T:
    """A dataclass with all of its fields given, and no other."""
    given = {field.name: values[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{**values, **given})
