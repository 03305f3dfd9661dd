"""A trained tree model: probabilities of each task for batches of parsed rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from usr_tf.baseline.calibration import Platt
from usr_tf.baseline.features import Table
from usr_tf.schema import SCENARIO, Schema

RELEVANCE = "relevance"
"""What the one model of LambdaMART scores: 0 for no action, and one more for each task that was fulfilled."""


class TreeModel:
    """Boosters with the table that they read.

    Args:
      boosters: task → LightGBM's model, or `RELEVANCE` → the one of LambdaMART.
      calibration: scenario → task → Platt scaling of the one model's scores; None where boosters answer probabilities.
    """

    def __init__(
        self,
        schema: Schema,
        table: Table,
        boosters: Mapping[str, Any],
        calibration: Mapping[str, Mapping[str, Platt]] | None = None,
    ):
        self.schema, self.table, self.boosters, self.calibration = schema, table, boosters, calibration

    def __call__(self, features: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Task → probabilities, float32 `[B]`, of rows as `Data.evaluation` parses them."""
        arrays = {name: np.asarray(values) for name, values in features.items()}
        matrix, scenario = self.table.matrix(arrays), arrays[SCENARIO]
        if self.calibration is None:
            return {task: booster.predict(matrix).astype(np.float32) for task, booster in self.boosters.items()}
        scores = self.boosters[RELEVANCE].predict(matrix)
        answers = {task: np.zeros(len(scores), np.float32) for task in self.schema.task_names}
        for number, name in enumerate(self.schema.scenarios):
            for task, answer in answers.items():
                answer[scenario == number] = self.calibration[name][task](scores[scenario == number])
        return answers
