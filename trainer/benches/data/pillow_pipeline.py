"""Decodes and augments JPEGs with Pillow and NumPy: python pillow_pipeline.py FOLDER SECONDS.

The same as the trainer's RandomResizedCrop with flips, as torchvision does it to Pillow's images. Prints images per second
of processor time.
"""

import math
import random
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 224
BATCH = 64
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def crop(width: int, height: int) -> tuple[int, int, int, int]:
    """A part of an image, as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def load(path: Path) -> np.ndarray:
    """An image as a network's input, [C, H, W]."""
    with path.open("rb") as file:
        image = Image.open(file).convert("RGB")
    image = image.crop(crop(*image.size)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = np.asarray(image, np.float32)
    values /= 255
    values -= MEAN
    values /= STD
    return values.transpose(2, 0, 1)


def main() -> None:
    """Loads batches until the time is over."""
    files = sorted(Path(sys.argv[1]).glob("train/*/*.jpg"))
    seconds, images = float(sys.argv[2]), 0
    random.seed(1)
    np.stack([load(path) for path in files[:BATCH]])
    start = time.process_time()
    while time.process_time() - start < seconds:
        batch = np.stack([load(random.choice(files)) for _ in range(BATCH)])
        images += len(batch)
    print(images / (time.process_time() - start))


if __name__ == "__main__":
    main()
