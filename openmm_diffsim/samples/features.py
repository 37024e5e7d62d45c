"""The learned energy of recorded frames, for any coefficients of the potential.

Where it is linear in them, U = c . S(x), the features S are all that is kept (``Features``). What
is not, a network, is evaluated anew from stored configurations (``samples.evaluated``). A sum of
potentials keeps of each term what that term needs (``SumOfFeatures``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..io.archive import from_text, to_text

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Self = TypeVar("Self", bound="LearnedEnergy")


class LearnedEnergy(Protocol):
    """Energy and virial of the learned potential in each frame.

    ``c`` are the potential's ``coefficients``, a flat Tensor.
    """

    kind: str
    """What ``restore`` tells it by."""

    def __len__(self) -> int: ...

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames], with a graph to ``c``."""

    def virial(self, c: Tensor) -> Tensor:
        """W = -3 V dU/dV, moving whole molecules, kJ/mol, [frames], with a graph to ``c``."""

    def response(self, quantity: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn dA_n/dc for each row of weights [sets, frames].

        A is the "energy" or the "virial". Returns [sets, coefficients].
        """

    def linear(self, c: Tensor, virials: bool = True) -> Features:
        """The same to first order about ``c``: as if its energy were linear.

        ``virials=False`` leaves out W, where nobody asks for it.
        """

    def select(self: Self, keep: Mask) -> Self:
        """Those frames alone."""

    def pooled(self: Self, others: Sequence[Self]) -> Self:
        """These frames and those of all others."""

    def files(self) -> list[Path]:
        """Where frames are stored, those of temporary files left out."""

    def keep(self) -> None:
        """Stored frames leave the temporary folder of a round, for the one that it is in."""

    @property
    def is_temporary(self) -> bool:
        """Does any of it go with this object?"""

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """What a file in that folder has to hold."""


@dataclass(frozen=True)
class Features:
    """U = U_0 + c . S and W = W_0 + c . S': what is kept of frames whose energy is linear."""

    energies: Array  # S = dU/dc, [frames, coefficients]
    virials: Array  # S' = dW/dc, the same shape
    constant: Array | None = None  # U_0, [frames], kJ/mol; None: zero
    constant_virial: Array | None = None  # W_0, [frames], kJ/mol

    kind = "features"
    is_temporary = False

    def __len__(self) -> int:
        return len(self.energies)

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames]."""
        return _plus(self.constant, torch.from_numpy(self.energies) @ c)

    def virial(self, c: Tensor) -> Tensor:
        """W, kJ/mol, [frames]."""
        return _plus(self.constant_virial, torch.from_numpy(self.virials) @ c)

    def response(self, quantity: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn S_n, or S'_n, [sets, coefficients]."""
        return weights @ (self.energies if quantity == "energy" else self.virials)

    def linear(self, c: Tensor, virials: bool = True) -> Features:
        """These: they are linear."""
        return self

    def select(self, keep: Mask) -> Features:
        """Those frames alone."""
        parts = (self.energies, self.virials, self.constant, self.constant_virial)
        return Features(*(part if part is None else part[keep] for part in parts))  # type: ignore[arg-type]

    def pooled(self, others: Sequence[Features]) -> Features:
        """These frames and those of all others."""
        parts = [self, *others]
        return Features(
            np.concatenate([part.energies for part in parts]),
            np.concatenate([part.virials for part in parts]),
            _joined([part.constant for part in parts], parts),
            _joined([part.constant_virial for part in parts], parts),
        )

    def files(self) -> list[Path]:
        """None."""
        return []

    def keep(self) -> None:
        """Nothing is stored."""

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Both features, and the constants where there are any."""
        constants = {"constant": self.constant, "constant_virial": self.constant_virial}
        known = {name: array for name, array in constants.items() if array is not None}
        return {"energies": self.energies, "virials": self.virials, **known}


@dataclass(frozen=True)
class SumOfFeatures:
    """The energy of a sum of potentials, of each term as that term keeps it."""

    terms: tuple[LearnedEnergy, ...]
    slices: tuple[slice, ...]  # where the coefficients of each are

    kind = "sum"

    def __len__(self) -> int:
        return len(self.terms[0])

    @property
    def is_temporary(self) -> bool:
        """Is any of the terms'?"""
        return any(term.is_temporary for term in self.terms)

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames]."""
        return torch.stack([term.energy(part) for term, part in self._parts(c)]).sum(dim=0)

    def virial(self, c: Tensor) -> Tensor:
        """W, kJ/mol, [frames]."""
        return torch.stack([term.virial(part) for term, part in self._parts(c)]).sum(dim=0)

    def response(self, quantity: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn dA_n/dc, [sets, coefficients]."""
        rows = [term.response(quantity, part, weights) for term, part in self._parts(c)]
        return np.concatenate(rows, axis=1)

    def linear(self, c: Tensor, virials: bool = True) -> Features:
        """To first order about ``c``, all terms in one."""
        parts = [term.linear(part, virials) for term, part in self._parts(c)]
        return Features(
            np.concatenate([part.energies for part in parts], axis=1),
            np.concatenate([_wide(part) for part in parts], axis=1),
            _total([part.constant for part in parts]),
            _total([part.constant_virial for part in parts]),
        )

    def select(self, keep: Mask) -> SumOfFeatures:
        """Those frames alone."""
        return replace(self, terms=tuple(term.select(keep) for term in self.terms))

    def pooled(self, others: Sequence[SumOfFeatures]) -> SumOfFeatures:
        """These frames and those of all others."""
        columns = zip(self.terms, *(other.terms for other in others), strict=True)
        return replace(self, terms=tuple(first.pooled(rest) for first, *rest in columns))

    def files(self) -> list[Path]:
        """Those of all terms."""
        return [path for term in self.terms for path in term.files()]

    def keep(self) -> None:
        """Those of all terms."""
        for term in self.terms:
            term.keep()

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Those of each term, behind its number."""
        return {
            f"{k}/{name}": array
            for k, term in enumerate(self.terms)
            for name, array in packed(term, folder).items()
        }

    def _parts(self, c: Tensor) -> Iterator[tuple[LearnedEnergy, Tensor]]:
        return zip(self.terms, (c[where] for where in self.slices), strict=True)


Restore = Callable[[Any, Mapping[str, NDArray[Any]], Path], LearnedEnergy]
"""From a potential, what ``arrays`` gave, and the folder of the file it lies in."""

RESTORE: dict[str, Restore] = {}
"""How each ``kind`` comes back; other modules add theirs."""


def packed(learned: LearnedEnergy, folder: Path) -> dict[str, NDArray[Any]]:
    """Its arrays for a file in a folder, and what it is."""
    return {"kind": from_text(learned.kind), **learned.arrays(folder)}


def restored(potential: Any, arrays: Mapping[str, NDArray[Any]], folder: Path) -> LearnedEnergy:
    """From what ``packed`` gave; FramesError where stored frames are gone or are others."""
    return RESTORE[to_text(arrays["kind"])](potential, arrays, folder)


def _restore_features(
    potential: Any, arrays: Mapping[str, NDArray[Any]], folder: Path
) -> LearnedEnergy:
    constants = (arrays.get("constant"), arrays.get("constant_virial"))
    return Features(arrays["energies"], arrays["virials"], *constants)


def _restore_sum(potential: Any, arrays: Mapping[str, NDArray[Any]], folder: Path) -> LearnedEnergy:
    terms = []
    for k, term in enumerate(potential):
        own = {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{k}/")}
        terms.append(restored(term, own, folder))
    return SumOfFeatures(tuple(terms), tuple(potential.slices()))


RESTORE |= {"features": _restore_features, "sum": _restore_sum}


def _joined(constants: Sequence[Array | None], parts: Sequence[Features]) -> Array | None:
    if all(constant is None for constant in constants):
        return None
    pairs = zip(constants, parts, strict=True)
    return np.concatenate([np.zeros(len(part)) if c is None else c for c, part in pairs])


def _total(constants: Sequence[Array | None]) -> Array | None:
    known = [constant for constant in constants if constant is not None]
    return np.sum(known, axis=0) if known else None


def _wide(part: Features) -> Array:
    """Its virials; where they were left out, a NaN for every coefficient."""
    return np.broadcast_to(part.virials, part.energies.shape)


def _plus(constant: Array | None, value: Tensor) -> Tensor:
    return value if constant is None else torch.from_numpy(constant) + value
