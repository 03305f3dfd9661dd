"""Scoring of joined rows by a model inside a Beam pipeline.

Beam's `RunInference` loads the model once a process, shares it among the threads and counts time and failures. The
handler is our own, for rows come in Arrow blocks: tfx_bsl's RunInference takes one serialized example at a time and
gives each back inside a `PredictionLog`, with a signature and so a copy of the model for each scenario, and Beam's
`TFModelHandler` loads Keras models alone, through tensorflow_hub.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from apache_beam.ml.inference.base import ModelHandler

from pipelines.beam.blocks import Handle, load
from pipelines.evaluation.score_files import scored_rows
from pipelines.transform.preprocessing_fn import raw_feature_spec
from pipelines.transform.tf_examples import encode_examples
from usr_tf.metrics.predictions import refuse_improbable
from usr_tf.schema import RAW_ITEM, REQUEST, SCENARIO, Schema

_ROWS = 1024
"""Rows of one run: enough to keep the cores busy, few enough for the caches."""


Probabilities = Callable[[tf.Tensor, str], dict[str, np.ndarray]]
"""Task → probabilities `[n]` of serialized `tf.Example`s `[n]` of raw features, in a scenario."""


class RowScorer(ModelHandler[Handle, pa.RecordBatch, Probabilities]):
    """Scores blocks of joined rows, some rows of one scenario at a time.

    Args:
      model: folder of the model.
      load: gives the loaded model of a folder; called once in each process.
    """

    def __init__(self, model: str, schema: Schema, load: Callable[[str], Probabilities]):
        super().__init__(min_batch_size=1, max_batch_size=1)  # a block is a batch already
        self._model, self._schema, self._load = model, schema, load

    def load_model(self) -> Probabilities:
        return self._load(self._model)

    def run_inference(
        self, batch: Sequence[Handle], model: Probabilities, inference_args: dict | None = None
    ) -> Iterator[pa.RecordBatch]:
        for rows in map(load, batch):
            scenarios = rows.column(SCENARIO).flatten()
            for scenario in pc.unique(scenarios).to_pylist():
                places = np.flatnonzero(pc.equal(scenarios, scenario).to_numpy(zero_copy_only=False))
                for start in range(0, len(places), _ROWS):
                    part = rows.take(pa.array(places[start : start + _ROWS]))
                    yield self.score(part, model, scenario)

    def score(self, rows: pa.RecordBatch, model: Probabilities, scenario: str) -> pa.RecordBatch:
        """The scored rows (`scored_rows`) of rows of one scenario.

        Raises:
          InputError: a score is no probability.
        """
        examples = encode_examples(rows.select(raw_feature_spec(self._schema)))
        scores = model(tf.constant(examples.to_pylist()), scenario)

        def keys(row: int) -> tuple[str, str, str]:
            return tuple(rows.column(name)[row].as_py()[0] for name in (RAW_ITEM, REQUEST, SCENARIO))

        refuse_improbable(scores, keys, self._model)
        return scored_rows(rows, scores, self._schema)
