"""`--list` patterns."""

import pytest

from pipelines.sources.lists import Lists, parse_lists, parse_pairs
from usr_tf.errors import InputError


def test_the_first_pattern_that_matches_counts_in_any_case():
    lists = Lists(parse_lists(["Search Results=find", "*related*=feed", "s*=find", "a=b=feed"]))
    assert lists.scenarios == ("find", "feed")
    assert [lists.scenario_of(name) for name in ("search results", "S-related", "Sale", "a=b", "Home", "")] == [
        "find",
        "feed",
        "find",
        "feed",
        None,
        None,
    ]
    assert lists.scenario_of("Home", "related_1") == "feed"  # by its name or its id


def test_a_pattern_of_the_page_is_matched_with_its_url_and_its_path():
    lists = Lists(parse_lists(["page:/find=found", "page:*[?]q=*=asked", "home=feed", "page:*=other"]))
    find = lambda url, *names: lists.scenario_of(*names, page=url)  # noqa: E731
    assert find("https://a.example/Find?x=1", "home") == "found"
    assert find("https://a.example/all?q=x", "home") == "asked"
    assert find("https://a.example/all", "home") == "feed"
    assert find("https://a.example/all", "page:/find") == "other"
    assert find("", "sale") is None
    assert find("http://[", "sale") == "other"


@pytest.mark.parametrize("pair", ["a", "=b", "a=", ""])
def test_a_pair_with_other_parts_is_refused(pair):
    assert parse_pairs("--x", ["a=b", "c=d=e"], "A=B") == {"a": "b", "c": "d=e"}
    with pytest.raises(InputError, match=r"--x: found .*, expected A=B"):
        parse_pairs("--x", [pair], "A=B")
    with pytest.raises(InputError, match=r"--x: found 'a' twice, expected each name once"):
        parse_pairs("--x", ["a=b", "a=c"], "A=B")


@pytest.mark.parametrize("rule", ["Search", "=search", "Search=", "", "page:=search"])
def test_a_rule_with_other_parts_is_refused(rule):
    with pytest.raises(InputError, match=r"--list: found .*, expected PATTERN=scenario, such as"):
        parse_lists([rule])


def test_a_pattern_that_stands_twice_is_refused():
    with pytest.raises(InputError, match=r"--list: found 'a' twice, expected each pattern once"):
        parse_lists(["a=b", "a=c"])
