"""`Resize` as what it is: a gather (nearest) or a product with a constant, very sparse matrix, axis by axis."""

from typing import Any

import numpy as np


def resize_weights(size: int, target: int, scale: float, attrs: dict[str, Any]) -> np.ndarray:
    """The matrix ``[target, size]`` that resizes one axis (ONNX operators, "Resize").

    >>> resize_weights(2, 4, 2.0, {"mode": "linear"})[1]
    array([0.75, 0.25])
    """
    mode = attrs.get("mode", "nearest")
    x = _source_positions(size, target, scale, attrs.get("coordinate_transformation_mode", "half_pixel"))
    if mode == "nearest":
        taps = _nearest(x, attrs.get("nearest_mode", "round_prefer_floor"))[:, None]
        weights = np.ones(taps.shape)
    else:
        taps, weights = _taps(x, mode, min(scale, 1.0) if attrs.get("antialias", 0) else 1.0, attrs)
    inside = (taps >= 0) & (taps < size)
    if attrs.get("exclude_outside", 0):
        weights = weights * inside
        weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((target, size))
    np.add.at(matrix, (np.arange(target)[:, None], taps.clip(0, size - 1)), weights)
    return matrix


def _source_positions(size: int, target: int, scale: float | np.float32, mode: str) -> np.ndarray:
    """Where each output sample lies on the input axis, in float32 as other runtimes have it, which decides ties."""
    x, scale = np.arange(target, dtype=np.float32), np.float32(scale)
    match mode:
        case "asymmetric":
            return x / scale
        case "half_pixel":
            return (x + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            offset = size / 2 * (1 - target / (scale * size))
            return offset + (x + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if scale * size > 1 else x * 0
        case "align_corners":
            return x * (size - 1) / (scale * size - 1) if scale * size > 1 else x * 0
        case "tf_half_pixel_for_nn":
            return (x + 0.5) / scale
    raise ValueError(f"coordinate_transformation_mode {mode!r}")


def _nearest(x: np.ndarray, mode: str) -> np.ndarray:
    match mode:
        case "round_prefer_floor":
            rounded = np.ceil(x - 0.5)
        case "round_prefer_ceil":
            rounded = np.floor(x + 0.5)
        case "floor":
            rounded = np.floor(x)
        case "ceil":
            rounded = np.ceil(x)
        case _:
            raise ValueError(f"nearest_mode {mode!r}")
    return rounded.astype(np.int64)


def _taps(x: np.ndarray, mode: str, stretch: float, attrs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Input positions and weights per output sample; ``stretch`` below 1 widens the filter against aliasing."""
    reach = int(np.ceil((1 if mode == "linear" else 2) / stretch))
    taps = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(taps - x[:, None]) * stretch
    if mode == "linear":
        weights = np.maximum(0, 1 - distance)
    elif mode == "cubic":
        a = attrs.get("cubic_coeff_a", -0.75)
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    else:
        raise ValueError(f"mode {mode!r}")
    return taps, weights / weights.sum(1, keepdims=True)
