"""A network on a server as a torch module, for tools that take activations out of forward hooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .client import Client
from .errors import MissingPackage, ModelChanged
from .options import OptionArguments, Options

try:
    import torch
except ImportError as error:
    raise MissingPackage("torch", "torch", "ventral_client.remote_module") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RemoteModule(torch.nn.Module):  # type: ignore[misc]
    """A network whose layers are modules of their own, by the server's names, and whose forward pass is the server's.

    A forward pass asks for those layers that have forward hooks, in one call, and no deeper; the hooks get each layer's
    activations, `[N, …]`. It has no parameters, and nothing to differentiate.
    """

    def __init__(
        self,
        client: Client,
        model: str | None = None,
        version: str = "",
        **options: Unpack[OptionArguments],
    ) -> None:
        """A model of the client's server; its options are those of `Client.activations`."""
        super().__init__()
        Options.of(**options)
        self._client = client
        self._options = options
        self.model = client.model(model, version)
        self._layers = {name: self._add(name, shape) for name, shape in self.model.shapes.items()}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Activations of the deepest layer that has a hook; without any hook, of the network's last layer.

        Args:
            batch: uint8 pixels, or the network's float input; `[N, C, H, W]`.

        Raises:
            ModelChanged: Where the server has another network under the model's name and version by now.
            VentralError: As `Client.activations`.
        """
        self._check_model()
        wanted = [name for name, layer in self._layers.items() if layer._forward_hooks]
        wanted = wanted or self.model.layers[-1:]
        found = self._client.activations(
            batch, wanted, model=self.model.name, version=self.model.version, **self._options
        )
        for name in wanted:
            output = self._layers[name](torch.from_numpy(found[name]).to(batch.device))
        return output

    def named_modules(
        self,
        memo: set[torch.nn.Module] | None = None,
        prefix: str = "",
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, torch.nn.Module]]:
        """Itself and the layers; what only holds layers has no activations, and no hook of it would ever be called."""
        for name, module in super().named_modules(memo, prefix, remove_duplicate):
            if isinstance(module, (RemoteModule, Layer)):
                yield name, module

    def extra_repr(self) -> str:
        """Which network it is."""
        return f"{self.model.name!r}, version={self.model.version}, input={list(self.model.input_shape)}"

    def _add(self, name: str, shape: tuple[int, ...]) -> Layer:
        """`layer1.0.conv1` is a module of a module of a module."""
        *path, last = name.split(".")
        holder = self
        for part in path:
            if part not in holder._modules:
                holder.add_module(part, torch.nn.Module())
            holder = holder._modules[part]
        layer = Layer(shape)
        if last in holder._modules:
            # The layers in it came first.
            layer._modules.update(holder._modules[last]._modules)
            holder._modules[last] = layer
        else:
            holder.add_module(last, layer)
        return layer

    def _check_model(self) -> None:
        now = self._client.model(self.model.name, self.model.version)
        is_now, was = ((model.checkpoint_digest, model.weights) for model in (now, self.model))
        if is_now != was:
            raise ModelChanged(
                f"`{self.model.name}` version {self.model.version} is another network than when this began "
                f"(checkpoint {' with weights '.join(is_now)}, not {' with weights '.join(was)}): begin anew"
            )


class Layer(torch.nn.Module):  # type: ignore[misc]
    """A layer; its forward pass passes on what the server has computed."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape` is that of one image's activations."""
        super().__init__()
        self.shape = shape

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """The same, for the hooks."""
        return activations

    def extra_repr(self) -> str:
        """The shape."""
        return str(list(self.shape))
