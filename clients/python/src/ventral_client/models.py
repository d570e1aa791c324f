"""The models of a server."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import UnknownLayer
from .options import Options
from .v1 import ventral_pb2 as pb

#: How weights are stored unless they were rounded.
FULL_PRECISION = "fp32"


@dataclass(frozen=True)
class ModelVersions:
    """A model's name and its versions."""

    name: str
    versions: list[str]
    """Newest last."""


@dataclass(frozen=True)
class Model:
    """A model, as it is served."""

    name: str
    version: str
    shapes: dict[str, tuple[int, ...]]
    """Layer to the shape of one image's activations, in the order in which layers are computed."""
    input_shape: tuple[int, ...]
    """`(C, H, W)`"""
    class_names: list[str]
    """In the order of the logits."""
    checkpoint_digest: str
    """Equal digests are the same trained network."""
    preprocessing: dict[str, Any] = field(hash=False)
    """How images become the network's input."""
    execution_provider: str
    """What computes: `CPU`, `CUDA`."""
    weights: str = FULL_PRECISION
    """How weights are stored: `fp32`, `fp16`, `bf16`. Activations are of equal weights only where this is equal, too."""

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order in which they are computed."""
        return list(self.shapes)

    def check_layers(self, layers: Iterable[str]) -> list[str]:
        """The layers, if the model has them.

        Raises:
            UnknownLayer: Where it has one of them not.
        """
        wanted = [layers] if isinstance(layers, str) else list(layers)
        for layer in wanted:
            if layer not in self.shapes:
                nearest = difflib.get_close_matches(layer, self.shapes)
                hint = f"the nearest: {', '.join(nearest)}; " if nearest else ""
                message = (
                    f"model `{self.name}` version {self.version} has no layer `{layer}`; {hint}it has: "
                    f"{', '.join(self.shapes)}"
                )
                raise UnknownLayer(message, self.layers)
        if not wanted:
            raise UnknownLayer(
                f"no layers are named; `{self.name}` has: {', '.join(self.shapes)}", self.layers
            )
        return wanted

    def activation_bytes(self, layers: Iterable[str], options: Options) -> int:
        """What one image's activations take as float32, before pooling and projections."""
        return sum(
            4 * len(options.units.get(layer, range(math.prod(self.shapes[layer])))) for layer in layers
        )


def model(message: pb.GetModelResponse) -> Model:
    """From the protocol."""
    return Model(
        name=message.name,
        version=message.version,
        shapes={layer.name: tuple(layer.shape) for layer in message.layers},
        input_shape=tuple(message.input_shape),
        class_names=list(message.class_names),
        checkpoint_digest=message.checkpoint_digest,
        preprocessing=json.loads(message.preprocessing_json or "{}"),
        execution_provider=message.execution_provider,
        weights=message.weights or FULL_PRECISION,
    )
