"""Stimuli in groups, which are sent in one message and answered in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .errors import UnreadableStimulus
from .images import Stimulus
from .tensors import from_array
from .v1 import ventral_pb2 as pb

#: What a group's stimuli or activations take in memory, about: the server moves many such messages fastest.
TARGET_BYTES = 1 << 20

#: Images in a group at most, but for one that would be left over.
MAXIMUM_IMAGES = 16

#: Images in a group at least, where there are so many.
LEAST_IMAGES = 2


@dataclass
class Group:
    """Some stimuli, one after the other, of which those that could be read have the same form."""

    stimuli: list[Stimulus] = field(default_factory=list)

    @property
    def readable(self) -> list[Stimulus]:
        """What the server gets."""
        return [s for s in self.stimuli if not isinstance(s.content, UnreadableStimulus)]

    def message(self) -> pb.StreamActivationsRequest:
        """A message of a stream."""
        return pb.StreamActivationsRequest(stimuli=self.content())

    def content(self) -> pb.StimulusGroup:
        """What can be read of it, as the protocol has it."""
        group = pb.StimulusGroup(ids=[str(stimulus.index) for stimulus in self.readable])
        set_stimuli(group, self.readable)
        return group


def set_stimuli(
    message: pb.StimulusGroup | pb.GetActivationsRequest | pb.ClassifyRequest, readable: list[Stimulus]
) -> None:
    """Puts stimuli of one form into a message."""
    encoded = [stimulus.content for stimulus in readable if isinstance(stimulus.content, bytes)]
    arrays = [stimulus.content for stimulus in readable if isinstance(stimulus.content, np.ndarray)]
    if encoded:
        message.images.CopyFrom(pb.EncodedImages(images=encoded))
    else:
        message.tensor.CopyFrom(from_array(np.stack(arrays)))


def groups(stimuli: Iterator[Stimulus], images: int) -> Iterator[Group]:
    """Divides stimuli into groups of about `images` images, or about `TARGET_BYTES`.

    A single image is left over only where it is alone in its form: it would be computed in another order than several,
    with another rounding.
    """
    least = min(LEAST_IMAGES, images)
    kept: list[Stimulus] = []
    form: tuple[str, tuple[int, ...]] | None = None
    for stimulus in stimuli:
        own = _form(stimulus)
        if own is not None and form is not None and own != form:
            yield Group(kept)
            kept, form = [], None
        form = own if own is not None else form
        kept.append(stimulus)
        whole = kept[:-LEAST_IMAGES]
        size = sum(stimulus.bytes for stimulus in whole)
        if len(whole) >= images or (len(whole) >= least and size >= TARGET_BYTES):
            yield Group(whole)
            kept = kept[-LEAST_IMAGES:]
    if kept:
        yield Group(kept)


def images_a_group(activation_bytes: int) -> int:
    """How many images whose activations take so many bytes each."""
    return max(LEAST_IMAGES, min(MAXIMUM_IMAGES, TARGET_BYTES // max(1, activation_bytes)))


def _form(stimulus: Stimulus) -> tuple[str, tuple[int, ...]] | None:
    """Stimuli of one form can be sent together; what can't be read has none."""
    if isinstance(stimulus.content, UnreadableStimulus):
        return None
    if isinstance(stimulus.content, bytes):
        return "encoded", ()
    return stimulus.content.dtype.str, stimulus.content.shape
