"""View diagnostics of a trained model on a sample of rows: gates, attention, projections."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from usr_tf.data import Data, Split
from usr_tf.data.parsing import Features
from usr_tf.data.raw_values import RawValues
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.run import Run
from usr_tf.schema import RAW_ITEM, RAW_USER, REQUEST, SCENARIO, Schema, history_column

_LEAST_HISTORY = 4
"""Actions that the history of an example of attention has at least."""


def views_document(
    run: Run, model: USRModel, data: Data, split: Split = "test", rows: int = 600, points: int = 150, examples: int = 2
) -> dict[str, Any] | None:
    """Gates, attention and projections of the views, on the first rows of a split (files are shuffled).

    Every row is looked at in every view, though a score takes its own view alone.

    Args:
      rows: how many are looked at.
      points: rows drawn, each with a point in every view.
      examples: requests of each scenario whose attention is shown: those where the views differ most, one a user.

    Returns:
      None of a split without rows. Else `name` (the end of the run's path), `rows`, `scenarios`, `contrastive` (whether
      a contrastive loss trained the views), and, each None where the model has no such part:

      - `gates`: feature → mean of its gate in each view, from 0 to 2, over rows and the feature's columns.
      - `interests`, `features`: `picture`s of the outputs of a history encoder with a trigger, such as IE, and of FG.
      - `attention`: `difference`, the mean over the rows with a history of how much of the attention lies elsewhere in
        another view (total variation, the two views that differ most); and `examples`.

    Raises:
      InputError: the views are NaN or infinite.
    """
    batch = next(iter(data.evaluation(rows, split)), None)
    if batch is None:
        return None
    features, labels, keys = batch
    schema = data.schema
    inputs, views = model.look_up(features), range(len(schema.scenarios))
    made = [model.view(inputs, view) for view in views]
    if not all(np.isfinite(part).all() for view in made for part in view if part is not None):
        raise InputError(run.directory, "views that are NaN or infinite", "weights that training left finite")
    document: dict[str, Any] = {
        "name": "/".join(run.directory.parts[-2:]),
        "rows": len(features[SCENARIO]),
        "scenarios": list(schema.scenarios),
        "contrastive": any(part.endswith("_contrastive") for part in model.parts),
        "gates": None,
        "features": None,
        "interests": None,
        "attention": None,
    }
    if model.feature_generator:
        sides = [np.concatenate(model.gates(inputs, view), axis=-1) for view in views]
        document["gates"] = _by_feature(np.stack(sides, axis=1), model)
        of_view = [np.concatenate([view.request[:, 0], view.candidate[:, 0]], axis=-1) for view in made]
        document["features"] = picture(np.stack(of_view, axis=1), points)
    if model.history_encoder and model.history_encoder.reads_trigger:
        real = inputs.mask.numpy()
        some = real.any(axis=1)
        document["interests"] = picture(np.stack([view.interest[:, 0] for view in made], axis=1)[some], points)
        attention = [model.attention(inputs, view) for view in views]
        if any(weights is None for weights in attention):
            return document
        weights = np.stack([by_head.numpy().mean(axis=1) for by_head in attention], axis=1)
        difference = _difference(weights)
        shown = _most_different(difference, real, features[SCENARIO].numpy(), keys[RAW_USER].numpy(), examples)
        raw = RawValues(schema, run.transform)
        document["attention"] = {
            "difference": float(difference[some].mean()) if some.any() else None,
            "examples": [_example(row, features, labels, keys, weights[row], real[row], schema, raw) for row in shown],
        }
    return document


def picture(vectors: np.ndarray, points: int) -> dict[str, Any] | None:
    """First two principal components of vectors `[B, K, d]` of K views; None for fewer than two rows.

    Returns:
      `points`: for each view `[points, 2]`, of the same rows; `explained`: the two components' shares of the variance;
      and of all d dimensions, None with one view: `silhouette`, how well the views stand apart, from -1 to 1
      (Rousseeuw, 1987); `cosine_of_views`, the mean over a row's views, two by two; `cosine_of_rows`, the mean over
      the rows in one view, two by two.
    """
    rows, views, width = vectors.shape
    if rows < 2 or width < 2:
        return None
    flat = vectors.reshape(-1, width)
    if not np.ptp(flat, axis=0).any():  # one point
        return None
    pca = PCA(2, svd_solver="full").fit(flat)
    places = pca.transform(flat).reshape(rows, views, 2)[:points]
    several = views > 1
    return {
        "points": places.transpose(1, 0, 2).round(4).tolist(),
        "explained": pca.explained_variance_ratio_.tolist(),
        "silhouette": float(silhouette_score(flat, np.tile(np.arange(views), rows))) if several else None,
        "cosine_of_views": _mean_cosine(vectors) if several else None,
        "cosine_of_rows": _mean_cosine(vectors.transpose(1, 0, 2)) if several else None,
    }


def _mean_cosine(vectors: np.ndarray) -> float:
    """Mean pairwise cosine within groups `[G, n, d]`: `(|Σ u|² - Σ |u|²) / n (n - 1)`."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    n = vectors.shape[1]
    pairs = (units.sum(axis=1) ** 2).sum(axis=-1) - (units**2).sum(axis=(1, 2))
    return float(pairs.mean() / (n * (n - 1)))


def _by_feature(gates: np.ndarray, model: USRModel) -> dict[str, list[float]]:
    """Mean gate per feature of gates `[B, K, columns]`."""
    columns = model.columns()
    owners = np.array(columns["request"] + columns["candidate"])
    return {name: gates[:, :, owners == name].mean(axis=(0, 2)).tolist() for name in dict.fromkeys(owners.tolist())}


def _difference(weights: np.ndarray) -> np.ndarray:
    """`[B]` total variation of attention `[B, K, L]` between the two views that differ most."""
    apart = np.abs(weights[:, :, np.newaxis] - weights[:, np.newaxis]).sum(axis=-1) / 2
    return apart.max(axis=(1, 2))


def _most_different(
    difference: np.ndarray, real: np.ndarray, scenario: np.ndarray, user: np.ndarray, examples: int
) -> list[int]:
    chosen: list[int] = []
    order = np.argsort(-difference, kind="stable")
    for wanted in np.unique(scenario):
        taken: dict[bytes, int] = {}
        for row in order:
            if scenario[row] == wanted and real[row].sum() >= _LEAST_HISTORY and len(taken) < examples:
                taken.setdefault(user[row], int(row))
        chosen += taken.values()
    return chosen


def _example(
    row: int,
    features: Features,
    labels: Mapping[str, tf.Tensor],
    keys: Features,
    weights: np.ndarray,
    real: np.ndarray,
    schema: Schema,
    raw: RawValues,
) -> dict[str, Any]:
    """One row: user, item, and its history, newest first, with each action's weight in every view."""

    def described(column: Callable[[str], str], at: Any) -> dict[str, str]:
        ids = {feature: features[column(feature)].numpy()[at] for feature in schema.history_features}
        return {feature: raw.text(feature, values) or "–" for feature, values in ids.items()}

    def of(kind: str, at: int, names: tuple[str, ...]) -> str | None:
        if history_column(kind) not in features:
            return None
        number = int(features[history_column(kind)][row, at])
        return names[number - 1] if 0 < number <= len(names) else None

    scenario = int(features[SCENARIO][row])
    return {
        "scenario": schema.scenarios[scenario],
        "request": _text(keys[REQUEST][row].numpy()),
        "user": _text(keys[RAW_USER][row].numpy()),
        "item": _text(keys[RAW_ITEM][row].numpy()),
        "labels": [task for task in schema.task_names if labels[task][row] > 0],
        "candidate": described(str, row),
        "history": [
            {
                "item": described(history_column, (row, at)),
                "action": of("action", at, schema.history.actions),
                "scenario": of("scenario", at, schema.scenarios),
                "age": int(features[history_column("age")][row, at]),
                "weights": weights[:, at].tolist(),
            }
            for at in np.flatnonzero(real)[::-1].tolist()
        ],
    }


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
