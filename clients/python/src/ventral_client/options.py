"""What can be chosen about activations, as names instead of the protocol's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast, get_args

from .errors import InvalidRequest
from .v1 import ventral_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

Preprocessing = Literal["model", "stretch", "none"]
Pooling = Literal["none", "spatial_mean", "spatial_max"]
DataType = Literal["float32", "float16", "bfloat16"]
Compression = Literal["none", "zstd"]
Priority = Literal["interactive", "bulk"]

Number = TypeVar("Number")

_CHOICES = {
    "preprocessing": get_args(Preprocessing),
    "pooling": get_args(Pooling),
    "data_type": get_args(DataType),
    "compression": get_args(Compression),
    "priority": (None, *get_args(Priority)),
}


class OptionArguments(TypedDict, total=False):
    """The fields of `Options`, as keyword arguments of the calls that take them."""

    preprocessing: Preprocessing
    pooling: Pooling
    units: Mapping[str, Sequence[int]]
    projections: Sequence[str]
    data_type: DataType
    widen: bool
    compression: Compression
    priority: Priority | None
    exclusive: bool


@dataclass(frozen=True)
class Options:
    """What is made of stimuli and activations; see `ActivationOptions` in the protocol."""

    preprocessing: Preprocessing = "model"
    """`model`: as in the training. `stretch`: the whole image is resized to the input size, as Brain-Score does it.
    `none`: the stimuli are float32 arrays that are the network's input itself."""
    pooling: Pooling = "none"
    """What is made of a layer's positions: all of them, or every channel's mean or maximum."""
    units: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Layers of which some units are wanted: positions in their flat `[C, H, W]`."""
    projections: Sequence[str] = ()
    """Names of projections that the server has, one a layer at most."""
    data_type: DataType = "float32"
    """What activations are sent as."""
    widen: bool = True
    """Whether activations that were sent in 16 bits are made float32. NumPy gets its bfloat16 from `ml_dtypes`."""
    compression: Compression = "none"
    """How activations are packed on their way."""
    priority: Priority | None = None
    """None: `interactive` for `classify`, `bulk` for activations."""
    exclusive: bool = False
    """Whether its images are never in a batch with those of others."""

    def __post_init__(self) -> None:
        """Refuses values that there aren't."""
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                expected = ", ".join(repr(choice) for choice in choices)
                raise InvalidRequest(f"{name}={value!r} doesn't exist; expected one of {expected}")
        self._units()

    @classmethod
    def of(cls, **options: Unpack[OptionArguments]) -> Options:
        """Options from keyword arguments.

        Raises:
            InvalidRequest: Where there is no such option, or it has no such value.
        """
        unknown = [name for name in options if name not in cls.__dataclass_fields__]
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise InvalidRequest(f"there is no option {unknown[0]!r}; there are: {known}")
        return cls(**options)

    def message(self) -> pb.ActivationOptions:
        """The protocol's message."""
        return pb.ActivationOptions(
            preprocessing=self.preprocessing_number(),
            pooling=_number(pb.Pooling, "POOLING", self.pooling),
            units=self._units(),
            projections=list(self.projections),
            data_type=_number(pb.DataType, "DATA_TYPE", self.data_type),
            compression=_number(pb.Compression, "COMPRESSION", self.compression),
            priority=self.priority_number(),
            exclusive=self.exclusive,
        )

    def _units(self) -> list[pb.Units]:
        found = []
        for layer, indices in self.units.items():
            try:
                found.append(pb.Units(layer=layer, indices=list(indices)))
            except (TypeError, ValueError) as error:
                raise InvalidRequest(
                    f"units of layer `{layer}` are positions in its activations, whole numbers from 0: {error}"
                ) from error
        return found

    def preprocessing_number(self) -> pb.Preprocessing:
        """The protocol's number of the preprocessing."""
        # Here `none` is a choice of its own, unlike in the other enumerations.
        return _value(pb.Preprocessing, f"PREPROCESSING_{self.preprocessing.upper()}")

    def priority_number(self) -> pb.Priority:
        """The protocol's number of the priority."""
        return _value(pb.Priority, f"PRIORITY_{(self.priority or 'unspecified').upper()}")


def _number(enumeration: type[Number], prefix: str, name: str) -> Number:
    return _value(enumeration, f"{prefix}_{'UNSPECIFIED' if name == 'none' else name.upper()}")


def _value(enumeration: type[Number], name: str) -> Number:
    # The stubs say that the number's type is the enumeration, which it is only for type checkers.
    return cast(Number, cast(Any, enumeration).Value(name))
