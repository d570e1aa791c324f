"""A report: correlations, the picture and the tables of a file of scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import VentralError
from .correlation import Correlation, Resampling, correlate
from .figure import draw
from .networks import CONVOLUTIONAL, PANELS, Network
from .scores import InvalidScores, Scores, read_scores
from .tables import correlations_csv, markdown

#: What a report writes: the files' name without its suffix.
NAME = "brain-report"

DEFAULT = Resampling()


@dataclass(frozen=True)
class Report:
    """What was found and written."""

    correlations: list[Correlation]
    """By panel, group and method; each panel's first group is that of all networks."""
    notes: list[str]
    """What was left out, and why."""
    files: list[Path]
    """The picture as PNG and SVG, the text as Markdown, the correlations as CSV."""


def brain_report(
    scores: Scores | str | os.PathLike[str],
    output_dir: str | os.PathLike[str] = ".",
    resampling: Resampling = DEFAULT,
) -> Report:
    """Writes a report into a folder, which it makes where there is none.

    Args:
        scores: Scores, or the path of a CSV file of them.
        output_dir: The folder.
        resampling: How confidence intervals are made.

    Raises:
        InvalidScores: Where scores can't be read, or no panel can be drawn.
        MissingPackage: Where matplotlib isn't installed.
        VentralError: Where the folder can't be written.
    """
    if not isinstance(scores, Scores):
        scores = read_scores(scores)
    panels, left_out = _panels(scores.networks)
    if not panels:
        raise InvalidScores(scores.source, f"there is nothing to draw. {' '.join(left_out)}")
    notes = [*scores.notes, *left_out]
    notes += [note for panel in panels for note in _without_accuracy(panel, scores.networks)]
    correlations = [
        correlation
        for panel in panels
        for group, members in _groups(scores.networks)
        for correlation in _correlate(panel, group, members, resampling)
    ]
    folder = Path(output_dir)
    pictures = [folder / f"{NAME}.png", folder / f"{NAME}.svg"]
    text, table = folder / f"{NAME}.md", folder / "correlations.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draw(scores.networks, panels, correlations, resampling.confidence, pictures)
        text.write_text(
            markdown(scores, panels, correlations, notes, resampling, pictures[1].name), encoding="utf-8"
        )
        table.write_text(correlations_csv(correlations, resampling), encoding="utf-8")
    except OSError as error:
        raise VentralError(f"the report can't be written to {folder}: {error.strerror}") from error
    return Report(correlations, notes, [*pictures, text, table])


def _panels(networks: Sequence[Network]) -> tuple[list[str], list[str]]:
    """Panels that have points, and why others have none."""
    drawn: list[str] = []
    left_out: list[str] = []
    for panel, title in PANELS.items():
        if any(network.point(panel) is not None for network in networks):
            drawn.append(panel)
        elif any(panel in network.scores for network in networks):
            left_out.append(f"The panel “{title}” is left out: no network has both an accuracy and a score.")
        else:
            left_out.append(f"The panel “{title}” is left out: the column `{panel}` is empty or not there.")
    return drawn, left_out


def _without_accuracy(panel: str, networks: Sequence[Network]) -> Iterator[str]:
    """Networks that have a score and no place on the axis of accuracy."""
    for network in networks:
        if panel in network.scores and network.top1_percent is None:
            yield (
                f"{network.label} has no accuracy; its score in “{PANELS[panel]}” is {network.scores[panel]:.3f}."
            )


def _groups(networks: Sequence[Network]) -> Iterator[tuple[str, list[Network]]]:
    """All, the locally connected ones, and these by initialisation; each group once."""
    yield "all", list(networks)
    locally = [network for network in networks if network.connectivity != CONVOLUTIONAL]
    if 0 < len(locally) < len(networks):
        yield "locally connected", locally
    initialisations = dict.fromkeys(network.initialisation for network in locally)
    if len(initialisations) > 1:
        for initialisation in initialisations:
            members = [network for network in locally if network.initialisation == initialisation]
            yield f"locally connected, {initialisation} initialisation", members


def _correlate(
    panel: str, group: str, members: Sequence[Network], resampling: Resampling
) -> Iterator[Correlation]:
    points = [point for network in members if (point := network.point(panel)) is not None]
    accuracies, scores = np.array(points, np.float64).reshape(-1, 2).T
    return correlate(panel, group, accuracies, scores, resampling)
