"""Makes the images of this folder, and what Pillow makes of them.

    python make_golden.py [FOLDER]

with Pillow 13.0.0, NumPy 2.4.6 and imagecodecs 2026.3.6, which writes the YCCK JPEG that Pillow can't write. NAME.png, .jpg
and so on become NAME.rgb.png and NAME.l.png by `convert("RGB")`, and by `convert("L")` of that. `resizes.json` lists
resizes and crops of photograph.png; their results lie in a row in resizes.png. preprocessed.png is photograph.jpg as ImageNet's
test images are preprocessed, at a quarter of their size.
"""

import json
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
from photograph import photograph
from PIL import Image


def png(path: Path, values: np.ndarray, colour_type: int) -> None:
    """Writes a PNG of 16 bits, which Pillow does for grey alone."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def encoded(folder: Path) -> list[Path]:
    """One file of each kind."""
    pixels = photograph(30, 41, 1)
    image = Image.fromarray(pixels)
    alpha = Image.fromarray(np.linspace(0, 255, 30 * 41).astype(np.uint8).reshape(30, 41))
    transparent = image.copy()
    transparent.putalpha(alpha)
    grey = image.convert("L")
    palette = image.quantize(32)
    wide = pixels.astype(np.uint16) * 256 + photograph(30, 41, 2)
    turned = Image.Exif()
    turned[0x0112] = 6

    def save(name: str, image: Image.Image, **options: object) -> None:
        image.save(folder / name, **options)

    save("jpeg-420.jpg", image, quality=90, subsampling="4:2:0")
    save("jpeg-422.jpg", image, quality=90, subsampling="4:2:2")
    save("jpeg-444.jpg", image, quality=95, subsampling="4:4:4")
    save("jpeg-progressive.jpg", image, quality=90, progressive=True)
    save("jpeg-grey.jpg", grey, quality=90)
    save("jpeg-exif.jpg", image, quality=90, exif=turned)
    save("jpeg-cmyk.jpg", image.convert("CMYK"), quality=95)
    cmyk = 255 - np.asarray(image.convert("CMYK"))
    cmyk[..., 3] = 255 - np.asarray(grey) // 4
    ycck = imagecodecs.jpeg8_encode(np.ascontiguousarray(cmyk), 95, colorspace="CMYK", outcolorspace="YCCK")
    (folder / "jpeg-ycck.jpg").write_bytes(ycck)
    save("png-rgb.png", image)
    save("png-alpha.png", transparent)
    save("png-palette.png", palette)
    save("png-palette-transparent.png", palette, transparency=3)
    save("png-grey.png", grey)
    save("png-grey-alpha.png", transparent.convert("LA"))
    save("png-1bit.png", grey.convert("1"))
    save("png-grey-4bit.png", grey.quantize(16), bits=4)
    save("png-grey-16bit.png", Image.fromarray(wide[..., 0] // 97))
    png(folder / "png-rgb-16bit.png", wide, 2)
    png(folder / "png-grey-alpha-16bit.png", wide[..., :2], 4)
    save("webp-lossless-alpha.webp", transparent, lossless=True)
    save("bmp.bmp", image)
    save("tiff.tif", image, compression="tiff_lzw")
    return sorted(
        path for path in folder.iterdir() if path.suffix in {".jpg", ".png", ".webp", ".bmp", ".tif"}
    )


def resizes(folder: Path) -> None:
    """Resizes and crops, as torchvision's functions hand them to Pillow."""
    image = Image.fromarray(photograph(90, 120, 3))
    image.save(folder / "photograph.png")
    # Left, top, width, height of the part; width, height of the result.
    cases = [
        [0, 0, 120, 90, 40, 30],
        [0, 0, 120, 90, 85, 64],
        [0, 0, 120, 90, 64, 64],
        [0, 0, 120, 90, 119, 89],
        [0, 0, 120, 90, 128, 96],
        [17, 5, 71, 80, 64, 64],
        [60, 30, 20, 17, 64, 64],
        [3, 2, 101, 33, 48, 48],
        [119, 89, 1, 1, 8, 8],
    ]
    results = []
    for left, top, width, height, *size in cases:
        part = image.crop((left, top, left + width, top + height))
        results.append(part.resize(tuple(size), Image.Resampling.BILINEAR))
    row = Image.new(
        "RGB", (sum(result.width for result in results), max(result.height for result in results))
    )
    place = 0
    for result in results:
        row.paste(result, (place, 0))
        place += result.width
    row.save(folder / "resizes.png", optimize=True)
    (folder / "resizes.json").write_text(json.dumps(cases) + "\n")


def preprocessed(folder: Path) -> None:
    """A JPEG, and torchvision's Resize(64) and CenterCrop(56) of it."""
    Image.fromarray(photograph(180, 240, 4)).save(folder / "photograph.jpg", quality=90)
    image = Image.open(folder / "photograph.jpg").convert("RGB").resize((85, 64), Image.Resampling.BILINEAR)
    image.crop((14, 4, 70, 60)).save(folder / "preprocessed.png", optimize=True)


def main() -> None:
    """Writes everything anew."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for old in folder.iterdir():
        if old.suffix in {".jpg", ".png", ".webp", ".bmp", ".tif", ".json"}:
            old.unlink()
    for path in encoded(folder):
        image = Image.open(path).convert("RGB")
        image.save(path.with_suffix(".rgb.png"), optimize=True)
        image.convert("L").save(path.with_suffix(".l.png"), optimize=True)
    resizes(folder)
    preprocessed(folder)


if __name__ == "__main__":
    main()
