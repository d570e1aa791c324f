"""The picture: a panel a score, accuracy to the right, Brain-Score upwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ..errors import MissingPackage
from .appearance import Appearance, Colour
from .correlation import Correlation, Method
from .networks import CONVOLUTIONAL, PANELS, Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches: a panel's axes, what is between two, and what is beside and below them.
_WIDTH: Final = 3.3
_HEIGHT: Final = 2.9
_BETWEEN: Final = 0.8
_LEFT: Final = 0.8
_BELOW: Final = 1.5
_ABOVE: Final = 0.5
_LEGEND: Final = 2.1

#: Points.
_MARKER: Final = 8.5
#: What the coefficients are called.
SYMBOLS: Final[dict[Method, str]] = {
    "Pearson": "Pearson r",
    "Spearman": "Spearman \N{GREEK SMALL LETTER RHO}",
}

_INK: Final = "#222222"
_GREY: Final = "#6B6B6B"
_PALE: Final = "#E9E9E9"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    # Text stays text, and the same report is the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "ventral-client",
}


def draw(
    networks: Sequence[Network],
    panels: Sequence[str],
    correlations: Sequence[Correlation],
    confidence: float,
    files: Sequence[Path],
) -> None:
    """Draws panels of `PANELS` into files of the formats that their names end in.

    Args:
        networks: All networks; each panel has those with an accuracy and its score.
        panels: Which panels, from left to right; one at least.
        correlations: Those of all networks of a panel are written below it, with Fisher's intervals.
        confidence: Of the intervals.
        files: `.png`, `.svg`, `.pdf`.

    Raises:
        MissingPackage: Where matplotlib isn't installed.
        InvalidRequest: Where there is more to tell apart than there are colours or shapes.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("matplotlib", "report", "the report's picture") from error
    shown = [network for network in networks if any(_height(network, panel) is not None for panel in panels)]
    appearance = Appearance.of(shown)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_left(len(panels)) + _LEGEND, _BELOW + _HEIGHT + _ABOVE))
        FigureCanvasAgg(figure)
        for index, panel in enumerate(panels):
            axes = _axes(figure, _left(index), _WIDTH)
            letter = "ABC"[index] if len(panels) > 1 else ""
            _draw_panel(axes, letter, panel, shown, appearance, correlations, confidence)
        _draw_legend(_axes(figure, _left(len(panels)) - 0.45, _LEGEND), shown, appearance)
        for file in files:
            _save(figure, file)


def _left(index: int) -> float:
    """Where a panel begins."""
    return _LEFT + index * (_WIDTH + _BETWEEN)


def _axes(figure: Figure, left: float, width: float) -> Axes:
    whole_width, whole_height = figure.get_size_inches()
    place = (left / whole_width, _BELOW / whole_height, width / whole_width, _HEIGHT / whole_height)
    return figure.add_axes(place)


def _save(figure: Figure, file: Path) -> None:
    metadata = {"Date": None} if file.suffix == ".svg" else {}
    figure.savefig(file, dpi=200, facecolor="white", bbox_inches="tight", pad_inches=0.15, metadata=metadata)


def _height(network: Network, panel: str) -> float | None:
    """Where a network is drawn in a panel: with an accuracy as a point, untrained as a line."""
    score = network.scores.get(panel)
    return score if network.top1_percent is not None or not network.trained else None


def _draw_panel(
    axes: Axes,
    letter: str,
    panel: str,
    networks: Sequence[Network],
    appearance: Appearance,
    correlations: Sequence[Correlation],
    confidence: float,
) -> None:
    for text, left, size, weight in (
        (letter, -0.19, 13, "bold"),
        (PANELS[panel], 0, 11, "normal"),
    ):
        axes.text(left, 1.05, text, transform=axes.transAxes, fontsize=size, fontweight=weight)
    axes.set_xlabel("Top-1 accuracy, %")
    axes.set_ylabel("Brain-Score")
    axes.grid(color=_PALE, linewidth=0.8)
    points = [(network, point) for network in networks if (point := network.point(panel)) is not None]
    accuracies = np.array([point[0] for _, point in points])
    scores = np.array([point[1] for _, point in points])
    _set_limits(axes, accuracies, scores)
    _draw_trend(axes, accuracies, scores)
    _draw_series(axes, panel, networks, appearance)
    for network, (accuracy, score) in points:
        axes.plot(accuracy, score, **_marker(appearance, network), zorder=3)
    _draw_untrained(axes, panel, networks, appearance)
    lines = [*_statistics(panel, correlations, confidence), *_off_scale(axes, panel, networks)]
    axes.text(0, -0.22, "\n".join(lines), transform=axes.transAxes, fontsize=8.5, va="top", linespacing=1.5)


def _set_limits(axes: Axes, accuracies: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> None:
    for values, least, change in ((accuracies, 2.0, axes.set_xlim), (scores, 0.01, axes.set_ylim)):
        reach = max(float(np.ptp(values)), least)
        change(float(values.min()) - 0.12 * reach, float(values.max()) + 0.12 * reach)


def _draw_trend(axes: Axes, accuracies: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> None:
    """The least-squares line, for the eye."""
    if len(accuracies) < 3 or np.ptp(accuracies) == 0:
        return
    slope, intercept = np.polyfit(accuracies, scores, 1)
    ends = np.array([accuracies.min(), accuracies.max()])
    axes.plot(ends, slope * ends + intercept, color="#B8B8B8", linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)


def _draw_series(axes: Axes, panel: str, networks: Sequence[Network], appearance: Appearance) -> None:
    """A line through networks that differ in their sleep phase alone, from none to the most frequent."""
    series: dict[tuple[str, str], list[Network]] = {}
    for network in networks:
        if network.trained and network.point(panel) is not None:
            series.setdefault((network.connectivity, network.initialisation), []).append(network)
    for (_, initialisation), members in series.items():
        sleeps = [network.sleep_every for network in members]
        if len(members) < 2 or len(set(sleeps)) < len(sleeps):
            continue
        members.sort(key=lambda network: -(network.sleep_every or float("inf")))
        points = [point for network in members if (point := network.point(panel)) is not None]
        axes.plot(
            *zip(*points, strict=True),
            color=appearance.colours[initialisation],
            linewidth=1.3,
            alpha=0.45,
            zorder=2,
        )


def _draw_untrained(axes: Axes, panel: str, networks: Sequence[Network], appearance: Appearance) -> None:
    """Networks without an accuracy: a line at their score."""
    points = [point for network in networks if (point := network.point(panel)) is not None]
    for network, score in _without_accuracy(panel, networks):
        if _is_on_scale(axes, score):
            axes.axhline(score, color=appearance.edge(network), linewidth=1.1, linestyle=":", zorder=1)
            side: Literal["left", "right"] = "right" if _is_right_freer(axes, points, score) else "left"
            axes.annotate(
                _plain(network),
                (0.02 if side == "left" else 0.98, score),
                xycoords=axes.get_yaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                ha=side,
                fontsize=8,
                color=appearance.edge(network),
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            )


def _is_right_freer(axes: Axes, points: Sequence[tuple[float, float]], score: float) -> bool:
    """Whether the networks in the panel's right half are farther from that score than those in its left one."""
    low, high = axes.get_xlim()
    middle = (low + high) / 2
    right = min((abs(y - score) for x, y in points if x >= middle), default=np.inf)
    left = min((abs(y - score) for x, y in points if x < middle), default=np.inf)
    return bool(right >= left)


def _off_scale(axes: Axes, panel: str, networks: Sequence[Network]) -> list[str]:
    """Lines about those networks without an accuracy that would be far above or below all others."""
    return [
        f"Off the scale: {_plain(network)}, {score:.3f}"
        for network, score in _without_accuracy(panel, networks)
        if not _is_on_scale(axes, score)
    ]


def _without_accuracy(panel: str, networks: Sequence[Network]) -> list[tuple[Network, float]]:
    return [
        (network, network.scores[panel])
        for network in networks
        if panel in network.scores and network.top1_percent is None and not network.trained
    ]


def _is_on_scale(axes: Axes, score: float) -> bool:
    low, high = axes.get_ylim()
    return low <= score <= high


def _plain(network: Network) -> str:
    """Short, for the picture."""
    if network.name:
        return network.name
    is_plain = network.connectivity == network.initialisation == CONVOLUTIONAL
    return f"untrained {network.connectivity}{'' if is_plain else f', {network.initialisation}'}"


def _marker(appearance: Appearance, network: Network) -> dict[str, Any]:
    return _look(appearance.shapes[network.connectivity], appearance.edge(network), appearance.fill(network))


def _look(shape: str, edge: Colour | str, fill: Colour | str) -> dict[str, Any]:
    return {
        "marker": shape,
        "markersize": _MARKER,
        "markerfacecolor": fill,
        "markeredgecolor": edge,
        "markeredgewidth": 1.4,
        "linestyle": "none",
    }


def _statistics(panel: str, correlations: Sequence[Correlation], confidence: float) -> list[str]:
    """The correlations in the first group, which is that of all networks."""
    found = [entry for entry in correlations if entry.panel == panel]
    lines = []
    for entry in (entry for entry in found if entry.group == found[0].group):
        symbol = SYMBOLS[entry.method]
        value = "not defined" if entry.coefficient is None else number(entry.coefficient)
        interval = entry.fisher
        reach = (
            ""
            if interval is None
            else f" ({100 * confidence:g} %: {number(interval.low)} to {number(interval.high)})"
        )
        lines.append(f"{symbol} = {value}{reach}, n = {entry.count}")
    return lines


def number(value: float, digits: int = 2) -> str:
    """With a real minus sign, and no negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _draw_legend(axes: Axes, networks: Sequence[Network], appearance: Appearance) -> None:
    """Three lists: what colour, shape and filling stand for."""
    from matplotlib.lines import Line2D

    axes.set_axis_off()
    lists: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
        (
            "Initialisation",
            [(name, _look("o", colour, colour)) for name, colour in appearance.colours.items()],
        ),
        (
            "Connectivity",
            [(name, _look(shape, _GREY, "white")) for name, shape in appearance.shapes.items()],
        ),
        ("Weight sharing", _sharing(networks, appearance)),
    ]
    top = 1.06
    for title, entries in lists:
        handles = [Line2D([], [], label=name, **look) for name, look in entries]
        legend = axes.legend(
            handles=handles,
            title=title,
            loc="upper left",
            bbox_to_anchor=(0, top),
            borderaxespad=0,
            frameon=False,
            alignment="left",
            handletextpad=0.4,
            labelspacing=0.55,
            title_fontproperties={"weight": "bold", "size": 9.5},
        )
        # A further legend would take its place.
        legend.remove()
        axes.add_artist(legend)
        top -= 0.072 * (len(entries) + 1) + 0.08


def _sharing(networks: Sequence[Network], appearance: Appearance) -> list[tuple[str, dict[str, Any]]]:
    grey = (0.35, 0.35, 0.35)
    locally = [network for network in networks if network.connectivity != CONVOLUTIONAL]
    entries = []
    if any(network.sleep_every is None for network in locally):
        entries.append(("none", _look("o", grey, "white")))
    for sleep in appearance.sleeps:
        times = "every iteration" if sleep == 1 else f"every {sleep:,} iterations"
        entries.append((times, _look("o", grey, appearance.tint(grey, sleep))))
    if len(locally) < len(networks):
        entries.append(("by convolution", _look(appearance.shapes[CONVOLUTIONAL], grey, grey)))
    return entries
