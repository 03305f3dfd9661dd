import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import ContrastiveLoss

VARIANTS = ["same_view", "augmented"]


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def built(variant: str, width: int = 3, **options) -> ContrastiveLoss:
    """A layer whose projection is the identity."""
    layer = ContrastiveLoss(variant, projection=width, **options)
    layer._project.build([None, None, width])
    layer._project.kernel.assign(tf.eye(width))
    return layer


def oracle(variant: str, z, keys, negatives: int, temperature: float, weight) -> tuple[float, float]:
    """The definition, anchor by anchor."""

    def likeness(a, b):
        return np.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature)

    z, keys = np.asarray(z, float), np.asarray(keys, float)
    batch, views, _ = z.shape
    total = count = 0.0
    for b, v in np.ndindex(batch, views):
        rows = [(b + shift) % batch for shift in range(min(negatives, batch - 1) + 1)]
        rows = [row for row in rows if weight[row] > 0]
        if variant == "augmented":
            positives = [(b, v)]
            others = [(row, u) for row in rows for u in range(views) if (row, u) != (b, v)]
        else:
            positives = [(row, v) for row in rows if row != b][:1]
            others = [(row, u) for row in rows for u in range(views) if u != v]
        if weight[b] > 0 and positives and others:
            own = likeness(z[b, v], keys[positives[0]])
            total -= weight[b] * np.log(own / (own + sum(likeness(z[b, v], keys[other]) for other in others)))
            count += weight[b]
    return total, count


def test_same_view_by_hand():
    """Two rows, two views, all vectors along the axes."""
    east, north = [1.0, 0.0], [0.0, 2.0]
    z = tf.constant([[east, north], [east, east]])
    total, count = built("same_view", 2, temperature=1.0)(z)
    # (0, east): positive 1; negatives: own north 0, the other row's second view 1
    # (0, north): positive 0; negatives: own east 0, the other row's first view 0
    # (1, first): positive 1; negatives: own second 1, the other row's north 0
    # (1, second): positive 0; negatives: own first 1, the other row's east 1
    e = np.e
    expected = [np.log((2 * e + 1) / e), np.log(3), np.log((2 * e + 1) / e), np.log(1 + 2 * e)]
    np.testing.assert_allclose(total, sum(expected), rtol=1e-5)
    np.testing.assert_allclose(count, 4)


def test_augmented_by_hand():
    east, north = [1.0, 0.0], [0.0, 2.0]
    z, augmented = tf.constant([[east, north]]), tf.constant([[east, east]])
    total, count = built("augmented", 2, temperature=0.5)(z, augmented)
    # (east): positive 1, negative 1; (north): positive 0, negative 0
    np.testing.assert_allclose(total, 2 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(count, 2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("batch", "views", "negatives"), [(6, 2, 3), (6, 3, 16), (2, 2, 1), (5, 1, 2), (1, 2, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_definition(variant, batch, views, negatives, weighted):
    z, other = normal(batch, views, 3), normal(batch, views, 3, seed=1)
    weight = np.array([0.5, 0.0, 2.0, 1.0, 0.0, 3.0][:batch]) if weighted else np.ones(batch)
    layer = built(variant, negatives=negatives, temperature=0.3)
    augmented = other if variant == "augmented" else None
    result = layer(z, augmented, tf.constant(weight, tf.float32) if weighted else None)
    keys = z if augmented is None else other
    np.testing.assert_allclose(result, oracle(variant, z, keys, negatives, 0.3, weight), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("batch", "views", "weight"), [(0, 2, None), (1, 1, None), (3, 2, [0.0, 0.0, 0.0])], ids=["B=0", "B=K=1", "empty"]
)
def test_undefined_is_zero_of_none(variant, batch, views, weight):
    z = tf.zeros([batch, views, 3])
    layer = built(variant, learn_temperature=True)
    with tf.GradientTape() as tape:
        tape.watch(z)
        result = layer(z, z if variant == "augmented" else None, None if weight is None else tf.constant(weight))
    assert (result.total, result.count) == (0, 0)
    gradients = tape.gradient(result.total, [z, *layer.trainable_weights])
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_same_view_is_undefined_with_one_view():
    result = built("same_view")(normal(5, 1, 3))
    assert (result.total, result.count) == (0, 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_vectors_have_finite_gradients(variant):
    z = tf.concat([tf.zeros([2, 2, 3]), normal(2, 2, 3)], 0)
    with tf.GradientTape() as tape:
        tape.watch(z)
        result = built(variant)(z, z if variant == "augmented" else None)
    assert np.isfinite(result.total)
    assert np.isfinite(tape.gradient(result.total, z)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_without_weight_change_nothing(variant):
    z, noise = normal(4, 2, 3), normal(4, 2, 3, seed=7)
    weight = tf.constant([1.0, 0.0, 1.0, 1.0])
    layer = built(variant)

    def total(z):
        return layer(z, z if variant == "augmented" else None, weight).total

    np.testing.assert_allclose(total(z), total(tf.where(weight[:, None, None] > 0, z, noise)), rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cost_is_linear_in_the_batch(variant):
    """200,000 rows: a cell for each pair of them would take 160 GB."""
    z = normal(200_000, 2, 1)
    result = built(variant, width=1, negatives=1)(z, z if variant == "augmented" else None)
    np.testing.assert_allclose(result.count, 400_000)
    assert np.isfinite(result.total)


def test_a_learned_temperature_starts_as_given_and_stays_above_its_bound():
    z, other = normal(6, 2, 3), normal(6, 2, 3, seed=1)
    fixed, learned = built("augmented", temperature=0.2), built("augmented", temperature=0.2, learn_temperature=True)
    np.testing.assert_allclose(learned(z, other), fixed(z, other), rtol=1e-5)
    assert not any("temperature" in weight.name for weight in fixed.weights)
    (temperature,) = (weight for weight in learned.trainable_weights if "temperature" in weight.name)
    keras.optimizers.SGD(1.0).apply_gradients([(tf.constant(50.0), temperature)])
    np.testing.assert_allclose(tf.exp(temperature), 0.01, rtol=1e-5)


def spread_after_training(variant: str, steps: int = 60) -> tuple[float, float]:
    """Mean distance between different rows in one view, where likeness is measured, before and after training.

    Rows are random features; a small network of features and view makes each view's vector, for this loss alone.
    """
    keras.utils.set_random_seed(0)
    features = normal(48, 8)
    encoder = keras.Sequential([keras.layers.Dense(16, "tanh"), keras.layers.Dense(8)])
    layer = ContrastiveLoss(variant, projection=8, temperature=0.1, negatives=16)
    optimizer = keras.optimizers.Adam(0.01)

    def encode(x):
        views = tf.repeat(tf.eye(2)[tf.newaxis], 48, 0)
        return encoder(tf.concat([tf.repeat(x[:, tf.newaxis], 2, 1), views], -1))

    def mean_loss(x):
        augmented = encode(tf.nn.dropout(x, 0.2)) if variant == "augmented" else None
        result = layer(encode(x), augmented)
        return result.total / result.count

    @tf.function
    def step():
        x = tf.random.shuffle(features)
        with tf.GradientTape() as tape:
            loss = mean_loss(x)
        weights = encoder.trainable_weights + layer.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    def spread():
        z = layer._embed(encode(features))[:, 0].numpy()
        return float(np.sqrt(np.maximum(0, 2 - 2 * z @ z.T)).sum() / (48 * 47))

    mean_loss(features)
    before = spread()
    for _ in range(steps):
        step()
    return before, spread()


def test_the_default_does_not_collapse_to_one_point_a_view():
    default = ContrastiveLoss().variant
    before, after = spread_after_training(default)
    assert after > 0.9 * before


def test_same_view_draws_rows_together_as_its_description_says():
    before, after = spread_after_training("same_view")
    assert after < 0.3 * before


@pytest.mark.parametrize("variant", VARIANTS)
def test_everywhere(variant, tmp_path):
    augmented = normal(5, 2, 3, seed=1) if variant == "augmented" else None
    layer = ContrastiveLoss(variant, projection=4, negatives=2, learn_temperature=variant == "augmented")
    check_everywhere(layer, (normal(5, 2, 3), augmented, tf.constant([1.0, 0, 1, 1, 2])), tmp_path)
    check_config(layer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "both"}, r"one of .*Received: both"),
        ({"negatives": 0}, r"at least 1\. Received: 32, 0"),
        ({"temperature": 0.0}, "above 0, and finite. Received: 0.0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss(**options)


def test_refuses_a_second_pass_that_does_not_suit():
    with pytest.raises(ValueError, match=r"Received: None for augmented"):
        ContrastiveLoss("augmented")(normal(2, 2, 3))
    with pytest.raises(ValueError, match=r"for same_view"):
        ContrastiveLoss("same_view")(normal(2, 2, 3), normal(2, 2, 3))
