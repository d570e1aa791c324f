"""Writes JPEGs of 500x375 pixels as an image folder: python make_photographs.py FOLDER COUNT."""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3] / "model/tests/pillow"))

from photograph import photograph


def main() -> None:
    """Writes a file each and prints the mean of their sizes in bytes."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    sizes = []
    for split, images in (("train", count), ("val", 1)):
        (folder / split / "photograph").mkdir(parents=True, exist_ok=True)
        for number in range(images):
            path = folder / split / "photograph" / f"{number:04}.jpg"
            Image.fromarray(photograph(375, 500, number)).save(path, quality=85)
            sizes.append(path.stat().st_size)
    print(sum(sizes) // len(sizes))


if __name__ == "__main__":
    main()
