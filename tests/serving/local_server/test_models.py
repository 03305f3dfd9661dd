"""Model manager: version policies and labels under changes of configuration and files."""

import logging
import shutil
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from serving.local_server.model_config import read_model_config
from serving.local_server.models import Models
from usr_tf.errors import InputError

State = get_model_status_pb2.ModelVersionStatus


class Version:
    """Stands in for a loaded version."""

    def __init__(self, path, version):
        if "broken" in Path(path, "saved_model.pb").read_text():
            raise tf.errors.DataLossError(None, None, "it is broken")
        self.version = version


class Shop:
    """A folder of versions, a configuration of it, and the models that follow both."""

    def __init__(self, folder, *versions, **config):
        self.folder = folder
        for version in versions:
            self.add(version)
        self.configs = []
        self.configure(**config)
        self.models = Models(lambda: self.configs, Version)

    def add(self, version, content="whole"):
        (self.folder / str(version)).mkdir(exist_ok=True)
        (self.folder / str(version) / "saved_model.pb").write_text(content)

    def remove(self, version):
        shutil.rmtree(self.folder / str(version))

    def configure(self, policy="", **labels):
        config = text_format.Parse(f"model_version_policy {{ {policy} }}" if policy else "", ModelConfig())
        config.name, config.base_path = "usr", str(self.folder)
        config.version_labels.update(labels)
        self.configs = [config]

    def live(self):
        return self.models.live()["usr"]

    def find(self, **choice):
        spec = model_pb2.ModelSpec(name="usr", version_label=choice.get("label"))
        if "version" in choice:
            spec.version.value = choice["version"]
        return self.models.find(spec).version

    def states(self):
        return {version: status.state for version, status in self.models.statuses("usr").items()}


@pytest.fixture
def shop(tmp_path):
    def make(*versions, **config):
        shop = Shop(tmp_path, *versions, **config)
        shop.models.start()
        return shop

    return make


@pytest.mark.parametrize(
    ("policy", "live"),
    [
        ("", [10]),
        ("latest {}", [10]),
        ("latest { num_versions: 2 }", [9, 10]),
        ("latest { num_versions: 7 }", [2, 9, 10]),
        ("all {}", [2, 9, 10]),
        ("specific { versions: 9 versions: 2 }", [2, 9]),
        ("specific { versions: 9 versions: 4 }", [9]),
    ],
)
def test_the_policy_says_which_versions_are_live(shop, policy, live):
    made = shop(2, 9, 10, policy=policy)
    assert made.live() == live
    assert made.find() == live[-1]
    for version in live:
        assert made.find(version=version) == version


def test_a_new_policy_is_followed_and_the_rest_retired(shop):
    made = shop(1, 2, 3)
    made.configure("specific { versions: 1 versions: 2 }")
    made.models.refresh()
    assert made.live() == [1, 2]
    assert made.states() == {1: State.AVAILABLE, 2: State.AVAILABLE, 3: State.END}


def test_a_retired_version_is_unloading_until_its_last_request_is_answered(shop):
    made = shop(1)
    held = made.models.find(model_pb2.ModelSpec(name="usr"))
    made.add(2)
    made.models.refresh()
    assert made.find() == 2
    assert made.states() == {1: State.UNLOADING, 2: State.AVAILABLE}
    del held
    assert made.states() == {1: State.END, 2: State.AVAILABLE}


def test_specific_versions_that_are_not_there_leave_what_is_served(shop, caplog):
    made = shop(1, 2)
    made.configure("specific { versions: 7 }")
    made.models.refresh()
    made.models.refresh()
    assert made.live() == [2]
    assert [record.message for record in caplog.records] == [
        f"{made.folder}: no version to go on to, usr stays with [2]"  # told once, not at every look
    ]


def test_a_broken_version_makes_room_for_the_next_one_and_is_not_tried_again_until_it_changes(shop, caplog):
    made = shop(1, 2)
    made.add(3, "broken")
    made.configure("latest { num_versions: 2 }")
    made.models.refresh()
    made.models.refresh()
    assert made.live() == [1, 2]
    assert made.models.statuses("usr")[3].status.error_code == tf.errors.DATA_LOSS
    assert [record.message for record in caplog.records] == [
        f"{made.folder}/3: version 3 of usr does not load (it is broken)"
    ]
    made.add(3, "whole again")
    made.models.refresh()
    assert made.live() == [2, 3]


def test_folders_that_are_no_versions_are_passed_over(shop):
    made = shop(1)
    names = ["-4", "3.tmp", str(2**63), ".7"]
    if sys.getfilesystemencoding() == "utf-8":
        names.append("٥")  # a 5 to Python, and to nobody else
    for name in names:
        made.add(name)
    (made.folder / "8").mkdir()
    made.models.refresh()
    assert made.live() == [1]
    assert made.states() == {1: State.AVAILABLE}


def test_labels_name_live_versions(shop):
    made = shop(1, 2, policy="all {}", stable=1, canary=2)
    assert made.find(label="stable") == 1
    assert made.find(label="canary") == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unrecognized servable version label: beta"):
        made.find(label="beta")


def test_a_label_moves_once_its_new_version_is_live(shop, caplog):
    made = shop(1, policy="specific { versions: 1 }", stable=1)
    made.add(2, "broken")
    made.configure("specific { versions: 2 }", stable=2)
    made.models.refresh()
    assert made.find(label="stable") == made.find() == 1
    assert "Request to assign label stable to version 2 of model usr" in caplog.text

    made.add(2, "whole again")
    made.models.refresh()
    assert made.find(label="stable") == made.find() == 2
    assert made.live() == [2]


def test_a_label_waits_on_its_old_version_while_others_go_on(shop):
    made = shop(1, policy="specific { versions: 1 }", stable=1)
    made.add(2)
    made.add(3, "broken")
    made.configure("specific { versions: 2 versions: 3 }", stable=3)
    made.models.refresh()
    assert made.live() == [1, 2]
    assert made.find(label="stable") == 1


def test_a_label_is_not_put_on_a_version_that_is_about_to_go(shop, caplog):
    made = shop(1, 2, policy="all {}")
    made.configure("specific { versions: 2 }", stable=1)
    made.models.refresh()
    assert made.live() == [2]
    assert "Request to assign label stable to version 1 of model usr" in caplog.text
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unrecognized servable version label: stable"):
        made.find(label="stable")


def test_a_label_of_a_version_that_has_gone_finds_nothing(shop):
    made = shop(1, stable=1)
    made.add(2)
    made.models.refresh()
    assert made.live() == [2]
    with pytest.raises(tf.errors.NotFoundError, match=r"Servable not found for request: Specific\(usr, 1\)"):
        made.find(label="stable")


def test_a_label_taken_out_of_the_configuration_is_unknown(shop):
    made = shop(1, stable=1)
    made.configure()
    made.models.refresh()
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unrecognized servable version label"):
        made.find(label="stable")


def test_a_file_system_that_is_away_changes_nothing(shop, caplog):
    made = shop(1)
    made.folder.rename(made.folder.with_name("away"))
    made.models.refresh()
    assert made.find() == 1
    assert "cannot look for versions of usr" in caplog.text


def test_models_come_and_go_with_the_configuration(shop):
    made = shop(1)
    both = [*made.configs, ModelConfig(name="shop", base_path=str(made.folder))]
    made.configs = both
    made.models.refresh()
    assert made.models.live() == {"usr": [1], "shop": [1]}

    made.configs = both[1:]
    made.models.refresh()
    assert made.models.live() == {"shop": [1]}
    assert made.states() == {1: State.END}
    with pytest.raises(tf.errors.NotFoundError, match=r"Latest\(usr\)"):
        made.find()


def test_a_configuration_that_turns_bad_is_told_once_and_the_old_one_kept(tmp_path, caplog):
    made = Shop(tmp_path, 1)
    file = tmp_path / "models.config"
    good = f'model_config_list {{ config {{ name: "usr" base_path: "{tmp_path}" model_platform: "tensorflow" }} }}'
    file.write_text(good)
    models = Models(lambda: read_model_config(file), Version)
    models.start()
    file.write_text(good.replace("config_list", "list"))
    made.add(2)
    with caplog.at_level(logging.ERROR):
        models.refresh()
        models.refresh()
    assert models.live() == {"usr": [2]}  # versions are followed all the same
    assert len(caplog.records) == 1
    assert "models.config: found what does not parse" in caplog.text

    file.write_text(good.replace('"usr"', '"shop"'))
    models.refresh()
    assert models.live() == {"shop": [2]}


def test_start_refuses_a_model_without_a_version_that_loads(tmp_path):
    made = Shop(tmp_path)
    with pytest.raises(InputError, match="no version to serve"):
        made.models.start()
    made.add(1, "broken")
    with pytest.raises(InputError, match=r"version 1 which does not load \(it is broken\)"):
        made.models.start()


# The configuration file

MODEL = 'name: "usr" base_path: "/models/usr" model_platform: "tensorflow"'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense", "found what does not parse"),
        ("", "found no model"),
        ("model_config_list {}", "found no model"),
        (f"model_config_list {{ config {{ {MODEL} }} config {{ {MODEL} }} }}", r"config\[1\].name: found 'usr' again"),
        (f"model_config_list {{ config {{ {MODEL} name: '' }} }}", "found what does not parse"),
        (f"model_config_list {{ config {{ {MODEL.replace('usr', '', 1)} }} }}", r"config\[0\].name: found nothing"),
        (
            f"model_config_list {{ config {{ {MODEL.replace('/models', 'models')} }} }}",
            r"config\[0\].base_path: found 'models/usr', expected an absolute path",
        ),
        (
            f"model_config_list {{ config {{ {MODEL.replace('tensorflow', 'torch')} }} }}",
            r"config\[0\].model_platform: found 'torch', expected 'tensorflow'",
        ),
    ],
)
def test_a_configuration_is_refused_by_name(tmp_path, text, complaint):
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_model_config(path)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no readable file"):
        read_model_config(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(InputError, match="does not parse"):
        read_model_config(tmp_path / "latin")
