"""Activations of locally connected networks, from a Ventral server.

from ventral_client import Client

with Client("localhost:50051") as client:
    activations = client.activations(["boot.png"], ["layer1", "fc"])
"""

from .aio import AsyncClient
from .answers import Answer, Prediction
from .client import Client
from .connection import Tls
from .errors import (
    ClientClosed,
    ExtractionMismatch,
    InvalidRequest,
    MissingPackage,
    ModelChanged,
    NoServer,
    NotAuthorised,
    ServerFault,
    TooMuch,
    TooSlow,
    UnknownLayer,
    UnknownModel,
    UnknownProjection,
    UnreadableStimulus,
    UnwritableFile,
    VentralError,
)
from .fitting import FittedProjection, Projection
from .models import Model, ModelVersions
from .options import Options
from .retries import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ExtractionMismatch",
    "FittedProjection",
    "InvalidRequest",
    "MissingPackage",
    "Model",
    "ModelChanged",
    "ModelVersions",
    "NoServer",
    "NotAuthorised",
    "Options",
    "Prediction",
    "Projection",
    "Retries",
    "ServerFault",
    "Tls",
    "TooMuch",
    "TooSlow",
    "UnknownLayer",
    "UnknownModel",
    "UnknownProjection",
    "UnreadableStimulus",
    "UnwritableFile",
    "VentralError",
]
