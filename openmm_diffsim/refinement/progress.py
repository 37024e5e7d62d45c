"""How far a fit came, round by round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from .trust import Trust

_T = TypeVar("_T")


@dataclass(frozen=True)
class Round:
    """What one round of the fit found, at the parameters that it sampled with."""

    misfit: float  # rms of residual / combined uncertainty
    rdf_rms: float  # of all g(r) targets, pooled; NaN without one
    n_effective: float  # entropy form, least of all state points
    md_steps: int  # cumulative, equilibration included
    seconds: float  # cumulative
    largest_change: float  # kT, of u(r) where g > 0.1, in the update that followed
    event: str = ""  # why the round was rolled back, if it was


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
