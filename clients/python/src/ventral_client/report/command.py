"""`ventral-client brain-report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .correlation import Resampling
from .reporting import brain_report
from .scores import AREAS, BEHAVIOUR, COLUMNS, NEEDED, paper_scores, paper_text

_DESCRIPTION = f"""Draws top-1 accuracy against Brain-Score, as figure 2 of Pogodin & Latham 2022, with correlations. It
needs no server. SCORES.csv has a row a network. Its columns are {", ".join(NEEDED)}, which it must have, and
{", ".join(column for column in COLUMNS if column not in NEEDED)}. A panel whose column is missing is left out; average and
without_behaviour are made of {", ".join(AREAS)} and {BEHAVIOUR} where all of these are there."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds the command."""
    defaults = Resampling()
    command = commands.add_parser(
        "brain-report",
        help="draw accuracy against Brain-Score, with correlations",
        description=_DESCRIPTION,
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("scores", nargs="?", type=Path, metavar="SCORES.csv", help="a row a network")
    what.add_argument("--paper", action="store_true", help="the 13 networks of Pogodin & Latham 2022")
    what.add_argument(
        "--example", action="store_true", help="print these as CSV, to begin a file of one's own with"
    )
    command.add_argument(
        "--output-dir",
        "-o",
        type=Path,
        default=Path("brain-report"),
        metavar="DIR",
        help="gets the picture (PNG, SVG), the text (Markdown) and the correlations (CSV)",
    )
    command.add_argument(
        "--confidence",
        type=float,
        default=defaults.confidence,
        help="of the intervals (default: %(default)s)",
    )
    command.add_argument(
        "--bootstrap",
        type=int,
        default=defaults.samples,
        metavar="SAMPLES",
        help="how many samples (default: %(default)s)",
    )
    command.add_argument(
        "--seed", type=int, default=defaults.seed, help="of the bootstrap (default: %(default)s)"
    )
    command.set_defaults(run=run)
    return command


def run(chosen: argparse.Namespace) -> None:
    """Prints the paths of what was written, and notes to standard error."""
    if chosen.example:
        print(paper_text(), end="")
        return
    scores = paper_scores() if chosen.paper else chosen.scores
    resampling = Resampling(chosen.confidence, chosen.bootstrap, chosen.seed)
    report = brain_report(scores, chosen.output_dir, resampling)
    for note in report.notes:
        print(f"ventral-client: {note}", file=sys.stderr)
    for file in report.files:
        print(file)
