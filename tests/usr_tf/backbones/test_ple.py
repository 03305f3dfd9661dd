import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.backbones.common import (
    CANDIDATES,
    REQUESTS,
    arrays,
    assert_same,
    built,
    check_oracle,
    scenarios_of,
    softmax,
    tower,
)
from usr_tf.backbones.ple import PLE


def ple_oracle(backbone: PLE, x: np.ndarray, scenarios: np.ndarray):
    groups = [(p, t) for p in range(backbone.scenarios) for t in range(backbone.tasks)]
    shared_gates, shared_gate_bias = arrays(backbone._shared_gates)
    own_towers, shared_towers = arrays(backbone._scenario_towers), arrays(backbone._shared_towers)
    own, shared = [], []
    for row, p in zip(x, scenarios, strict=True):
        group_input, shared_input = dict.fromkeys(groups, row), row
        for level in (*backbone._levels, backbone._last_level):
            kernel, bias, *own_experts = (weight.numpy().astype(float) for weight in level._own)
            specific = {group: [] for group in groups}
            for scenario, t in groups if backbone.specific_experts else []:
                for e in range(backbone.specific_experts):
                    which = scenario, t * backbone.specific_experts + e
                    specific[scenario, t].append(tower(own_experts, which, group_input[scenario, t]))
            experts = [tower(arrays(level._shared), (e,), shared_input) for e in range(backbone.shared_experts)]
            group_input = {
                group: softmax(group_input[group] @ kernel[group] + bias[group]) @ np.array(specific[group] + experts)
                for group in groups
            }
            if level is not backbone._last_level:
                kernel, bias = arrays(level._shared_gate)
                every = [expert for group in groups for expert in specific[group]] + experts
                shared_input = softmax(shared_input @ kernel + bias) @ np.array(every)
        tasks = range(backbone.tasks)
        own.append([tower(own_towers, (p, t), group_input[p, t]) for t in tasks])
        gates = [softmax(shared_input @ shared_gates[t] + shared_gate_bias[t]) for t in tasks]
        shared.append([tower(shared_towers, (t,), gates[t] @ np.array(experts)) for t in tasks])
    return np.array(own), np.array(shared)


@pytest.mark.parametrize(
    ("scenarios", "tasks", "levels", "specific"), [(3, 2, 2, 2), (1, 1, 1, 1), (2, 3, 3, 1), (2, 2, 2, 0)]
)
def test_equals_the_oracle(scenarios, tasks, levels, specific):
    check_oracle("ple", ple_oracle, scenarios, tasks, levels=levels, specific_experts=specific)


def test_one_level_without_specific_experts_is_an_mmoe():
    ple = built("ple", levels=1, specific_experts=0, shared_experts=3)
    mmoe = built("mmoe", experts=3)
    for layer, weights in (
        (mmoe._experts, ple._last_level._shared.weights),
        (mmoe._scenario_gates, ple._last_level._own),
        (mmoe._scenario_towers, ple._scenario_towers.weights),
        (mmoe._shared_gates, ple._shared_gates.weights),
        (mmoe._shared_towers, ple._shared_towers.weights),
    ):
        layer.set_weights([weight.numpy() for weight in weights])
    assert len(mmoe.weights) == len(ple.weights)
    for scenario in (scenarios_of(3), 1):
        assert_same(ple(REQUESTS, CANDIDATES, scenario), mmoe(REQUESTS, CANDIDATES, scenario))


def test_one_level_without_shared_experts_keeps_the_groups_apart():
    ple = built("ple", use_shared=False, levels=1, specific_experts=2, shared_experts=0, tower=())
    for scenario in (scenarios_of(3), 1):
        for t in range(2):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(ple(REQUESTS, CANDIDATES, scenario).scenario[:, t])
            for gradient in tape.gradient(total, ple._last_level._own[2:]):
                gradient = tf.convert_to_tensor(gradient).numpy()
                of_task = np.abs(gradient).reshape(3, 2, -1).max(axis=2)  # [K, T]
                present = np.isin(np.arange(3), scenario)
                assert (of_task[present, t] > 0).all()
                of_task[present, t] = 0
                np.testing.assert_array_equal(of_task, 0)


def test_below_the_last_level_every_scenarios_experts_are_read_and_at_the_last_its_own_alone():
    ple = built("ple")
    before = ple(REQUESTS, CANDIDATES, 1)
    for weight in ple._last_level._own:
        kept = weight[1]
        weight.assign(tf.fill(weight.shape, np.nan))
        weight[1].assign(kept)
    assert_same(ple(REQUESTS, CANDIDATES, 1), before, rtol=0, atol=0)
    kernel = ple._levels[0]._own[2]
    kernel[2].assign(kernel[2] + 1)
    after = ple(REQUESTS, CANDIDATES, 1)
    assert np.abs(after.scenario - before.scenario).max() > 0.01
    assert np.abs(after.shared - before.shared).max() > 0.01


def test_refuses():
    sizes = {"levels": 1, "specific_experts": 1, "shared_experts": 1, "expert": (4,), "tower": ()}
    for wrong, message in (
        ({"levels": 0}, r"`levels` must be at least 1. Received: 0"),
        ({"specific_experts": -1}, r"`specific_experts` must be at least 0.* Received: -1, 1"),
        ({"shared_experts": 0}, r"`shared_experts` at least 1 unless .* Received: 1, 0"),
        ({"shared_experts": 0, "levels": 2, "use_shared": False}, r"Received: 1, 0"),
        ({"shared_experts": 0, "specific_experts": 0, "use_shared": False}, r"Received: 0, 0"),
        ({"expert": ()}, r"at least one layer. Received"),
    ):
        with pytest.raises(ValueError, match=message):
            PLE(2, 2, **{**sizes, **wrong})
