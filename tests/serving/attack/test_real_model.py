"""Inconsistent inputs of a trained and exported model are refused."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.serving import shop
from serving.local_server import serve_in_background
from serving.publishing.warmup import to_examples
from tests.serving.attack.fuzz import fuzz_grpc
from tests.serving.attack.malformed import Good
from tests.serving.attack.process import ServerProcess
from tests.serving.attack.test_under_attack import MAX_REQUEST_BYTES, check
from tests.serving.local_server.test_server import Caller, predict_request, refusal

pytestmark = pytest.mark.slow
ITEMS = 6
VOCABULARY = 1_000
HISTORIES = ("history_item_id", "history_action", "history_scenario", "history_age")
READ = ("history_item_id", "history_age")
"""What the search graph of this model reads of them; the rest is not in it, whatever its length."""


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    return shop.make_serving(tmp_path_factory.mktemp("shop"), "mmoe", usr=True, vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def caller(serving):
    with serve_in_background(serving) as server, Caller(server.address) as caller:
        yield caller


@pytest.fixture
def inputs():
    return shop.request(ITEMS, VOCABULARY)


def is_invalid(call) -> bool:
    return refusal(call)[0].name == "INVALID_ARGUMENT"


def test_malformed_requests_are_refused_and_good_ones_score_as_before(serving, inputs):
    items = tuple(name for name in inputs if name.startswith("item_"))
    with ServerProcess(serving) as server:
        check(fuzz_grpc(server, [Good(predict_request(inputs), items, MAX_REQUEST_BYTES)], 2_000), server)


@pytest.mark.parametrize("length", [0, 1, ITEMS - 1, ITEMS + 1])
def test_an_item_feature_of_another_length_is_refused(caller, inputs, length):
    for name in [name for name in inputs if name.startswith("item_")]:
        wrong = {**inputs, name: np.resize(inputs[name], length)}
        assert is_invalid(lambda wrong=wrong: caller.predict(wrong)), name


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_a_history_of_another_length_is_refused(caller, inputs, name, change):
    length = inputs[name].shape[1] + change
    assert is_invalid(lambda: caller.predict({**inputs, name: np.resize(inputs[name], (1, length))}))


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("change", [-1, 1])
def test_an_example_with_a_history_of_another_length_is_refused_beside_good_ones(caller, inputs, name, change):
    first, *others = to_examples(inputs)
    example = tf.train.Example.FromString(first)
    feature = example.features.feature[name]
    values = getattr(feature, feature.WhichOneof("kind")).value
    values.append(values[0]) if change > 0 else values.pop()
    examples = np.array([example.SerializeToString(), *others], object)
    assert is_invalid(lambda: caller.predict({"examples": examples}, "search_examples"))


def test_strange_numbers_and_ids_change_the_scores_of_their_item_alone(caller, inputs):
    good = caller.predict(inputs).outputs["ctr"].float_val
    for number in (np.nan, np.inf, -np.inf, 3e38):
        strange = {**inputs, "item_number_0": inputs["item_number_0"].copy()}
        strange["item_number_0"][0] = number
        strange["item_field_0"] = np.array([b"\xff\x00", *inputs["item_field_0"][1:]], object)
        scores = caller.predict(strange).outputs["ctr"].float_val
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores[1:], good[1:], rtol=1e-5)
