"""Accuracy against Brain-Score, as figure 2 of Pogodin & Latham 2022: a picture, tables, correlations.

from ventral_client.report import brain_report

report = brain_report("scores.csv", "report")
report.files, report.correlations, report.notes

It needs no server.
"""

from .correlation import Correlation, Interval, Resampling
from .networks import PANELS, Network
from .reporting import Report, brain_report
from .scores import InvalidScores, Scores, paper_scores, read_scores

__all__ = [
    "PANELS",
    "Correlation",
    "Interval",
    "InvalidScores",
    "Network",
    "Report",
    "Resampling",
    "Scores",
    "brain_report",
    "paper_scores",
    "read_scores",
]
