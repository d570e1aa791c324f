"""The model that Brain-Score asks for activations."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict, get_args

import numpy as np

from .. import request
from ..answers import Answer
from ..client import Client
from ..connection import TlsChoice
from ..errors import InvalidRequest
from ..models import FULL_PRECISION, Model
from ..options import DataType, Options
from ..request import Handling
from ..retries import DEFAULT, Retries
from ..tensors import Array
from .classes import check_imagenet
from .package import Assembly, StimuliIdentifier, StimulusSet, brainscore
from .pixels import Preparation

if TYPE_CHECKING:
    from .extractor import RemoteExtractor

#: Where a token is found that isn't passed: plugins are published, tokens mustn't be.
TOKEN_VARIABLE = "VENTRAL_TOKEN"

#: What Brain-Score calls the layer that `label` tasks read.
LOGITS = "logits"

#: How much of a checkpoint's digest is in an identifier: enough to tell checkpoints apart, and short in files' names.
_DIGEST_CHARACTERS = 16

#: What activations are sent as unless told otherwise.
USUAL_TYPE: DataType = "float16"

#: Images whose activations go through hooks together, unless told otherwise.
USUAL_BATCH = 64

#: What follows the digest where weights or activations are rounded otherwise than usual.
_ROUNDING = rf"(?:-(?:fp16|bf16)\b)?(?:-(?:{'|'.join(get_args(DataType))})\b)?"


class ModelOptions(TypedDict, total=False):
    """Keyword arguments of `remote_activations_model`, for the calls that make such a model."""

    version: str
    identifier: str | None
    token: str | None
    tls: TlsChoice
    retries: Retries | None
    data_type: DataType
    batch_size: int
    in_flight: int | None
    imagenet_classes: bool


def remote_activations_model(
    address: str,
    model: str | None = None,
    *,
    version: str = "",
    identifier: str | None = None,
    token: str | None = None,
    tls: TlsChoice = None,
    retries: Retries | None = DEFAULT,
    data_type: DataType = USUAL_TYPE,
    batch_size: int = USUAL_BATCH,
    in_flight: int | None = None,
    imagenet_classes: bool = False,
) -> RemoteActivationsModel:
    """A model on a server, for everything in Brain-Score that takes a `PytorchWrapper`.

    Args:
        address: `host:port`, or `https://host:port` for TLS.
        model: None: the only one that the server has.
        version: The newest unless named.
        identifier: What its identifier begins with; the model's name unless given. The checkpoint's digest is added, and
            how weights and activations are rounded where that isn't as usual.
        token: None: what the variable `VENTRAL_TOKEN` of the environment says.
        tls: As for `Client`.
        retries: As for `Client`.
        data_type: What activations are sent as; they are float32 when they arrive.
        batch_size: Images whose activations go through Brain-Score's hooks together.
        in_flight: Images that are on their way at a time at most.
        imagenet_classes: Says that the 1,000 classes are ImageNet's in their order, where their names aren't synsets.

    Raises:
        VentralError: Where the server can't be asked.
        NoBrainScore: Where Brain-Score isn't installed.
    """
    client = Client(
        address, token or os.environ.get(TOKEN_VARIABLE), tls, model=model, retries=retries, timeout=300.0
    )
    return RemoteActivationsModel(
        client,
        client.model(version=version),
        identifier=identifier,
        data_type=data_type,
        batch_size=batch_size,
        in_flight=in_flight,
        imagenet_classes=imagenet_classes,
    )


class RemoteActivationsModel:
    """What `remote_activations_model` gives; called as a `PytorchWrapper` is.

    The network is that whose checkpoint the server had when this was made: where another one answers later, that is an
    error, so that Brain-Score's result cache never gets the activations of one under the identifier of another.
    """

    def __init__(
        self,
        client: Client,
        model: Model,
        *,
        identifier: str | None = None,
        data_type: DataType = USUAL_TYPE,
        batch_size: int = USUAL_BATCH,
        in_flight: int | None = None,
        imagenet_classes: bool = False,
        projections: dict[str, str] | None = None,
    ) -> None:
        """`projections`: layer to the projection that the server applies to it."""
        self.client = client
        self.model = model
        self.data_type = data_type
        self.projections = projections or {}
        self.imagenet_classes = imagenet_classes
        self.preparation = Preparation.of(model)
        self._in_flight = in_flight
        self._batch_size = batch_size
        brainscore("model_helpers.activations.core")
        from .extractor import RemoteExtractor

        self._extractor: RemoteExtractor = RemoteExtractor(
            self, self._with_digest(identifier or model.name), batch_size
        )
        self._extractor.insert_attrs(self)

    @property
    def identifier(self) -> str:
        """What Brain-Score's result cache tells models apart by; it always has the checkpoint's digest."""
        identifier: str = self._extractor.identifier
        return identifier

    @identifier.setter
    def identifier(self, value: str) -> None:
        self._extractor.identifier = self._with_digest(value)

    @property
    def image_size(self) -> int:
        """Pixels of an input's longer side."""
        return max(self.model.input_shape[1:])

    def with_projections(self, projections: dict[str, str], identifier: str) -> RemoteActivationsModel:
        """The same model, some of whose layers arrive projected: layer to projection."""
        return RemoteActivationsModel(
            self.client,
            self.model,
            identifier=identifier,
            data_type=self.data_type,
            batch_size=self._batch_size,
            in_flight=self._in_flight,
            imagenet_classes=self.imagenet_classes,
            projections=projections,
        )

    def layers(self) -> list[str]:
        """What can be asked for, in the order of computation."""
        return self.model.layers

    def __call__(
        self,
        stimuli: StimulusSet | Sequence[str],
        layers: Sequence[str],
        stimuli_identifier: StimuliIdentifier = None,
        number_of_trials: int = 1,
        require_variance: bool = False,
    ) -> Assembly:
        """A `NeuroidAssembly` of a stimulus set or of paths: see Brain-Score's `ActivationsExtractorHelper`."""
        return self._extractor(stimuli, layers, stimuli_identifier, number_of_trials, require_variance)

    def get_activations(
        self, images: Sequence[str] | Array, layer_names: Sequence[str]
    ) -> OrderedDict[str, Array]:
        """Layer to activations of a batch, in the order of the names.

        Args:
            images: Paths; or pixels, uint8, or the network's input, float32, `[N, C, H, W]`.
            layer_names: Names of layers; `logits`, too.
        """
        inputs: Iterable[Array] = (
            self.preparation.pixels(each) if isinstance(each, str) else each for each in images
        )
        rows = list(self.stream(inputs, layer_names))
        return OrderedDict((layer, np.stack([row[layer] for row in rows])) for layer in layer_names)

    def stream(self, inputs: Iterable[Array], layers: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Layer to activations `[C, H, W]` of one image after the other; several requests are on their way at a time."""
        served = {layer: self.served_layer(layer) for layer in layers}
        wanted = list(dict.fromkeys(served.values()))
        projections = [self.projections[layer] for layer in wanted if layer in self.projections]
        options = Options(data_type="float32" if projections else self.data_type, projections=projections)
        streamed = request.activation_request(self.model, inputs, wanted, options, Handling(self._in_flight))
        for answer in self.client._answers(streamed, progress=False):
            if options.data_type != "float32":
                self._check_range(answer)
            yield {layer: answer.activations[name] for layer, name in served.items()}

    def served_layer(self, layer: str) -> str:
        """What the server calls a layer, if it has it.

        Raises:
            UnknownLayer: Where it has not; the message names the nearest.
            InvalidRequest: Where `logits` are asked for and aren't those of ImageNet's classes.
        """
        if layer != LOGITS or LOGITS in self.model.shapes:
            return self.model.check_layers(layer)[0]
        last = self.model.layers[-1]
        check_imagenet(self.model, last, self.imagenet_classes)
        return last

    def __repr__(self) -> str:
        """Where it is."""
        return f"{type(self).__name__}({self.identifier!r})"

    def _check_range(self, answer: Answer) -> None:
        for layer, values in answer.activations.items():
            # Finite 16-bit numbers can't add up to infinity in 32 bits.
            if not np.isfinite(values.sum()):
                raise InvalidRequest(
                    f"layer `{layer}` of model `{self.model.name}` has values beyond the range of {self.data_type}, or "
                    'that are no numbers: pass data_type="float32" to get them as they are'
                )

    def _with_digest(self, identifier: str) -> str:
        digest = self.model.checkpoint_digest[:_DIGEST_CHARACTERS]
        # What is rounded otherwise is cached apart.
        weights = "" if self.model.weights == FULL_PRECISION else f"-{self.model.weights}"
        kind = "" if self.data_type == USUAL_TYPE else f"-{self.data_type}"
        tag = f"{digest}{weights}{kind}"
        # One that was read and is set again, with something behind it perhaps, has the tag, or another model's.
        whole, replaced = re.subn(rf"{digest}{_ROUNDING}", tag, identifier)
        return whole if replaced else f"{identifier}-{tag}"
