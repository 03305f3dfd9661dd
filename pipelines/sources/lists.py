"""Mapping from item lists to scenarios: `--list 'PATTERN=scenario'`, by a list's name or by the page it stands on."""

import fnmatch
import functools
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from usr_tf.errors import InputError

PAGE = "page:"
"""What a pattern of a page starts with; others are of a list's names."""


class Lists:
    """Scenario of each item list: that of the first matching pattern, case-insensitive.

    Args:
      scenarios: The scenario of each pattern, as `fnmatch` has them: `{"*search*": "search"}`. A pattern that starts
        with `page:` is matched with the URL of the list's page and with its path: `{"page:/search/*": "search"}`.
    """

    def __init__(self, scenarios: Mapping[str, str]):
        self.rules = dict(scenarios)
        self.patterns = tuple(scenarios)
        self.scenarios = tuple(dict.fromkeys(scenarios.values()))
        self.reads_pages = any(pattern.startswith(PAGE) for pattern in scenarios)
        """Whether a pattern is one of pages."""
        self._rules = [
            (pattern.removeprefix(PAGE).casefold(), pattern.startswith(PAGE), scenario)
            for pattern, scenario in scenarios.items()
        ]
        self._find = functools.lru_cache(1 << 16)(self._first_match)

    def scenario_of(self, *names: str, page: str = "") -> str | None:
        """Scenario of a list with these names, on the page with this URL; None if no pattern matches."""
        return self._find(names, page if self.reads_pages else "")

    def _first_match(self, names: tuple[str, ...], page: str) -> str | None:
        of_list = [name.casefold() for name in names]
        of_page = [page.casefold(), path_of(page).casefold()] if page else []
        for pattern, is_page, scenario in self._rules:
            if any(fnmatch.fnmatchcase(text, pattern) for text in (of_page if is_page else of_list)):
                return scenario
        return None


def parse_lists(rules: Iterable[str]) -> dict[str, str]:
    """Parses `['Search Results=search', …]` to `{pattern: scenario}`.

    Raises:
      InputError: a rule has other parts, or a pattern stands twice.
    """
    lists: dict[str, str] = {}
    for rule in rules:
        pattern, _, scenario = rule.rpartition("=")
        if not (pattern.removeprefix(PAGE) and scenario):
            raise InputError("--list", repr(rule), "PATTERN=scenario, such as 'Search Results=search'")
        if pattern in lists:
            raise InputError("--list", f"{pattern!r} twice", "each pattern once")
        lists[pattern] = scenario
    return lists


def parse_pairs(flag: str, pairs: Iterable[str], expected: str) -> dict[str, str]:
    """Parses `['view_item=click', …]` to `{name: value}`.

    Raises:
      InputError: a pair has other parts, or a name stands twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not (name and value):
            raise InputError(flag, repr(pair), expected)
        if name in values:
            raise InputError(flag, f"{name!r} twice", "each name once")
        values[name] = value
    return values


def path_of(url: str) -> str:
    """Path of a URL: `https://shop.example/a/b?c=d` → `/a/b`; nothing of what is no URL."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
