"""What lies in deploy/ fits Kubernetes' schemas, the programs, and itself."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import programs
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

#: Kinds whose schemas are not Kubernetes' own.
FOREIGN = ("kustomize.config.k8s.io", "serving.kserve.io")

#: What KServe's custom resource definitions say of `spec`, by kind. The whole definitions repeat a pod's fields, 200 KB each.
KSERVE = json.loads((Path(__file__).parent / "schemas" / "kserve.json").read_text())


def documents(path: Path) -> list[dict[str, Any]]:
    """All documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every manifest with its place."""
    paths = sorted(DEPLOY.rglob("*.yaml"))
    assert paths, "deploy/ has no manifests"
    return [(str(path.relative_to(ROOT)), document) for path in paths for document in documents(path)]


def validate(manifest: dict[str, Any]) -> None:
    """Compares a manifest with Kubernetes' schema; fields that it doesn't know are errors."""
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("place", [place for place, _ in manifests()])
def test_manifests_fit_their_schemas(place: str) -> None:
    """Each file's documents; patches lack what they don't change, so they are left to the next test."""
    for document in documents(ROOT / place):
        assert document["apiVersion"] and document["kind"]
        if document["apiVersion"].startswith(FOREIGN) or place.startswith("deploy/kubernetes-cuda/"):
            continue
        validate(document)


def test_a_manifest_with_a_slip_does_not_fit() -> None:
    """The check can fail."""
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    slip = copy.deepcopy(deployment)
    slip["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(slip)


def merged(base: Any, patch: Any) -> Any:  # noqa: ANN401
    """A strategic merge as far as the patches here need it: lists are merged by `name`."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {key: merged(base.get(key), patch[key]) if key in patch else base[key] for key in base | patch}
    if isinstance(base, list) and isinstance(patch, list):
        by_name = {entry["name"]: entry for entry in base}
        for entry in patch:
            by_name[entry["name"]] = merged(by_name.get(entry["name"]), entry)
        return list(by_name.values())
    return patch


def test_the_patched_deployment_fits_the_schema() -> None:
    """With the GPU that the patch asks for."""
    (base,), (patch,) = (
        documents(KUBERNETES / "deployment.yaml"),
        documents(DEPLOY / "kubernetes-cuda" / "gpu.yaml"),
    )
    assert patch["metadata"]["name"] == base["metadata"]["name"]
    patched = merged(base, patch)
    validate(patched)
    (container,) = patched["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].startswith("ventral-server")


def test_kustomizations_name_files_that_are_there() -> None:
    """All of them, and no file is forgotten."""
    for path in DEPLOY.rglob("kustomization.yaml"):
        (kustomization,) = documents(path)
        named = [*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))]
        named += [file for entry in kustomization.get("configMapGenerator", []) for file in entry["files"]]
        for name in named:
            assert (path.parent / name).exists(), f"{path}: {name}"
        there = {file.name for file in path.parent.iterdir()} - {path.name}
        assert there <= set(named), path


def test_the_service_finds_the_pods_and_their_ports() -> None:
    """Labels and names of ports agree."""
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for service in documents(KUBERNETES / "service.yaml"):
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_configuration_is_one_and_leaves_time_to_drain(tmp_path: Path) -> None:
    """The program itself reads it."""
    token = programs.run("server", "token", "new", "--name", "lab").splitlines()[-1]
    (tmp_path / "tokens.toml").write_text(token)
    text = (KUBERNETES / "ventral.toml").read_text()
    assert "/etc/ventral/tokens/tokens.toml" in text
    config = tmp_path / "ventral.toml"
    config.write_text(text.replace("/etc/ventral/tokens/tokens.toml", str(tmp_path / "tokens.toml")))
    shown = programs.run("server", "check-config", config)
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    drain = sum(
        int(re.search(rf'^{name} = "(\d+)s"', shown, re.MULTILINE)[1]) for name in ("delay", "timeout")
    )
    assert pod["terminationGracePeriodSeconds"] > drain
    ports = {port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {int(port) for port in re.findall(r'^(?:http|grpc) = ".*:(\d+)"', shown, re.MULTILINE)}


@pytest.mark.parametrize("name", ["serving-runtime", "inference-service"])
def test_resources_for_kserve_fit_their_definitions(name: str) -> None:
    """And one with a slip doesn't."""
    (resource,) = documents(DEPLOY / "kserve" / f"{name}.yaml")
    definition = KSERVE[resource["kind"]]
    jsonschema.validate(resource["spec"], definition)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**resource["spec"], "protocolVersion": "v2"}, definition)


def test_the_runtime_for_kserve_is_a_pod_with_options_that_the_server_has() -> None:
    """KServe's fields, a pod's containers, the program's flags."""
    (runtime,) = documents(DEPLOY / "kserve" / "serving-runtime.yaml")
    spec = runtime["spec"]
    validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "runtime"},
            "spec": {"containers": spec["containers"]},
        }
    )
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"
    shown = programs.run("server", "check-config", *container["args"])
    assert 'models = "/mnt/models"' in shown
    (service,) = documents(DEPLOY / "kserve" / "inference-service.yaml")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in spec["protocolVersions"]
    formats = [(entry["name"], entry["version"]) for entry in spec["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.cuda"])
def test_containers_are_made_of_the_versions_that_are_tested(name: str) -> None:
    """Rust's and ONNX Runtime's; and the variables are options."""
    text = (DEPLOY / name).read_text()
    rust = re.search(r'^rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert f"FROM rust:{rust}-" in text
    stamp = (ROOT / "xtask" / "src" / "setup" / "stamp.rs").read_text()
    library = re.search(r'ONNXRUNTIME_VERSION: &str = "(.+)"', stamp)[1]
    assert f"ONNXRUNTIME_VERSION={library}\n" in text
    variables = dict(re.findall(r"(VENTRAL_\w+)=(\S+)", text))
    assert variables.keys() >= {"VENTRAL_MODELS", "VENTRAL_HTTP", "VENTRAL_GRPC"}
    command = [programs.folder() / "server", "check-config"]
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    for variable in variables:
        assert f"environment {variable}\n" in finished.stdout
