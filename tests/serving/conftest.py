"""Toy SavedModel with the serving signatures, whose scores are computed by hand."""

import shutil
from pathlib import Path

import usr_tf.errors  # noqa: F401  (before TensorFlow, which the test modules import)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.serving.certificates import Authority

# Scores of the toy model. logit(ctr) = VOCABULARY[item_id] + price + (non-empty attributes) + (length of the history)
# + 1 in search; an unknown item is 3; ctcvr = bias · ctr. `bias` tells versions apart.
VOCABULARY = {"a": 0, "b": 1, "c": 2}
UNKNOWN_ITEM = 3

_REQUEST = {
    "user_id": tf.TensorSpec([1], tf.string),
    "query": tf.TensorSpec([1], tf.string),
    "item_id": tf.TensorSpec([None], tf.string),
    "price": tf.TensorSpec([None], tf.float32),
    "attributes": tf.TensorSpec([None, None], tf.string),
    "history_item_id": tf.TensorSpec([1, None], tf.string),
}


class ToyModel(tf.Module):
    def __init__(self, vocabulary_file: Path, bias: float):
        super().__init__()
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary_file),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.vocabulary = tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1)
        self.bias = tf.Variable(bias)

    def _outputs(self, logit: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"ctr": tf.sigmoid(logit), "ctcvr": self.bias * tf.sigmoid(logit)}

    def _score(self, base: float, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        items = tf.cast(self.vocabulary.lookup(inputs["item_id"]), tf.float32)
        attributes = tf.math.count_nonzero(tf.strings.length(inputs["attributes"]), axis=1, dtype=tf.float32)
        history = tf.cast(tf.shape(inputs["history_item_id"])[1], tf.float32)
        # `user_id` and `query` take part, so that they stay inputs of the graph.
        nothing = 0.0 * tf.cast(tf.strings.length(inputs["user_id"] + inputs["query"])[0], tf.float32)
        return self._outputs(base + items + inputs["price"] + attributes + history + nothing)

    def signatures(self) -> dict[str, object]:
        @tf.function
        def search(**inputs):
            return self._score(1.0, inputs)

        @tf.function
        def recommendation(**inputs):
            return self._score(0.0, inputs)

        @tf.function
        def search_examples(examples):
            features = {"item_id": tf.io.FixedLenFeature([], tf.string), "price": tf.io.FixedLenFeature([], tf.float32)}
            parsed = tf.io.parse_example(examples, features)
            items = tf.cast(self.vocabulary.lookup(parsed["item_id"]), tf.float32)
            return self._outputs(1.0 + items + parsed["price"])

        specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in _REQUEST.items()}
        examples = search_examples.get_concrete_function(examples=tf.TensorSpec([None], tf.string, "examples"))
        return {
            "search": search.get_concrete_function(**specs),
            "recommendation": recommendation.get_concrete_function(**specs),
            "search_examples": examples,
            "serving_default": examples,
        }


def _save(folder: Path, bias: float) -> Path:
    vocabulary = folder.parent / f"{folder.name}.txt"
    vocabulary.write_text("\n".join(VOCABULARY) + "\n")
    model = ToyModel(vocabulary, bias)
    tf.saved_model.save(model, str(folder), signatures=model.signatures())
    vocabulary.unlink()  # what is served may read its assets alone
    return folder


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """Bias → toy SavedModel to copy."""
    folder = tmp_path_factory.mktemp("toys")
    return {bias: _save(folder / f"bias-{bias}", bias) for bias in (0.5, 0.25)}


@pytest.fixture
def export(toy_models, tmp_path):
    """`export(version, bias)` publishes a toy version atomically in the returned folder."""
    base = tmp_path / "models"
    base.mkdir()

    def put(version: int, bias: float = 0.5) -> Path:
        staged = tmp_path / f"staged-{version}"
        shutil.copytree(toy_models[bias], staged)
        return staged.rename(base / str(version))

    put.base = base
    return put


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Test authority that has issued `server` and `client`."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server")
    made.issue("client")
    return made


@pytest.fixture
def search_inputs() -> dict[str, np.ndarray]:
    """Three items with logits 1 + 0 + 0 + 1 + 2, 1 + 1 - 1 + 0 + 2 and 1 + 3 - 4 + 2 + 2."""
    return {
        "user_id": np.array([b"u"], object),
        "query": np.array([b"tea"], object),
        "item_id": np.array([b"a", b"b", b"zzz"], object),
        "price": np.array([0, -1, -4], np.float32),
        "attributes": np.array([[b"x", b""], [b"", b""], [b"x", b"y"]], object),
        "history_item_id": np.array([[b"a", b"c"]], object),
    }
