"""Brain-Score's own package, which is large and there only for some versions of Python."""

from __future__ import annotations

import importlib
from typing import Any, Literal, TypeAlias

from ..errors import VentralError

# Brain-Score's objects, which have no types: these names say what is meant.
Assembly: TypeAlias = Any
Benchmark: TypeAlias = Any
Module: TypeAlias = Any
ModelCommitment: TypeAlias = Any
Score: TypeAlias = Any
StimulusSet: TypeAlias = Any

#: What Brain-Score's result cache knows stimuli by; None: the stimulus set's own; False: nothing is cached.
StimuliIdentifier: TypeAlias = str | Literal[False] | None


class NoBrainScore(VentralError, ImportError):
    """`brainscore_vision` can't be imported."""


def brainscore(module: str = "") -> Module:
    """A module of `brainscore_vision`, by its name inside the package.

    Raises:
        NoBrainScore: Where it can't be imported.
    """
    name = f"brainscore_vision.{module}" if module else "brainscore_vision"
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NoBrainScore(
            f"Brain-Score can't be imported ({error}): pip install 'ventral-client[brainscore]', with Python 3.11, for "
            "which it is made"
        ) from error
