"""`exporter verify` proves a bundle against a recording that Python has written, and says so in the bundle."""

import json
import shutil
from pathlib import Path

import onnxruntime
import programs
import pytest
from conftest import Bundle
from golden import TOLERANCE
from safetensors.numpy import save_file


@pytest.fixture
def verified(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the bundle, verified against the authors' activations."""
    repository = tmp_path / "models"
    shutil.copytree(bundle.repository, repository)
    copy = Bundle(bundle.name, repository, bundle.golden, bundle.unfolded)
    metadata = onnxruntime.InferenceSession(copy.path).get_modelmeta().custom_metadata_map
    digest = json.loads(metadata["ventral"])["checkpoint_digest"]
    recording = tmp_path / "golden.activations.safetensors"
    header = {"ventral-recording": json.dumps({"format_version": 1, "checkpoint_digest": digest})}
    save_file({"input": bundle.golden.input, **bundle.golden.layers}, recording, metadata=header)
    programs.run("exporter", "verify", copy.path.parent, "--recording", recording)
    return copy


def test_the_proof_is_in_the_metadata(verified: Bundle) -> None:
    """Every layer with its error, and as many digests as there were images."""
    metadata = {entry.key: entry.value for entry in verified.graph().metadata_props}
    manifest, proof = json.loads(metadata["ventral"]), json.loads(metadata["ventral.verification"])
    errors = {layer["name"]: layer["relative_error"] for layer in proof["layers"]}
    assert list(errors) == [layer["name"] for layer in manifest["layers"]]
    assert proof["worst_error"] == errors[proof["worst_layer"]] == max(errors.values())
    assert proof["worst_error"] <= proof["tolerance"] <= TOLERANCE
    assert len(proof["image_digests"]) == len(verified.golden.input)
    assert proof["data_digest"] == manifest["data_digest"]


def test_the_verified_bundle_still_loads(verified: Bundle) -> None:
    """The verification changes nothing but the metadata."""
    session = verified.session()
    assert [output.name for output in session.get_outputs()] == [
        output.name for output in verified.graph().graph.output
    ]
