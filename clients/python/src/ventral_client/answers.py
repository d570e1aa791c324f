"""What users get of a stimulus."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UnreadableStimulus
from .tensors import Array


@dataclass(frozen=True)
class Answer:
    """The activations of one stimulus."""

    index: int
    """Its position among the images, counted from 0."""
    name: str
    """Its path, or what it is."""
    activations: dict[str, Array]
    """Layer to activations, `[C, H, W]` or `[features]`; empty where the stimulus can't be read. Copy an array to
    change it."""
    unreadable: UnreadableStimulus | None = None
    """Why there are no activations."""


@dataclass(frozen=True)
class Source:
    """Which network answered."""

    model: str
    version: str
    checkpoint_digest: str
    """Activations of equal digests are of the same trained network."""
    weights: str
    """How its weights are stored."""


@dataclass(frozen=True)
class Prediction:
    """A class and how likely it is."""

    index: int
    """Position among the logits."""
    name: str
    """The class's name."""
    probability: float
    """In 0..=1."""
    logit: float
    """What the network computed."""
