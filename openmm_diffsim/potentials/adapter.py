"""Which adapter connects a kind of potential with OpenMM: adapters are registered from above.

Nothing here knows OpenMM. See ``openmm_diffsim.engine.adapters.Adapter`` for what an adapter is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from ..errors import AttachError

Kind = TypeVar("Kind", bound=type)

_ADAPTERS: dict[type, Callable[[Any], Any]] = {}


@dataclass(frozen=True)
class AttachOptions:
    """The arguments of ``Potential.attach``, which explains them."""

    atoms: ArrayLike | None = None
    types: ArrayLike | None = None
    exclusions: Any = None
    periodic: bool | None = None
    temperature: Any = None
    backend: str | None = None
    precision: str | None = None
    exclude_bonds: int | None = None
    tuples: Any = None
    """Bonds, triples or quadruples of a bonded potential; see ``BondSpline.attach``."""
    tuple_types: ArrayLike | None = None
    """Type of each."""


def adapts(kind: type) -> Callable[[Kind], Kind]:
    """A decorator: the class is the adapter of that kind of potential, and of its subclasses."""

    def register(adapter: Kind) -> Kind:
        _ADAPTERS[kind] = adapter
        return adapter

    return register


def adapter_of(potential: Any) -> Any:
    """The adapter of a potential, that of its nearest base class.

    Raises
    ------
    AttachError
        If there is none.
    """
    for kind in type(potential).__mro__:
        if kind in _ADAPTERS:
            return _ADAPTERS[kind](potential)
    raise AttachError(
        f"nothing connects {type(potential).__name__} with OpenMM: wrap a torch module in "
        "NetworkPotential(module), or register an Adapter for this kind with @adapts(kind)"
    )


def all_adapters() -> list[Any]:
    """The classes of all adapters that are known."""
    return list(dict.fromkeys(_ADAPTERS.values()))
