"""Images with the statistics of photographs, for tests and benchmarks."""

import numpy as np


def photograph(height: int, width: int, seed: int) -> np.ndarray:
    """Something like a photograph: noise that falls with frequency, edges, a gradient, colour."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    planes = []
    for _ in range(3):
        spectrum = np.fft.fft2(random.standard_normal((height, width))) / (frequency + 0.02)
        plane = np.fft.ifft2(spectrum).real
        planes.append(plane / plane.std())
    own = np.stack(planes, -1)
    image = 120 + 45 * own[..., :1] + 18 * own
    rows, columns = np.mgrid[:height, :width]
    for _ in range(6):
        angle, offset = random.uniform(0, 2 * np.pi), random.uniform(0.2, 0.8)
        side = np.cos(angle) * (columns / width - offset) + np.sin(angle) * (rows / height - offset) > 0
        image += side[..., None] * random.uniform(-40, 40, 3)
    return np.clip(image, 0, 255).astype(np.uint8)
