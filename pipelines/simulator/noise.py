"""Label noise: differences between what happened and what the logs record."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.behaviour import Play


@dataclass(frozen=True)
class Record:
    """Logged labels of each impression, `[n]` each, and the true probabilities of these labels."""

    click: NDArray  # credited to the impression
    buy: NDArray  # credited to the impression, never without the click
    late: NDArray  # a purchase beyond the attribution window
    returns: NDArray  # a click outside of any list
    return_buys: NDArray  # never without that click
    p_click: NDArray
    p_buy: NDArray


def record(rng: np.random.Generator, played: Play, prompt: NDArray, label_noise: float, global_noise: float) -> Record:
    """Applies label noise to two shares of the impressions.

    Where the first noise strikes, the credited outcome (click, purchase) is that of another impression of the
    chunk's in the same scenario, drawn among those that it strikes too; where the second does, so are the
    uncredited ones (late purchase, return). So rates stay, and what is told of these impressions is chance.

    Args:
      prompt: `[K]`, share of the purchases that are made within the attribution window.
    """
    credited = [played.click, played.buy & played.prompt]
    uncredited = [played.buy & ~played.prompt, played.returns, played.return_buys]
    p_click = played.p_click
    p_buy = p_click * played.p_convert * prompt[played.scenario]
    struck_credited, struck_uncredited = rng.random((2, p_click.size)) < np.array([[label_noise], [global_noise]])
    for v in range(prompt.size):
        of = played.scenario == v
        _exchange(rng, credited, of & struck_credited)
        _exchange(rng, uncredited, of & struck_uncredited)
        if label_noise and of.any():
            p_click, p_buy = (
                np.where(of, (1 - label_noise) * p + label_noise * p[of].mean(), p) for p in (p_click, p_buy)
            )
    return Record(*credited, *uncredited, p_click, p_buy)


def _exchange(rng: np.random.Generator, columns: list[NDArray], rows: NDArray) -> None:
    """Permutes the values of these rows, with the same permutation in all columns."""
    places = np.flatnonzero(rows)
    other = rng.permutation(places)
    for index, column in enumerate(columns):
        columns[index] = column.copy()
        columns[index][places] = column[other]
