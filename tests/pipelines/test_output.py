import io

import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem

from pipelines.beam.output import TEMP, finish, prepare, read_json, read_schema, write_json
from usr_tf.errors import InputError
from usr_tf.schema import SUCCESS


class ObjectStore(FileSystem):
    """`objects://…`: as the stores of clouds are, without folders, in a dictionary."""

    files: dict[str, bytes] = {}

    @classmethod
    def scheme(cls):
        return "objects"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        pass

    def _list(self, dir_or_prefix):
        return [FileMetadata(path, 1) for path in self.files if path.startswith(dir_or_prefix)]

    def open(self, path, mime_type="", compression_type="auto"):
        return io.BytesIO(self.files[path])

    def create(self, path, mime_type="", compression_type="auto"):
        files = self.files

        class Stream(io.BytesIO):
            def close(self):
                files[path] = self.getvalue()
                super().close()

        return Stream()

    def exists(self, path):
        return path in self.files

    def delete(self, paths):
        for path in paths:
            del self.files[path]

    split = copy = rename = size = last_updated = checksum = metadata = None


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(ObjectStore, "files", {})
    return ObjectStore.files


def test_a_store_without_folders_is_cleared_of_an_unfinished_try(store, shop):
    prepare("objects://b/data", shop.schema)
    left = [
        "train/part-00000-of-00009.tfrecord.gz",
        f"{TEMP}/x/y",
        "transform/transform_fn/saved_model.pb",
        "stats.json",
    ]
    store.update({f"objects://b/data/{name}": b"old" for name in left})
    store["objects://b/data2/train/x"] = b"not ours"
    prepare("objects://b/data", shop.schema)
    assert set(store) == {"objects://b/data/schema.yaml", "objects://b/data2/train/x"}
    store[f"objects://b/data/{TEMP}/x/y"] = b""
    write_json({"a": "é"}, "objects://b/data/stats.json")
    finish("objects://b/data")
    assert set(store) == {f"objects://b/data/{name}" for name in ("schema.yaml", "stats.json", SUCCESS)} | {
        "objects://b/data2/train/x"
    }
    assert read_json("objects://b/data/stats.json") == {"a": "é"}


def test_files_of_others_in_a_store_are_refused_and_kept(store, shop):
    store["objects://b/data/train/part"] = b"no schema beside it"
    with pytest.raises(InputError, match=r"objects://b/data: found other files \(train\), expected a new directory"):
        prepare("objects://b/data", shop.schema)
    assert set(store) == {"objects://b/data/train/part"}


@pytest.mark.parametrize("place", ["nowhere://b/data", "nowhere://b/logs/schema.yaml"])
def test_a_file_system_that_beam_does_not_have_is_refused_in_one_line(shop, place):
    with pytest.raises(InputError, match=r"nowhere://b/.*: found no readable") as error:
        prepare(place, shop.schema) if place.endswith("data") else read_schema(place)
    assert "\n" not in str(error.value)
