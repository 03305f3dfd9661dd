import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import resource

import pytest
import tensorflow as tf

from tests.usr_tf.fixtures import random_rows, small_config
from usr_tf.cli import main
from usr_tf.config import BACKBONE_NAMES
from usr_tf.data import Data
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.training.cost import ModelCost, PartCost, _run, model_cost

PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}


def part_of(cost: ModelCost, name: str) -> PartCost:
    return next(part for part in cost.parts if part.name == name)


@pytest.fixture(scope="module")
def plain(toy_data):
    return model_cost(toy_data, small_config(usr=PLAIN, cross="none"))


@pytest.fixture(scope="module")
def whole(toy_data):
    return model_cost(toy_data, small_config())


def test_every_kind_of_product_is_counted_with_the_sizes_it_has_at_last():
    def products(rows: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        x, scenario = rows  # [6, 3]
        tf.matmul(x, x, transpose_a=True)  # [3, 6] by [6, 3]
        tf.matmul(tf.ones([2, 4, 5]), tf.ones([2, 7, 5]), transpose_b=True)
        tf.einsum("bi,siu->bsu", x, tf.ones([2, 3, 5]))
        one, two = tf.dynamic_partition(x, scenario, 2)  # of 2 and 4 rows, which no trace knows
        return tf.reduce_sum(tf.matmul(one, tf.ones([3, 8]))) + tf.reduce_sum(tf.matmul(two, tf.ones([3, 8])))

    flops, _ = _run(products, (tf.ones([6, 3]), tf.constant([0, 1, 1, 0, 1, 1])))
    kinds = [3 * 6 * 3, 2 * 4 * 5 * 7, 6 * 3 * 2 * 5, 2 * 3 * 8, 4 * 3 * 8]
    assert [count for _, count in flops] == [2 * kind for kind in kinds]


def test_what_is_kept_for_the_way_back_is_each_buffer_once():
    weights = tf.Variable(tf.ones([3, 5]))

    def step(rows: tuple[tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            hidden = tf.exp(tf.matmul(rows[0], weights))  # its gradient needs itself, and so does the square's
            loss = tf.reduce_sum(tf.square(tf.reshape(hidden, [-1])))
        return tape.gradient(loss, weights)

    _, kept = _run(step, (tf.ones([6, 3]),))
    assert kept == 4 * 6 * 5  # the batch itself is there anyway


def test_flops_of_shared_bottom_are_those_counted_by_hand(plain):
    # embedding_size 4: user_id 4, interests 4, spend 4 bins, device 4; query 4; the mean of the history, item_id 4 and
    # tags 3; item_id 4, tags 3, title 4, price 4 bins.
    inputs = 16 + 4 + 7 + 15
    bottom_and_towers = inputs * 8 + 8 * 6 + 2 * 6 * 4  # [8, 6], and a tower [4] for each of two tasks
    backbone = part_of(plain, "backbone")
    assert backbone.forward_flops == 2 * bottom_and_towers
    assert backbone.step_flops == 3 * 2 * bottom_and_towers  # the gradients of weights and inputs: a product each


def test_parameters_and_state_are_those_of_the_model_that_is_trained(toy_data, plain):
    config = small_config(usr=PLAIN, cross="none")
    model = USRModel.from_data(toy_data, config)
    model.compile(optimizer=make_optimizer(model, config.train))
    model.train_step(random_rows(toy_data.schema, 4, size=4))
    slots = [state for state in model.optimizer.variables if state.shape.rank]
    weights = [*model.trainable_variables, *model.embedding.number_encoding.weights]
    assert plain.total.parameters == sum(weight.shape.num_elements() for weight in weights)
    assert plain.total.weight_bytes == 4 * plain.total.parameters
    assert plain.total.state_bytes == 4 * sum(slot.shape.num_elements() for slot in slots)


def test_every_feature_has_its_table(toy_data, whole):
    tables = {part.name: part for part in whole.parts if part.shape}
    with_ids = [name for name, feature in toy_data.schema.features.items() if feature.type != "numeric"]
    assert set(tables) == {f"embedding/{name}" for name in with_ids}
    assert tables["embedding/user_id"].shape == (60, 4)  # hash_buckets; id 0 is padding and shared
    assert tables["embedding/tags"].shape == (16, 3)
    assert tables["embedding/tags"].weight_bytes == tables["embedding/tags"].state_bytes == 16 * 3 * 4
    backbone = part_of(whole, "backbone")
    assert backbone.state_bytes == 2 * backbone.weight_bytes  # Adam's two moments


def test_every_product_belongs_to_a_part(whole):
    assert {part.name for part in whole.parts if part.forward_flops} == {
        "interest_extractor", "feature_generator", "cross", "backbone", "heads"
    }  # fmt: skip
    alone_in_training = {"interest_contrastive", "features_contrastive"}
    assert {part.name for part in whole.parts if part.step_flops and not part.forward_flops} == alone_in_training
    assert "between the parts" not in {part.name for part in whole.parts}


def test_tables_of_a_billion_rows_are_not_made(toy_data, plain):
    data = Data(toy_data.directory, toy_data.schema)
    data.__dict__["vocabulary_sizes"] = {**toy_data.vocabulary_sizes, "user_id": 1 + 10**9, "item_id": 1 + 10**9}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = model_cost(data, small_config(usr=PLAIN, cross="none", train={"batch_size": 2 * plain.batch_size}))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB
    assert grown < 300_000
    assert part_of(cost, "embedding/user_id").weight_bytes == 4 * 4 * 10**9
    assert cost.total.state_bytes > 2 * 4 * 4 * 10**9
    # FLOPs are those of an example; what a step leaves behind is the batch's, and holds the inputs of all kernels.
    assert cost.total.step_flops == plain.total.step_flops
    assert plain.activation_bytes > 4 * plain.batch_size * (36 + 8 + 6 + 2 * 4)
    assert cost.activation_bytes == pytest.approx(2 * plain.activation_bytes, rel=0.02)


def test_a_dry_run_prints_the_table_and_writes_nothing(toy_data, tmp_path, capsys):
    out = tmp_path / "run"
    small = [f"usr.{part}=false" for part in PLAIN] + ["shared_bottom.bottom=[8]", "train.batch_size=100"]
    assert main(["train", "--data", str(toy_data.directory), "--out", str(out), "--dry_run", "--set", *small]) == 0
    printed = capsys.readouterr().out
    assert not out.exists()
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "60 × 16" in lines["embedding/user_id"]
    rows = toy_data.rows("train")
    assert f"{rows:,} rows, {-(-rows // 100)} steps of 100 an epoch" in lines["train:"]
    assert "total" in lines


def test_a_dry_run_needs_no_place_to_write_and_training_does(toy_data, capsys):
    assert main(["train", "--data", str(toy_data.directory)]) == 2
    assert "usr-tf train: --out: found nothing, expected this required flag" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_every_backbone_is_counted(toy_data, backbone):
    cost = model_cost(toy_data, small_config(backbone=backbone))
    assert "between the parts" not in {part.name for part in cost.parts}
    part = part_of(cost, "backbone")
    assert 0 < 2 * part.forward_flops <= part.step_flops <= 3.5 * part.forward_flops
