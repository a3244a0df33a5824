"""What each pattern keeps, as its paper describes it, written out with loops and sharing nothing with sparsec.

Every function takes matrices of scores (NumPy arrays [outputs, inputs]) and returns boolean matrices, true where a
weight stays. Where scores tie, what comes first stays.
"""

import math
from collections import Counter

import numpy as np

Cell = tuple[int, int, int]
"""Matrix, row, column."""


def all_true(matrices):
    return [np.ones(m.shape, bool) for m in matrices]


def all_false(matrices):
    return [np.zeros(m.shape, bool) for m in matrices]


def total(matrices):
    return sum(m.shape[0] * m.shape[1] for m in matrices)


def drop(matrices, units, budget):
    """Drop units (a score and its cells) from the lowest score on while all that is dropped fits the budget."""
    masks = all_true(matrices)
    ranked = sorted(range(len(units)), key=lambda index: (units[index][0], -index))
    used = 0
    for index in ranked:
        cells = units[index][1]
        if used + len(cells) > budget:
            break
        used += len(cells)
        for t, i, k in cells:
            masks[t][i, k] = False
    return masks


def rms(matrices, cells):
    return math.sqrt(sum(matrices[t][i, k] ** 2 for t, i, k in cells) / len(cells))


def cells_of_block(t, matrix, i0, k0, r, c):
    rows = range(i0, min(i0 + r, matrix.shape[0]))
    columns = range(k0, min(k0 + c, matrix.shape[1]))
    return [(t, i, k) for i in rows for k in columns]


def block_units(matrices, r, c):
    units = []
    for t, matrix in enumerate(matrices):
        for i0 in range(0, matrix.shape[0], r):
            for k0 in range(0, matrix.shape[1], c):
                cells = cells_of_block(t, matrix, i0, k0, r, c)
                units.append((rms(matrices, cells), cells))
    return units


def unstructured(matrices, sparsity):
    return drop(matrices, block_units(matrices, 1, 1), round(sparsity * total(matrices)))


def block(matrices, sparsity, r, c):
    return drop(matrices, block_units(matrices, r, c), round(sparsity * total(matrices)))


def channels(matrices, sparsity):
    units = []
    for t, matrix in enumerate(matrices):
        for i in range(matrix.shape[0]):
            cells = [(t, i, k) for k in range(matrix.shape[1])]
            units.append((rms(matrices, cells), cells))
    return drop(matrices, units, round(sparsity * total(matrices)))


def n_of_m(matrices, n, m):
    masks = all_false(matrices)
    for matrix, mask in zip(matrices, masks, strict=True):
        for i in range(matrix.shape[0]):
            for k0 in range(0, matrix.shape[1], m):
                group = range(k0, min(k0 + m, matrix.shape[1]))
                for k in sorted(group, key=lambda k: (-matrix[i, k], k))[:n]:
                    mask[i, k] = True
    return masks


def vnm(matrices, v, n, m, columns):
    masks = all_false(matrices)
    for matrix, mask in zip(matrices, masks, strict=True):
        for i0 in range(0, matrix.shape[0], v):
            rows = range(i0, min(i0 + v, matrix.shape[0]))
            for k0 in range(0, matrix.shape[1], m):
                group = range(k0, min(k0 + m, matrix.shape[1]))
                norm = {k: sum(matrix[i, k] ** 2 for i in rows) for k in group}
                shared = sorted(group, key=lambda k: (-norm[k], k))[:columns]
                for i in rows:
                    for k in sorted(shared, key=lambda k: (-matrix[i, k], k))[:n]:
                        mask[i, k] = True
    return masks


def tile_wise(matrices, sparsity, width):
    """One-sided: the pieces of all matrices compete, each `width` outputs (a column tile of the paper) at one input."""
    return block(matrices, sparsity, width, 1)


def tile_wise_two_sided(matrices, sparsity, width):
    each_side = 1 - math.sqrt(1 - sparsity)
    columns = []  # of the paper: outputs
    for t, matrix in enumerate(matrices):
        for i in range(matrix.shape[0]):
            norm = math.sqrt(sum(matrix[i, k] ** 2 for k in range(matrix.shape[1])))
            columns.append((norm / matrix.shape[1], [(t, i, k) for k in range(matrix.shape[1])]))
    masks = drop(matrices, columns, round(each_side * total(matrices)))
    pieces = []
    gone = 0
    for t, matrix in enumerate(matrices):
        survivors = [i for i in range(matrix.shape[0]) if masks[t][i].all()]
        gone += (matrix.shape[0] - len(survivors)) * matrix.shape[1]
        for first in range(0, len(survivors), width):
            tile = survivors[first : first + width]
            for k in range(matrix.shape[1]):
                cells = [(t, i, k) for i in tile]
                pieces.append((rms(matrices, cells), cells))
    kept = drop(matrices, pieces, round(sparsity * total(matrices)) - gone)
    return [a & b for a, b in zip(masks, kept, strict=True)]


def tew(matrices, sparsity, width, delta):
    masks = tile_wise(matrices, min(1.0, sparsity + delta), width)
    outside = [
        (matrix[i, k], t, i, k)
        for t, matrix in enumerate(matrices)
        for i in range(matrix.shape[0])
        for k in range(matrix.shape[1])
        if not masks[t][i, k]
    ]
    kept = total(matrices) - round(sparsity * total(matrices))
    back = kept - sum(int(mask.sum()) for mask in masks)
    for _, t, i, k in sorted(outside, key=lambda cell: (-cell[0], *cell[1:]))[: max(0, back)]:
        masks[t][i, k] = True
    return masks


def tvw(matrices, sparsity, width, n, m):
    inner = n_of_m(matrices, n, m)
    units = []
    for t, matrix in enumerate(matrices):
        for i0 in range(0, matrix.shape[0], width):
            for k0 in range(0, matrix.shape[1], m):
                whole = cells_of_block(t, matrix, i0, k0, width, m)
                kept = [cell for cell in whole if inner[t][cell[1:]]]
                score = math.sqrt(sum(matrix[i, k] ** 2 for _, i, k in kept) / len(whole))
                units.append((score, kept))
    gone = total(matrices) - sum(int(mask.sum()) for mask in inner)
    kept = drop(matrices, units, round(sparsity * total(matrices)) - gone)
    return [a & b for a, b in zip(inner, kept, strict=True)]


def kernel_patterns(matrices, taps, entries, shapes, connectivity):
    """Patterns of kernels with 9 taps (or another odd number), and connectivity pruning."""
    kernels = [
        (t, i, k0) for t, m in enumerate(matrices) for i in range(m.shape[0]) for k0 in range(0, m.shape[1], taps)
    ]
    middle = taps // 2
    natural = Counter()
    nothing_left = not any(m.any() for m in matrices)
    for t, i, k0 in kernels:
        weights = [matrices[t][i, k0 + tap] for tap in range(taps)]
        if any(weights) or nothing_left:  # a kernel that is gone has no shape
            others = sorted((tap for tap in range(taps) if tap != middle), key=lambda tap: (-weights[tap], tap))
            natural[tuple(sorted([middle, *others[: entries - 1]]))] += 1
    library = sorted(natural, key=lambda shape: (-natural[shape], shape))[:shapes]
    chosen = {}
    for t, i, k0 in kernels:
        energies = [sum(matrices[t][i, k0 + tap] ** 2 for tap in shape) for shape in library]
        best = max(range(len(library)), key=lambda index: (energies[index], -index))
        chosen[t, i, k0] = library[best], energies[best]
    stay = max(1, round(len(kernels) / connectivity))
    order = sorted(range(len(kernels)), key=lambda index: (-chosen[kernels[index]][1], index))
    masks = all_false(matrices)
    for index in order[:stay]:
        t, i, k0 = kernels[index]
        for tap in chosen[t, i, k0][0]:
            masks[t][i, k0 + tap] = True
    return masks


def permuted_diagonal(matrices, p):
    masks = all_false(matrices)
    for matrix, mask in zip(matrices, masks, strict=True):
        rows, columns = matrix.shape
        for i0 in range(0, rows, p):
            for k0 in range(0, columns, p):
                diagonals = []
                for shift in range(p):
                    cells = [(i0 + r, k0 + (r + shift) % p) for r in range(p)]
                    diagonals.append([(i, k) for i, k in cells if i < rows and k < columns])
                energies = [sum(matrix[cell] ** 2 for cell in cells) for cells in diagonals]
                for cell in diagonals[energies.index(max(energies))]:
                    mask[cell] = True
    return masks


def column_combining(matrices, sparsity, group):
    masks = all_false(matrices)
    for matrix, mask in zip(matrices, masks, strict=True):
        rows, columns = matrix.shape
        groups = [[] for _ in range(math.ceil(columns / group))]
        norms = [sum(matrix[i, k] ** 2 for i in range(rows)) for k in range(columns)]
        for k in sorted(range(columns), key=lambda k: (-norms[k], k)):
            losses = []
            for index, members in enumerate(groups):
                if len(members) < group:
                    best = [max((matrix[i, other] for other in members), default=0.0) for i in range(rows)]
                    losses.append((sum(min(best[i], matrix[i, k]) ** 2 for i in range(rows)), index))
            groups[min(losses)[1]].append(k)
        for members in groups:
            for i in range(rows):
                mask[i, min(members, key=lambda k: (-matrix[i, k], k))] = True
    cells = [(t, i, k) for t, mask in enumerate(masks) for i, k in np.argwhere(mask)]
    gone = total(matrices) - len(cells)
    units = [(matrices[t][i, k], [(t, i, k)]) for t, i, k in cells]
    kept = drop(matrices, units, round(sparsity * total(matrices)) - gone)
    return [a & b for a, b in zip(masks, kept, strict=True)]
