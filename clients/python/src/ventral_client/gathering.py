"""Answers, one stimulus after the other, as one array a layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .answers import Answer
from .tensors import Array


class Gathering:
    """Arrays that fill up."""

    def __init__(self, layers: Sequence[str], count: int | None) -> None:
        """`count`: how many stimuli there will be, where that is known."""
        self._layers = layers
        self._count = count
        self._arrays: dict[str, Array] = {}
        self._rows: dict[str, list[Array]] = {layer: [] for layer in layers}

    def add(self, answer: Answer) -> None:
        """Takes the next answer, which has to have activations."""
        if answer.unreadable is not None:
            raise answer.unreadable
        for layer in self._layers:
            row = answer.activations[layer]
            if self._count is None:
                # A copy: the row is a view that keeps its whole message.
                self._rows[layer].append(row.copy())
                continue
            if layer not in self._arrays:
                self._arrays[layer] = np.empty((self._count, *row.shape), row.dtype)
            self._arrays[layer][answer.index] = row

    def arrays(self) -> dict[str, Array]:
        """Layer to `[N, …]`, in the order of the request."""
        if self._count is None:
            return {layer: np.stack(rows) for layer, rows in self._rows.items() if rows}
        return {layer: self._arrays[layer] for layer in self._layers if layer in self._arrays}
