import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.backbones.common import (
    BATCH,
    CANDIDATES,
    REQUESTS,
    arrays,
    assert_same,
    built,
    check_oracle,
    normal,
    parts,
    scenarios_of,
    softmax,
    tower,
)
from tests.usr_tf.traced import exported, largest_tensor, weights_read
from usr_tf.backbones.m2m import M2M
from usr_tf.layers.meta_unit import MetaUnit


def leaky_relu(x):
    return np.where(x > 0, x, 0.2 * x)


def unit_oracle(unit: MetaUnit, x: np.ndarray, known: np.ndarray) -> np.ndarray:
    weights, width = arrays(unit), len(x)
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        generated = known @ kernel + bias
        x = leaky_relu(x @ generated[: width * width].reshape(width, width) + generated[width * width :])
    return x


def m2m_oracle(backbone: M2M, x: np.ndarray, scenarios: np.ndarray):
    experts = arrays(backbone._experts)
    kernel, bias = arrays(backbone._task_net)
    views = leaky_relu(backbone._tasks.numpy() @ kernel + bias)
    scorers = backbone._attention_kernel.numpy()

    def hidden(row, t, known):
        outputs = [tower(experts, (e,), row) for e in range(backbone.experts)]
        pairs = [unit_oracle(backbone._attention_unit, np.concatenate([output, views[t]]), known) for output in outputs]
        level = softmax(np.array([scorers[t] @ pair for pair in pairs])) @ outputs
        for unit in backbone._tower_units:
            level = leaky_relu(unit_oracle(unit, level, known) + level)
        return level

    def of_tasks(row, known):
        return [hidden(row, t, known) for t in range(backbone.tasks)]

    knowledge, of_any = backbone._knowledge.numpy(), backbone._any_knowledge.numpy()
    own = [of_tasks(row, knowledge[p]) for row, p in zip(x, scenarios, strict=True)]
    return np.array(own), np.array([of_tasks(row, of_any) for row in x])


@pytest.mark.parametrize(
    ("scenarios", "tasks", "options"),
    [(3, 2, {"unit_depth": 2, "tower_depth": 2}), (1, 1, {}), (2, 3, {"tower_depth": 0})],
)
def test_equals_the_oracle(scenarios, tasks, options):
    check_oracle("m2m", m2m_oracle, scenarios, tasks, **options)


def test_each_row_has_its_own_scenario_and_not_the_firsts():
    backbone = built("m2m")
    mixed = backbone(REQUESTS, CANDIDATES, scenarios_of(3)).scenario
    of = [backbone(REQUESTS, CANDIDATES, scenario).scenario for scenario in range(3)]
    assert min(np.abs(of[a] - of[b]).max() for a in range(3) for b in range(a)) > 0.1
    assert_same(mixed, [of[scenario][row] for row, scenario in enumerate(scenarios_of(3).numpy())])


def test_the_attention_weighs_experts_and_not_rows():
    backbone, one = built("m2m"), built("m2m", experts=1)
    for weight, of_one in zip(backbone._experts.weights, one._experts.weights, strict=True):
        weight.assign(tf.repeat(of_one, 3, axis=0))  # three equal experts are one, if their weights add up to 1
    assert_same(
        backbone(REQUESTS, CANDIDATES, scenarios_of(3)),
        with_weights_of(backbone, one)(REQUESTS, CANDIDATES, scenarios_of(3)),
    )


def with_weights_of(source: M2M, target: M2M) -> M2M:
    """`target` with `source`'s weights, but for the experts."""
    own = {id(weight) for weight in target._experts.weights}
    for given, weight in zip(source.weights, target.weights, strict=True):
        if id(weight) not in own:
            weight.assign(given)
    return target


def test_what_sets_scenarios_apart_is_their_knowledge_alone():
    backbone = built("m2m")
    backbone._any_knowledge.assign(backbone._knowledge[1])
    result = backbone(REQUESTS, CANDIDATES, 1)
    assert_same([result.scenario], [result.shared])
    backbone._knowledge.assign(tf.repeat(backbone._knowledge[1:2], 3, axis=0))
    assert_same([backbone(REQUESTS, CANDIDATES, scenarios_of(3)).scenario], [result.shared])


def test_the_tower_is_residual():
    backbone = built("m2m", tower_depth=2)
    for unit in backbone._tower_units:
        for weight in unit.weights:
            weight.assign(tf.zeros_like(weight))
    with_tower = backbone(REQUESTS, CANDIDATES, 0)  # σ(0 + L), of a mixture of ReLU networks, which is not negative
    backbone._tower_units = []
    assert_same(with_tower, backbone(REQUESTS, CANDIDATES, 0))


def test_export_holds_the_generated_weights_as_constants():
    backbone = built("m2m")
    function = exported(lambda request, candidate: parts(backbone(request, candidate, 1)), REQUESTS, CANDIDATES)
    assert_same(function(REQUESTS[:1], CANDIDATES), backbone(REQUESTS[:1], CANDIDATES, 1))
    assert [weight.name for weight in weights_read(function, backbone)] == [backbone._attention_kernel.name]


def test_no_row_has_a_matrix_to_itself():
    backbone = M2M(3, 1, experts=2, expert=(8,), scenario_embedding=2, task_embedding=2, unit_depth=1, tower_depth=1)
    rows = 97
    scenario = tf.range(rows) % 3
    inputs = normal(rows, 3), normal(rows, 4)
    largest = largest_tensor(lambda request, candidate: backbone(request, candidate, scenario).scenario, *inputs)
    assert largest < rows * 8 * 8


def test_starts_with_outputs_of_the_size_of_its_experts():
    backbone = M2M(
        3, 2, experts=4, expert=(64, 32), scenario_embedding=16, task_embedding=16, unit_depth=3, tower_depth=3
    )
    inputs = normal(300, 20), normal(300, 30, seed=1)
    result = backbone(*inputs, tf.range(300) % 3)
    experts = backbone._experts(inputs)
    for part in parts(result):
        assert 0.25 < np.mean(np.square(part)) / np.mean(np.square(experts)) < 4


def test_refuses():
    sizes = {"experts": 2, "expert": (4,), "scenario_embedding": 2, "task_embedding": 2, "unit_depth": 1}
    with pytest.raises(ValueError, match=r"`tower_depth` at least 0. Received: 2, 2, -1"):
        M2M(2, 2, **sizes, tower_depth=-1)
    with pytest.raises(ValueError, match=r"`depth` and `knowledge` must be at least 1"):
        M2M(2, 2, **{**sizes, "unit_depth": 0}, tower_depth=1)
    with pytest.raises(ValueError, match=r"at least one layer"):
        M2M(2, 2, **{**sizes, "expert": ()}, tower_depth=1)
    with pytest.raises(ValueError, match=r"from 0 to 2. Received: 3"):
        built("m2m")(REQUESTS[:BATCH], CANDIDATES, 3)
