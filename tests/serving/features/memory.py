"""Backend in memory, and its documents, for tests."""

from serving.features import FeatureStore


class MemoryBackend:
    """Dictionary of keys and values; a transaction that raises leaves it as it was."""

    def __init__(self):
        self.values: dict[str, bytes] = {}
        self.reads = 0

    def read(self, keys):
        self.reads += 1
        return [self.values.get(key) for key in keys]

    def transact(self, work):
        return work(self)

    def write(self, values):
        for key, stored in values.items():
            if stored is None:
                self.values.pop(key, None)
            else:
                self.values[key] = stored.value

    def close(self):
        pass


def memory_store(schema, limits=None) -> FeatureStore:
    return FeatureStore(MemoryBackend(), schema, limits)
