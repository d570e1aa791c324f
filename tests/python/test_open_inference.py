"""NVIDIA's tritonclient, unmodified, drives the server: the Open Inference Protocol over gRPC and over HTTP."""

import asyncio
import contextlib
import queue
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import serving
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from conftest import Bundle
from golden import relative_error
from serving import Server, serve
from tritonclient.utils import InferenceServerException

GUIDE = Path(__file__).parents[2] / "docs" / "open-inference-protocol.md"

#: Whether the package is of the server's version. That for Python 3.10 is older, whose kernels may round otherwise.
EXACT = serving.LIBRARY.resolve().name.endswith(onnxruntime.__version__)

#: The largest relative difference between results of two versions.
SAME = 1e-5

#: Layers of every network here, not in the order in which they are computed.
LAYERS = ["layer2", "fc", "relu", "layer1.0.relu1"]

Outputs = dict[str, np.ndarray]
Infer = Callable[[Server, np.ndarray, list[str]], Outputs]


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one bundle, as the model `lc`, in a repository that no other test changes."""
    repository = tmp_path_factory.mktemp("served")
    serving.publish(bundle.path.parent, repository, "lc")
    with serve(repository) as server:
        yield server


def expected(bundle: Bundle, images: np.ndarray, layers: list[str], folder: Path) -> Outputs:
    """What ONNX Runtime's Python package computes, of the part of the graph that the layers need."""
    path = folder / "cut.onnx"
    onnx.utils.extract_model(bundle.path, path, ["input"], layers)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip(layers, session.run(layers, {"input": images}), strict=True))


def assert_same(found: Outputs, expected: Outputs) -> None:
    """Checks names, order, types, shapes and every bit."""
    assert list(found) == list(expected)
    for layer, values in expected.items():
        error = relative_error(found[layer], values)
        assert found[layer].tobytes() == values.tobytes() or (not EXACT and error <= SAME), layer


def grpc_request(images: np.ndarray, layers: list[str]) -> dict[str, Any]:
    """Arguments of a gRPC client's `infer`."""
    image = triton_grpc.InferInput("input", list(images.shape), "FP32")
    image.set_data_from_numpy(images)
    return {"inputs": [image], "outputs": [triton_grpc.InferRequestedOutput(layer) for layer in layers]}


def http_request(images: np.ndarray, layers: list[str], raw_in: bool, raw_out: bool) -> dict[str, Any]:
    """Arguments of an HTTP client's `infer`, with raw elements or JSON."""
    image = triton_http.InferInput("input", list(images.shape), "FP32")
    image.set_data_from_numpy(images, binary_data=raw_in)
    outputs = [triton_http.InferRequestedOutput(layer, binary_data=raw_out) for layer in layers]
    return {"inputs": [image], "outputs": outputs}


def by_grpc(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
    """Raw elements in both directions."""
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        result = client.infer("lc", **grpc_request(images, layers), request_id="seven")
    assert result.get_response().id == "seven"
    assert result.get_response().model_version == "1"
    return {layer: result.as_numpy(layer) for layer in layers}


def by_grpc_callback(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
    """`async_infer`, which calls back."""
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        request = grpc_request(images, layers)
        client.async_infer(
            "lc",
            request["inputs"],
            lambda result, error: results.put((result, error)),
            outputs=request["outputs"],
        )
        result, error = results.get(timeout=60)
    assert error is None
    return {layer: result.as_numpy(layer) for layer in layers}


def by_grpc_stream(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
    """A stream of one image a request, one of which fails without ending the stream."""
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    parts = []
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: results.put((result, error)))
        client.async_stream_infer("lc", **grpc_request(images[:, :1, :1], layers))
        client.async_stream_infer("lc", **grpc_request(images, layers))
        _, error = results.get(timeout=60)
        assert "expected float32 of shape" in error.message()
        result, error = results.get(timeout=60)
        assert error is None
        parts.append({layer: result.as_numpy(layer) for layer in layers})
        client.stop_stream()
    return parts[0]


def by_grpc_typed_contents(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
    """Elements in the message's field for them, which tritonclient itself never uses."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="lc", model_version="1")
    image = request.inputs.add(name="input", datatype="FP32", shape=images.shape)
    image.contents.fp32_contents.extend(images.ravel().tolist())
    for layer in layers:
        request.outputs.add(name=layer)
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        result = triton_grpc.InferResult(client._client_stub.ModelInfer(request))
    return {layer: result.as_numpy(layer) for layer in layers}


def by_grpc_asyncio(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
    """The gRPC client for asyncio."""

    async def infer() -> Outputs:
        async with triton_grpc_aio.InferenceServerClient(server.grpc) as client:
            result = await client.infer("lc", **grpc_request(images, layers), model_version="1")
            return {layer: result.as_numpy(layer) for layer in layers}

    return asyncio.run(infer())


def by_http(raw_in: bool, raw_out: bool, compression: str | None = None) -> Infer:
    """The HTTP client: raw elements or JSON, compressed or not."""

    def infer(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
        with triton_http.InferenceServerClient(server.http) as client:
            result = client.infer(
                "lc",
                **http_request(images, layers, raw_in, raw_out),
                request_id="seven",
                request_compression_algorithm=compression,
                response_compression_algorithm=compression,
            )
        assert result.get_response()["id"] == "seven"
        assert ("data" in result.get_output(layers[0])) == (not raw_out)
        return {layer: result.as_numpy(layer) for layer in layers}

    return infer


def by_http_pool(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
    """`async_infer` of the HTTP client."""
    with triton_http.InferenceServerClient(server.http, concurrency=2) as client:
        requests = [client.async_infer("lc", **http_request(images, layers, True, True)) for _ in range(4)]
        results = [request.get_result() for request in requests]
    return {layer: results[-1].as_numpy(layer) for layer in layers}


def by_http_asyncio(raw: bool, compression: str | None = None) -> Infer:
    """The HTTP client for asyncio."""

    def infer(server: Server, images: np.ndarray, layers: list[str]) -> Outputs:
        async def infer() -> Outputs:
            async with triton_http_aio.InferenceServerClient(server.http) as client:
                result = await client.infer(
                    "lc",
                    **http_request(images, layers, raw, raw),
                    response_compression_algorithm=compression,
                )
                return {layer: result.as_numpy(layer) for layer in layers}

        return asyncio.run(infer())

    return infer


WAYS: dict[str, Infer] = {
    "grpc": by_grpc,
    "grpc-callback": by_grpc_callback,
    "grpc-stream": by_grpc_stream,
    "grpc-typed-contents": by_grpc_typed_contents,
    "grpc-asyncio": by_grpc_asyncio,
    "http-binary": by_http(True, True),
    "http-json": by_http(False, False),
    "http-json-binary": by_http(False, True),
    "http-binary-json": by_http(True, False),
    "http-gzip": by_http(True, True, "gzip"),
    "http-deflate-json": by_http(False, False, "deflate"),
    "http-pool": by_http_pool,
    "http-asyncio-binary": by_http_asyncio(True),
    "http-asyncio-json-gzip": by_http_asyncio(False, "gzip"),
}


@pytest.mark.parametrize("way", WAYS)
def test_outputs_are_those_of_onnx_runtime(server: Server, bundle: Bundle, way: str, tmp_path: Path) -> None:
    """Bit for bit, whatever way they take."""
    images = bundle.golden.input
    assert_same(WAYS[way](server, images, LAYERS), expected(bundle, images, LAYERS, tmp_path))


def test_the_logits_are_the_default(server: Server, bundle: Bundle, tmp_path: Path) -> None:
    """Where a request names no outputs."""
    images = bundle.golden.input[:2]
    logits = expected(bundle, images, ["fc"], tmp_path)
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        result = client.infer("lc", grpc_request(images, [])["inputs"])
        assert [output.name for output in result.get_response().outputs] == ["fc"]
        assert_same({"fc": result.as_numpy("fc")}, logits)
    with triton_http.InferenceServerClient(server.http) as client:
        result = client.infer("lc", http_request(images, [], True, True)["inputs"])
        assert [output["name"] for output in result.get_response()["outputs"]] == ["fc"]
        assert_same({"fc": result.as_numpy("fc")}, logits)


def test_the_guides_code_does_what_it_says(server: Server, bundle: Bundle, tmp_path: Path) -> None:
    """With the server's own port in the place of the usual one."""
    code = re.search(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)[1]
    assert "127.0.0.1:50051" in code
    script = tmp_path / "guide.py"
    script.write_text(code.replace("127.0.0.1:50051", server.grpc))
    names = runpy.run_path(str(script))
    assert names["layer1"].shape == (8, *bundle.golden.layers["layer1"].shape[1:])
    assert names["logits"].shape == (8, 10)


@contextlib.contextmanager
def client_of(module: ModuleType, server: Server) -> Iterator[Any]:
    """A client of either protocol; what it answers is as JSON has it."""
    grpc = module is triton_grpc
    with module.InferenceServerClient(server.grpc if grpc else server.http) as client:
        if grpc:
            for name in ("get_server_metadata", "get_model_metadata", "get_model_config"):
                call = getattr(client, name)
                setattr(client, name, lambda *arguments, call=call: call(*arguments, as_json=True))
            for name in ("get_inference_statistics", "get_model_repository_index"):
                call = getattr(client, name)
                setattr(
                    client,
                    name,
                    lambda *arguments, call=call, **named: call(*arguments, **named, as_json=True),
                )
        yield client


BOTH = pytest.mark.parametrize("module", [triton_grpc, triton_http], ids=["grpc", "http"])


@BOTH
def test_the_server_and_its_model_say_what_they_are(
    server: Server, bundle: Bundle, module: ModuleType
) -> None:
    """Health, metadata, configuration."""
    graph = bundle.graph().graph
    with client_of(module, server) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("lc")
        assert client.is_model_ready("lc", "1")
        assert not client.is_model_ready("lc", "2")
        assert not client.is_model_ready("cl")
        metadata = client.get_server_metadata()
        assert metadata["name"] == "ventral"
        assert {"model_repository", "binary_tensor_data"} <= set(metadata["extensions"])

        model = client.get_model_metadata("lc")
        assert (model["name"], model["versions"], model["platform"]) == ("lc", ["1"], "onnxruntime_onnx")
        (image,) = model["inputs"]
        assert (image["name"], image["datatype"]) == ("input", "FP32")
        shape = [-1, *bundle.golden.input.shape[1:]]
        assert list(map(int, image["shape"])) == shape
        assert [output["name"] for output in model["outputs"]] == [output.name for output in graph.output]
        shapes = {output["name"]: list(map(int, output["shape"])) for output in model["outputs"]}
        assert shapes["layer1"] == [-1, *bundle.golden.layers["layer1"].shape[1:]]
        assert shapes["fc"] == [-1, 10]

        config = client.get_model_config("lc")
        config = config.get("config", config)
        assert config["max_batch_size"] > 0
        assert (config["name"], config["backend"]) == ("lc", "onnxruntime")
        assert list(map(int, config["input"][0]["dims"])) == shape[1:]
        assert {output["data_type"] for output in config["output"]} == {"TYPE_FP32"}


@BOTH
def test_requests_are_counted(server: Server, bundle: Bundle, module: ModuleType) -> None:
    """Images and requests, those that fail apart."""
    with client_of(module, server) as client:

        def counted() -> tuple[int, int, int]:
            (model,) = client.get_inference_statistics("lc")["model_stats"]
            counts = model["inference_stats"]
            success, fail = (int(counts[name].get("count", 0)) for name in ("success", "fail"))
            return int(model.get("inference_count", 0)), success, fail

        before = counted()
        by_grpc(server, bundle.golden.input[:3], ["fc"])
        with pytest.raises(InferenceServerException, match="layer9"):
            by_grpc(server, bundle.golden.input[:3], ["layer9"])
        assert np.subtract(counted(), before).tolist() == [3, 1, 1]


def mistakes(bundle: Bundle) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Requests that can't be answered: the model, what differs from a good request, and part of the message."""
    images = bundle.golden.input
    _, channels, height, width = images.shape
    return {
        "model": ("cl", {}, "there are: lc"),
        "version": ("lc", {"model_version": "7"}, "it has: 1"),
        "layer": ("lc", {"layers": ["fc", "layer9"]}, "no layer `layer9`; it has: "),
        "shape": ("lc", {"images": images[:, :, 1:]}, rf"\[N, {channels}, {height}, {width}\]"),
        "rank": ("lc", {"images": images[0]}, "its shape is"),
        "empty": ("lc", {"images": images[:0]}, "no images"),
        "name": ("lc", {"name": "image"}, "the network takes `input`"),
        "datatype": ("lc", {"images": images.astype(np.float64), "datatype": "FP64"}, "FP64.*takes FP32"),
        "classification": ("lc", {"class_count": 3}, "`classification` is not supported"),
    }


@BOTH
@pytest.mark.parametrize(
    "mistake",
    ["model", "version", "layer", "shape", "rank", "empty", "name", "datatype", "classification"],
)
def test_mistakes_are_answered_with_what_would_be_right(
    server: Server, bundle: Bundle, module: ModuleType, mistake: str
) -> None:
    """As the clients' own exceptions, with the same messages over both protocols."""
    model, wrong, message = mistakes(bundle)[mistake]
    images = wrong.get("images", bundle.golden.input)
    image = module.InferInput(wrong.get("name", "input"), list(images.shape), wrong.get("datatype", "FP32"))
    image.set_data_from_numpy(images)
    outputs = [
        module.InferRequestedOutput(layer, class_count=wrong.get("class_count", 0))
        for layer in wrong.get("layers", ["fc"])
    ]
    with (
        client_of(module, server) as client,
        pytest.raises(InferenceServerException, match=message) as raised,
    ):
        client.infer(model, [image], outputs=outputs, model_version=wrong.get("model_version", ""))
    status = {"StatusCode.INVALID_ARGUMENT": "400", "StatusCode.NOT_FOUND": "404"}
    found = raised.value.status()
    assert status.get(found, found) == ("404" if mistake in ("model", "version", "layer") else "400")


@BOTH
def test_models_are_loaded_and_unloaded(bundle: Bundle, module: ModuleType, tmp_path: Path) -> None:
    """The model repository extension; a model that is broken is reported and harms no other."""
    repository = tmp_path / "models"
    for model in ("one", "two"):
        serving.publish(bundle.path.parent, repository, model)
    broken = serving.publish(bundle.path.parent, repository, "broken")
    (broken / "model.onnx").write_bytes(b"no graph")
    images = bundle.golden.input[:1]
    with serve(repository) as server, client_of(module, server) as client:

        def infer(model: str, version: str = "") -> np.ndarray:
            image = module.InferInput("input", list(images.shape), "FP32")
            image.set_data_from_numpy(images)
            return client.infer(model, [image], model_version=version).as_numpy("fc")

        def index() -> dict[tuple[str, str], str]:
            index = client.get_model_repository_index()
            models = index.get("models", []) if isinstance(index, dict) else index
            reasons = {model["name"]: model.get("reason", "") for model in models}
            assert "not an ONNX file" in reasons["broken"]
            return {(model["name"], model["version"]): model["state"] for model in models}

        states = {("broken", "1"): "UNAVAILABLE", ("one", "1"): "READY", ("two", "1"): "READY"}
        assert index() == states
        logits = infer("one")
        client.unload_model("one")
        assert index() == states | {("one", "1"): "UNAVAILABLE"}
        assert not client.is_model_ready("one")
        with pytest.raises(InferenceServerException, match="was unloaded"):
            infer("one")
        assert infer("two").tobytes() == logits.tobytes()

        serving.publish(bundle.path.parent, repository, "one", 2)
        client.load_model("one")
        assert index() == states | {("one", "2"): "READY"}
        assert infer("one", "2").tobytes() == logits.tobytes()
        assert client.get_model_metadata("one")["versions"] == ["1", "2"]

        serving.publish(bundle.path.parent, repository, "three")
        with pytest.raises(InferenceServerException, match="does not exist"):
            infer("three")
        client.load_model("three")
        assert infer("three").tobytes() == logits.tobytes()

        with pytest.raises(InferenceServerException, match="not an ONNX file"):
            client.load_model("broken")
        for model in ("nothing", "../models/one"):
            with pytest.raises(InferenceServerException, match="does not exist"):
                client.load_model(model)
            with pytest.raises(InferenceServerException, match="does not exist"):
                client.unload_model(model)
        with pytest.raises(InferenceServerException, match="`config` is not supported"):
            client.load_model("one", config="{}")
        with pytest.raises(InferenceServerException, match=r"broken.*can't be served"):
            infer("broken")
