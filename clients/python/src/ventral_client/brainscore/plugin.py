"""Plugins: folders in which Brain-Score finds models by their names. It looks for the name in the text of `__init__.py`."""

from __future__ import annotations

import os
import pprint
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..connection import Tls
from ..errors import InvalidRequest
from ..options import DataType
from .activations import TOKEN_VARIABLE, USUAL_BATCH, USUAL_TYPE

_INIT = '''"""{identifier}: a model on a Ventral server."""

from brainscore_vision import model_registry

from .model import get_model

model_registry["{identifier}"] = get_model
'''

_MODEL = '''"""{identifier}, at {address}; a token, if the server wants one, is in the variable {variable} of the environment."""

from ventral_client.brainscore import commitment


def get_model():
    return commitment(
{arguments}
    )
'''

_TEST = '''"""The server answers, and has the layers that the plugin names."""

from brainscore_vision import load_model


def test_the_model_is_there():
    model = load_model("{identifier}")
    assert model.identifier.startswith("{identifier}-")
'''

_SETUP = """from setuptools import setup

setup(
    name="brainscore-model-{identifier}",
    version="1",
    packages=[],
    install_requires=["ventral-client"],
)
"""


def write_plugin(
    folder: str | os.PathLike[str],
    address: str,
    model: str,
    *,
    identifier: str | None = None,
    version: str = "",
    layers: Sequence[str] | None = None,
    region_layer_map: Mapping[str, str | Sequence[str]] | None = None,
    behavioral_readout_layer: str | None = None,
    visual_degrees: float = 8,
    imagenet_classes: bool = False,
    tls: bool | str | os.PathLike[str] | None = None,
    data_type: DataType = USUAL_TYPE,
    batch_size: int = USUAL_BATCH,
    in_flight: int | None = None,
    pca_images: Sequence[str | os.PathLike[str]] | None = None,
    pca_components: int = 1000,
) -> Path:
    """Writes a plugin: `__init__.py`, `model.py`, `test.py` and `setup.py`. The server isn't asked.

    A token isn't written: plugins are published. `VENTRAL_TOKEN` has it where the plugin is used.

    Args:
        folder: The plugin's own, `brainscore_vision/models/NAME`; new or empty.
        address: As for `commitment`, and so are the others.
        model: The model's name on the server.
        identifier: What Brain-Score calls the model; the model's name unless given.
        version: The newest unless named.
        layers: See `commitment`.
        region_layer_map: See `commitment`.
        behavioral_readout_layer: See `commitment`.
        visual_degrees: See `commitment`.
        imagenet_classes: See `remote_activations_model`.
        tls: True, or the PEM file of an authority, which has to be where the plugin is used; keys aren't written.
        data_type: See `remote_activations_model`.
        batch_size: See `remote_activations_model`.
        in_flight: See `remote_activations_model`.
        pca_images: See `commitment`; the files have to be where the plugin is used.
        pca_components: See `commitment`.

    Raises:
        InvalidRequest: Where there is something in the folder, or the identifier can't be one.
    """
    identifier = identifier or model
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", identifier):
        raise InvalidRequest(
            f"identifier={identifier!r}: Brain-Score's identifiers are letters, digits, `.`, `_` and `-`"
        )
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequest(f"{folder} is there and not empty: name a new folder, or remove that")
    if isinstance(tls, Tls):
        raise InvalidRequest(
            "a plugin isn't the place for a key: pass the authority's file as tls=…, and write the rest into model.py"
        )
    # An argument with what leaves it out.
    arguments: dict[str, tuple[object, object]] = {
        "identifier": (identifier, None),
        "version": (version, ""),
        "tls": (tls if isinstance(tls, bool) or tls is None else str(Path(tls).absolute()), None),
        "layers": (None if layers is None else list(layers), None),
        "region_layer_map": (None if region_layer_map is None else dict(region_layer_map), None),
        "behavioral_readout_layer": (behavioral_readout_layer, None),
        "visual_degrees": (visual_degrees, None),
        "imagenet_classes": (imagenet_classes, False),
        "data_type": (data_type, USUAL_TYPE),
        "batch_size": (batch_size, USUAL_BATCH),
        "in_flight": (in_flight, None),
        "pca_images": (
            None if pca_images is None else [str(Path(path).absolute()) for path in pca_images],
            None,
        ),
        "pca_components": (pca_components, 1000),
    }
    lines = [f"{address!r},", f"{model!r},"]
    lines += [
        f"{name}={pprint.pformat(value, width=100, sort_dicts=False)},"
        for name, (value, usual) in arguments.items()
        if value != usual
    ]
    indented = "\n".join("        " + line.replace("\n", "\n        ") for line in lines)
    files = {
        "__init__.py": _INIT.format(identifier=identifier),
        "model.py": _MODEL.format(
            identifier=identifier, address=address, variable=TOKEN_VARIABLE, arguments=indented
        ),
        "test.py": _TEST.format(identifier=identifier),
        "setup.py": _SETUP.format(identifier=identifier),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
