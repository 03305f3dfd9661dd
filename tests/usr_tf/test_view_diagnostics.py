import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json

import numpy as np
import pytest

from tests.usr_tf.fixtures import small_config
from usr_tf.errors import InputError
from usr_tf.evaluation.view_diagnostics import picture, views_document
from usr_tf.model import USRModel

ROWS = 60


@pytest.fixture(scope="module")
def model(toy_run):
    return toy_run.load_model()


@pytest.fixture(scope="module")
def document(toy_run, toy_data, model):
    return views_document(toy_run, model, toy_data, "test", rows=ROWS, points=20)


@pytest.fixture(scope="module")
def batch(toy_data):
    return next(iter(toy_data.evaluation(ROWS, "test")))


def test_the_document_is_json(document):
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["rows"] == ROWS
    assert document["contrastive"]


def test_gates_are_what_the_views_scale_a_feature_by(document, model, batch):
    inputs = model.look_up(batch[0])
    assert list(document["gates"]) == [
        *dict.fromkeys(model.columns()["request"]), *dict.fromkeys(model.columns()["candidate"])
    ]  # fmt: skip
    for view in range(2):
        scaled = model.view(inputs, view).request[:, 0].numpy()
        plain = inputs.request.numpy()
        first = model.columns()["request"].index("spend")
        bins = slice(first, first + model.config.number_bins)
        known = plain[:, first] != 0
        # Gates of the rows without the number count too, but under `trigger` they depend on query and view alone.
        ratio = scaled[known, first] / plain[known, first]
        gate = model.gates(inputs, view)[0].numpy()[:, bins]
        np.testing.assert_allclose(ratio, gate[known, 0], rtol=1e-4)
        assert document["gates"]["spend"][view] == pytest.approx(gate.mean(), rel=1e-5)


def test_attention_is_shown_with_the_names_of_the_log(document):
    attention = document["attention"]
    assert 0 < attention["difference"] <= 1
    assert attention["examples"]
    for example in attention["examples"]:
        assert example["candidate"]["item_id"] in (example["item"], "(unknown)")
        assert set(example["candidate"]) == {"item_id", "tags"}
        ages = [action["age"] for action in example["history"]]
        assert len(ages) == 4
        assert ages == sorted(ages)  # newest first
        np.testing.assert_allclose(np.sum([action["weights"] for action in example["history"]], axis=0), 1, rtol=1e-5)
        for action in example["history"]:
            assert action["action"] in ("click", "purchase")
            assert action["scenario"] in ("search", "recommendation")
            assert action["item"]["item_id"].startswith("i") or action["item"]["item_id"] == "(unknown)"
    shown = [(example["scenario"], example["user"]) for example in attention["examples"]]
    assert len(set(shown)) == len(shown)


def test_a_model_without_the_parts_has_nothing_to_show(toy_run, toy_data):
    model = USRModel.from_data(toy_data, small_config(usr={"ie": False, "fg": False}))
    document = views_document(toy_run, model, toy_data, rows=8)
    assert not document["contrastive"]
    assert [document[part] for part in ("gates", "features", "interests", "attention")] == [None] * 4


def test_views_that_are_no_numbers_are_refused(toy_run, toy_data):
    model = toy_run.load_model()
    model.scenario_embedding.embeddings.assign(model.scenario_embedding.embeddings * np.nan)
    with pytest.raises(InputError, match="found views that are NaN or infinite"):
        views_document(toy_run, model, toy_data, rows=8)


def test_a_picture_of_views_that_stand_apart():
    rows = np.random.default_rng(0).normal(size=(30, 1, 3)) * [1, 0.1, 0.01]
    apart = picture(np.concatenate([rows, np.add(rows, [0, 0, 50])], axis=1), points=10)
    assert apart["silhouette"] > 0.9
    assert np.shape(apart["points"]) == (2, 10, 2)
    first, second = np.array(apart["points"])
    np.testing.assert_allclose(np.abs(second - first)[:, 0], 50, rtol=0.01)  # the first axis is what tells them apart
    assert sum(apart["explained"]) == pytest.approx(1, abs=1e-3)
    within = picture(np.concatenate([rows, rows], axis=1), points=10)
    assert within["silhouette"] <= 0
    assert within["cosine_of_views"] == pytest.approx(1)


def test_cosines_by_hand():
    # Row 0 has its views at right angles, row 1 opposite; in view 0 the rows are alike, in view 1 at right angles.
    vectors = np.array([[[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [-5.0, 0.0]]])
    drawn = picture(vectors, points=2)
    assert drawn["cosine_of_views"] == pytest.approx((0 - 1) / 2)
    assert drawn["cosine_of_rows"] == pytest.approx((1 + 0) / 2)


def test_no_picture_of_one_point_or_one_row():
    assert picture(np.ones((5, 2, 3)), 5) is None
    assert picture(np.zeros((1, 2, 3)), 5) is None
    assert picture(np.random.default_rng(0).normal(size=(5, 1, 3)), 5)["silhouette"] is None  # one view
