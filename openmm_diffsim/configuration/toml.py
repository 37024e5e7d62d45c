"""The configuration of a fit: a TOML file, checked to the last key before anything runs."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from os.path import realpath
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..io import read_regular
from ..limits import LIMITS, checked_number, checked_whole, limit_of, shown
from ..observables import Observable
from ..refinement.measurement import NORMALISATION, POINTS, SHELLS, SMEAR
from ..refinement.methods import METHODS, GaussNewtonOptions
from ..refinement.target import NOISE
from ..units import ACCEPTED, GRAM_PER_CM3, UNIT_NAMES
from .observables import find_observable, not_one_of
from .potentials import PAIR_KINDS, PotentialSection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

INITIAL = ("boltzmann-inversion", "lennard-jones", "table", "parameters")
_MOST_BYTES = 2**20  # of a configuration


@dataclass(frozen=True)
class SystemSection:
    """A fluid of one kind of particle, or the user's own files."""

    particles: int | None = None
    number_density: float | None = None  # 1/nm^3
    mass: float | None = None  # amu
    topology: Path | None = None
    system: Path | None = None
    state: Path | None = None
    trajectory: Path | None = None  # to begin with, sampled with the potential as it is here
    atoms: str | None = None  # a selection in mdtraj's language
    types: tuple[str, ...] = ()  # selections, one for each type, in place of atoms
    exclude_bonds: int | None = None  # pairs so many bonds apart or fewer do not interact


@dataclass(frozen=True)
class DynamicsSection:
    """See ``fluid.Dynamics``."""

    temperature: float  # K
    timestep: float  # ps
    friction: float  # 1/ps
    pressure: float | None  # bar, of a barostat that is added
    platform: str
    threads: int | None


@dataclass(frozen=True)
class TargetSection:
    """What was measured."""

    observable: type[Observable]
    settings: Mapping[str, Any]  # the observable's own, see Observable.settings
    uncertainty: float | None  # in the unit of the values
    weight: float
    file: Path | None = None  # of a curve
    unit: str = ""  # of the x in the file
    window: tuple[float, float] | None = None  # md units, of a curve
    noise: str = "auto"  # of a histogram
    columns: tuple[int, ...] | None = None  # of x, y and perhaps the error, counted from 1
    block: int | None = None  # of several tables in the file, counted from 1 or from -1
    as_it_is: bool = False  # whatever it looks like
    value: float | tuple[float, ...] | None = (
        None  # of what is no curve, in md units times ``factor``
    )
    factor: float = 1.0  # of value, uncertainty and offset: their unit, in md units
    measurement: Mapping[str, Any] = field(default_factory=dict)  # see refinement.Measurement


@dataclass(frozen=True)
class RefineSection:
    """How long, by what method, where to."""

    method: str
    rounds: int
    equilibration: int | None
    steps: int
    every: int
    seed: int
    output: Path
    largest_step: float | None  # kT
    gauss_newton: GaussNewtonOptions


@dataclass(frozen=True)
class Configuration:
    """All of it, and the text it was made from."""

    system: SystemSection
    dynamics: DynamicsSection
    potential: PotentialSection
    targets: tuple[TargetSection, ...]
    refine: RefineSection
    raw: Mapping[str, Any]
    trusted: bool = False  # may what it names run code?


def read_configuration(path: str | Path, trusted: bool = False) -> Configuration:
    """Read and check a configuration file; paths in it are relative to its own folder.

    It may come from others. Unless it is ``trusted`` it cannot run code, neither an observable's
    nor that in a System, and writes nowhere but below the folder that the program runs in. What it
    names to be read may lie anywhere: that is only data.

    Raises
    ------
    ConfigurationError
        If the file is missing or no TOML, a key is unknown or missing, or a value cannot be;
        ``key`` names it.
    """
    path = Path(path)
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
        raw = tomllib.loads(text.replace("\r\n", "\n"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: nested too deeply") from error
    return parse_configuration(raw, path.parent, trusted)


def parse_configuration(
    raw: Mapping[str, Any], folder: Path, trusted: bool = False
) -> Configuration:
    """As ``read_configuration``, from a dictionary."""
    top = _Section("", raw, folder, trusted)
    system = _system(top.section("system"))
    dynamics = _dynamics(top.section("dynamics"))
    potential = _potential(top.section("potential"), system.types)
    targets = tuple(_target(section) for section in top.sections("target"))
    refine = _refine(top.section("refine"))
    top.finish()
    if system.trajectory is not None and potential.initial == "boltzmann-inversion":
        raise ConfigurationError(
            "potential.initial: got 'boltzmann-inversion', expected what system.trajectory was "
            "sampled with: parameters such as sigma and epsilon, or a table in file",
            key="potential.initial",
        )
    if not any(target.observable.is_structure for target in targets):
        needs = [
            key
            for key, missing in (
                ("potential.r_min", potential.r_min is None),
                ("potential.initial", potential.initial == "boltzmann-inversion"),
            )
            if missing
        ]
        if needs:
            raise ConfigurationError(
                f"{needs[0]}: without an rdf target it cannot be found; give it", key=needs[0]
            )
    return Configuration(system, dynamics, potential, targets, refine, raw, trusted)


def _system(section: _Section) -> SystemSection:
    own = "topology" in section.raw or "system" in section.raw
    if own:
        made = SystemSection(
            topology=section.path("topology"),
            system=section.path("system"),
            state=section.optional_path("state"),
            trajectory=section.optional_path("trajectory"),
            atoms=section.text("atoms", None),
            types=section.texts("types"),
            exclude_bonds=section.integer("exclude_bonds", None, at_least=0),
        )
        if made.atoms is not None and made.types:
            raise section.error("types", "got atoms as well; types say which atoms there are")
    else:
        mass = section.number("mass")
        density = section.number("number_density", None)
        mass_density = section.number("mass_density", None)
        if (density is None) == (mass_density is None):
            raise section.error(
                "number_density",
                "give either number_density (1/nm^3) or mass_density (g/cm3), and not both",
            )
        if density is None:
            density = mass_density * GRAM_PER_CM3 / mass
        made = SystemSection(
            particles=section.integer("particles"), number_density=density, mass=mass
        )
    section.finish()
    return made


def _dynamics(section: _Section) -> DynamicsSection:
    made = DynamicsSection(
        temperature=section.number("temperature"),
        timestep=section.number("timestep"),
        friction=section.number("friction", 1.0),
        pressure=section.number("pressure", None),
        platform=section.text("platform", "CPU"),
        threads=section.integer("threads", None),
    )
    section.finish()
    return made


def _potential(section: _Section, types: Sequence[str]) -> PotentialSection:
    kind = section.choice("kind", tuple(PAIR_KINDS))
    known = PAIR_KINDS[kind]
    parameters = {
        name: value
        for name in known.parameters
        if (value := section.number(name, None)) is not None
    }
    file = section.optional_path("file")
    default = "boltzmann-inversion"
    if file is not None:
        default = "table"
    elif parameters or not known.follows_well:
        default = "parameters" if known.has_parameters else "lennard-jones"
    initial = section.choice("initial", INITIAL, default)
    if initial == "table" and file is None:
        raise section.error("file", "initial = 'table' needs file = a table of r (nm), u (kJ/mol)")
    if initial == "lennard-jones" and not {"sigma", "epsilon"} <= parameters.keys():
        raise section.error("sigma", "initial = 'lennard-jones' needs sigma (nm), epsilon (kJ/mol)")
    if initial == "parameters" and not known.has_parameters:
        raise section.error("initial", f"a {kind} has no parameters; expected another")
    cutoff = section.number("cutoff")
    r_min = section.number("r_min", None)
    if r_min is not None and r_min >= cutoff:
        raise section.error("r_min", f"got {r_min} nm, expected less than cutoff = {cutoff} nm")
    made = PotentialSection(
        kind=kind,
        cutoff=cutoff,
        r_min=r_min,
        knots=section.integer("knots", known.knots),
        initial=initial,
        file=file,
        parameters=parameters,
        learn=section.pairs_of("learn", types),
    )
    section.finish()
    return made


def _target(section: _Section) -> TargetSection:
    observable = _observable(section)
    read = _value if observable.rules is None else _curve
    made = TargetSection(
        observable=observable,
        uncertainty=section.number("uncertainty", None),
        weight=section.number("weight", 1.0),
        **read(section, observable),
        measurement=_measurement(section, observable),
        settings=observable.settings(section),
    )
    if made.uncertainty is not None and "covariance" in made.measurement:
        raise section.error("covariance", "got uncertainty as well; give one of them")
    section.finish()
    return made


def _measurement(section: _Section, observable: type[Observable]) -> dict[str, Any]:
    """How it was measured, as far as it is said."""
    read: dict[str, Callable[[str], Any]] = {
        "scale": section.number,
        "offset": section.number,
        "systematic": section.path,
        "covariance": section.path,
    }
    if observable.rules is not None:
        unit = UNIT_NAMES[observable.rules.x_kind]
        read |= {
            "resolution": section.number_or_path,
            "smear": partial(section.choice, allowed=SMEAR),
            "points": partial(section.choice_or_pair, allowed=POINTS, unit=unit),
            "shells": partial(section.choice_or_pair, allowed=SHELLS, unit=unit),
            "normalisation": partial(section.choice_or_number, allowed=NORMALISATION),
            "scale": section.number_or_smooth,
            "background": section.smooth,
            "broadening": section.number,
            "shift": section.number,
        }
    return {key: take(key) for key, take in read.items() if section.has(key)}


def _observable(section: _Section) -> type[Observable]:
    """The class that a target names."""
    name = section.text("observable")
    try:
        found = find_observable(name, section.folder, section.trusted)
        return found.measured_in(section.raw.get("unit"))
    except ConfigurationError as error:
        raise section.error("observable", str(error)) from error


def _curve(section: _Section, observable: type[Observable]) -> dict[str, Any]:
    """What a target has that is read from a file."""
    rules = observable.rules
    assert rules is not None
    read = {
        "file": section.path("file"),
        "window": section.pair("window", UNIT_NAMES[rules.x_kind], rules.least_x),
        "unit": rules.default_unit,
        "columns": section.integers("columns"),
        "block": section.integer("block", None, at_least=-1000),
        "as_it_is": section.flag("as_it_is"),
    }
    if len(rules.accepted) > 1:
        read["unit"] = section.choice(rules.unit_key, tuple(rules.accepted), rules.default_unit)
    if observable.is_histogram:
        read["noise"] = section.choice("noise", NOISE, "auto")
    return read


def _value(section: _Section, observable: type[Observable]) -> dict[str, Any]:
    """What a target has that is a number."""
    value = section.numbers("value", observable.n_values)
    factor = _factor(section, observable.kind)
    if not {"uncertainty", "covariance"} & section.raw.keys():
        unit = section.raw.get("unit", UNIT_NAMES[observable.kind])
        raise section.error(
            "uncertainty", f"a target of {observable.entry} needs its uncertainty ({unit})"
        )
    return {"value": value, "factor": factor, "as_it_is": section.flag("as_it_is")}


def _factor(section: _Section, kind: str) -> float:
    """The unit of a value, in md units: 1 where it has none but that."""
    units = ACCEPTED.get(kind)
    if units is None:
        return 1.0
    spelled = {name.replace("^", ""): name for name in units}
    given = section.raw.get("unit")
    known = spelled.get(given.replace("^", "")) if isinstance(given, str) else None
    unit = section.choice("unit", tuple(units), next(iter(units)), known)
    files = {"covariance", "systematic"} & section.raw.keys()
    if units[unit] != 1.0 and files:
        raise section.error("unit", f"got {unit!r}, but {min(files)} is in {UNIT_NAMES[kind]}")
    return units[unit]


def _refine(section: _Section) -> RefineSection:
    made = RefineSection(
        method=section.choice("method", tuple(METHODS), "gauss-newton"),
        rounds=section.integer("rounds", 15),
        equilibration=section.integer("equilibration", None),
        steps=section.integer("steps", 5000),
        every=section.integer("every", 50),
        seed=section.integer("seed", 1),
        output=section.output("output"),
        largest_step=section.number("largest_step", None),
        gauss_newton=_gauss_newton(section),
    )
    if made.steps < 20 * made.every:
        raise section.error(
            "steps",
            f"got steps = {made.steps} and every = {made.every}: only {made.steps // made.every} "
            "frames a round, expected at least 20",
        )
    section.finish()
    return made


def _gauss_newton(refine: _Section) -> GaussNewtonOptions:
    """Each field of the options by its name, checked as its default says."""
    key = "gauss_newton"
    if (section := refine.optional_section(key)) is None:
        return GaussNewtonOptions()
    if refine.raw.get("method", "gauss-newton") != "gauss-newton":
        raise refine.error(key, f"is for method = 'gauss-newton', got {refine.raw['method']!r}")
    read: dict[type, Callable[..., Any]]
    read = {bool: section.flag, int: section.integer, float: section.number}
    defaults: dict[str, Any] = {field.name: field.default for field in fields(GaussNewtonOptions)}
    made = {name: read[type(value)](name, value) for name, value in defaults.items()}
    section.finish()
    return GaussNewtonOptions(**made)


class _Section:
    """A table of the file, which hands out checked values and knows what was never asked for."""

    def __init__(self, name: str, raw: Mapping[str, Any], folder: Path, trusted: bool) -> None:
        self.name = name
        self.raw = raw
        self.folder = folder
        self.trusted = trusted
        self.known: list[str] = []

    def error(self, key: str, what: str) -> ConfigurationError:
        full = self._full(key)
        return ConfigurationError(f"{full}: {what}", key=full, got=self.raw.get(key))

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        for key in self.raw:
            if key not in self.known:
                close = difflib.get_close_matches(key, self.known, 1)
                known = dict.fromkeys(self.known)  # some were asked for twice
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                raise self.error(key, f"unknown key; {hint}")

    def section(self, key: str) -> _Section:
        value = self._take(key, _REQUIRED)
        if not isinstance(value, Mapping):
            raise self.error(key, f"got {shown(value)}, expected a table [{key}]")
        return _Section(self._full(key), value, self.folder, self.trusted)

    def optional_section(self, key: str) -> _Section | None:
        if key in self.raw:
            return self.section(key)
        self._take(key, None)
        return None

    def sections(self, key: str) -> list[_Section]:
        value = self._take(key, _REQUIRED)
        if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
            raise self.error(key, f"expected tables written as [[{key}]], with double brackets")
        return [_Section(f"{key}[{i}]", v, self.folder, self.trusted) for i, v in enumerate(value)]

    def has(self, key: str) -> bool:
        """Is it there? It is known, then."""
        self.known.append(key)
        return key in self.raw

    def number(self, key: str, default: Any = ..., above: float | None = None) -> Any:
        def check(value: Any) -> float:
            number = checked_number(self._full(key), value, self._refusal(key), limit_of(key))
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
        name, limit = self._full(key), limit_of(key)
        return tuple(checked_number(name, each, self._refusal(key), limit) for each in value)

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
                f"selections; there are {len(names) or 'none'}: {shown(list(names), 200)}",
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
        return self.choice(key, allowed) if is_word else self.pair(key, unit)

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
        amplitude, length = (
            checked_number(f"{self._full(key)}: {name}", number, self._refusal(key), limit_of(name))
            for name, number in zip(names, value, strict=True)
        )
        return amplitude, length

    def pair(self, key: str, unit: str, least: float = 0.0) -> tuple[float, float] | None:
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
        return float(value[0]), float(value[1])

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
        self.known.append(key)
        if key in self.raw:
            return self.raw[key]
        if default is _REQUIRED:
            raise self.error(key, "missing")
        return default

    def _refusal(self, key: str) -> Callable[..., ConfigurationError]:
        return partial(ConfigurationError, key=self._full(key))

    def _full(self, key: str) -> str:
        key = key if key.isprintable() and len(key) < 100 else shown(key)
        return f"{self.name}.{key}" if self.name else key


_REQUIRED = object()
