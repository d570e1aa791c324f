"""A report's tables: Markdown to read, CSV to go on with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from .correlation import FEWEST, FEWEST_FOR_BOOTSTRAP, FEWEST_FOR_FISHER, Correlation, Interval, Resampling
from .figure import SYMBOLS, number
from .networks import PANELS, Network
from .scores import Scores

_NONE = "\N{EN DASH}"

_COLUMNS = (
    "score",
    "networks",
    "n",
    "method",
    "coefficient",
    "confidence",
    "fisher_low",
    "fisher_high",
    "bootstrap_low",
    "bootstrap_high",
)


def correlations_csv(correlations: Iterable[Correlation], resampling: Resampling) -> str:
    """A row a correlation; cells of what is not defined are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entry in correlations:
        bounds = [*_bounds(entry.fisher), *_bounds(entry.bootstrap)]
        numbers = ["" if value is None else f"{value:.6f}" for value in (entry.coefficient, *bounds)]
        first, *others = numbers
        row = [entry.panel, entry.group, entry.count, entry.method, first, resampling.confidence, *others]
        writer.writerow(row)
    return text.getvalue()


def _bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def markdown(
    scores: Scores,
    panels: Sequence[str],
    correlations: Sequence[Correlation],
    notes: Sequence[str],
    resampling: Resampling,
    picture: str,
) -> str:
    """The whole report."""
    drawn = ", ".join(PANELS[panel] for panel in panels)
    parts = [
        "# Accuracy and Brain-Score",
        f"{len(scores.networks)} networks of {scores.source}.",
        f"![Top-1 accuracy against Brain-Score: {drawn}]({picture})",
        "## Correlations",
        _table(
            ("score", "networks", "n", "", "coefficient", "Fisher z", "bootstrap"),
            "llrlrll",
            map(_correlation_cells, correlations),
        ),
        _method(resampling),
        "## Networks",
        _table(
            (
                "connectivity",
                "initialisation",
                "sleep every",
                "top-1, %",
                *(PANELS[panel] for panel in PANELS),
            ),
            "llrrrrr",
            map(_network_cells, scores.networks),
        ),
    ]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _correlation_cells(entry: Correlation) -> list[str]:
    symbol = SYMBOLS[entry.method]
    coefficient = _NONE if entry.coefficient is None else number(entry.coefficient)
    intervals = [_interval(entry.fisher), _interval(entry.bootstrap)]
    return [PANELS[entry.panel], entry.group, str(entry.count), symbol, coefficient, *intervals]


def _network_cells(network: Network) -> list[str]:
    kind = network.connectivity if network.trained else f"{network.connectivity}, untrained"
    if network.name:
        kind = f"{network.name} ({kind})"
    accuracy = _NONE if network.top1_percent is None else f"{network.top1_percent:.1f}"
    scores = [f"{network.scores[panel]:.3f}" if panel in network.scores else _NONE for panel in PANELS]
    return [kind, network.initialisation, str(network.sleep_every or _NONE), accuracy, *scores]


def _interval(interval: Interval | None) -> str:
    return _NONE if interval is None else f"{number(interval.low)} to {number(interval.high)}"


def _method(resampling: Resampling) -> str:
    return (
        f"Of networks with both an accuracy and a score. The intervals hold {100 * resampling.confidence:g} %: “Fisher z” is "
        f"Fisher's transformation, with Bonett and Wright's standard error for {SYMBOLS['Spearman']}, “bootstrap” the percentiles of "
        f"{resampling.samples:,} samples of the networks with replacement. Fewer than {FEWEST} networks have no coefficient, "
        f"fewer than {FEWEST_FOR_FISHER} no interval, fewer than {FEWEST_FOR_BOOTSTRAP} no bootstrap, and a coefficient of 1 or "
        "-1 has no Fisher z. With a dozen networks all intervals are rough, and networks of one study are no independent "
        "samples of all networks."
    )


def _table(titles: Sequence[str], alignment: str, rows: Iterable[Sequence[str]]) -> str:
    rules = ["---:" if side == "r" else "---" for side in alignment]
    lines = [titles, rules, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
