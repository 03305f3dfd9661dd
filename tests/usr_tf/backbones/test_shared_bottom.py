import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest

from tests.usr_tf.backbones.common import arrays, check_oracle, tower
from usr_tf.backbones.shared_bottom import SharedBottom


def shared_bottom_oracle(backbone: SharedBottom, x: np.ndarray, scenarios: np.ndarray):
    bottom = arrays(backbone._first) + [array for dense in backbone._rest for array in arrays(dense)]
    own, shared = arrays(backbone._scenario_towers), arrays(backbone._shared_towers)
    hidden = [tower(bottom, (), row) for row in x]
    tasks = range(backbone.tasks)
    return (
        np.array([[tower(own, (p, t), row) for t in tasks] for row, p in zip(hidden, scenarios, strict=True)]),
        np.array([[tower(shared, (t,), row) for t in tasks] for row in hidden]),
    )


@pytest.mark.parametrize(("scenarios", "tasks"), [(3, 2), (1, 1), (2, 3)])
def test_equals_the_oracle(scenarios, tasks):
    check_oracle("shared_bottom", shared_bottom_oracle, scenarios, tasks)
