"""Serving cost per candidate: request-side values are computed once."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import functools
from typing import NamedTuple

import pytest
import tensorflow as tf

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config
from usr_tf.config import BACKBONE_NAMES
from usr_tf.layers.folding import folding
from usr_tf.model import USRModel
from usr_tf.schema import SCENARIO, Schema, parse_schema
from usr_tf.training.cost import PRODUCTS, product_flops

OTHERS = sorted({*BACKBONE_NAMES} - {"shared_bottom", "mmoe", "pepnet"})
"""Not PEPNet, which rescales the user's features anew for every candidate."""
PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
ITEM, CANDIDATE, TASKS = 4 + 3, (4 + 3) + 4 + 4, 2
"""Widths of an item in a history (`item_id`, `tags`), and of a candidate: with `title`, and four bins of `price`."""


def schema(user: int = 4, scenarios: int = 2) -> Schema:
    """With user embeddings so wide."""
    return parse_schema(f"""
scenarios: {["search", "recommendation", "home", "cart", "mail"][:scenarios]}
tasks: [{{name: ctr, action: click}}, {{name: ctcvr, action: purchase}}]
history: {{actions: [click], max_length: 50}}
features:
  user_id: {{group: user, type: categorical, embedding_size: {user}}}
  device:  {{group: context, type: categorical, embedding_size: {user}}}
  item_id: {{group: item, type: categorical, in_history: true}}
  tags:    {{group: item, type: categorical_list, max_length: 2, in_history: true, embedding_size: 3}}
  title:   {{group: item, type: text, max_length: 3}}
  price:   {{group: item, type: numeric}}
  query:   {{group: query, type: text}}
""")


class Cost(NamedTuple):
    """Of one more candidate; and of the whole graph."""

    flops: float
    """Of matrix products."""
    numbers: float
    """Numbers that all operations together write."""
    operations: int


def cost(backbone: str, with_usr: bool, user: int = 4, length: int = 3, scenarios: int = 2) -> Cost:
    layout = schema(user, scenarios)
    config = small_config(backbone=backbone, ple={"levels": 1}, cross="none", **({} if with_usr else {"usr": PLAIN}))
    model = USRModel(layout, sizes_of(layout), config)
    few, many = (_whole(model, candidates, length) for candidates in (3, 13))
    return Cost((many.flops - few.flops) / 10, (many.numbers - few.numbers) / 10, many.operations)


def _whole(model: USRModel, candidates: int, length: int) -> Cost:
    layout = model.schema
    features, _ = random_rows(layout, candidates, length=length)
    del features[SCENARIO]
    request = {*layout.features_of("user", "context", "query"), *layout.history_columns}
    features = {name: values[:1] if name in request else values for name, values in features.items()}
    operations: list[tf.Operation] = []

    @tf.function(
        input_signature=[
            {
                name: tf.TensorSpec([1 if name in request else None, *values.shape[1:]], values.dtype)
                for name, values in features.items()
            }
        ]
    )
    def shapes(features):
        with folding():
            model.serve(features, 0, one_request=True)
        operations[:] = tf.compat.v1.get_default_graph().get_operations()
        return [[[tf.shape(tensor) for tensor in each] for each in (op.inputs, op.outputs)] for op in operations]

    flops = numbers = 0
    for op, (inputs, outputs) in zip(operations, shapes(features), strict=True):
        inputs, outputs = ([shape.numpy().tolist() for shape in each] for each in (inputs, outputs))
        if op.type in PRODUCTS:
            flops += product_flops(op, *inputs, *outputs)
        numbers += sum(functools.reduce(int.__mul__, shape, 1) for shape in outputs)
    return Cost(flops, numbers, len(operations))


# Without the heads, a product with one vector for each task, which are no matrix products.
HAND = {
    "shared_bottom": CANDIDATE * 8 + 8 * 6 + TASKS * (6 * 4),
    # two experts, gates and mixtures of two
    "mmoe": 2 * CANDIDATE * 8 + TASKS * (CANDIDATE * 2 + 2 * 8) + TASKS * (8 * 4),
    # an expert of each task and a shared one
    "ple": 3 * CANDIDATE * 8 + TASKS * (CANDIDATE * 2 + 2 * 8) + TASKS * (8 * 4),
    # the star folded to one network, and the auxiliary one
    "star": CANDIDATE * 8 + 8 * 6 + TASKS * (6 * 4) + CANDIDATE * 4 + 4 * TASKS,
}


@pytest.mark.parametrize("backbone", HAND)
def test_a_candidate_s_products_are_those_of_its_own_features(backbone):
    assert cost(backbone, with_usr=False).flops == 2 * HAND[backbone]


@pytest.mark.parametrize(
    "backbone", ["shared_bottom", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mmoe", *OTHERS))]
)
def test_wider_users_longer_histories_and_more_scenarios_cost_a_candidate_its_attention_alone(backbone):
    small, large = cost(backbone, with_usr=True), cost(backbone, with_usr=True, user=12, length=9, scenarios=5)
    more = 9 - 3
    assert large.flops - small.flops == more * 2 * (ITEM + ITEM)  # an action is compared with, and summed up
    assert large.numbers - small.numbers == more * 4  # its score, masked, exponentiated and masked again
    assert large.operations <= small.operations + 1  # one look-up more, for users now have a table of their own


def test_what_is_computed_once_a_candidate_would_be_seen():
    """The same figures of the rows' own form, in which each candidate has its user."""
    rows = [_rows(user) for user in (4, 12)]
    assert rows[0] != rows[1]


def _rows(user: int) -> float:
    layout = schema(user)
    model = USRModel(layout, sizes_of(layout), small_config(usr=PLAIN))
    features, _ = random_rows(layout, 8)
    with folding():
        scores = tf.function(lambda features: model.serve(features, 0, one_request=False))
        graph = scores.get_concrete_function(features).graph
    products = [op for op in graph.get_operations() if op.type in PRODUCTS]
    return sum(product_flops(op, *(tensor.shape.as_list() for tensor in (*op.inputs, *op.outputs))) for op in products)
