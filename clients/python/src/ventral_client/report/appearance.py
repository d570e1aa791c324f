"""What networks look like in the picture: colour for the initialisation, shape for the connectivity, fill for sharing.

The colours are those of Okabe & Ito (2008), which people who are colour-blind can tell apart. Shapes and fillings, from white
to the full colour, need no colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from ..errors import InvalidRequest
from .networks import CONVOLUTIONAL, Network

Colour: TypeAlias = tuple[float, float, float]
_Look = TypeVar("_Look")


def _colour(code: str) -> Colour:
    red, green, blue = (int(code[first : first + 2], 16) / 255 for first in (1, 3, 5))
    return red, green, blue


#: Initialisation to colour, as in the paper: orange is random, blue is convolutional.
_KNOWN_COLOURS: Final = {"random": _colour("#D55E00"), "conv": _colour("#0072B2")}
_MORE_COLOURS: Final = tuple(map(_colour, ("#009E73", "#CC79A7", "#56B4E9", "#7F6A00")))

#: Connectivity to matplotlib's marker.
_KNOWN_SHAPES: Final = {"conv": "s", "LC": "o", "LC + 1st conv": "^"}
_MORE_SHAPES: Final = ("D", "v", "p", "h", "<", ">")

#: How much of the colour networks have whose weights are shared least often, of those that share them at all.
_PALEST: Final = 0.28

_WHITE: Final[Colour] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Appearance:
    """How the networks of one report are drawn."""

    colours: Mapping[str, Colour]
    """Of initialisations, in the order in which the legend has them."""
    shapes: Mapping[str, str]
    """Of connectivities, likewise."""
    sleeps: Sequence[int]
    """Iterations between sleep phases that there are; rarest first."""

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Appearance:
        """Gives everything its look.

        Raises:
            InvalidRequest: Where there is more to tell apart than there are colours or shapes.
        """
        initialisations = (network.initialisation for network in networks)
        connectivities = (network.connectivity for network in networks)
        sleeps = {network.sleep_every for network in networks if network.sleep_every is not None}
        return cls(
            colours=_assign("initialisations", initialisations, _KNOWN_COLOURS, _MORE_COLOURS),
            shapes=_assign("kinds of connectivity", connectivities, _KNOWN_SHAPES, _MORE_SHAPES),
            sleeps=sorted(sleeps, reverse=True),
        )

    def edge(self, network: Network) -> Colour:
        """A marker's line."""
        return self.colours[network.initialisation]

    def fill(self, network: Network) -> Colour:
        """A marker's inside: the more often weights are shared, the fuller."""
        if network.connectivity == CONVOLUTIONAL:
            return self.edge(network)
        return self.tint(self.edge(network), network.sleep_every)

    def tint(self, colour: Colour, sleep_every: int | None) -> Colour:
        """A colour for networks with that sleep phase; white for none."""
        if sleep_every is None:
            return _WHITE
        steps = len(self.sleeps) - 1
        share = 1.0 if steps == 0 else _PALEST + (1 - _PALEST) * self.sleeps.index(sleep_every) / steps
        red, green, blue = (1 - share * (1 - part) for part in colour)
        return red, green, blue


def _assign(
    what: str, found: Iterable[str], known: Mapping[str, _Look], more: Sequence[_Look]
) -> dict[str, _Look]:
    """Known ones first, in their order, then the others in the order in which they are found."""
    there = dict.fromkeys(found)
    others = [name for name in there if name not in known]
    if len(others) > len(more):
        raise InvalidRequest(
            f"{len(others)} {what} besides {' and '.join(known)} can't be told apart in a picture, {len(more)} at most: "
            f"{', '.join(others)}"
        )
    usual = {name: look for name, look in known.items() if name in there}
    return usual | dict(zip(others, more, strict=False))
