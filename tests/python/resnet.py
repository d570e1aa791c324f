"""torchvision's ResNet-18 in NumPy: random weights under its names, and what every layer computes."""

import numpy as np

#: Residual blocks of every stage.
BLOCKS = (2, 2, 2, 2)


def state_dict(width: int, classes: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights and BatchNorm statistics, with the names and shapes of torchvision's, for colour images.

    As in torchvision's ImageNet weights, no batches are counted.
    """
    tensors: dict[str, np.ndarray] = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        scale = np.sqrt(2 / (inputs * kernel * kernel))
        tensors[f"{name}.weight"] = generator.normal(0, scale, (outputs, inputs, kernel, kernel))

    def norm(name: str, channels: int) -> None:
        tensors[f"{name}.weight"] = generator.uniform(0.5, 1.5, channels)
        tensors[f"{name}.bias"] = generator.normal(0, 0.1, channels)
        tensors[f"{name}.running_mean"] = generator.normal(0, 0.1, channels)
        tensors[f"{name}.running_var"] = generator.uniform(0.5, 1.5, channels)

    convolution("conv1", 3, width, 7)
    norm("bn1", width)
    inputs = width
    for stage, count in enumerate(BLOCKS):
        outputs = width << stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            convolution(f"{name}.conv1", inputs, outputs, 3)
            norm(f"{name}.bn1", outputs)
            convolution(f"{name}.conv2", outputs, outputs, 3)
            norm(f"{name}.bn2", outputs)
            if inputs != outputs:
                convolution(f"{name}.downsample.0", inputs, outputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    tensors["fc.weight"] = generator.normal(0, np.sqrt(1 / inputs), (classes, inputs))
    tensors["fc.bias"] = generator.normal(0, 0.1, classes)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def activations(tensors: dict[str, np.ndarray], images: np.ndarray) -> dict[str, np.ndarray]:
    """Every layer's activations `[N, C, H, W]` in evaluation mode, in double precision, under the names that users know."""
    state = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    layers: dict[str, np.ndarray] = {}

    def unit(values: np.ndarray, names: tuple[str, str, str], stride: int) -> np.ndarray:
        convolution, norm, layer = names
        layers[convolution] = _convolution(values, state[f"{convolution}.weight"], stride)
        layers[layer] = _norm(layers[convolution], state, norm)
        return layers[layer]

    values = np.maximum(unit(images.astype(np.float64), ("conv1", "bn1", "bn1"), 2), 0)
    layers["relu"] = values
    values = _windows(values, 3, 2, -np.inf).max(axis=(4, 5))
    layers["maxpool"] = values
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            inner = np.maximum(unit(values, (f"{name}.conv1", f"{name}.bn1", f"{name}.bn1"), stride), 0)
            layers[f"{name}.relu1"] = inner
            outer = unit(inner, (f"{name}.conv2", f"{name}.bn2", f"{name}.bn2"), 1)
            if f"{name}.downsample.0.weight" in state:
                names = (f"{name}.downsample.0", f"{name}.downsample.1", f"{name}.downsample")
                values = unit(values, names, stride)
            values = np.maximum(outer + values, 0)
            layers[name] = values
        layers[f"layer{stage + 1}"] = values
    pooled = values.mean(axis=(2, 3))
    layers["avgpool"] = pooled[:, :, None, None]
    layers["fc"] = pooled @ state["fc.weight"].T + state["fc.bias"]
    return layers


def _windows(values: np.ndarray, kernel: int, stride: int, padding: float) -> np.ndarray:
    """What every output position sees: `[N, C, H, W, k, k]`."""
    side = (kernel - 1) // 2
    padded = np.pad(values, ((0, 0), (0, 0), (side, side), (side, side)), constant_values=padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    return windows[:, :, ::stride, ::stride]


def _convolution(values: np.ndarray, weights: np.ndarray, stride: int) -> np.ndarray:
    windows = _windows(values, weights.shape[2], stride, 0)
    return np.einsum("nchwab,ocab->nohw", windows, weights, optimize=True)


def _norm(values: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    column = {
        key: state[f"{name}.{key}"][:, None, None]
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    normalised = (values - column["running_mean"]) / np.sqrt(column["running_var"] + 1e-5)
    return normalised * column["weight"] + column["bias"]
