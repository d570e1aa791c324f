"""A network of a report: what it is, how accurate it is, and its Brain-Scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: The scores that a report has a panel of, in the panels' order, and the panels' titles.
PANELS: Final[Mapping[str, str]] = {
    "average": "All areas",
    "without_behaviour": "Without behaviour",
    "V1": "V1",
}

#: Connectivity whose weights are shared by construction.
CONVOLUTIONAL: Final = "conv"


@dataclass(frozen=True)
class Network:
    """One network, a row of the scores."""

    connectivity: str
    """`conv`, `LC`, `LC + 1st conv`, or another."""
    initialisation: str
    """`random`, `conv`, or another."""
    sleep_every: int | None
    """Iterations from one sleep phase to the next; None: no sleep phase."""
    trained: bool
    top1_percent: float | None
    """Top-1 accuracy on ImageNet, or what all networks were tested on, 0 to 100; None: not known, as of untrained ones."""
    scores: Mapping[str, float]
    """Of `PANELS`, those that are known."""
    name: str = ""
    """What it is called; where it has no name, what it is."""

    @property
    def label(self) -> str:
        """Its name, or what it is: `LC, conv initialisation, sleep every 10`."""
        if self.name:
            return self.name
        sleep = "" if self.sleep_every is None else f", sleep every {self.sleep_every}"
        return f"{self.description}{sleep}{'' if self.trained else ', untrained'}"

    @property
    def description(self) -> str:
        """Connectivity and initialisation; convolutions' initialisation goes without saying."""
        if self.connectivity == self.initialisation == CONVOLUTIONAL:
            return self.connectivity
        return f"{self.connectivity}, {self.initialisation} initialisation"

    def point(self, panel: str) -> tuple[float, float] | None:
        """Its accuracy and score in a panel, where both are known."""
        if self.top1_percent is None or panel not in self.scores:
            return None
        return self.top1_percent, self.scores[panel]
