"""Measures extraction through Brain-Score, from a server and in this process, for `cargo xtask bench brainscore`.

    python brainscore.py stimuli FOLDER --images 1000
    python brainscore.py extract FOLDER --address HOST:PORT [--bundle REPO/MODEL/1 --threads 2]
    python brainscore.py components FOLDER --address HOST:PORT

Every measurement is a process of its own, so that its peak of memory is its own, and prints JSON objects a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

#: How many images' bytes are counted.
COUNTED = 64

LAYERS = ["layer1", "layer2", "layer3"]

#: Pixels of a photograph's crop, about as large as benchmarks' stimuli.
CROP = 256


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["stimuli", "extract", "components"])
    parser.add_argument("folder", type=Path, help="of the stimuli")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--address", help="of the server")
    parser.add_argument("--bundle", type=Path, help="computed in this process; the server only describes it")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    # Read when Brain-Score is imported; a cache would measure itself.
    os.environ |= {"BS_INSTALL_DEPENDENCIES": "no", "RESULTCACHING_DISABLE": "1"}
    if options.what == "stimuli":
        write_stimuli(options.folder, options.images)
        return
    paths = [str(path) for path in sorted(options.folder.glob("*.png"))]
    if options.what == "extract":
        extract(paths, options)
    else:
        components(paths, options.address)


def write_stimuli(folder: Path, images: int) -> None:
    """Crops of the photographs in scikit-image's wheel."""
    import numpy as np
    import PIL.Image
    import skimage.data

    generator = np.random.default_rng(0)
    photographs = [
        PIL.Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for name in ("astronaut", "chelsea", "coffee", "rocket", "camera", "brick", "grass", "gravel")
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(images):
        picture = photographs[index % len(photographs)]
        left, upper = (int(generator.integers(0, side - CROP + 1)) for side in picture.size)
        picture.crop((left, upper, left + CROP, upper + CROP)).save(
            folder / f"{index:05}.png", compress_level=1
        )


def extract(paths: list[str], options: argparse.Namespace) -> None:
    """The whole of it: files are read, activations computed and packed into an assembly."""
    from ventral_client.brainscore import remote_activations_model

    remote = remote_activations_model(options.address)
    if options.bundle is None:
        model = remote
    else:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "brainscore"))
        from local import LocalModel

        model = LocalModel(options.bundle, remote.model, threads=options.threads)
    # Sessions are made, and kernels chosen.
    model.from_paths(paths[:2], LAYERS)
    before = time.perf_counter()
    assembly = model.from_paths(paths, LAYERS)
    report("seconds", time.perf_counter() - before)
    report("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    report("bytes", assembly.nbytes)


def components(paths: list[str], address: str) -> None:
    """How many bytes arrive of some images, whole and projected to the principal components of all of them."""
    from ventral_client.brainscore import remote_activations_model
    from ventral_client.brainscore.principal_components import COMPONENTS, with_principal_components
    from ventral_client.transfer import Transfer

    arrived = 0
    accept = Transfer.accept

    def counted(transfer: Transfer, response: object) -> object:
        nonlocal arrived
        arrived += response.ByteSize()
        return accept(transfer, response)

    Transfer.accept = counted
    remote = remote_activations_model(address)
    before = time.perf_counter()
    projected = with_principal_components(remote, LAYERS, paths, min(COMPONENTS, len(paths)))
    report("fit", time.perf_counter() - before)
    for name, model in (("whole", remote), ("projected", projected)):
        arrived = 0
        model.from_paths(paths[:COUNTED], LAYERS)
        report(name, arrived / COUNTED)


def report(name: str, value: float) -> None:
    """A line for the one who runs this."""
    print(json.dumps({"name": name, "value": value}), flush=True)


if __name__ == "__main__":
    main()
