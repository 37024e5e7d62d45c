"""What was learned, as files: parameters to go on with, and as numbers with errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import io
from ..errors import ConfigurationError
from ..limits import shown
from ..potentials import Potential, learned_parameters
from ..refinement import ParameterTable

Array = NDArray[np.float64]

PARAMETERS = "parameters.json"
_MOST = 500  # learned parameters, of which the covariance is kept
_FEW = 8  # parameters of a name, of an analytic form
_NOT_OF_FORM = ("fixed", "learned", "roughness")  # how it was fitted


def few_parameters(potential: Potential) -> dict[str, list[float]]:
    """Parameters of an analytic form by name; those of a spline or a network are too many."""
    return {
        name: value.detach().tolist()
        for name, value in potential.named_parameters()
        if value.numel() <= _FEW
    }


def has_few(potential: Potential) -> bool:
    """Are all parameters those of an analytic form?"""
    sizes = [p.numel() for p in potential.parameters() if p.requires_grad]
    return bool(sizes) and max(sizes) <= _FEW


def told(table: ParameterTable) -> dict[str, Any]:
    """Of the errors of few parameters, as plain data."""
    own = {name: getattr(table, name) for name in ("names", "standard_error", "correlation")}
    return own | {"posterior_over_prior": table.posterior_over_prior}


def parameter_csv(table: ParameterTable) -> bytes:
    """A line for each parameter."""
    columns = (table.values, table.standard_error, table.prior, table.posterior_over_prior)
    rows = zip(table.names, *columns, strict=True)
    lines = ["parameter,value,standard_error,prior,posterior_over_prior"]
    lines += [f"{n},{v:.10g},{e:.4g},{p:.4g},{q:.4g}" for n, v, e, p, q in rows]
    return ("\n".join(lines) + "\n").encode()


def number_csv(numbers: Mapping[str, tuple[float, float]]) -> bytes:
    """A line for each physical number, such as "lennard_jones.sigma[O]" in nm."""
    lines = ["number,value,standard_error"]
    lines += [f"{name},{value:.10g},{error:.4g}" for name, (value, error) in numbers.items()]
    return ("\n".join(lines) + "\n").encode()


def parameters_json(potential: Potential, covariance: Array | None = None) -> bytes:
    """All that a potential of the same form needs to become this one, at full precision.

    ``covariance`` [parameters, parameters] is that of what was learned, kept of few hundred.
    """
    kept = {
        "form": form_of(potential),
        "first_knots": [_first_knot(term) for term in potential.addends()],
        "parameters": {n: p.tolist() for n, p in _numbers(potential.by_name())},
        "buffers": {n: b.tolist() for n, b in _numbers(_buffers(potential))},
    }
    if covariance is not None and len(covariance) <= _MOST and np.isfinite(covariance).all():
        kept["covariance"] = covariance.tolist()
    return io.json_bytes(kept)


def _first_knot(term: Any) -> float | None:
    """``r_min`` of a pair potential, nm, which a fit may have found; None of any other."""
    return term.basis.r_min if term.pairs() else None


def _numbers(tensors: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, tensor.detach().cpu()) for name, tensor in tensors.items())


def _buffers(potential: Potential) -> dict[str, torch.Tensor]:
    """Those that a copy needs, such as how large a core is."""
    kept = potential.state_dict()
    return {name: buffer for name, buffer in potential.named_buffers() if name in kept}


def form_of(potential: Potential) -> dict[str, Any]:
    """What potentials have in common that differ in their parameters alone, as plain data."""
    own = _stripped(potential.form())
    shapes = {name: list(p.shape) for name, p in potential.by_name().items()}
    return dict(json.loads(io.json_bytes({**own, "shapes": shapes})))


def _stripped(form: Any) -> Any:
    """Without what says how it was fitted."""
    if not isinstance(form, Mapping):
        return form
    return {key: _stripped(value) for key, value in form.items() if key not in _NOT_OF_FORM}


def load_parameters(potential: Potential, folder: str | Path) -> Potential:
    """Set a potential to what a fit left behind in a folder. Returns the potential.

        pair = diffsim.SplinePair(0.272, 0.85, 60)
        diffsim.load_parameters(pair, "refined_lennard_jones")

    Parameters
    ----------
    potential : Potential
        Of the same form: kinds, names of terms, knots, cutoffs, types.
    folder : path
        The output of ``openmm-diffsim refine``, with parameters.json.

    Raises
    ------
    ConfigurationError
        If there is no such file, or it is of a potential of another form: what differs is named.
    """
    path = Path(folder) / PARAMETERS
    kept = read_parameters_json(folder)
    _check_form(path, kept["form"], form_of(potential))
    own: dict[str, Any] = {**potential.by_name(), **_buffers(potential)}
    found = {**kept["parameters"], **kept["buffers"]}
    with torch.no_grad():
        for name, values in found.items():
            if name not in own:
                raise _other(path, name, "there", "missing here")
            tensor = torch.tensor(values, dtype=torch.float64).reshape(own[name].shape)
            own[name].copy_(tensor)
    return potential


def load_covariance(potential: Potential, folder: str | Path) -> Array | None:
    """Of the parameters that are learned, [parameters, parameters], as a fit left it in a folder.

    None where it did not, as of a network, or of more or other parameters than are learned here.
    """
    kept = read_parameters_json(folder).get("covariance")
    n = sum(p.numel() for p in learned_parameters(potential))
    found = None if kept is None else np.asarray(kept, dtype=np.float64)
    return found if found is not None and found.shape == (n, n) else None


def read_parameters_json(folder: str | Path) -> dict[str, Any]:
    """What ``parameters_json`` wrote to the folder of a fit.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    path = Path(folder) / PARAMETERS
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror or error}; expected the output folder of a "
            "fit",
            got=path,
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: is no JSON: {error}", got=path) from error
    parts = ("form", "parameters", "buffers")
    if not isinstance(kept, dict) or not all(isinstance(kept.get(part), dict) for part in parts):
        raise ConfigurationError(f"{path}: has not the parts {', '.join(parts)}", got=path)
    return kept


def _check_form(path: Path, kept: Any, own: Any, name: str = "") -> None:
    """ConfigurationError at the first part that differs."""
    if isinstance(kept, dict) and isinstance(own, dict):
        for key in dict.fromkeys([*kept, *own]):
            _check_form(path, kept.get(key), own.get(key), f"{name}.{key}".strip("."))
    elif kept != own:
        raise _other(path, name, shown(kept, 200), shown(own, 200))


def _other(path: Path, name: str, there: str, here: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: is of a potential of another form: its {name} is {there}, here {here}",
        key=name,
        got=here,
        expected=there,
    )
