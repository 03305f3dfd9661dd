"""Scores of raw rows by a tree run, through the transform that its training rows came from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from usr_tf.baseline.run import open_tree_run
from usr_tf.data import Features
from usr_tf.data.parsing import densify
from usr_tf.schema import SCENARIO


def load_tree_scorer(directory: str | Path) -> Callable[[tf.Tensor, str], dict[str, np.ndarray]]:
    """Function of serialized `tf.Example`s `[n]` of raw features and a scenario: task → probabilities `[n]`.

    Raises:
      InputError: LightGBM is not installed, or the run is missing or broken.
    """
    run = open_tree_run(directory)
    trees, scenarios = run.load_model(), run.schema.scenarios
    output = tft.TFTransformOutput(str(run.transform))
    layer, spec = output.transform_features_layer(), output.raw_feature_spec()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def features_of(examples: tf.Tensor) -> Features:
        return densify(layer(tf.io.parse_example(examples, spec)), run.schema)

    def probabilities(examples: tf.Tensor, scenario: str) -> dict[str, np.ndarray]:
        number = np.full(len(examples), scenarios.index(scenario), np.int32)
        return trees({**features_of(examples), SCENARIO: number})

    return probabilities
