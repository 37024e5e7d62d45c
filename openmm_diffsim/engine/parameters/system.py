"""Parameters of the forces that a System has already, as a potential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openmm
import torch
from torch import Tensor, nn

from ...errors import PotentialError
from ...potentials import Potential
from .charges import ChargesTerm
from .lennard_jones import LennardJonesTerm
from .term import Term, system_key


class SystemParameters(Potential):
    """Parameters of forces that are in a System already, which are learned; nothing is added to it.

        water = diffsim.SystemParameters(system)
        water.lennard_jones(atoms=oxygens)
        liquid = diffsim.StatePoint(simulation, water)

    Each method adds a term. The parameters start from the System's, which has the learned ones from
    the first StatePoint on; whatever else its forces do stays as it is. The energy that depends on
    the parameters is linear in the coefficients, exactly: a frame's features say its energy at any
    parameters.

    ``attach`` is for another System of the same atom types, such as the vapour: the parameters are
    then those of both.

    Parameters
    ----------
    system : openmm.System
    name : str
        By which a sum of potentials knows it.
    """

    def __init__(self, system: openmm.System, name: str = "parameters") -> None:
        super().__init__(name=name)
        self.terms = nn.ModuleDict()
        self._system: openmm.System | None = system

    def lennard_jones(self, atoms: Any = None, **options: Any) -> LennardJonesTerm:
        """Learn sigma and epsilon of atoms in a NonbondedForce; see ``LennardJonesTerm.of``."""
        return self.add(LennardJonesTerm.of(self.system, atoms, **options))

    def charges(self, atoms: Any = None, **options: Any) -> ChargesTerm:
        """Learn charges of atoms in a NonbondedForce; see ``ChargesTerm.of``."""
        return self.add(ChargesTerm.of(self.system, atoms, **options))

    def add(self, term: Any) -> Any:
        """Add a term that was made for this System; returns it.

        Raises
        ------
        PotentialError
            If there is one of this name, or one of this kind in a Force that can have one only.
        """
        for other in self:
            if term.is_alone and type(other) is type(term) and other.place == term.place:
                raise PotentialError(
                    f"{term.name}: {other.name!r} learns such parameters of this Force already, "
                    "and pairs of both would depend on both: name all types in one call",
                    got=term.name,
                )
        if term.name in self.terms:
            raise PotentialError(
                f"name: there is a term {term.name!r} already, give this one another name=",
                got=term.name,
            )
        self.terms[term.name] = term
        self.energy_is_linear = all(t.energy_is_linear for t in self)
        return term

    @property
    def system(self) -> openmm.System:
        """That it was made of.

        Raises
        ------
        PotentialError
            In a copy that was unpickled, which has none: add all terms before.
        """
        if self._system is None:
            raise PotentialError(f"{self.name}: a copy has no System, add terms to the original")
        return self._system

    @property
    def system_key(self) -> str:
        """Of that System."""
        return system_key(self.system)

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms.values())  # type: ignore[arg-type]

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Those of the terms, behind their names."""
        return {f"{t.name}.{block}": shape for t in self for block, shape in t.blocks.items()}

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """c of all terms, one after the other, [coefficients]."""
        parts = [term.coefficients() for term in self]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def free_charges(self, coefficients: Tensor) -> Tensor:
        """Those of all terms."""
        sizes = [len(term.coefficients()) for term in self]
        pairs = zip(self, torch.split(coefficients, sizes), strict=True)
        return torch.cat([term.free_charges(part) for term, part in pairs])

    def form(self) -> dict[str, Any]:
        """The form of each term, by its name."""
        return {"kind": type(self).__name__, "terms": {t.name: t.form() for t in self}}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None}
