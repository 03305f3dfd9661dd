import pytest
import yaml

from tests.usr_tf.fixtures import small_config
from usr_tf.config import Config, load_config
from usr_tf.errors import InputError


def write(folder, text) -> str:
    path = folder / "config.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text), encoding="utf-8")
    return str(path)


def test_the_packaged_default_is_the_default():
    assert load_config() == Config()


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_default(tmp_path, text):
    assert load_config(write(tmp_path, text)) == Config()


@pytest.mark.parametrize("config", [Config(), small_config(backbone="mmoe", usr={"ie": False}, data="/some/where")])
def test_comes_back_from_its_own_yaml(tmp_path, config):
    assert load_config(write(tmp_path, config.to_yaml())) == config


def test_the_yaml_is_fully_resolved():
    document = yaml.safe_load(Config().to_yaml())
    assert document["usr"]["contrastive_loss"]["variant"] == "augmented"
    assert document["mmoe"]["expert"] == [256, 128]
    assert set(document) == set(Config.model_fields)


def test_overrides_go_over_the_file_and_the_last_one_wins(tmp_path):
    path = write(tmp_path, {"backbone": "mmoe", "train": {"epochs": 4}})
    overrides = ["usr.ie=false", "train.epochs=5", "mmoe.expert=[8, 4]", "train.epochs=6", "train.monitor=val_loss"]
    config = load_config(path, overrides)
    assert (config.backbone, config.usr.ie, config.usr.fg, config.train.epochs) == ("mmoe", False, True, 6)
    assert config.mmoe.expert == (8, 4)
    assert config.train.monitor == "val_loss"


def test_an_override_may_hold_an_equals_sign():
    assert load_config(overrides=["train.monitor=a=b"]).train.monitor == "a=b"


MISTAKES = {
    "unknown key": ("optimizer: adam", "optimizer: found an unknown key, expected one of apg, backbone, cross"),
    "unknown deep key": (
        "usr: {contrastive_loss: {tau: 1}}",
        "usr.contrastive_loss.tau: found an unknown key, expected one of anchors",
    ),
    "unknown backbone": ("backbone: dnn", "backbone: found 'dnn', expected 'shared_bottom'"),
    "backbone that is a list": ("backbone: [mmoe]", "backbone: found ['mmoe'], expected 'shared_bottom'"),
    "section that is a value": ("train: 3", "train: found 3, expected"),
    "no layers in the bottom": ("shared_bottom: {bottom: []}", "shared_bottom.bottom: found []"),
    "no layers in the experts": ("mmoe: {expert: []}", "mmoe.expert: found []"),
    "layer without units": ("shared_bottom: {bottom: [8, 0]}", "shared_bottom.bottom.1: found 0, expected greater"),
    "expert with fewer than none": ("mmoe: {expert: [-1]}", "mmoe.expert.0: found -1, expected greater"),
    "tower without units": ("mmoe: {tower: [0]}", "mmoe.tower.0: found 0, expected greater"),
    "layers that are a number": ("mmoe: {expert: 64}", "mmoe.expert: found 64, expected a list"),
    "half a unit": ("mmoe: {tower: [1.5]}", "mmoe.tower.0: found 1.5, expected a whole number"),
    "no experts": ("mmoe: {experts: 0}", "mmoe.experts: found 0, expected greater than or equal to 1"),
    "no epochs": ("train: {epochs: 0}", "train.epochs: found 0, expected greater than or equal to 1"),
    "negative rate": ("train: {learning_rate: -0.1}", "train.learning_rate: found -0.1, expected greater than 0"),
    "endless rate": ("train: {learning_rate: .inf}", "train.learning_rate: found inf, expected a finite number"),
    "penalty that is no number": ("train: {l2: .nan}", "train.l2: found nan, expected"),
    "negative patience": ("train: {patience: -1}", "train.patience: found -1, expected greater than or equal to 0"),
    "seed below 0": ("seed: -1", "seed: found -1, expected greater than or equal to 0"),
    "seed too large": ("seed: 4294967296", "seed: found 4294967296, expected less than"),
    "switch that is no switch": ("usr: {ie: maybe}", "usr.ie: found 'maybe', expected true or false"),
    "no heads": ("usr: {heads: 0}", "usr.heads: found 0, expected greater than or equal to 1"),
    "unknown description": ("history: {describe: [brand]}", "history.describe.0: found 'brand', expected 'action', "),
    "unknown pooling": ("history: {pooling: max}", "history.pooling: found 'max', expected 'mean' or 'din'"),
    "no layers in the unit": ("history: {din: []}", "history.din: found []"),
    "tower that is a switch": ("position_tower: true", "position_tower: found True, expected"),
    "no positions": ("position_tower: {positions: 0}", "position_tower.positions: found 0, expected greater"),
    "all positions hidden": ("position_tower: {dropout: 1}", "position_tower.dropout: found 1, expected less than 1"),
    "unknown condition": (
        "usr: {fg_condition: item}",
        "usr.fg_condition: found 'item', expected 'trigger' or 'trigger_a",
    ),
    "unknown variant": (
        "usr: {contrastive_loss: {variant: moco}}",
        "usr.contrastive_loss.variant: found 'moco', expected 'same_view' or 'augmented'",
    ),
    "no temperature": (
        "usr: {contrastive_loss: {temperature: 0}}",
        "usr.contrastive_loss.temperature: found 0, expected greater than 0",
    ),
    "all dropped": (
        "usr: {contrastive_loss: {feature_dropout: 1}}",
        "usr.contrastive_loss.feature_dropout: found 1, expected less than 1",
    ),
    "a list": ("[1, 2]", "found list at the top, expected keys and values"),
    "no YAML": ("a: [", "found no YAML"),
    "a key twice": ("seed: 1\nseed: 2\n", "key 'seed' stands twice"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_refused_with_file_key_found_and_expected(tmp_path, mistake):
    text, expected = MISTAKES[mistake]
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert expected in message
    assert ", expected " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("usr.ie", "--set: found 'usr.ie', expected key=value"),
        ("=3", "--set: found '=3', expected key=value"),
        ("seed.of.all=1", "--set: found seed.of.all, though seed holds a value, expected a key of the configuration"),
        (
            "usr.attention=1",
            "default.yaml with --set: usr.attention: found an unknown key, expected one of contrastive",
        ),
        ("train.epochs=many", "default.yaml with --set: train.epochs: found 'many', expected a whole number"),
        ("mmoe.expert=[1, 2", "--set mmoe.expert: found no YAML"),
    ],
)
def test_overrides_that_are_refused(override, expected):
    with pytest.raises(InputError) as caught:
        load_config(overrides=["embedding_size=8", override])
    assert expected in str(caught.value)


def test_an_override_over_a_file_that_is_a_list_is_refused(tmp_path):
    with pytest.raises(InputError, match="found list at the top, expected keys and values"):
        load_config(write(tmp_path, "[1, 2]"), ["seed=1"])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none.yaml: found no readable file \(No such file.*expected a configuration"):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(InputError, match=r"config.yaml: found no UTF-8 .*, expected a configuration"):
        load_config(path)
