"""Each rule of the KuaiSAR import on rows made by hand, and generated files as a whole."""

import pytest

from tests.pipelines.sources.generated import (
    ITEM_FEATURES,
    REC_INTER,
    SRC_INTER,
    START,
    USER_FEATURES,
    write_csv,
    write_kuaisar,
)
from tests.pipelines.sources.imported import Imported, assert_preprocess_takes
from usr_tf.errors import InputError

ITEM = (
    "[1, 213, 24]", 10, "NORMAL", "2023-04-22", "LongImport", 9, "搞笑", "Funny", 136, "搞笑段子", "Funny joke",
    0, "空", "empty", 0, "空", "empty",
)  # fmt: skip


def recommended(item, time, click=0, watched=0.0, user=1, forward=0, like=0, follow=0):
    return (user, item, watched, 45400.0, "", START + time, click, forward, like, follow, 1, 1)


def found(item, time, clicks=0, session=7, kind="VIDEO", words="[20, 34]", user=1):
    return (user, session, "2023-05-22 21:58:52", START + time, words, "USER_INPUT", item, clicks, kind)


def imported(folder, rec=(), src=(), items=((5, *ITEM),)):
    write_csv(folder / "in/rec_inter.csv", REC_INTER, list(rec))
    write_csv(folder / "in/src_inter.csv", SRC_INTER, list(src))
    write_csv(folder / "in/item_features.csv", ITEM_FEATURES, list(items))
    write_csv(folder / "in/user_features.csv", USER_FEATURES, [(1, 3, 2, 0, 7)])
    return Imported("kuaisar", folder / "in")


def test_rows_of_every_table(tmp_path):
    logs = imported(tmp_path, [recommended(5, 9)], [found(6, 0, clicks=2)])
    common = {"user_id": "1", "hour": "6"}  # 22:13 UTC in Beijing
    assert logs.impressions == [
        {
            "request_id": f"search/1/7/{START}",
            "scenario": "search",
            "item_id": "6",
            "timestamp": START,
            "query": "20 34",
            "search_source": "USER_INPUT",
            **common,
        },
        {
            "request_id": f"recommendation/1/{START + 9}",
            "scenario": "recommendation",
            "item_id": "5",
            "timestamp": START + 9,
            "query": "",
            "search_source": "",
            **common,
        },
    ]
    assert logs.actions == [
        {
            "user_id": "1",
            "item_id": "6",
            "timestamp": START,
            "action": "click",
            "request_id": f"search/1/7/{START}",
            "scenario": "search",
        }
    ]
    assert logs.items == {
        "5": {
            "author_id": "10",
            "category": "9",
            "subcategory": "136",
            "caption": "1 213 24",
            "item_type": "NORMAL",
            "upload_type": "LongImport",
        }
    }
    assert logs.users == {"1": {"onehot_feat1": "0", "onehot_feat2": "7"}}
    assert logs.report["read"] == {"src_inter.csv": 1, "rec_inter.csv": 1}


def test_a_hand_out_is_one_request_and_its_actions_come_when_all_of_it_is_watched(tmp_path):
    logs = imported(
        tmp_path,
        [
            recommended(1, 0, click=1, watched=300.0, like=1),
            recommended(9, 50_000, click=1, watched=1e10, follow=1, forward=1),  # left on all night
            recommended(2, 0, watched=""),
            recommended(1, 0, user=2, click=1),
            recommended(3, 0, click=1, watched=40.0),
        ],
    )
    requests = [(row["user_id"], row["item_id"], row["request_id"]) for row in logs.impressions]
    assert requests == [
        *(("1", item, f"recommendation/1/{START}") for item in "123"),
        ("1", "9", f"recommendation/1/{START + 50_000}"),
        ("2", "1", f"recommendation/2/{START}"),
    ]
    hour = 3_600_000
    assert [(row["item_id"], row["action"], row["timestamp"] - START) for row in logs.actions] == [
        ("1", "click", 340),
        ("1", "like", 340),
        ("3", "click", 340),
        ("9", "click", 50_000 + hour),
        ("9", "follow", 50_000 + hour),
        ("9", "forward", 50_000 + hour),
        ("1", "click", 0),
    ]


def test_repeated_rows_of_a_hand_out_are_one(tmp_path):
    logs = imported(tmp_path, [recommended(1, 0), recommended(2, 0), recommended(1, 0, click=1)])
    assert [row["item_id"] for row in logs.impressions] == ["1", "2"]
    assert [row["item_id"] for row in logs.actions] == ["1"]
    assert logs.report["dropped"] == {"repeated_impression": 1}


def test_search_results_that_are_no_videos_are_dropped(tmp_path):
    kinds = ("VIDEO", "IMAGE_ATLAS", "USER", "LIVE", "USER")
    logs = imported(tmp_path, src=[found(item, 0, clicks=1, kind=kind) for item, kind in enumerate(kinds)])
    assert [row["item_id"] for row in logs.impressions] == [row["item_id"] for row in logs.actions] == ["0", "1"]
    assert logs.report["dropped"] == {"search_result_of_type_USER": 2, "search_result_of_type_LIVE": 1}


def test_nothing_that_a_user_did_later_is_a_feature(tmp_path):
    """Two imports that differ in outcomes alone have the same impressions, items and users."""
    (tmp_path / "other").mkdir()
    logs = imported(tmp_path, [recommended(1, 0)], [found(1, 0)])
    other = imported(
        tmp_path / "other", [recommended(1, 0, click=1, watched=9.0, like=1, follow=1, forward=1)], [found(1, 0, 3)]
    )
    assert (logs.impressions, logs.items, logs.users) == (other.impressions, other.items, other.users)
    assert (len(logs.actions), len(other.actions)) == (0, 5)


def test_padding_is_nothing(tmp_path):
    padded = ("[]", 0, "NORMAL", "1970-01-01", "", 0, "空", "empty", 0, "空", "empty", *ITEM[11:])
    logs = imported(tmp_path, [recommended(1, 0)], items=[(5, *padded)])
    assert logs.items["5"] == {
        "author_id": "",
        "category": "",
        "subcategory": "",
        "caption": "",
        "item_type": "NORMAL",
        "upload_type": "",
    }


def test_rows_that_cannot_be_read_are_set_aside(tmp_path):
    sound = recommended(1, 0)
    with_field = lambda place, value: (*sound[:place], value, *sound[place + 1 :])  # noqa: E731
    logs = imported(
        tmp_path,
        [with_field(0, ""), with_field(1, ""), with_field(5, "soon"), with_field(5, 0), with_field(6, ""), sound],
        [found(1, 0, clicks="x"), (1, 2)],
    )
    assert len(logs.impressions) == 1
    assert [(row["file"].rpartition("/")[2], row["line"], row["reason"]) for row in logs.rejected] == [
        ("src_inter.csv", 2, "click_cnt: no number from 0"),
        ("src_inter.csv", 3, "wrong_number_of_fields"),
        ("rec_inter.csv", 2, "user_id: none"),
        ("rec_inter.csv", 3, "item_id: none"),
        ("rec_inter.csv", 4, "timestamp: no number from 1"),
        ("rec_inter.csv", 5, "timestamp: no number from 1"),
        ("rec_inter.csv", 6, "click: no number from 0"),
    ]


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(InputError, match=r"rec_inter\.csv: found no impression to import"):
        imported(tmp_path)
    (tmp_path / "in/src_inter.csv").unlink()
    with pytest.raises(InputError, match=r"--input: found no src_inter\.csv, expected the directory that holds it"):
        Imported("kuaisar", tmp_path / "in")
    write_csv(tmp_path / "in/src_inter.csv", "user_id,keyword", [])
    with pytest.raises(InputError, match=r"src_inter\.csv: column 'search_session_id': found none in its header"):
        Imported("kuaisar", tmp_path / "in")


def test_generated_files_suit_preprocess(tmp_path):
    logs = Imported("kuaisar", write_kuaisar(tmp_path / "in"))
    assert logs.report["rejected"] == {}
    assert logs.report["written"]["impressions"]["recommendation"] == 600
    assert_preprocess_takes(logs.logs)
