import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest

from tests.usr_tf.backbones.common import arrays, check_oracle, softmax, tower
from usr_tf.backbones.mmoe import MMoE


def mmoe_oracle(backbone: MMoE, x: np.ndarray, scenarios: np.ndarray):
    experts = arrays(backbone._experts)
    gates, gate_bias = arrays(backbone._scenario_gates)
    shared_gates, shared_gate_bias = arrays(backbone._shared_gates)
    own_towers, shared_towers = arrays(backbone._scenario_towers), arrays(backbone._shared_towers)
    own, shared = [], []
    for row, p in zip(x, scenarios, strict=True):
        outputs = np.array([tower(experts, (e,), row) for e in range(backbone.experts)])
        own.append([]), shared.append([])
        for t in range(backbone.tasks):
            own[-1].append(tower(own_towers, (p, t), softmax(row @ gates[p, t] + gate_bias[p, t]) @ outputs))
            shared[-1].append(
                tower(shared_towers, (t,), softmax(row @ shared_gates[t] + shared_gate_bias[t]) @ outputs)
            )
    return np.array(own), np.array(shared)


@pytest.mark.parametrize(("scenarios", "tasks"), [(3, 2), (1, 1), (2, 3)])
def test_equals_the_oracle(scenarios, tasks):
    check_oracle("mmoe", mmoe_oracle, scenarios, tasks)
