"""Principal components that the server fits and applies, in the place of Brain-Score's `LayerPCA`.

`LayerPCA` gathers the whole activations of 1,000 images in the client's memory and decomposes them there. Here the server does
both, with bounded memory, and a thousand numbers a layer and image are sent. This module needs `brainscore_vision`.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from brainscore_vision.model_helpers.activations.pca import LayerPCA, _get_imagenet_val

from ..tensors import Array
from .activations import RemoteActivationsModel
from .pixels import PixelSequence, unreadable

#: Components of Brain-Score's layer selection, and how many images it fits them on.
COMPONENTS = 1000


class ServerPCA(LayerPCA):  # type: ignore[misc]
    """The hook that tells Brain-Score that there is a PCA: what arrives is projected already."""

    def __call__(self, batch_activations: OrderedDict[str, Array]) -> OrderedDict[str, Array]:
        """The same activations."""
        return batch_activations


def with_principal_components(
    model: RemoteActivationsModel,
    layers: Sequence[str],
    images: Sequence[str] | None = None,
    components: int = COMPONENTS,
) -> RemoteActivationsModel:
    """The same model, whose larger layers arrive as their principal components.

    Layers of no more than `components` values stay as they are, as Brain-Score has it. The server keeps the projections
    under a name with the images' digest, and fits them only where it has none of that name.

    Args:
        model: What `remote_activations_model` gave.
        layers: Names of layers.
        images: Paths of the images that components are fitted on; None: Brain-Score's, which it downloads.
        components: How many at most.

    Raises:
        UnreadableStimulus: Where one of the images can't be read.
        VentralError: Where the server can't fit them; fitting needs a token that may change what is served.
    """
    paths = [str(path) for path in images] if images is not None else _get_imagenet_val(num_images=components)
    name = f"pca_{components}-{_digest(paths)}"
    wanted = dict.fromkeys(model.served_layer(layer) for layer in layers)
    large = [layer for layer in wanted if math.prod(model.model.shapes[layer]) > components]
    described = model.model
    names = {layer: f"{name}.{layer}" for layer in large}
    there = {projection.name for projection in model.client.projections(described.name, described.version)}
    missing = [layer for layer in large if names[layer] not in there]
    if missing:
        fitted = model.client.fit_projections(
            PixelSequence(model.preparation, paths),
            missing,
            name,
            components=components,
            model=described.name,
            version=described.version,
            progress=True,
        )
        names |= {layer: projection.name for layer, projection in fitted.items()}
    projected = model.with_projections(names, f"{model.identifier}-{name}")
    hook = ServerPCA(projected, components)
    hook.handle = projected._extractor.register_batch_activations_hook(hook)
    return projected


def _digest(paths: Sequence[str]) -> str:
    """Of what the files hold, in their order."""
    digest = hashlib.blake2b(digest_size=4)
    for position, path in enumerate(paths):
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise unreadable(position, path, error) from error
        digest.update(hashlib.blake2b(content).digest())
    return digest.hexdigest()
