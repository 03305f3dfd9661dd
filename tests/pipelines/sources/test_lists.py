"""`--list` patterns."""

import pytest

from pipelines.sources.lists import Lists, parse_lists
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


@pytest.mark.parametrize("rule", ["Search", "=search", "Search=", ""])
def test_a_rule_with_other_parts_is_refused(rule):
    with pytest.raises(InputError, match=r"--list: found .*, expected PATTERN=scenario, such as"):
        parse_lists([rule])


def test_a_pattern_that_stands_twice_is_refused():
    with pytest.raises(InputError, match=r"--list: found 'a' twice, expected each pattern once"):
        parse_lists(["a=b", "a=c"])
