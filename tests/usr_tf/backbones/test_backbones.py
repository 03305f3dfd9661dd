import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from benchmarks.training import measure
from tests.usr_tf.backbones.common import (
    BATCH,
    CANDIDATES,
    REQUESTS,
    SIZES,
    assert_same,
    built,
    parts,
    scenarios_of,
)
from tests.usr_tf.fixtures import small_config
from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.backbones import BACKBONES, Backbone, make_backbone
from usr_tf.backbones.base import Towers
from usr_tf.backbones.shared_bottom import SharedBottom
from usr_tf.config import BACKBONE_NAMES, Config

ROOT = Path(__file__).parents[3]


def named_in(page: str, pattern: str) -> list[str]:
    """Names in code spans, of the part of a page that a pattern's group finds."""
    (found,) = re.findall(pattern, (ROOT / page).read_text("utf-8"), re.DOTALL)
    return re.findall(r"`(\w+)`", found)


PLACES = {
    "BACKBONES": lambda: BACKBONES,
    "sections of the configuration": lambda: [
        name for name, field in Config.model_fields.items() if hasattr(field.annotation, "widths")
    ],
    "sizes for these tests": lambda: SIZES,
    "sizes for whole models": lambda: [
        name for name in BACKBONE_NAMES if getattr(small_config(), name) != getattr(Config(), name)
    ],
    "README.md": lambda: named_in("README.md", "--set backbone=mmoe` picks one of (.*?);"),
    "docs/models.md": lambda: re.findall(
        r"^### \w+ \(`(\w+)`\)$", (ROOT / "docs/models.md").read_text("utf-8"), re.MULTILINE
    ),
}
"""Each list of backbones; the one that they follow is `BACKBONE_NAMES`."""


@pytest.mark.parametrize("name", BACKBONES)
def test_static_scenario_equals_a_batch_of_it(name):
    backbone = built(name)
    for scenario in range(3):
        static = backbone(REQUESTS, CANDIDATES, scenario)
        assert_same(static, backbone(REQUESTS, CANDIDATES, tf.fill([BATCH], scenario)))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("scenario", [1, scenarios_of(3)], ids=["static", "mixed"])
def test_one_request_equals_its_copies(name, scenario):
    backbone = built(name)
    copies = tf.repeat(REQUESTS[:1], BATCH, 0)
    assert_same(backbone(REQUESTS[:1], CANDIDATES, scenario), backbone(copies, CANDIDATES, scenario))


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_do_not_see_each_other(name):
    backbone = built(name)
    whole = [part.numpy() for part in parts(backbone(REQUESTS, CANDIDATES, scenarios_of(3)))]
    order = [4, 2, 0, 5, 1, 3]
    permuted = backbone(*(tf.gather(value, order) for value in (REQUESTS, CANDIDATES, scenarios_of(3))))
    assert_same(permuted, [part[order] for part in whole])
    for row in range(BATCH):
        only = slice(row, row + 1)
        alone = backbone(REQUESTS[only], CANDIDATES[only], scenarios_of(3)[only])
        assert alone.scenario.shape == (1, 2, 3)
        assert_same(alone, [part[only] for part in whole])


@pytest.mark.parametrize("name", BACKBONES)
def test_an_absent_scenario_and_an_empty_batch(name):
    backbone = built(name)
    with tf.GradientTape() as tape:
        result = backbone(REQUESTS, CANDIDATES, tf.fill([BATCH], 1))
        total = tf.add_n([tf.reduce_sum(part) for part in parts(result)])
    for gradient in tape.gradient(total, backbone.trainable_weights):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()
    empty = backbone(REQUESTS[:0], CANDIDATES[:0], tf.zeros([0], tf.int32))
    assert [part.shape for part in parts(empty)] == [(0, *part.shape[1:]) for part in parts(result)]


def scenario_weights(backbone: Backbone) -> list[tf.Variable]:
    """The weights with an axis for the scenarios, of which 5 exist and nothing else counts 5."""
    found = [weight for weight in backbone.weights if weight.shape[:1] == [5]]
    assert found
    return found


@pytest.mark.parametrize("name", BACKBONES)
def test_a_static_scenario_depends_on_no_other_scenarios_weights(name):
    sizes = {key: (7, 6) for key in ("bottom", "expert", "network") if key in SIZES[name]}
    if "levels" in SIZES[name]:
        sizes["levels"] = 1  # below its last level, PLE reads every scenario's experts
    backbone = built(name, scenarios=5, **sizes)
    run = tf.function(lambda: parts(backbone(REQUESTS, CANDIDATES, 3)))
    before = [part.numpy() for part in run()]
    own = scenario_weights(backbone)
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(part) for part in run()])
    for gradient in tape.gradient(total, [weight for weight in own if weight.trainable]):
        gradient = tf.convert_to_tensor(gradient).numpy()
        np.testing.assert_array_equal(np.delete(gradient, 3, 0), 0)
    assert any(np.abs(tf.convert_to_tensor(weight)[3]).max() > 0 for weight in own)
    for weight in own:
        kept = weight[3]
        weight.assign(tf.fill(weight.shape, np.nan))
        weight[3].assign(kept)
    assert_same(run(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_shared_part_has_no_scenario_in_it(name):
    backbone = built(name)
    mixed, static = backbone(REQUESTS, CANDIDATES, scenarios_of(3)), backbone(REQUESTS, CANDIDATES, 0)
    assert_same([mixed.shared], [static.shared], rtol=0, atol=0)
    assert np.abs(mixed.scenario - static.scenario).max() > 0.1
    without = built(name, use_shared=False)
    assert without(REQUESTS, CANDIDATES, 0).shared is None
    assert len(without.weights) < len(backbone.weights)


@pytest.mark.parametrize("name", BACKBONES)
def test_tasks_and_scenarios_are_born_different_and_by_the_seed(name):
    def outputs(seed):
        keras.utils.set_random_seed(seed)
        wide = {"tower" if "tower" in SIZES[name] else "expert": (16,)}
        backbone = BACKBONES[name](3, 2, **{**SIZES[name], **wide})
        return [backbone(REQUESTS, CANDIDATES, scenario).scenario.numpy() for scenario in range(3)]

    first, again, other = outputs(1), outputs(1), outputs(2)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - other[0]).max() > 0.01
    if name == "star":  # its scenarios all start as the centre
        first = first[:1]
    towers = [part[:, task] for part in first for task in range(2)]
    assert all(np.abs(one - other).max() > 0.01 for one, other in itertools.combinations(towers, 2))


@pytest.mark.parametrize("name", BACKBONES)
def test_l2_reaches_every_kernel_and_nothing_else(name):
    backbone = built(name, l2=0.5)
    kernels = [weight for weight in backbone.weights if "kernel" in weight.name]
    others = [weight.name for weight in backbone.weights if "kernel" not in weight.name]
    assert kernels
    no_kernel = re.compile("bias|embedding|gamma|beta|moving")
    assert all(no_kernel.search(other) for other in others), others
    np.testing.assert_allclose(
        sum(backbone.losses), 0.5 * sum(np.sum(np.square(kernel)) for kernel in kernels), rtol=1e-5
    )
    assert built(name).losses == []


@pytest.mark.parametrize(
    "name", [name for name, sizes in SIZES.items() if "tower" in sizes and (7, 5) in sizes.values()]
)
def test_empty_towers_pass_the_hidden_layer_on(name):
    result = built(name, tower=())(REQUESTS, CANDIDATES, scenarios_of(3))
    assert [result.scenario.shape, result.shared.shape] == [(BATCH, 2, 5), (BATCH, 2, 5)]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("use_shared", [True, False])
def test_everywhere(name, use_shared, tmp_path):
    backbone = built(name, use_shared=use_shared, l2=0.1)
    check_everywhere(backbone, (REQUESTS[:1], CANDIDATES, scenarios_of(3)), tmp_path / "mixed")
    if use_shared:
        check_everywhere(backbone, (REQUESTS[:1], CANDIDATES, 1), tmp_path / "static")
    check_config(backbone)


@pytest.mark.parametrize("name", BACKBONES)
def test_made_as_the_configuration_says(name):
    sizes = SIZES[name]
    config = Config(backbone=name, train={"l2": 0.25}, usr={"glmt": False}, **{name: sizes})
    backbone = make_backbone(config, scenarios=3, tasks=2)
    assert type(backbone) is BACKBONES[name]
    found = backbone.get_config()
    assert {"scenarios": 3, "tasks": 2, "use_shared": False, "l2": 0.25}.items() <= found.items()
    assert {key: found[key] for key in sizes} == {
        key: list(size) if isinstance(size, tuple) else size for key, size in sizes.items()
    }


@pytest.mark.parametrize("place", PLACES)
def test_every_list_of_backbones_has_the_same_names(place):
    assert sorted(PLACES[place]()) == sorted(BACKBONE_NAMES)


def test_benchmarks_name_backbones_that_there_are():
    assert {*measure.BACKBONES} < {*BACKBONE_NAMES}


def test_refuses():
    with pytest.raises(ValueError, match=r"at least 1\. Received: 0, 2"):
        SharedBottom(0, 2, bottom=(4,), tower=(4,))
    with pytest.raises(ValueError, match=r"not be below 0. Received: -1"):
        SharedBottom(2, 2, bottom=(4,), tower=(4,), l2=-1)
    with pytest.raises(ValueError, match=r"at least one layer. Received"):
        SharedBottom(2, 2, bottom=(), tower=(4,))
    with pytest.raises(ValueError, match=r"Received: None with scenarios=2"):
        Towers((4,), 2, scenarios=2)(REQUESTS)
    with pytest.raises(ValueError, match=r"Received: 0 with scenarios=None"):
        Towers((4,), 2)(REQUESTS, 0)
