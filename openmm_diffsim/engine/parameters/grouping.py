"""Which entries of a force are learned, and which of them share their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import AttachError
from .selection import rounded

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Entries of a force that are learned, in groups with the same parameters.

    Attributes
    ----------
    names : list of str
        Of each group.
    entries : int array [learned]
        Indices in the force.
    of : int array [learned]
        The group of each.
    """

    names: list[str]
    entries: IntArray
    of: IntArray

    def first(self) -> IntArray:
        """The first entry of each group."""
        return self.entries[np.unique(self.of, return_index=True)[1]]


def groups_of(
    select: Any,
    atoms: IntArray,
    values: Array,
    types: Sequence[str] | None = None,
    each: bool = False,
    labels: Sequence[str] | None = None,
    apart: Array | None = None,
) -> Groups:
    """The groups that a user means.

    Parameters
    ----------
    select : None, sequence of int, sequence of tuples of str, or mapping of names to either
        Entries of the force, or the ``types`` of the particles that they act on, "*" for any, in
        either direction. Each of a mapping is one group. None: all entries.
    atoms : int array [entries, size]
        Particles of each entry.
    values : array [entries, columns]
        Its parameters at present. Those with equal ones are one group, unless something else is
        said.
    types : sequence of str, optional
        Of each particle of the System. Entries of the same types are one group.
    each : bool
        Each entry is a group of its own.
    labels : sequence of str, optional
        Of each entry. Those of other labels are never one group by their types.
    apart : array [entries, columns], optional
        Nor are those of which these differ.

    Raises
    ------
    AttachError
        If nothing is selected, an entry is in two groups or there is none of its index, or the
        types are not those of all particles.
    """
    if types is not None and atoms.size and len(types) <= atoms.max():
        raise AttachError(
            f"types: expected one for each particle of the System, got {len(types)}; "
            "diffsim.atom_types(...) gives them",
            got=len(types),
        )
    kinds = None if types is None else [_either_way([types[i] for i in row]) for row in atoms]
    if isinstance(select, Mapping):
        chosen = {str(name): _entries(part, kinds, len(atoms)) for name, part in select.items()}
        return _joined(chosen)
    entries = np.arange(len(atoms)) if select is None else _entries(select, kinds, len(atoms))
    if each or kinds is None:
        keys = entries if each else equal_rows(values[entries])
        names = ["-".join(map(str, atoms[k])) for k in entries]
    else:
        names = ["-".join(kinds[k]) + (labels[k] if labels else "") for k in entries]
        keys = np.unique(names, return_inverse=True)[1]
        if apart is not None:
            keys = equal_rows(np.column_stack([keys, apart[entries]]))
    return _joined(_by_key(names, entries, np.asarray(keys)))


def _by_key(names: Sequence[str], entries: IntArray, keys: IntArray) -> dict[str, IntArray]:
    """Groups in the order of their first entries; a name that comes again gets a number."""
    found: dict[str, IntArray] = {}
    _, first = np.unique(keys, return_index=True)
    for k in np.sort(first):
        name, count = names[k], 2
        while name in found:
            name, count = f"{names[k]} {count}", count + 1
        found[name] = entries[keys == keys[k]]
    return found


def _joined(chosen: Mapping[str, IntArray]) -> Groups:
    parts = list(chosen.values())
    entries = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    empty = [name for name, part in chosen.items() if len(part) == 0]
    if len(entries) == 0 or empty:
        raise AttachError(f"nothing of the force is selected{f' by {empty}' if empty else ''}")
    if len(np.unique(entries)) < len(entries):
        twice = np.flatnonzero(np.bincount(entries) > 1)
        raise AttachError(f"entries {twice[:5].tolist()} of the force are selected twice")
    return Groups(list(chosen), entries, np.repeat(np.arange(len(parts)), [len(p) for p in parts]))


def _entries(select: Any, kinds: list[tuple[str, ...]] | None, n: int) -> IntArray:
    wanted = list(np.ravel(select)) if isinstance(select, np.ndarray) else list(select)
    if wanted and all(isinstance(one, str) for one in wanted):
        wanted = [tuple(wanted)]  # one tuple of types
    if wanted and all(isinstance(one, tuple) for one in wanted):
        return _of_types(wanted, kinds)
    entries = np.asarray(wanted)
    if entries.size and entries.dtype.kind not in "iu":
        raise AttachError(
            f"expected indices of entries of the force, or tuples of types, got {wanted[:5]}",
            got=wanted,
        )
    if entries.size and (entries.min() < 0 or entries.max() >= n):
        raise AttachError(
            f"expected indices 0 .. {n - 1} of entries of the force, got {entries.min()} .. "
            f"{entries.max()}",
            got=wanted,
        )
    return entries.astype(np.int64)


def _of_types(wanted: Sequence[Any], kinds: list[tuple[str, ...]] | None) -> IntArray:
    if kinds is None:
        raise AttachError("entries by types of their particles need types= of all particles")
    missing = [one for one in wanted if not any(_fits(one, kind) for kind in kinds)]
    if missing:
        raise AttachError(f"no entry of the force is of types {missing[0]}", got=missing)
    chosen = [k for k, kind in enumerate(kinds) if any(_fits(one, kind) for one in wanted)]
    return np.array(chosen, dtype=np.int64)


def _fits(wanted: tuple[str, ...], kind: tuple[str, ...]) -> bool:
    return len(wanted) == len(kind) and any(
        all(a in ("*", b) for a, b in zip(wanted, direction, strict=True))
        for direction in (kind, kind[::-1])
    )


def _either_way(kind: Sequence[str]) -> tuple[str, ...]:
    return min(tuple(kind), tuple(kind)[::-1])


def equal_rows(values: Array) -> IntArray:
    """A number for each row, the same for equal ones."""
    return np.asarray(np.unique(rounded(values), axis=0, return_inverse=True)[1]).ravel()


def common_start(groups: Groups, values: Array, what: Sequence[str]) -> Array:
    """The values that all entries of each group have, [groups, columns], of [entries, columns].

    Raises
    ------
    AttachError
        If those of a group differ.
    """
    keys = equal_rows(values)
    first = groups.first()
    other = np.flatnonzero(keys[groups.entries] != keys[first[groups.of]])
    if len(other):
        one, two = groups.entries[other[0]], first[groups.of[other[0]]]
        raise AttachError(
            f"group {groups.names[groups.of[other[0]]]!r}: its entries have to start with equal "
            f"{', '.join(what)}, but entry {two} of the force has {values[two].tolist()} and entry "
            f"{one} {values[one].tolist()}; make them groups of their own, or equal in the System",
            got=values[one].tolist(),
            expected=values[two].tolist(),
        )
    return values[first]


class Starts:
    """What the entries of each group had at the start, to find such entries in another System.

    Parameters
    ----------
    groups : Groups
    table : array [entries, columns]
        All numbers of all entries of the first System.
    """

    def __init__(self, groups: Groups, table: Array) -> None:
        of = np.full(len(table), -1)
        of[groups.entries] = groups.of
        self._owners: dict[tuple[float, ...], set[int]] = {}
        for key, group in zip(_tuples(table), of.tolist(), strict=True):
            self._owners.setdefault(key, set()).add(group)

    def find(self, table: Array, name: str) -> tuple[IntArray, IntArray]:
        """Entries of another System that belong to groups, and to which.

        Raises
        ------
        AttachError
            If it cannot be told, as entries of several groups, or of none, are alike.
        """
        owners = [self._owners.get(key, {-1}) for key in _tuples(table)]
        unclear = [k for k, found in enumerate(owners) if len(found) > 1]
        if unclear:
            raise AttachError(
                f"{name}: entry {unclear[0]} of the force has the parameters "
                f"{table[unclear[0]].tolist()}, which in the first System entries of several "
                "groups have, or some that are not learned: which group is meant cannot be told",
                got=table[unclear[0]].tolist(),
            )
        of = np.array([next(iter(found)) for found in owners], dtype=np.int64)
        entries = np.flatnonzero(of >= 0)
        return entries, of[entries]


def _tuples(table: Array) -> list[tuple[float, ...]]:
    return [tuple(row) for row in rounded(table).tolist()]
