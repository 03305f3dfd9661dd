"""Version labels in the configuration file."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.publishing.labels import Rollout, read_rollout, write_rollout
from usr_tf.errors import InputError

CONFIG = """\
# Ours.
# Two models.
model_config_list {
  config {
    name: "usr"
    base_path: "/models/usr"
    model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 1 } }
    version_labels { key: "audit" value: 3 }
  }
  config { name: "other" base_path: "/models/other" model_platform: "tensorflow" }
}
"""


def rollout(stable: int | None, canary: int | None, *loaded: int) -> Rollout:
    return Rollout(stable, canary, frozenset(loaded))


def test_a_canary_comes_beside_the_stable_version_and_takes_its_place():
    first = Rollout().begin(1)
    assert first == rollout(1, None, 1)
    second = first.begin(2)
    assert second == rollout(1, 2, 1, 2)
    assert second.promote() == rollout(2, None, 1, 2)  # the version before stays loaded, to go back to
    assert second.promote().begin(3) == rollout(2, 3, 2, 3)


def test_going_back_drops_the_canary_first_and_then_moves_stable():
    third = rollout(2, 3, 2, 3).back({1, 2, 3})
    assert third == rollout(2, None, 1, 2)
    assert third.back({1, 2, 3}) == rollout(1, None, 1)
    assert rollout(5, None, 3, 5).back({2, 3, 4, 5}) == rollout(3, None, 2, 3)  # 4 is not loaded


def test_labels_and_versions_are_written_beside_what_the_file_has(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(CONFIG)
    assert read_rollout(path, "usr") == Rollout()

    write_rollout(path, "usr", rollout(1, 2, 1, 2))
    text = path.read_text()
    assert text.startswith("# Ours.\n# Two models.\nmodel_config_list {")
    usr, other = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert usr.base_path == "/models/usr"
    assert usr.model_version_policy.WhichOneof("policy_choice") == "specific"
    assert list(usr.model_version_policy.specific.versions) == [1, 2, 3]
    assert dict(usr.version_labels) == {"audit": 3, "stable": 1, "canary": 2}
    assert (other.name, dict(other.version_labels)) == ("other", {})
    assert read_rollout(path, "usr") == rollout(1, 2, 1, 2, 3)

    write_rollout(path, "usr", rollout(2, None, 1, 2))
    assert read_rollout(path, "usr") == rollout(2, None, 1, 2, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["models.config"]


def test_a_model_that_the_file_does_not_have_is_refused(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(CONFIG)
    with pytest.raises(InputError, match=r"models\.config: found no model 'us', expected one of usr, other"):
        read_rollout(path, "us")
