"""Draws this folder's part of Fashion-MNIST from the full set.

Usage: python3 draw_subset.py FULL_SET OUTPUT

FULL_SET is a folder with the four files of Fashion-MNIST in IDX format, compressed with gzip (Debian's package
dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist). Of every class the first 1,000 training and the
first 200 test images are taken and kept in the order of the full set. The same input always gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

IMAGES_PER_CLASS = {"train": 1_000, "t10k": 200}
CLASSES = 10


def read_idx(path: Path, dimensions: int) -> tuple[tuple[int, ...], bytes]:
    """Returns shape and bytes of a gzip-compressed IDX file."""
    content = gzip.decompress(path.read_bytes())
    start = 4 + 4 * dimensions
    magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:start])
    if magic != 0x0800 | dimensions:
        raise SystemExit(f"{path} is no IDX file of bytes in {dimensions} dimensions")
    return tuple(shape), content[start:]


def write_idx(path: Path, shape: tuple[int, ...], values: bytes) -> None:
    """Writes a gzip-compressed IDX file without a time stamp."""
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 | len(shape), *shape)
    path.write_bytes(gzip.compress(header + values, compresslevel=9, mtime=0))


def first_of_every_class(labels: bytes, count: int) -> list[int]:
    """Indices of the first `count` images of every class, in the order of the set."""
    taken = [0] * CLASSES
    indices = []
    for index, label in enumerate(labels):
        if taken[label] < count:
            taken[label] += 1
            indices.append(index)
    return indices


def draw(full_set: Path, output: Path) -> None:
    """Writes the four files of the part to `output`."""
    for split, count in IMAGES_PER_CLASS.items():
        images_name = f"{split}-images-idx3-ubyte.gz"
        labels_name = f"{split}-labels-idx1-ubyte.gz"
        (_, height, width), pixels = read_idx(full_set / images_name, 3)
        _, labels = read_idx(full_set / labels_name, 1)
        indices = first_of_every_class(labels, count)
        size = height * width
        drawn = b"".join(pixels[index * size : (index + 1) * size] for index in indices)
        write_idx(output / images_name, (len(indices), height, width), drawn)
        write_idx(output / labels_name, (len(indices),), bytes(labels[index] for index in indices))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("full_set", type=Path, metavar="FULL_SET")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    arguments = parser.parse_args()
    draw(arguments.full_set, arguments.output)


if __name__ == "__main__":
    main()
