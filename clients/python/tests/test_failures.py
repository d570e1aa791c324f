"""What goes wrong says what to do, and is tried again where that helps."""

import pickle
import re
import socket
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import ventral_client
from front import Front, Refusal
from servers import Server
from ventral_client import Client, Retries
from ventral_client.report.scores import InvalidScores

#: Enough repetitions, and soon.
QUICK = Retries(initial=0.01, maximum=0.05)


def test_no_server_at_the_address_is_said_soon() -> None:
    """A port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(address) as client, pytest.raises(ventral_client.NoServer) as caught:
            client.models()
    assert isinstance(caught.value, ConnectionError) and isinstance(caught.value, ventral_client.VentralError)
    for part in (f"no server answers at {address}", "is it running", "TLS"):
        assert part in str(caught.value)


@pytest.mark.parametrize("address", ["", "ftp://host:1", "host:1/path"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ventral_client.InvalidRequest, match="host:port"):
        Client(address)


def test_unknown_layers_come_with_the_known_ones(client: Client, server: Server, pixels: np.ndarray) -> None:
    """Models and versions, too."""
    for wrong in (["layer9"], ["fc", "layer9"]):
        with pytest.raises(
            ventral_client.UnknownLayer, match=r"has no layer `layer9`; the nearest: .*; it has: .*layer1"
        ) as caught:
            client.activations(pixels, wrong)
        assert caught.value.known == client.model().layers
    with pytest.raises(ventral_client.UnknownLayer, match="no layers"):
        client.activations(pixels, [])
    with pytest.raises(ventral_client.UnknownModel, match="there are: lc, other"):
        client.model("lcc")
    with pytest.raises(ventral_client.UnknownModel, match="no version `7`; it has: 1"):
        client.activations(pixels, ["fc"], version="7")
    with (
        Client(server.address) as unnamed,
        pytest.raises(ventral_client.UnknownModel, match="lc, other; name one"),
    ):
        unnamed.model()


def test_what_is_no_image_is_refused_with_its_position(client: Client, pixels: np.ndarray) -> None:
    """Arrays of other shapes and types, other objects."""
    for wrong, problem in (
        (np.zeros((3, 5, 5), np.float32), r"network's input itself, \[3, 32, 32\], not \[3, 5, 5\]"),
        (np.zeros((32, 32, 3), np.int64), "not int64"),
        (np.zeros((9, 9, 9), np.uint8), "1 to 4 channels"),
        (object(), "not object"),
    ):
        with pytest.raises(ventral_client.UnreadableStimulus, match=f"stimulus 1 .*{problem}") as caught:
            client.activations([pixels[0], wrong], ["fc"])
        assert caught.value.index == 1
    with pytest.raises(ventral_client.InvalidRequest, match="not int"):
        client.activations(7, ["fc"])
    with pytest.raises(ventral_client.InvalidRequest, match="is for tensors"):
        client.activations([b"\x89PNG"], ["fc"], preprocessing="none")
    with pytest.raises(ventral_client.InvalidRequest, match="in_flight=0"):
        client.activations(pixels, ["fc"], in_flight=0)


class Refusing:
    """Refuses calls as a list says, and lets those after it through."""

    def __init__(self, *refusals: Refusal) -> None:
        """In this order."""
        self._refusals: Iterator[Refusal] = iter(refusals)
        self.asked: list[tuple[str, float]] = []

    def __call__(self, method: str, _: dict[str, str]) -> Refusal:
        """The next one."""
        self.asked.append((method, time.monotonic()))
        return next(self._refusals, None)


BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED
AWAY = grpc.StatusCode.UNAVAILABLE


def test_busy_and_absent_servers_are_asked_again(server: Server, pixels: np.ndarray) -> None:
    """Unary calls and streams, no sooner than the server says."""
    later = (("retry-after", "1"),)
    refusing = Refusing(
        (AWAY, "loading", ()), (BUSY, "busy", ()), None, (BUSY, "busy", later), (AWAY, "away", ())
    )
    with Front(server.address, refusing) as front, Client(front.address, model="lc", retries=QUICK) as client:
        assert client.activations(pixels, ["fc"])["fc"].shape == (24, 10)
    assert [method for method, _ in refusing.asked] == ["GetModel"] * 3 + ["StreamActivations"] * 3
    times = [time for _, time in refusing.asked]
    assert times[4] - times[3] >= 1


@pytest.mark.parametrize(
    ("refusal", "repeated", "kind"),
    [
        ((AWAY, "away", ()), 9, ventral_client.NoServer),
        ((BUSY, "at most 7 are accepted", ()), 2, ventral_client.TooMuch),
        ((BUSY, "busy", (("grpc-retry-pushback-ms", "5"),)), 9, ventral_client.TooMuch),
        ((BUSY, "busy", (("grpc-retry-pushback-ms", "-1"),)), 0, ventral_client.TooMuch),
        ((BUSY, "busy", (("retry-after", "99999"),)), 0, ventral_client.TooMuch),
        ((grpc.StatusCode.INTERNAL, "broken", ()), 0, ventral_client.ServerFault),
        ((grpc.StatusCode.DEADLINE_EXCEEDED, "slow", ()), 0, ventral_client.TooSlow),
        ((grpc.StatusCode.CANCELLED, "gone", ()), 0, ventral_client.ClientClosed),
        (
            (grpc.StatusCode.NOT_FOUND, "model `lc` version 1 has no projection `a`; it has: b", ()),
            0,
            ventral_client.UnknownProjection,
        ),
        ((grpc.StatusCode.INVALID_ARGUMENT, "bad", ()), 0, ventral_client.InvalidRequest),
        ((grpc.StatusCode.UNIMPLEMENTED, "unknown", ()), 0, ventral_client.InvalidRequest),
    ],
)
def test_refusals_are_repeated_as_often_as_makes_sense(
    server: Server, refusal: Refusal, repeated: int, kind: type[Exception]
) -> None:
    """And then raised as what they are, with the server's words."""
    refusing = Refusing(*[refusal] * 20)
    with Front(server.address, refusing) as front, Client(front.address, retries=QUICK) as client:
        with pytest.raises(kind, match=re.escape(refusal[1])):
            client.models()
        assert len(refusing.asked) == 1 + repeated
    never = Refusing(*[refusal] * 20)
    with Front(server.address, never) as front, Client(front.address, retries=None) as client:
        with pytest.raises(kind, match=re.escape(refusal[1])):
            client.models()
        assert len(never.asked) == 1


def test_a_server_that_says_that_it_can_not_is_there(server: Server) -> None:
    """Only where none was reached is it asked whether there is one."""
    for details, words in (
        ("the models are still being loaded: try again soon", "can't answer now (the models are still"),
        ("the server is stopping: ask another", "can't answer now (the server is stopping"),
        ("Socket closed", "no server answers at"),
        ("failed to connect to all addresses", "no server answers at"),
    ):
        refusing = Refusing((AWAY, details, ()))
        with Front(server.address, refusing) as front, Client(front.address, retries=None) as client:
            with pytest.raises(ventral_client.NoServer, match=re.escape(words)) as caught:
                client.models()
            assert front.address in str(caught.value)
            assert ("is it running" in str(caught.value)) == words.startswith("no server")


def test_a_client_that_is_closed_says_so(client: Client, pixels: np.ndarray) -> None:
    """To whoever still waits for answers."""
    answers = client.stream((pixels[index % len(pixels)] for index in range(1000)), ["layer1"], in_flight=4)
    next(answers)
    client.close()
    with pytest.raises(ventral_client.ClientClosed, match="the client was closed"):
        list(answers)


def test_what_the_protocol_has_no_number_for_is_refused(client: Client, pixels: np.ndarray) -> None:
    """Before it is sent."""
    for top_k in (0, 5_000_000_000):
        with pytest.raises(ventral_client.InvalidRequest, match=f"top_k={top_k}"):
            client.classify(pixels, top_k=top_k)
    for indices in ([-1], [0.5], ["first"], 7):
        with pytest.raises(ventral_client.InvalidRequest, match="units of layer `fc` are positions"):
            client.activations(pixels, "fc", units={"fc": indices})
    for token in ("n\u00f6", "two\nlines"):
        with pytest.raises(ventral_client.InvalidRequest, match="no token has") as caught:
            Client("localhost", token=token)
        assert token not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        ventral_client.MissingPackage("h5py", "extract", "extract"),
        ventral_client.MissingPackage("thingsvision", None, "the extractor"),
        InvalidScores("scores.csv", "isn't a number", 3, "V1"),
        ventral_client.UnreadableStimulus(3, "a.png", "no image"),
        ventral_client.UnknownLayer("no layer", ["fc"]),
        ventral_client.UnwritableFile("a.h5 can't be written"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_through_processes(error: Exception) -> None:
    """As those of worker processes do, pickled."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
