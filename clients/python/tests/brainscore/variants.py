"""Images in every form that Pillow reads losslessly, and what Brain-Score's `load_preprocess_images` makes of them.

That function needs torchvision, which the tests do without: what it gave is in `load_preprocess_images.npz`. Run as a program
where torchvision and brainscore_vision are, this writes the file anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from skimage import data

#: Pixels of the prepared images' sides.
SIZE = 32

GOLDEN = Path(__file__).with_name("load_preprocess_images.npz")


def write(folder: Path) -> dict[str, Path]:
    """Photographs as files of different modes and sizes, by their names."""
    cat = PIL.Image.fromarray(data.chelsea())
    coffee = PIL.Image.fromarray(data.coffee())
    half = PIL.Image.linear_gradient("L").resize(cat.size)
    transparent = cat.copy()
    transparent.putalpha(half)
    images = {
        "colours": coffee,
        "of the input's size": coffee.resize((SIZE, SIZE)),
        "smaller": coffee.resize((20, 13)),
        "grey": PIL.Image.fromarray(data.camera()),
        "grey, transparent": transparent.convert("LA"),
        "transparent": transparent,
        "palette": cat.quantize(16),
    }
    paths = {}
    for number, (name, image) in enumerate(images.items()):
        paths[name] = folder / f"{number}.png"
        image.save(paths[name])
    return paths


def main() -> None:
    """Writes the golden file."""
    import tempfile

    from brainscore_vision.model_helpers.activations.pytorch import load_preprocess_images

    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder))
        prepared = {name: load_preprocess_images([path], image_size=SIZE)[0] for name, path in paths.items()}
    np.savez_compressed(GOLDEN, **prepared)


if __name__ == "__main__":
    main()
