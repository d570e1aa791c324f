"""Whether logits are those that Brain-Score's `label` tasks read by position: ImageNet's 1,000 classes in their order."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InvalidRequest
from ..models import Model
from .package import brainscore

CLASSES = 1000

#: WordNet's number, as ImageNet's folders are called.
_SYNSET = re.compile(r"n\d{8}")


def check_imagenet(model: Model, layer: str, said: bool) -> None:
    """Refuses logits of other classes. `said`: whether the user says that they are those.

    Raises:
        InvalidRequest: With what they are.
    """
    shape = model.shapes[layer]
    if shape != (CLASSES,):
        raise InvalidRequest(
            f"Brain-Score's label tasks read `logits` of ImageNet's {CLASSES:,} classes, and model `{model.name}` has "
            f"`{layer}` {list(shape)}: score it on neural benchmarks, or on behavioural ones that fit a readout "
            f"(probabilities, odd-one-out); as a layer like any other its name is `{layer}`"
        )
    names = model.class_names
    if names and all(_SYNSET.fullmatch(name) for name in names):
        synsets = _synsets()
        wrong = next(
            (index for index, pair in enumerate(zip(names, synsets, strict=True)) if pair[0] != pair[1]), None
        )
        if wrong is not None:
            raise InvalidRequest(
                f"model `{model.name}` has ImageNet's classes in another order: class {wrong} is {names[wrong]}, "
                f"Brain-Score's label tasks expect {synsets[wrong]}; export it with sorted classes"
            )
    elif not said:
        raise InvalidRequest(
            f"whether the {CLASSES:,} classes of model `{model.name}` are ImageNet's in their order can't be told from "
            f"their names ({', '.join(names[:3]) or 'it has none'}, …), which would have to be synsets (n01440764, …): "
            "say so with imagenet_classes=True if they are"
        )


def _synsets() -> list[str]:
    # The list that Brain-Score itself looks choices up in.
    folder = Path(brainscore("model_helpers.brain_transformation").__file__).parent
    return (folder / "imagenet_classes.txt").read_text(encoding="utf-8").split()
