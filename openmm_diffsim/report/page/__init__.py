"""The page of a fit, report.html: all there is to know of it in one file that needs no other."""

from .fit import NAME, fit_page, results_page, write_report

__all__ = ["NAME", "fit_page", "results_page", "write_report"]
