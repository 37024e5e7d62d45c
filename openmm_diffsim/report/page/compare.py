"""Several fits on one page, by what each left in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigurationError
from . import figures
from .figures import Figure, Table
from .render import render
from .text import duration, number, thousands, unit, with_error

Array = NDArray[np.float64]

_SUMMARY = "summary.json"
_ENERGY, _ERROR = "u_kJ_mol", "standard_error"
_QUANTITIES = {"nm": "length", "rad": "angle"}
_INSIDE = 1.08  # of where g(r) rises: u is no longer steep
_LONGEST = 60  # letters of an entry of a configuration


@dataclass(frozen=True)
class Kept:
    """What a fit left behind."""

    name: str
    summary: Mapping[str, Any]
    tables: Mapping[str, Table]
    """By name and row, such as "potential" or "potential, 0-1"."""
    parameters: Mapping[str, tuple[float, float]]
    """Value and standard error by name; NaN where that is not known."""

    @property
    def final(self) -> Mapping[str, Any]:
        """At the refined parameters."""
        return dict(self.summary["final"])

    @property
    def form(self) -> str:
        """What was learned, as far as a configuration says so."""
        section = (self.summary.get("configuration") or {}).get("potential") or {}
        terms = section if isinstance(section, list) else [section]
        return " + ".join(str(term.get("kind", "?")) for term in terms) or "?"

    @property
    def misfits(self) -> dict[str, Mapping[str, Any]]:
        """What the verdict says of each target, by its name."""
        return {each["name"]: each for each in self.summary["verdict"]["targets"]}


def compare_page(folders: Sequence[Path]) -> bytes:
    """A page of several fits.

    Raises
    ------
    ConfigurationError
        If a folder holds no results of a fit.
    """
    names = _names(folders)
    fits = [read_results(folder, name) for folder, name in zip(folders, names, strict=True)]
    try:
        return render("compare.html", **_content(fits))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        where = ", ".join(map(str, folders))
        raise ConfigurationError(
            f"one of {where} holds a {_SUMMARY} that lacks what a fit writes there: {error!r}; "
            "write it anew by openmm-diffsim refine --resume",
            got=where,
        ) from error


def read_results(folder: Path, name: str) -> Kept:
    """What a fit left in a folder.

    Raises
    ------
    ConfigurationError
        If it holds no summary.json of a fit.
    """
    path = folder / _SUMMARY
    try:
        summary = json.loads(path.read_bytes())
        kept = Kept(name, summary, dict(_tables(folder, summary)), _parameters(folder, summary))
        if not (kept.final and isinstance(kept.misfits, dict) and summary["rounds"]):
            raise ValueError("it has no rounds")
        return kept
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else repr(error)
        raise ConfigurationError(
            f"{path}: expected what openmm-diffsim refine writes at the end of a fit, got: {what}",
            got=folder,
        ) from error


def _names(folders: Sequence[Path]) -> list[str]:
    """Of the folders, their whole paths where two are alike."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _tables(folder: Path, summary: Mapping[str, Any]) -> Iterator[tuple[str, Table]]:
    """All tables u(q) of a folder: those with a column of an energy."""
    first = summary["final"].get("sampled_from_r_nm") or 0.0
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8", errors="replace") as stream:
            header = stream.readline().strip().split(",")
        energies = [k for k, column in enumerate(header) if column.startswith(_ENERGY)]
        coordinate, _, of = header[0].partition("_")
        if not energies or of not in _QUANTITIES:
            continue
        columns = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T
        for k in energies:
            row = header[k].removeprefix(_ENERGY).strip("_").replace("_", "-")
            name = f"{path.stem}, {row}" if row else path.stem
            yield name, _table(name, coordinate, of, columns[0], columns[k : k + 2], first)


def _table(name: str, coordinate: str, of: str, q: Array, u: Array, first: float) -> Table:
    seen = np.where(q >= _INSIDE * first, 2.0, 0.0) if coordinate == "r" else None
    density = None if seen is None or not seen.any() else seen[None]
    return Table(name, coordinate, _QUANTITIES[of], q, u[:1], u[1:2], density, [""])


def _parameters(folder: Path, summary: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    path = folder / "parameters.csv"
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        rows = [line.rsplit(",", 4) for line in lines]  # a name may hold commas
        return {name: (float(value), float(error)) for name, value, error, *_ in rows}
    found: dict[str, tuple[float, float]] = {}
    for name, values in (summary["final"].get("parameters") or {}).items():
        flat = np.ravel(values).tolist()
        of = [name] if len(flat) == 1 else [f"{name}[{k}]" for k in range(len(flat))]
        found |= {each: (value, np.nan) for each, value in zip(of, flat, strict=True)}
    return found


def _content(fits: Sequence[Kept]) -> dict[str, Any]:
    return {
        "names": [fit.name for fit in fits],
        "overview": [_overview(fit) for fit in fits],
        "remarks": list(_remarks(fits)),
        "drawn": _figures(fits),
        "targets": _target_rows(fits),
        "scalars": _scalar_rows(fits),
        "parameters": _parameter_rows(fits),
        "settings": list(_settings(fits)),
    }


def _overview(fit: Kept) -> dict[str, Any]:
    last = fit.summary["rounds"][-1]
    return {
        "name": fit.name,
        "form": fit.form,
        "converged": bool(fit.summary["converged"]),
        "misfit": number(fit.final["misfit"]),
        "rounds": len(fit.summary["rounds"]),
        "frames": number(fit.final.get("n_effective"), 4),
        "steps": thousands(last["md_steps"]),
        "time": duration(last["seconds"]),
        "warnings": len(fit.summary.get("warnings") or []),
    }


def _remarks(fits: Sequence[Kept]) -> Iterator[str]:
    """What has to be known before these are held against each other."""
    if len({fit.form for fit in fits}) > 1:
        each = "; ".join(f"{fit.name}: {fit.form}" for fit in fits)
        yield f"The forms of the potentials differ ({each}): what they have in common is compared."
    named = [set(fit.misfits) for fit in fits]
    if any(names != named[0] for names in named):
        apart = sorted(name for name in set().union(*named) if any(name not in n for n in named))
        yield (
            f"Not all fits have the same targets ({', '.join(apart)} not in all): their misfits "
            "are not of the same data."
        )
    open_ = [fit.name for fit in fits if not fit.summary["converged"]]
    if open_:
        yield f"Not converged: {', '.join(open_)}. See the page of each for the reasons."


def _figures(fits: Sequence[Kept]) -> list[Figure]:
    """Of each function that any fit has, all fits that have it."""
    names = dict.fromkeys(name for fit in fits for name in fit.tables)
    return [
        figures.overlaid_figure([(f.name, f.tables[name]) for f in fits if name in f.tables])
        for name in names
    ]


def _target_rows(fits: Sequence[Kept]) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    names = dict.fromkeys(name for fit in fits for name in fit.misfits)
    return [(name, [fit.misfits.get(name) for fit in fits]) for name in names]


def _scalar_rows(fits: Sequence[Kept]) -> list[tuple[str, str, list[str]]]:
    """Of each measured number: name with unit, target, and what every model has."""
    known: dict[tuple[str, int], tuple[str, list[str]]] = {}
    for k, fit in enumerate(fits):
        seen: dict[str, int] = {}
        for each in fit.final.get("scalars") or []:
            name = f"{each['observable']} / {unit(each['unit'])}".rstrip(" /")
            key = name, seen.setdefault(name, 0)
            seen[name] += 1
            target = with_error(_known(each["target"]), _known(each["uncertainty"]))
            row = known.setdefault(key, (target, ["–"] * len(fits)))
            row[1][k] = with_error(_known(each["model"]), _known(each["standard_error"]))
    return [(name, target, models) for (name, _), (target, models) in known.items()]


def _known(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _parameter_rows(fits: Sequence[Kept]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for fit in fits for name in fit.parameters)
    return [
        (name, [with_error(*f.parameters[name]) if name in f.parameters else "–" for f in fits])
        for name in names
    ]


def _settings(fits: Sequence[Kept]) -> Iterator[tuple[str, list[str]]]:
    """Entries of the configurations that are not the same in all."""
    flat = [dict(_flat("", fit.summary.get("configuration") or {})) for fit in fits]
    for key in dict.fromkeys(key for entries in flat for key in entries):
        values = [entries.get(key, "–") for entries in flat]
        if len(set(values)) > 1:
            yield key, [v if len(v) <= _LONGEST else v[: _LONGEST - 1] + "…" for v in values]


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each entry with its full name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for k, inner in enumerate(value, 1):
            yield from _flat(f"{name}[{k}]", inner)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, default=str)
