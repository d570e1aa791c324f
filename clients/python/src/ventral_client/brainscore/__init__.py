"""Brain-Score on a model that lives on a server: what `brainscore_vision` takes in the place of a `PytorchWrapper`.

`brainscore_vision` is imported when one of these is called, not before.
"""

from .activations import RemoteActivationsModel, remote_activations_model
from .commitments import commitment, score
from .plugin import write_plugin

__all__ = [
    "RemoteActivationsModel",
    "commitment",
    "remote_activations_model",
    "score",
    "write_plugin",
]
