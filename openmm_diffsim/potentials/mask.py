"""Which parameters are learned, by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import PotentialError
from ..limits import shown

if TYPE_CHECKING:
    from .base import Potential


def left_out(potential: Potential, names: Any) -> set[int]:
    """Ids of the parameters that are not learned where only those of these names are.

    Raises
    ------
    PotentialError
        If there is none of a name, or none is left to learn.
    """
    if names is None:
        return set()
    held = {id(p) for p in potential._held_parameters()}
    known = potential.by_name().items()
    learnable = {name: id(p) for name, p in known if p.requires_grad or id(p) in held}
    stand_for = _what_names_stand_for(potential, list(learnable))
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    given = list(names) if is_list else [names]
    for name in given:
        if name not in stand_for:
            raise PotentialError(
                f"learn_only: got {shown(name)}, expected names of parameters, blocks or terms, "
                f"which are {', '.join(stand_for)}",
                got=name,
            )
    chosen = {parameter for name in given for parameter in stand_for[name]}
    if not chosen:
        raise PotentialError(f"learn_only: got {shown(names)}: nothing would be learned", got=names)
    return set(learnable.values()) - {learnable[name] for name in chosen}


def _what_names_stand_for(potential: Potential, learnable: list[str]) -> dict[str, list[str]]:
    """The parameters that each name stands for: its own, those of a term, those of a block.

    A block is known by its parameters where it is the only one of its term.
    """
    found = {name: [name] for name in learnable}
    for name in learnable:
        parts = name.split(".")
        for n in range(1, len(parts)):
            found.setdefault(".".join(parts[:n]), []).append(name)
    terms = [block.rpartition(".")[0] for block in potential.blocks]
    for block, term in zip(potential.blocks, terms, strict=True):
        if terms.count(term) == 1:
            found.setdefault(block, found.get(term, []) if term else learnable)
    return found
