"""report.html of one fit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...io import atomic_write_bytes
from ...refinement import Refinement
from ...refinement.convergence import names_of
from . import content, figures, targets
from .render import render

NAME = "report.html"


def results_page(
    fit: Refinement, summary: Mapping[str, Any], files: Iterable[str], name: str
) -> bytes:
    """The page of a fit that has ended, beside other files of its results.

    Parameters
    ----------
    fit : Refinement
    summary : as in summary.json
    files : names of the files beside it
    name : what the fit is called
    """
    return _page(fit, name, summary, list(files), is_running=False)


def fit_page(fit: Refinement, name: str, configuration: Mapping[str, Any] | None = None) -> bytes:
    """The page of a fit that runs: of its last round, and what is known without further work."""
    return _page(fit, name, {"configuration": configuration}, [], is_running=True)


def write_report(fit: Refinement, path: str | Path) -> None:
    """Write the page of a fit: what was asked, what was found, and how far to trust it.

        fit.run(rounds=15, steps=5_000, every=50)
        diffsim.write_report(fit, "report.html")

    One file, which any browser shows without a network: nothing in it is loaded from elsewhere.

    Raises
    ------
    StatePointError
        If nothing was sampled yet.
    OverlapError
        If the frames do not reach the present parameters.
    OSError
        If it cannot be written.
    """
    atomic_write_bytes(path, _page(fit, Path(path).stem, {}, [], is_running=False))


def _page(
    fit: Refinement, name: str, summary: Mapping[str, Any], files: Sequence[str], is_running: bool
) -> bytes:
    from ..tables import versions

    result = fit.in_passing() if is_running else fit.result
    physical, plain = content.parameter_rows(fit, result)
    rounds = content.rounds_of(fit)
    names = names_of(fit.targets)
    code, told = content.go_on(fit, files)
    return render(
        "fit.html",
        name=name,
        is_running=is_running,
        moment=time.strftime("%Y-%m-%d %H:%M:%S"),
        is_converged=fit.converged,
        sentence=content.sentence(fit, content.wells_of(summary), physical),
        reasons=fit.verdict().reasons() if fit.history else [],
        tiles=content.tiles(fit),
        asked=content.asked(fit),
        warnings=content.warnings_of(fit, result, is_running),
        terms=content.term_stories(fit, result),
        wells=content.wells_of(summary),
        targets=targets.target_stories(fit, result),
        rounds=rounds,
        names=names,
        round_figures=[figures.misfit_figure(rounds, names), figures.overlap_figure(rounds)]
        if rounds
        else [],
        verdicts=content.verdict_rows(fit),
        physical=physical,
        parameters=plain,
        are_few=content.is_few(plain),
        n_parameters=len(result.view.parameters),
        code=code,
        told=told,
        versions=summary.get("versions") or versions(),
        configuration=content.text_of(summary.get("configuration")),
    )
