"""The meaning in NumPy of the operators that `plan_images` introduces."""

from __future__ import annotations

from math import inf

import numpy as np

from sparsec.graph.window_semantics import in_sums, max_pool2d
from sparsec.ir.image import Image


def repack(
    x: np.ndarray,
    source: Image | None,
    image: Image | None,
    strides: tuple[int, int],
    phases: tuple[int, int],
    padding: tuple[int, int],
    blank: int,
) -> np.ndarray:
    """Copy images between forms; see `sparsec.graph.plan_images`."""
    plain = x if source is None else unpad(x, source)
    if image is None:
        return plain
    (sy, sx), (top, left) = strides, padding
    batch, channels, height, width = plain.shape
    rows, columns = max(height, image.height * sy), max(width, image.width * sx)
    canvas = np.full((batch, channels, top + rows, left + columns), blank, x.dtype)
    canvas[:, :, top : top + height, left : left + width] = plain
    canvas = canvas[:, :, : image.height * sy, : image.width * sx]
    split = canvas.reshape(batch, channels, image.height, sy, image.width, sx).transpose(0, 1, 3, 5, 2, 4)
    kept = split[:, :, : phases[0], : phases[1]]
    return pad(kept.reshape(batch, channels * phases[0] * phases[1], image.height, image.width), image, blank)


def conv_padded(
    x: np.ndarray,
    weight: np.ndarray,
    image: Image,
    x_image: Image,
    x_origin: int,
    strides: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    blank: int,
    borders: int | None,
    dense_seconds: float = inf,
) -> np.ndarray:
    """Convolve padded images, with zeros around them, `borders` or not; see `sparsec.graph.plan_images`.

    `borders` are for the end of an epilogue, which in a graph are nodes of their own: so what a `blank` of integers
    stands around is put there where it is read.
    """
    if blank and image == x_image:
        x = pad(unpad(x, x_image), x_image, blank)
    x, weight = in_sums(x), in_sums(weight)
    (sy, sx), (dy, dx) = strides, dilation
    batch, planes, plane = x.shape
    rows, channels, height, width = weight.shape
    flat = np.concatenate([np.zeros(image.pitch, x.dtype), x.ravel(), np.zeros(image.plane, x.dtype)])
    pixels = np.add.outer(np.arange(image.height) * image.pitch, np.arange(image.width)).ravel()
    result = np.zeros((batch, groups, rows // groups, image.height * image.width), x.dtype)
    for r in range(height):
        for s in range(width):
            phase = r * dy % sy * sx + s * dx % sx
            first = np.arange(phase, planes, sy * sx)[None, :] + np.arange(batch)[:, None] * planes
            shift = image.pitch + x_origin + r * dy // sy * image.pitch + s * dx // sx
            taps = flat[(first * plane + shift)[:, :, None] + pixels].reshape(batch, groups, channels, -1)
            kernel = weight[:, :, r, s].reshape(groups, rows // groups, channels)
            result += np.einsum("gok,bgkm->bgom", kernel, taps)
    return pad(result.reshape(batch, rows, image.height, image.width), image)


def max_pool(
    x: np.ndarray,
    source: Image | None,
    image: Image | None,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, ...],
    ceil_mode: bool,
    borders: int | None,
) -> np.ndarray:
    """Pool images in any form; see `sparsec.graph.plan_images`."""
    pixels = max_pool2d(x if source is None else unpad(x, source), window, strides, padding, dilation, ceil_mode)
    return pixels if image is None else pad(pixels, image, borders or 0)


def winograd_input(
    x: np.ndarray,
    matrix: np.ndarray,
    step: int,
    top: int,
    rows: int,
    x_image: Image | None = None,
    image: Image | None = None,
    borders: int | None = None,
) -> np.ndarray:
    """Transform tiles of rows of each channel; see `sparsec.graph.winograd`."""
    pixels, reads = x if x_image is None else unpad(x, x_image), matrix.shape[1]
    below = max(0, (rows - 1) * step + reads - top - pixels.shape[2])
    above = np.pad(pixels, ((0, 0), (0, 0), (top, below), (0, 0)))
    tiles = np.stack([above[:, :, t * step : t * step + reads] for t in range(rows)], axis=2)
    made = np.einsum("ak,nctkx->nactx", matrix, tiles)
    made = made.reshape(len(x), -1, *made.shape[3:])
    return made if image is None else pad(made, image, borders or 0)


def winograd_output(
    x: np.ndarray, matrix: np.ndarray, step: int, rows: int, x_image: Image | None = None, image: Image | None = None
) -> np.ndarray:
    """Transform sums to tiles of rows of each channel; see `sparsec.graph.winograd`."""
    sums = x if x_image is None else unpad(x, x_image)
    split = sums.reshape(len(x), matrix.shape[1], -1, *sums.shape[2:])
    tiles = np.einsum("ia,nactx->nctix", matrix, split)
    assert tiles.shape[3] == step
    made = tiles.reshape(*tiles.shape[:2], -1, tiles.shape[-1])[:, :, :rows]
    return made if image is None else pad(made, image)


def pad(pixels: np.ndarray, image: Image, blank: int = 0) -> np.ndarray:
    """Return `[N, C, H, W]` in padded form."""
    planes = np.full((*pixels.shape[:2], image.plane), blank, pixels.dtype)
    rows = planes[..., image.origin : image.origin + image.height * image.pitch]
    rows.reshape(*pixels.shape[:3], image.pitch)[..., : image.width] = pixels
    return planes


def unpad(planes: np.ndarray, image: Image) -> np.ndarray:
    """Return padded images as `[N, C, H, W]`."""
    rows = planes[..., image.origin : image.origin + image.height * image.pitch]
    return rows.reshape(*planes.shape[:2], image.height, image.pitch)[..., : image.width].copy()
