"""An extractor of thingsvision whose network is on a server.

from thingsvision.utils.data import DataLoader, ImageDataset
from ventral_client.thingsvision import remote_extractor

extractor = remote_extractor("localhost:50051", "lc")
dataset = ImageDataset("stimuli", "features", extractor.get_backend(), transforms=extractor.get_transformations())
features = extractor.extract_features(DataLoader(dataset, 32, extractor.get_backend()), module_name="layer1")

It is thingsvision's own extractor: `extract_features`, `batch_extraction`, `show_model`, `get_module_names` and all else
are as in its documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .client import Client
from .errors import InvalidRequest, MissingPackage
from .models import Model
from .options import OptionArguments, Preprocessing
from .preparation import fit

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as PillowImage
    from thingsvision.core.extraction.torch import PyTorchExtractor
    from typing_extensions import Unpack


def remote_extractor(
    server: Client | str,
    model: str | None = None,
    version: str = "",
    *,
    device: str = "cpu",
    **options: Unpack[OptionArguments],
) -> PyTorchExtractor:
    """An extractor, as `thingsvision.get_extractor` gives.

    Its transformation brings images to the network's input size and leaves them pixels; the server does the rest. Float
    images of other transformations are taken for the network's input itself.

    Args:
        server: A client, or an address for a client without token and TLS.
        model: The client's own unless named.
        version: The newest unless named.
        device: Where torch keeps the activations.
        options: As for `Client.activations`.

    Raises:
        MissingPackage: Where thingsvision or torch isn't installed.
        VentralError: Where the server can't be asked, or lacks the model.
    """
    preprocessing = options.get("preprocessing", "model")
    if preprocessing == "none":
        raise InvalidRequest(
            "preprocessing='none' isn't for images: leave it out, and transform images to float"
        )
    try:
        from thingsvision import get_extractor_from_model
    except ImportError as error:
        if error.name != "thingsvision":
            raise
        raise MissingPackage("thingsvision", None, "ventral_client.thingsvision") from error
    from .remote_module import RemoteModule

    client = Client(server) if isinstance(server, str) else server
    module = RemoteModule(client, model, version, **options)
    return get_extractor_from_model(
        model=module, device=device, backend="pt", preprocess=Transformation(module.model, preprocessing)
    )


@dataclass(frozen=True)
class Transformation:
    """Pillow images to pixels of the network's input size, as `fit` does it, for loaders that stack tensors."""

    model: Model
    preprocessing: Preprocessing = "model"

    def __call__(self, image: PillowImage) -> torch.Tensor:
        """A tensor, uint8 `[C, H, W]`."""
        import torch

        return torch.from_numpy(fit(image, self.model, self.preprocessing))
