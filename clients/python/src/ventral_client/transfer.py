"""The state of a long transfer, apart from how it is sent: what is in flight, and what is answered.

A connection may break at any time: what was sent and not answered is kept, to be sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .answers import Answer, Source
from .errors import ModelChanged, ServerFault, UnreadableStimulus
from .groups import Group
from .images import Stimulus
from .models import FULL_PRECISION
from .options import Options
from .tensors import Array, to_array
from .v1 import ventral_pb2 as pb

#: What stimuli in flight, and about as much again their activations, may take in memory.
IN_FLIGHT_BYTES = 64 << 20


class Transfer:
    """What is in flight. Answers come in the order of the groups."""

    def __init__(
        self,
        groups: Iterator[Group],
        source: Source,
        *,
        in_flight: int,
        start: pb.StreamStart,
        options: Options,
        skip_unreadable: bool,
    ) -> None:
        """At most `in_flight` images, or `IN_FLIGHT_BYTES`, wait for answers at a time, but a group at least. `source` has to answer."""
        self._groups = groups
        self._in_flight = in_flight
        self._start = start
        self._options = options
        self._skip_unreadable = skip_unreadable
        self._waiting: deque[Group] = deque()
        self._exhausted = False
        self._source = source
        self._unreadable: UnreadableStimulus | None = None

    def begin(self) -> list[pb.StreamActivationsRequest]:
        """The first messages of a new stream: the start, and what earlier ones left without an answer."""
        again = [group.message() for group in self._waiting if group.readable]
        return [pb.StreamActivationsRequest(start=self._start), *again]

    def refill(self) -> Iterator[Group]:
        """Reads as many further groups as may be in flight."""
        while not self._exhausted and not self._is_full():
            group = next(self._groups, None)
            if group is None:
                self._exhausted = True
                return
            if not self._skip_unreadable:
                group = self._up_to_unreadable(group)
            if group.stimuli:
                self._waiting.append(group)
                yield group

    def settled(self) -> Iterator[Answer]:
        """Takes out what comes next and needs no server: groups of which nothing could be read."""
        while self._waiting and not self._waiting[0].readable:
            yield from self._answers(self._waiting.popleft(), {}, {})

    def is_done(self) -> bool:
        """Whether nothing waits for an answer and there is nothing more to send.

        Raises:
            UnreadableStimulus: What ended it, after the answers to everything before it.
        """
        if self._exhausted and not self._waiting and self._unreadable is not None:
            raise self._unreadable
        return self._exhausted and not self._waiting

    @property
    def sent(self) -> list[Stimulus]:
        """What an error may be about."""
        return [stimulus for group in self._waiting for stimulus in group.readable]

    def accept(self, response: pb.StreamActivationsResponse) -> list[Answer]:
        """Takes the answer to the first group that waits.

        Raises:
            ModelChanged: Where another network answers than before.
            ServerFault: Where the answer fits nothing that was asked.
        """
        if response.checkpoint_digest:
            weights = response.weights or FULL_PRECISION
            self._check_source(Source(response.model, response.version, response.checkpoint_digest, weights))
        group = self._waiting[0]
        asked = group.readable
        failed = {
            asked[entry.index].index: entry.message
            for entry in response.unreadable
            if entry.index < len(asked)
        }
        good = [stimulus.index for stimulus in asked if stimulus.index not in failed]
        if list(response.ids) != [str(index) for index in good]:
            raise ServerFault(
                f"the answers are for {list(response.ids)}, expected {good}: the server mixes them up"
            )
        layers = {tensor.name: to_array(tensor, self._options.widen) for tensor in response.activations}
        if any(len(values) != len(good) for values in layers.values()):
            raise ServerFault("there are more or fewer activations than stimuli")
        rows = {
            index: {layer: values[row] for layer, values in layers.items()} for row, index in enumerate(good)
        }
        self._waiting.popleft()
        return list(self._answers(group, rows, failed))

    def _answers(
        self, group: Group, rows: dict[int, dict[str, Array]], failed: dict[int, str]
    ) -> Iterator[Answer]:
        for stimulus in group.stimuli:
            unreadable = None
            if isinstance(stimulus.content, UnreadableStimulus):
                unreadable = stimulus.content
            elif stimulus.index in failed:
                unreadable = UnreadableStimulus(stimulus.index, stimulus.name, failed[stimulus.index])
            yield Answer(stimulus.index, stimulus.name, rows.get(stimulus.index, {}), unreadable)

    def _check_source(self, source: Source) -> None:
        if self._source.checkpoint_digest != source.checkpoint_digest:
            raise ModelChanged(
                f"model `{source.model}` was checkpoint {self._source.checkpoint_digest} and is "
                f"{source.checkpoint_digest} now: start again, so that all activations are of one network"
            )
        if self._source.weights != source.weights:
            raise ModelChanged(
                f"model `{source.model}` had {self._source.weights} weights and has {source.weights} ones now: start again, so "
                "that all activations are rounded alike"
            )

    def _up_to_unreadable(self, group: Group) -> Group:
        for position, stimulus in enumerate(group.stimuli):
            if isinstance(stimulus.content, UnreadableStimulus):
                self._exhausted = True
                self._unreadable = stimulus.content
                return Group(group.stimuli[:position])
        return group

    def _is_full(self) -> bool:
        images = sum(len(group.stimuli) for group in self._waiting)
        size = sum(stimulus.bytes for group in self._waiting for stimulus in group.stimuli)
        return bool(self._waiting) and (images >= self._in_flight or size >= IN_FLIGHT_BYTES)
