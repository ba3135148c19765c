# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Work for numpy as it comes with the distribution; nothing in it knows of a device.

    numpy_work.py WORK SIZE RESULT [OTHER | --prove]

does the work, writes the result to the file RESULT (- for none) and prints a line of JSON: the seconds
that it took, until the result has been read. With OTHER, the result of another run of the same work, the
line also has the largest difference relative to the largest number, and what rounding may make of it.
With --prove the same comes from multiplying a product by a random vector: no second product is needed.
"""

import json
import sys
import time

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CHANNELS, KERNEL, FILTERS = 8, 5, 16


def numbers(*shape, dtype=np.float64):
    """The same in every run, from 0 to 1."""
    return np.random.default_rng(1).random(shape, dtype=dtype)


def product(n):
    a, b = numbers(2, n, n)
    return lambda: a @ b


def special(n):
    a, b = numbers(2, n, n)
    a[3, 5], a[7, 1], b[2, n - 1] = np.nan, np.inf, -np.inf
    return lambda: a @ b


def solve(n):
    # The diagonal is larger than the rest of its row: the condition is about 3.
    a, b = numbers(n, n) + n * np.eye(n), numbers(n, 16)
    return lambda: np.linalg.solve(a, b)


def svd(n):
    a = numbers(n, n)

    def work():
        u, s, vt = np.linalg.svd(a)
        # Vectors are unique up to their sign only; what they make is A.
        return np.vstack([s, (u * s) @ vt])

    return work


def convolution(n):
    """Of an image of n² pixels with filters, as a product of patches and filters."""
    image = numbers(n, n, CHANNELS, dtype=np.float32)
    filters = numbers(KERNEL * KERNEL * CHANNELS, FILTERS, dtype=np.float32)

    def work():
        patches = sliding_window_view(image, (KERNEL, KERNEL), axis=(0, 1))
        return patches.reshape(-1, filters.shape[0]) @ filters

    return work


def rounding(depth, dtype):
    """Of two sums of so many products, added in any order: 2·γ, relative to the sum of magnitudes, which
    is the result itself where all numbers are positive."""
    eps = np.finfo(dtype).eps / 2
    return 2 * depth * eps / (1 - depth * eps)


# What two ways of doing the work may differ by, relative to the largest number.
TOLERANCES = {
    product: lambda n: rounding(n, np.float64),
    special: lambda n: rounding(n, np.float64),
    # Backward stable: condition · 3nu · growth for each, and no pivot grows here.
    solve: lambda n: 2 * 3 * 3 * rounding(n, np.float64),
    # Weyl: singular values move by the backward error, a small multiple of nu·σ₁; the product adds nu.
    svd: lambda n: 8 * rounding(n, np.float64),
    convolution: lambda n: rounding(KERNEL * KERNEL * CHANNELS, np.float32),
}


def difference(ours, others):
    """The largest, relative to the largest number; infinite if NaN or infinity is elsewhere."""
    finite = np.isfinite(others)
    if not np.array_equal(ours[~finite], others[~finite], equal_nan=True):
        return float("inf")
    return float(np.max(np.abs(ours[finite] - others[finite])) / np.max(np.abs(others[finite])))


def proved(a, b, c):
    """Freivalds: of a wrong C, C·x is wrong for nearly all x. Relative error, by products of vectors."""
    x = np.where(np.random.default_rng(2).random(b.shape[1]) < 0.5, -1.0, 1.0)
    scale = np.max(np.abs(a) @ (np.abs(b) @ np.abs(x)))
    return float(np.max(np.abs(c @ x - a @ (b @ x))) / scale)


def main():
    name, size, result = sys.argv[1:4]
    size = int(size)
    make = {work.__name__: work for work in TOLERANCES}[name]
    work = make(size)
    begin = time.perf_counter()
    ours = work()
    ours.sum()
    line = {"seconds": time.perf_counter() - begin}
    if len(sys.argv) > 4 and sys.argv[4] == "--prove":
        a, b = numbers(2, size, size)
        line |= {"difference": proved(a, b, ours), "tolerance": 2 * rounding(size, np.float64)}
    elif len(sys.argv) > 4:
        other = np.load(sys.argv[4])
        line |= {"difference": difference(other, ours), "tolerance": TOLERANCES[make](size)}
    if result != "-":
        with open(result, "wb") as file:
            np.save(file, ours)
    print(json.dumps(line))


main()
