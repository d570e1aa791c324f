"""Untrained networks on the simulated V1 of Brain-Score's tests, by how they were initialised: the table in docs/brainscore.md.

    cd clients/python
    VENTRAL_PROGRAMS=../../target/debug PYTHONPATH=src:tests:tests/brainscore:../../tests/python \\
        ../../target/brainscore/bin/python benches/untrained.py --seeds 10
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

# Read when Brain-Score is imported, which the modules below do.
os.environ |= {"BS_INSTALL_DEPENDENCIES": "no", "RESULTCACHING_DISABLE": "1"}

import programs
from brainscore_vision import load_metric
from population import photographs, record
from servers import Server
from ventral_client.brainscore import remote_activations_model

#: Locally connected with a kernel a position, with one kernel copied to all of them; and convolutional.
NETWORKS = {
    "lc, random": ["--connectivity", "lc", "--initialisation", "random"],
    "lc, conv": ["--connectivity", "lc", "--initialisation", "conv"],
    "conv": ["--connectivity", "conv"],
}
LAYERS = ["relu", "layer1", "layer2"]
METRICS = ["pls", "ridge"]


def main() -> None:
    """Prints means and standard deviations over seeds, and of the differences between the first two networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(1, parser.parse_args().seeds + 1)
    with tempfile.TemporaryDirectory() as folder:
        scores = measure(Path(folder), seeds)
    for (layer, metric, network), values in scores.items():
        print(f"{layer:7} {metric:6} {network:11} {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
    for layer in LAYERS:
        for metric in METRICS:
            random, conv = (np.array(scores[layer, metric, network]) for network in list(NETWORKS)[:2])
            print(
                f"{layer:7} {metric:6} conv - random {np.mean(conv - random):+.3f} ± {np.std(conv - random, ddof=1):.3f}, "
                f"greater for {np.count_nonzero(conv > random)} of {len(seeds)}"
            )


def measure(folder: Path, seeds: range) -> dict[tuple[str, str, str], list[float]]:
    """Layer, metric and network to a correlation a seed, the median over neurons, without a ceiling."""
    stimuli = photographs(folder / "stimuli")
    recording = record(stimuli)
    models = {}
    for number, (network, options) in enumerate(NETWORKS.items()):
        for seed in seeds:
            models[network, seed] = name = f"network{number}-{seed}"
            checkpoint = folder / f"{name}.safetensors"
            shape = ["--architecture", "resnet18", "--width", "8", "--input-size", "64", "--device", "cpu"]
            programs.run("trainer", "init", "--output", checkpoint, *shape, *options, "--seed", str(seed))
            programs.run("exporter", "export", checkpoint, "--repository", folder / "models", "--model", name)
    scores = defaultdict(list)
    with Server(folder / "models") as server:
        for (network, _), name in models.items():
            model = remote_activations_model(server.address, name)
            for layer in LAYERS:
                assembly = model(stimuli, [layer])
                for metric in METRICS:
                    scores[layer, metric, network].append(
                        float(load_metric(metric)(assembly, recording.average))
                    )
    return scores


if __name__ == "__main__":
    main()
