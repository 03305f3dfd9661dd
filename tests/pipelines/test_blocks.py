import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from pipelines.beam.blocks import BlockStore, Gather, RecordBatchCoder, divide, load


def batch_of(*numbers):
    return pa.RecordBatch.from_pydict({"n": pa.array(numbers, pa.int64()), "text": [f"é{n}" for n in numbers]})


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_stored_block_comes_back(tmp_path, on_disk):
    store = BlockStore(str(tmp_path) if on_disk else None)
    batches = [batch_of(1, 2, 3).slice(1, 2), batch_of(), batch_of(4)]
    handles = [store.put(batch) for batch in batches]
    assert [load(handle) for handle in handles] == batches
    assert all(isinstance(handle, tuple if on_disk else bytes) for handle in handles)
    assert len(list(tmp_path.iterdir())) == int(on_disk)


def test_beams_coder_of_batches_estimates_without_encoding():
    batch = batch_of(*range(1000))
    coder = beam.coders.registry.get_coder(pa.RecordBatch)
    assert isinstance(coder, RecordBatchCoder)
    assert coder.decode(coder.encode(batch)) == batch
    assert coder.estimate_size(batch) == batch.nbytes


def test_rows_are_divided_by_their_part_in_their_order():
    parts = dict(divide(batch_of(*range(6)), np.array([5, 0, 5, 3, 0, 5])))
    assert {part: rows.column("n").to_pylist() for part, rows in parts.items()} == {0: [1, 4], 3: [3], 5: [0, 2, 5]}
    assert list(divide(batch_of(), np.zeros(0, np.int64))) == []


def test_batches_of_a_bundle_are_gathered_and_none_is_left_behind():
    def check(batches):
        assert sorted(n for batch in batches for n in batch.column("n").to_pylist()) == list(range(50))
        assert [batch.num_rows for batch in batches if batch.num_rows < 8] in ([], [2])

    with beam.Pipeline("FnApiRunner") as pipeline:
        batches = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: [batch_of(n, n + 1) for n in range(0, 50, 2)])
        assert_that(batches | Gather(8), check)
