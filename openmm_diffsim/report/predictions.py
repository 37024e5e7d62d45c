"""What a prediction leaves behind in its output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import io
from ..io.manifest import Manifest
from ..refinement import Prediction
from ..units import stated_units
from . import figures
from .tables import Comparisons, add_to, curve_files, versions


def write_predictions(
    found: Sequence[Prediction], folder: Path, configuration: Mapping[str, Any]
) -> None:
    """Write each curve beside its target, predictions.json, and a figure where there are curves.

    Raises
    ------
    TakenError
        If a file of such a name is there that no prediction wrote.
    OSError
        If a file cannot be written.
    """
    compared = Comparisons([], [])
    for each in found:
        add_to(compared, each.target, each.values, each.standard_error, each.states)
    files = curve_files(compared.curves, stated_units(configuration))
    summary = {
        "predictions": [_entry(each) for each in found],
        "scalars": compared.scalars,
        "versions": versions(),
        "configuration": configuration,
    }
    files["predictions.json"] = io.json_bytes(summary)
    if compared.curves:
        title = "\n".join(each.sentence() for each in found)
        figure = figures.curves_figure(compared.curves, title)
        files["predictions.png"] = figures.figure_bytes(figure)
    Manifest(folder, "predictions").write(files)


def _entry(each: Prediction) -> dict[str, Any]:
    return {
        "observable": each.target.observable.label,
        "states": each.states,
        "rms": each.rms,
        "misfit": each.misfit,
        "n_effective": each.n_effective,
        "frames": "reweighted" if each.is_reweighted else "sampled",
        "text": each.sentence(),
    }
