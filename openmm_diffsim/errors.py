"""Exceptions that say what was got, what was expected and what to do, and carry their numbers.

``raise OverlapError("...", n_effective=12.0, floor=90.0, n_frames=100)`` makes the three numbers
attributes of the exception; those a class declares and a raise leaves out are None.
"""

from __future__ import annotations

from pathlib import Path


class DiffsimError(Exception):
    """Base of every exception of this package: a message, and its numbers as attributes.

    Parameters
    ----------
    message : what was got, what was expected, what to do
    numbers : stored as attributes under their own names; they survive pickling
    """

    def __init__(self, message: str = "", **numbers: object) -> None:
        super().__init__(message)
        self.__dict__.update(numbers)


class UnitError(DiffsimError, ValueError):
    """A value has another dimension than the argument, or is no number at all."""

    kind: str | None = None
    """The kind of number that was expected, such as "length"."""


class TargetError(DiffsimError, ValueError):
    """A table or a target read from one cannot be what it is said to be."""

    path: Path | None = None
    line: int | None = None
    """Counted from 1."""
    key: str | None = None


class ConfigurationError(DiffsimError, ValueError):
    """An entry of a configuration is missing, unknown, or has a value it cannot have."""

    key: str | None = None
    got: object = None
    expected: object = None


class AttachError(DiffsimError):
    """A potential cannot be attached to this System, or is not in this Context."""


class StatePointError(DiffsimError, ValueError):
    """A Simulation does not define the temperature or pressure that a state point needs."""


class OverlapError(DiffsimError):
    """Too few effective samples: a reweighted average would not be trustworthy."""

    n_effective: float | None = None
    floor: float | None = None
    n_frames: int | None = None


class SamplingError(DiffsimError):
    """A run exploded or froze."""

    reason: str | None = None
    step: int | None = None
    measured: float | None = None
    limit: float | None = None


class EquilibrationError(DiffsimError):
    """A run is too short or still drifts: its averages are not those of equilibrium."""


class WorkerError(DiffsimError):
    """A run could not be done: the workers that it was given to were lost, or failed."""

    place: tuple[int, int] | None = None
    """Which state point of the fit, and which replica of it."""
    failures: int | None = None


class CheckpointError(DiffsimError):
    """A checkpoint cannot be read, or belongs to another refinement."""

    path: Path | None = None
    reason: str | None = None


class FileError(DiffsimError):
    """A file of OpenMM's is not what it is said to be."""

    path: Path | None = None


class UntrustedError(FileError):
    """A file holds code, or names other files, and nobody said that it is trusted."""

    got: object = None


class ExportError(DiffsimError, ValueError):
    """What was learned, or the System that it is in, cannot be said to another program."""

    got: object = None


class TakenError(DiffsimError):
    """A file or folder is in use by another process, or holds what something else wrote."""

    path: Path | None = None
    pid: int | None = None
    host: str | None = None


class FramesError(DiffsimError, OSError):
    """Stored configurations cannot be written or read."""

    path: Path | None = None
    reason: str | None = None


class SegmentError(DiffsimError, ValueError):
    """A trajectory segment cannot be made of what was given, or not in this System."""

    got: object = None


class ObservableError(DiffsimError, ValueError):
    """An argument of an observable, or the particles it is to measure, do not fit."""

    r_max: float | None = None
    """A range of pairs that is larger than ``limit``, half the box, nm."""
    limit: float | None = None


class PotentialError(DiffsimError, ValueError):
    """An argument of a potential has a value it cannot have."""


def one_line(message: str, most: int = 800) -> str:
    """A message of others (a parser's, say) in one line, without what is too much of it."""
    text = " ".join(message.split())
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
