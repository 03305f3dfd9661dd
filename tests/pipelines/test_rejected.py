import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.beam.blocks import BlockStore
from pipelines.logs.columns import PLACE
from pipelines.logs.rejected import COUNTS, REJECTED, FindExamples, set_aside, set_aside_marked

NAMES = {"items": ["a/items-0.jsonl", "a/items-1.jsonl"]}


def blocks_of(rejected, size):
    outputs = [
        set_aside(rejected[start : start + size], "items", BlockStore()) for start in range(0, len(rejected), size)
    ]
    return [output.value for part in outputs for output in part if output.tag == REJECTED]


def entry(place, reason="bad", row=None):
    return {"place": place, "reason": reason, "row": row or {"n": place}}


def test_rows_set_aside_are_counted_by_reason():
    outputs = list(set_aside([entry(1), entry(2, "late"), entry(3)], "items", BlockStore()))
    assert [output.value for output in outputs if output.tag == COUNTS] == [
        {("rows", "items", "rejected", "bad"): 2, ("rows", "items", "rejected", "late"): 1}
    ]
    assert list(set_aside([], "items", BlockStore())) == []


def test_marked_rows_are_set_aside_for_one_reason():
    rows = pa.table({"item_id": ["a", "b", "c"], PLACE: [7, 8, 9]})
    outputs = set_aside_marked(rows, [True, False, True], "duplicate", "items", BlockStore())
    assert FindExamples(NAMES).extract_output(
        FindExamples(NAMES).add_input({}, next(output.value for output in outputs if output.tag == REJECTED))
    ) == {
        "items": {
            "duplicate": [
                {"place": "items-0.jsonl:7", "row": '{"item_id": "a"}'},
                {"place": "items-0.jsonl:9", "row": '{"item_id": "c"}'},
            ]
        }
    }


def test_examples_are_the_first_rows_of_each_reason_cut_short():
    late = entry((1 << 40) + 5, "late", {"text": "é" * 400})
    blocks = blocks_of([entry(4), late, entry(9), entry(2), entry(1)], 2)
    combine = FindExamples(NAMES)
    found = combine.extract_output(combine.merge_accumulators([combine.add_input({}, block) for block in blocks]))
    assert found["items"]["bad"] == [{"place": f"items-0.jsonl:{n}", "row": f'{{"n": {n}}}'} for n in (1, 2, 4)]
    [example] = found["items"]["late"]
    assert example == {"place": "items-1.jsonl:5", "row": ('{"text": "' + "é" * 400)[:300]}


@given(st.permutations([entry(place, reason) for place in range(6) for reason in ("bad", "late")]), st.integers(1, 12))
def test_examples_do_not_depend_on_the_order_of_rows_or_blocks(rejected, size):
    combine = FindExamples(NAMES)
    found = {}
    for block in blocks_of(rejected, size):
        found = combine.add_input(found, block)
    assert combine.extract_output(found) == {
        "items": {
            reason: [{"place": f"items-0.jsonl:{n}", "row": f'{{"n": {n}}}'} for n in range(3)]
            for reason in ("bad", "late")
        }
    }
