"""An experiment without an animal: photographs, and a population of Gabor neurons with noise that has seen them.

The assemblies have the form of Brain-Score's own: presentations (stimuli and repetitions) by neuroids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import skimage.data
from brainscore_core.supported_data_standards.brainio.assemblies import BehavioralAssembly, NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from brainscore_vision.model_interface import BrainModel

#: What scikit-image's wheel holds, so that nothing is downloaded, and the class that a crop of it is said to show.
PHOTOGRAPHS = {
    "astronaut": "bear",
    "chelsea": "cat",
    "coffee": "bottle",
    "camera": "chair",
    "brick": "clock",
    "grass": "bird",
    "gravel": "car",
    "coins": "keyboard",
    "rocket": "airplane",
    "moon": "boat",
}
CROPS = 10
CROP = 96
NEURONS = 40
REPETITIONS = 8
VISUAL_DEGREES = 8

#: What Geirhos et al. let subjects choose between, and what `photographs` are of.
LABELS = sorted(set(PHOTOGRAPHS.values()))

PROBABILITIES = BrainModel.Task.probabilities
LABEL = BrainModel.Task.label


def photographs(folder: Path, identifier: str = "photographs") -> StimulusSet:
    """100 crops of photographs as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    rows, paths = [], {}
    for photograph, label in PHOTOGRAPHS.items():
        picture = PIL.Image.fromarray(getattr(skimage.data, photograph)())
        for crop in range(CROPS):
            left, upper = (int(generator.integers(0, side - CROP)) for side in picture.size)
            stimulus = f"{photograph}{crop}"
            path = folder / f"{stimulus}.png"
            picture.crop((left, upper, left + CROP, upper + CROP)).save(path)
            paths[stimulus] = path
            rows.append({"stimulus_id": stimulus, "object_name": photograph, "image_label": label})
    stimuli = StimulusSet(pd.DataFrame(rows))
    stimuli.stimulus_paths = paths
    stimuli.identifier = identifier
    return stimuli


def part(stimuli: StimulusSet, rows: slice, name: str) -> StimulusSet:
    """Some of the stimuli, under an identifier of their own, by which Brain-Score's cache knows them."""
    taken = StimulusSet(stimuli[rows].reset_index(drop=True))
    taken.stimulus_paths = stimuli.stimulus_paths
    taken.identifier = f"{stimuli.identifier}-{name}"
    return taken


@dataclass(frozen=True)
class Recording:
    """What was measured."""

    repetitions: NeuroidAssembly
    """Every presentation."""
    average: NeuroidAssembly
    """The mean over a stimulus's presentations."""


def record(stimuli: StimulusSet, noise: float = 0.5) -> Recording:
    """The rates of Gabor neurons: half of them simple cells, half complex ones, with the noise of every presentation."""
    generator = np.random.default_rng(3)
    images = np.stack(
        [
            np.asarray(PIL.Image.open(stimuli.get_stimulus(name)).convert("L").resize((64, 64)), np.float64)
            / 255
            for name in stimuli["stimulus_id"]
        ]
    )
    rates = np.stack([_rates(images, generator, simple=neuron % 2 == 0) for neuron in range(NEURONS)], axis=1)
    rates = (rates - rates.mean(axis=0)) / rates.std(axis=0)
    count = len(images)
    responses = np.concatenate(
        [rates + noise * generator.standard_normal(rates.shape) for _ in range(REPETITIONS)]
    )
    neuroids = {
        "neuroid_id": ("neuroid", np.arange(NEURONS)),
        "region": ("neuroid", ["V1"] * NEURONS),
    }
    time = {"time_bin_start": ("time_bin", [70]), "time_bin_end": ("time_bin", [170])}

    def assembly(values: np.ndarray, repetitions: int, extra: dict[str, object]) -> NeuroidAssembly:
        presentations = {
            column: ("presentation", np.tile(stimuli[column].values, repetitions))
            for column in stimuli.columns
        }
        made = NeuroidAssembly(
            values[:, :, np.newaxis],
            coords={**presentations, **extra, **neuroids, **time},
            dims=["presentation", "neuroid", "time_bin"],
        ).squeeze("time_bin")
        made.attrs["stimulus_set"] = stimuli
        made.attrs["stimulus_set_identifier"] = stimuli.identifier
        return made

    repetition = {"repetition": ("presentation", np.repeat(np.arange(REPETITIONS), count))}
    mean = responses.reshape(REPETITIONS, count, NEURONS).mean(axis=0)
    return Recording(assembly(responses, REPETITIONS, repetition), assembly(mean, 1, {}))


def choices(stimuli: StimulusSet, trials: int = 16) -> BehavioralAssembly:
    """What a subject answered in trials of a target and a distractor, each so often; some are harder than others."""
    generator = np.random.default_rng(5)
    rows = []
    for name, truth in zip(stimuli["stimulus_id"], stimuli["image_label"], strict=True):
        for distractor in [label for label in LABELS if label != truth]:
            right = generator.random(trials) < generator.uniform(0.4, 1.0)
            rows += [(name, truth, distractor, truth if each else distractor) for each in right]
    names, truths, distractors, chosen = map(list, zip(*rows, strict=True))
    coordinates = {"stimulus_id": names, "truth": truths, "sample_obj": truths, "dist_obj": distractors}
    assembly = BehavioralAssembly(
        chosen,
        coords={name: ("presentation", values) for name, values in coordinates.items()},
        dims=["presentation"],
    )
    assembly.attrs["stimulus_set"] = stimuli
    return assembly


def _rates(images: np.ndarray, generator: np.random.Generator, *, simple: bool) -> np.ndarray:
    """One neuron's rates for images `[N, 64, 64]`."""
    orientation = generator.uniform(0, np.pi)
    # Cycles in an image: coarse enough for networks that see it at 64 pixels.
    frequency = generator.uniform(1.5, 6)
    row, column = generator.uniform(0.3, 0.7, 2)
    width = generator.uniform(0.5, 1.0) / frequency
    rows, columns = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 64), indexing="ij")
    along = (columns - column) * np.cos(orientation) + (rows - row) * np.sin(orientation)
    envelope = np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * width**2))
    phase = generator.uniform(0, 2 * np.pi)
    even, odd = (
        np.einsum("nhw,hw->n", images - images.mean(axis=(1, 2), keepdims=True), envelope * wave)
        for wave in (
            np.cos(2 * np.pi * frequency * along + phase),
            np.sin(2 * np.pi * frequency * along + phase),
        )
    )
    return np.maximum(even, 0) if simple else np.sqrt(even**2 + odd**2)
