"""The server as operators' tools see it: health, reflection, figures and the description of its HTTP addresses."""

import json
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import golden
import grpc
import programs
import pytest
import serving
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from serving import Server

#: Seconds that a call may take on a busy machine.
PATIENCE = 60


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the authors' networks as the model `lc`."""
    folder = tmp_path_factory.mktemp("operation")
    network = golden.NETWORKS[0]
    options = ["--preprocessing", "unit-range", *network.import_options]
    programs.run("trainer", "import", network.checkpoint, "--output", folder / "lc.safetensors", *options)
    models = folder / "models"
    programs.run("exporter", "export", folder / "lc.safetensors", "--repository", models, "--model", "lc")
    return models


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    """A server that asks for no tokens."""
    with serving.serve(repository) as server:
        yield server


def bitmap(side: int = 16) -> bytes:
    """A picture as a BMP file."""
    pixels = bytes(index * 7 % 256 for index in range(3 * side * side))
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


def text(url: str) -> str:
    """What an address answers."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.read().decode()


def test_the_health_client_sees_the_server_serve_and_drain(repository: Path) -> None:
    """From SIGTERM on it is not serving, and those who watch are told."""
    with (
        serving.serve(repository, "--drain-delay", "1s") as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        # The health follows the models' loading; it may lag behind the address that is printed then.
        for service in ("ventral.v1.Ventral", ""):
            request = health_pb2.HealthCheckRequest(service=service)
            watched = health.Watch(request, timeout=PATIENCE)
            while next(watched).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            answer = health.Check(request, timeout=PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as error:
            health.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=PATIENCE)
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        server.process.terminate()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_client_made_from_reflection_alone_asks_for_a_model(server: Server) -> None:
    """Without any .proto file."""
    with grpc.insecure_channel(server.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = database.get_services()
        ours = {"ventral.v1.Ventral", "inference.GRPCInferenceService"}
        assert ours | {"grpc.health.v1.Health"} <= set(services)
        method = DescriptorPool(database).FindServiceByName("ventral.v1.Ventral").FindMethodByName("GetModel")
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        model = call(request(model="lc"), timeout=PATIENCE)
        assert model.name == "lc"
        assert [layer.name for layer in model.layers][-1] == "fc"
        assert (model.execution_provider, model.execution_provider_reason) == ("CPU", "asked for")


def test_the_figures_are_read_by_prometheus_parser(server: Server) -> None:
    """All of them, with their types."""
    request = urllib.request.Request(
        f"http://{server.http}/v1/models/lc/classify", bitmap(), {"Content-Type": "image/bmp"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert len(json.load(answer)["predictions"]) == 5
    # The request is counted once its answer is written, which may be a little after it was read.
    until = time.monotonic() + PATIENCE
    classified = "POST /v1/models/{model}/classify"
    counted: dict[str, float] = {}
    while classified not in counted and time.monotonic() < until:
        parsed = text_string_to_metric_families(text(f"http://{server.http}/metrics"))
        families = {family.name: family for family in parsed}
        requests = families["ventral_requests"].samples if "ventral_requests" in families else []
        counted = {sample.labels["method"]: sample.value for sample in requests}
    types = {name: family.type for name, family in families.items()}
    expected = {
        "ventral_requests": "counter",
        "ventral_request_duration_seconds": "histogram",
        "ventral_requests_in_flight": "gauge",
        "ventral_stage_duration_seconds": "histogram",
        "ventral_batch_size": "histogram",
        "ventral_queue_depth": "gauge",
        "ventral_sent_bytes": "counter",
        "ventral_received_bytes": "counter",
        "ventral_model_memory_bytes": "gauge",
        "ventral_model_load_time_seconds": "gauge",
        "ventral_build": "info",
        "process_resident_memory_bytes": "gauge",
    }
    assert expected.items() <= types.items()
    (memory,) = families["ventral_model_memory_bytes"].samples
    assert memory.labels == {"model": "lc", "version": "1"}
    assert memory.value > 1000
    assert families["ventral_queue_depth"].samples[0].value == 0
    assert counted[classified] >= 1


def schemathesis(server: Server, folder: Path, *options: str) -> None:
    """Sends what the description of HTTP allows, and what it doesn't, and compares the answers with it."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://{server.http}/openapi.json"]
    command += ["--checks", "all", "--max-examples", "30", "--seed", "1", "--generation-database", "none"]
    # Random bytes are no image: that they are refused is right, though the schema allows them.
    command += ["--exclude-checks", "positive_data_acceptance", *options]
    command += ["--suppress-health-check", "all", "--request-timeout", str(PATIENCE), "--no-color"]
    finished = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]
    assert "passed" in finished.stdout


def test_what_the_description_says_is_what_the_server_does(server: Server, tmp_path: Path) -> None:
    """Of all addresses but the one after which others answer with 503, as they should."""
    assert json.loads(text(f"http://{server.http}/openapi.json"))["openapi"].startswith("3.1")
    schemathesis(server, tmp_path, "--exclude-path-regex", "/unload$")


def test_loading_and_unloading_are_as_described(repository: Path, tmp_path: Path) -> None:
    """Of a model that is there, on a server of their own."""
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.model" = "lc"\n')
    with serving.serve(repository) as server:
        schemathesis(server, tmp_path, "--include-path-regex", "/(un)?load$")
