"""How far a fit came, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from .convergence import Verdict
from .trust import Trust

_T = TypeVar("_T")

_STALLED = "stalled"
_PATIENCE = 4  # rounds
_PROGRESS = 0.95  # of the excess: what is more is none


@dataclass(frozen=True)
class Round:
    """What one round of the fit found, at the parameters that it sampled with."""

    misfit: float  # rms of residual / combined uncertainty
    rdf_rms: float  # of all g(r) targets, pooled; NaN without one
    n_effective: float  # entropy form, least of all state points
    md_steps: int  # cumulative, equilibration included
    seconds: float  # cumulative
    largest_change: float  # kT, of u(r) where g > 0.1, in the update that followed
    excess: float  # of the target that is off most: its misfit over what a right model may have
    worst: str  # which one that is
    theory_weight: float  # of liquid-state theory beside the frames, mean over the modes of g(r)
    excesses: tuple[float, ...] = ()  # of each target, as ``excess``, in the order of the fit
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
    verdict: Verdict | None = None  # of the last round that was believed
    md_steps: int = 0
    seconds: float = 0.0
    began: list[float] | None = None  # the parameters that frames were first reweighted from

    @property
    def converged(self) -> bool:
        """Was there nothing against the last round?"""
        return self.verdict is not None and self.verdict.converged

    def record(self, found: Mapping[str, float], change: float, verdict: Verdict) -> None:
        """A round that was believed; ``found`` has its misfit, rdf_rms, n_effective, ..."""
        self.verdict, worst = verdict, verdict.worst
        so_far = {"md_steps": self.md_steps, "seconds": self.seconds, "largest_change": change}
        each = tuple(target.excess for target in verdict.targets)
        of_targets = {"excess": worst.excess, "worst": worst.name, "excesses": each}
        self.history.append(Round(**found, **so_far, **of_targets))  # type: ignore[arg-type]

    def mark_stall(self) -> bool:
        """Say so in the last round's event where the fit no longer comes nearer; does it?

        The target that is off most, which need not be the same in each round, is no nearer at
        best in some rounds than before them, and farther off than that of a right model.
        """
        believed = [entry.excess for entry in self.history if not entry.was_rolled_back]
        before, since = believed[:-_PATIENCE], believed[-_PATIENCE:]
        if self.converged or not before or min(since) < max(_PROGRESS * min(before), 1.0):
            return False
        last = self.history[-1]
        event = (
            f"{_STALLED}: what is off most, {min(since):.2f} of its limit at best, has come no "
            f"nearer for {_PATIENCE} rounds; it is {last.worst} now. The potential may not be able "
            "to follow the targets as it is, or they exclude each other: take a freer one (a "
            "network on a spline from boltzmann_inversion, say), longer rounds, or larger "
            "uncertainties"
        )
        self.history[-1] = replace(last, event=event)
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
        history = [_exactly(Round, _with_tuple(entry)) for entry in state["history"]]
        trust = _exactly(Trust, state["trust"])
        verdict = None if state["verdict"] is None else Verdict.restore(state["verdict"])
        parts = {"history": history, "trust": trust, "verdict": verdict}
        return _exactly(Progress, {**state, **parts})


def _with_tuple(entry: dict[str, Any]) -> dict[str, Any]:
    """A round from JSON, which knows no tuples."""
    return {**entry, "excesses": tuple(entry["excesses"])}


def _exactly(kind: type[_T], values: dict[str, Any]) -> _T:
    """A dataclass with all of its fields given, and no other."""
    given = {field.name: values[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{**values, **given})
