"""One table of a configuration, which hands out checked values."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os.path import realpath
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ConfigurationError
from ..limits import LIMITS, checked_number, checked_whole, limit_of, shown
from ..units import ReducedUnits
from .observables import not_one_of

KINDS = {
    "number_density": "number_density",
    "mass_density": "mass_density",
    "mass": "mass",
    "temperature": "temperature",
    "timestep": "time",
    "length": "time",  # of a segment
    "pressure": "pressure",
    "friction": "rate",
    **dict.fromkeys(("cutoff", "r_min", "r_max", "r_0", "sigma", "prior_sigma"), "length"),
    **dict.fromkeys(("epsilon", "depth", "prior_epsilon", "correction"), "energy"),
    "strength": "energy_length",
    **dict.fromkeys(("width", "kappa"), "wavenumber"),
    "wall_slope": "force",
}
"""What kind of number a key stands for, one of ``units.UNIT_NAMES``; all others have no unit."""

_KIND_OF_UNIT = {"nm": "length", "ps": "time", "rad": "angle", "1/nm": "wavenumber"}


class Section:
    """A table of the file, which hands out checked values and knows what was never asked for.

    Numbers are in md units: where the file is in reduced ``units``, each is multiplied by the unit
    of its kind, which ``KINDS`` says by its key, or the section's own ``kinds``.

    Parameters
    ----------
    name : as a message calls the table, "" for the whole file
    raw : what stands in it
    folder : that paths are relative to
    trusted : may what it names run code?
    units : of the numbers; None: md units
    places : of keys that stand in another table, the name of that
    """

    def __init__(
        self,
        name: str,
        raw: Mapping[str, Any],
        folder: Path,
        trusted: bool = False,
        units: ReducedUnits | None = None,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.raw = raw
        self.folder = folder
        self.trusted = trusted
        self.units = units
        self.places = places
        self.kinds: dict[str, str] = {}
        self.known: list[str] = []

    def error(self, key: str, what: str) -> ConfigurationError:
        """One that names the key."""
        full = self._full(key)
        return ConfigurationError(f"{full}: {what}", key=full, got=self.raw.get(key))

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        for key in self.raw:
            if key not in self.known:
                raise self.error(key, f"unknown key; {self.hint(key)}")

    def hint(self, key: str) -> str:
        """What may have been meant by an unknown key."""
        close = difflib.get_close_matches(key, self.known, 1)
        known = dict.fromkeys(self.known)  # some were asked for twice
        return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"

    def within(self, name: str, raw: Mapping[str, Any], places: Any = None) -> Section:
        """Another table of the same file."""
        return Section(name, raw, self.folder, self.trusted, self.units, places or {})

    def section(self, key: str) -> Section:
        """A table that has to be there."""
        value = self._take(key, _REQUIRED)
        if not isinstance(value, Mapping):
            raise self.error(key, f"got {shown(value)}, expected a table [{key}]")
        return self.within(self._full(key), value)

    def optional_section(self, key: str) -> Section | None:
        """A table, or None."""
        if key in self.raw:
            return self.section(key)
        self._take(key, None)
        return None

    def sections(self, key: str, default: Any = ...) -> list[Section]:
        """A list of tables; by default there has to be one."""
        value = self._take(key, _REQUIRED if default is ... else default)
        if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
            raise self.error(key, f"expected tables written as [[{key}]], with double brackets")
        name = self._full(key)
        return [self.within(f"{name}[{i}]", v) for i, v in enumerate(value)]

    def factor(self, kind: str) -> float:
        """The unit of a kind of number in the file, in md units."""
        return 1.0 if self.units is None else self.units.factor(kind)

    def _scaled(self, key: str, value: Any) -> Any:
        """A number in md units; what is no number as it is."""
        kind = self.kinds.get(key) or KINDS.get(key, "dimensionless")
        if self.units is None or not isinstance(value, int | float) or isinstance(value, bool):
            return value
        return value * self.factor(kind)

    def asked(self, key: str) -> None:
        """Somebody knows this key."""
        self.known.append(key)

    def has(self, key: str) -> bool:
        """Is it there? It is known, then."""
        self.asked(key)
        return key in self.raw

    def number(self, key: str, default: Any = ..., above: float | None = None) -> Any:
        def check(value: Any) -> float:
            number = self._number(key, value)
            if above is not None and not number > above:
                raise self.error(key, f"got {number:g}, expected a number above {above:g}")
            return number

        return self._checked(key, default, check)

    def numbers(self, key: str, n: int) -> Any:
        """One number, or a list of n where there are several."""
        given = self.raw.get(key)
        if n == 1 or given is None:
            return self.number(key)
        value = self._take(key, None)
        if not isinstance(value, list) or len(value) != n:
            raise self.error(key, f"got {shown(value)}, expected a list of {n} numbers")
        return tuple(self._number(key, each) for each in value)

    def each_number(self, key: str, n: int) -> tuple[float, ...]:
        """One number for all n, or a list of n."""
        given = self.raw.get(key)
        return self.numbers(key, n) if isinstance(given, list) else (self.number(key),) * n

    def _number(self, key: str, value: Any) -> float:
        value = self._scaled(key, value)
        return checked_number(self._full(key), value, self._refusal(key), limit_of(key))

    def integer(self, key: str, default: Any = ..., at_least: int = 0) -> Any:
        def check(value: Any) -> int:
            limit = limit_of(key, whole=True)
            limit = replace(limit, least=max(limit.least, at_least))
            if isinstance(value, float):
                raise self.error(key, limit.error("a whole number", value))
            return checked_whole(self._full(key), value, self._refusal(key), limit)

        return self._checked(key, default, check)

    def flag(self, key: str, default: bool = False) -> Any:
        def check(value: Any) -> bool:
            if not isinstance(value, bool):
                raise self.error(key, f"got {value!r}, expected true or false")
            return value

        return self._checked(key, default, check)

    def integers(self, key: str) -> tuple[int, ...] | None:
        """Whole numbers from 1 on."""
        value = self._take(key, None)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(v) is int and v > 0 for v in value):
            raise self.error(key, f"got {value!r}, expected whole numbers from 1 on, as [1, 2]")
        return tuple(value)

    def counts(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 on, of at least one."""
        value = self._take(key, _REQUIRED)
        if not isinstance(value, list) or not value or not all(_is_count(v) for v in value):
            raise self.error(key, f"got {shown(value)}, expected whole numbers, as [100, 300]")
        return tuple(value)

    def text(self, key: str, default: Any = ...) -> Any:
        def check(value: Any) -> str:
            if not isinstance(value, str) or not value or not value.isprintable():
                raise self.error(key, f"got {shown(value)}, expected text of one line in quotes")
            return value

        return self._checked(key, default, check)

    def texts(self, key: str) -> tuple[str, ...]:
        """Several strings, or none."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.error(key, f"got {value!r}, expected a list of texts in quotes")
        return tuple(value)

    def deviations(self, key: str) -> Any:
        """Standard deviations: one number above 0, or a list of such."""
        value = self._take(key, _REQUIRED)
        each = value if isinstance(value, list) else [value]
        limit = LIMITS["deviation"]
        found = [
            checked_number(self._full(key), self._scaled(key, v), self._refusal(key), limit)
            for v in each
        ]
        if not found:
            raise self.error(key, "got none, expected a standard deviation")
        return found if isinstance(value, list) else found[0]

    def type_pair(self, key: str, names: Sequence[str]) -> tuple[int, int]:
        """Two types, each by its number from 0 on or by its name, the lower number first."""
        inner = Section(self.name, {key: [self.raw.get(key)]}, self.folder)
        self._take(key, _REQUIRED)
        ((a, b),) = inner.pairs_of(key, names or ("0",)) or ()
        return min(a, b), max(a, b)

    def pairs_of(self, key: str, names: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
        """Pairs of things, each by its number from 0 on or by its name; None where not given."""
        value = self._take(key, None)
        if value is None:
            return None
        places: dict[Any, int] = {name: index for index, name in enumerate(names)}
        places |= {index: index for index in range(len(names))}
        is_list = isinstance(value, list) and all(isinstance(v, list) for v in value) and value
        if not is_list or not all(
            len(pair) == 2 and all(type(v) in (int, str) and v in places for v in pair)
            for pair in value
        ):
            raise self.error(
                key,
                f"got {shown(value)}, expected pairs of system.types, as [[0, 1]] or by their "
                f"names; there are {len(names) or 'none'}: {shown(list(names), 200)}",
            )
        return tuple((places[a], places[b]) for a, b in value)

    def tuples(self, key: str, size: int) -> Any:
        """Lists of so many whole numbers each, from 0 on, or "bonded"; None where not given."""
        value = self._take(key, None)
        if value is None or value == "bonded":
            return value
        is_list = isinstance(value, list) and all(isinstance(v, list) for v in value) and value
        if not is_list or not all(
            len(row) == size and all(type(v) is int and v >= 0 for v in row) for row in value
        ):
            example = list(range(size))
            raise self.error(
                key,
                f"got {shown(value)}, expected lists of {size} whole numbers, as [{example}], or "
                "'bonded'",
            )
        return [list(row) for row in value]

    def choice(
        self, key: str, allowed: tuple[str, ...], default: Any = ..., known: str | None = None
    ) -> Any:
        """One of the allowed names; ``known`` is that of another spelling of what is there."""

        def check(value: Any) -> str:
            value = known or value
            if value not in allowed:
                raise self.error(key, not_one_of(value, allowed))
            return str(value)

        return self._checked(key, default, check)

    def choice_or_pair(self, key: str, allowed: tuple[str, ...], unit: str) -> Any:
        """A word, or [low, high]."""
        is_word = isinstance(self.raw[key], str)
        return self.choice(key, allowed) if is_word else self.pair(key, unit, scaled=False)

    def choice_or_number(self, key: str, allowed: tuple[str, ...]) -> Any:
        """A word, or a number."""
        is_word = isinstance(self.raw[key], str)
        return self.choice(key, allowed) if is_word else self.number(key)

    def number_or_path(self, key: str) -> Any:
        """A number, or a file that is there."""
        return self.path(key) if isinstance(self.raw[key], str) else self.number(key)

    def number_or_smooth(self, key: str) -> Any:
        """A number, or [amplitude, correlation length]."""
        return self.smooth(key) if isinstance(self.raw[key], list) else self.number(key)

    def smooth(self, key: str) -> tuple[float, float]:
        """[amplitude, correlation length]."""
        value = self._take(key, None)
        if not isinstance(value, list) or len(value) != 2:
            raise self.error(key, f"got {shown(value)}, expected [amplitude, correlation length]")
        names = ("amplitude", "correlation_length")
        value = [self._scaled(key, value[0]), value[1]]
        amplitude, length = (
            checked_number(f"{self._full(key)}: {name}", number, self._refusal(key), limit_of(name))
            for name, number in zip(names, value, strict=True)
        )
        return amplitude, length

    def pair(
        self, key: str, unit: str, least: float = 0.0, scaled: bool = True
    ) -> tuple[float, float] | None:
        """[low, high] in a unit, or None; not ``scaled``: in that of the file."""
        value = self._take(key, None)
        if value is None:
            return None
        numbers = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        )
        most = LIMITS["window"].most
        least = max(least, -most)
        if not numbers or len(value) != 2 or not least <= value[0] < value[1] <= most:
            order = "0 <= low < high" if least == 0 else "low < high"
            raise self.error(key, f"got {shown(value)}, expected [low, high] in {unit}, {order}")
        factor = self.factor(_KIND_OF_UNIT[unit]) if scaled else 1.0
        return factor * value[0], factor * value[1]

    def bounds(self, key: str) -> tuple[float, float]:
        """[low, high], any two numbers that rise."""
        value = self._take(key, _REQUIRED)
        if not isinstance(value, list) or len(value) != 2:
            raise self.error(key, f"got {shown(value)}, expected [low, high]")
        low, high = (self._number(key, each) for each in value)
        if not low < high:
            raise self.error(key, f"got {shown(value)}, expected [low, high], low < high")
        return low, high

    def path(self, key: str) -> Path:
        """A file that is there."""
        found = self.folder / self.text(key)
        try:
            there = found.is_file()
        except OSError:  # a name too long for the disk
            there = False
        if not there:
            raise self.error(key, f"there is no file {shown(str(found), 300)}")
        return found

    def optional_path(self, key: str) -> Path | None:
        if key in self.raw:
            return self.path(key)
        self._take(key, None)
        return None

    def output(self, key: str) -> Path:
        """A folder, relative to where the program runs and, unless trusted, below it."""
        named = Path(self.text(key, "refined"))
        here = Path.cwd()
        if not self.trusted and not Path(realpath(named)).is_relative_to(realpath(here)):
            raise self.error(
                key,
                f"got {str(named)!r}, which does not lie below {here}, where the program runs; "
                "choose another folder by --output, or add --trust",
            )
        return named

    def _checked(self, key: str, default: Any, check: Callable[[Any], Any]) -> Any:
        value = self._take(key, _REQUIRED if default is ... else default)
        return value if key not in self.raw else check(value)

    def _take(self, key: str, default: Any) -> Any:
        self.asked(key)
        if key in self.raw:
            return self.raw[key]
        if default is _REQUIRED:
            raise self.error(key, "missing")
        return default

    def _refusal(self, key: str) -> Callable[..., ConfigurationError]:
        return partial(ConfigurationError, key=self._full(key))

    def _full(self, key: str) -> str:
        name = self.places.get(key, self.name)
        key = key if key.isprintable() and len(key) < 100 else shown(key)
        return f"{name}.{key}" if name else key


_REQUIRED = object()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LIMITS["particles"].most


def quoted(value: object) -> str:
    """A text or a path as TOML has it."""
    return json.dumps(str(value), ensure_ascii=False)
