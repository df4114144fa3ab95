"""Finds which frames of two voices belong together, where both say the same text at almost the same pace.

Letters in shape comments: A, B frames of the one and of the other, M mel bands, P pairs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIDTH = 10  # bands that are averaged before frames are compared: formants are left, the pitch is gone
MOST_FRAMES_APART = 10  # from where the other voice would be if it were only slower or faster throughout
LEAST_SPREAD = 0.3  # of a band; in log-mel


def aligned(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames of stacked mel [A, 2M] and [B, 2M] that belong together, [P, 2M] each."""
    distances = torch.cdist(_outline(one), _outline(other)).double().numpy()
    pairs = torch.tensor(cheapest_path(distances))
    return one[pairs[:, 0]], other[pairs[:, 1]]


def _outline(frames: Tensor) -> Tensor:
    """Return coarse bands of the frames, [A, 2M / WIDTH], their mean and spread taken away: who speaks hardly shows."""
    bands = frames.unflatten(1, (-1, WIDTH)).mean(2)
    return (bands - bands.mean(0)) / bands.std(0).clamp(min=LEAST_SPREAD)


def cheapest_path(distances: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the pairs of a path from the first to the last corner of distances [A, B], never stepping back."""
    rows, columns = distances.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0
    for row in range(rows):
        middle = row * columns // rows
        for column in range(max(0, middle - MOST_FRAMES_APART), min(columns, middle + MOST_FRAMES_APART + 1)):
            before = min(cost[row, column], cost[row, column + 1], cost[row + 1, column])
            cost[row + 1, column + 1] = distances[row, column] + before
    path = []
    row, column = rows, columns
    while row > 0 and column > 0:
        path.append((row - 1, column - 1))
        steps = ((row - 1, column - 1), (row - 1, column), (row, column - 1))
        row, column = min(steps, key=lambda place: cost[place])
    return path[::-1]
