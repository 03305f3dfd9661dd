"""Mapping from item lists to scenarios: `--list 'PATTERN=scenario'`."""

import fnmatch
from collections.abc import Iterable, Mapping

from usr_tf.errors import InputError


class Lists:
    """Scenario of each item list: that of the first matching pattern, case-insensitive.

    Args:
      scenarios: The scenario of each pattern, as `fnmatch` has them: `{"*search*": "search"}`.
    """

    def __init__(self, scenarios: Mapping[str, str]):
        self.patterns = tuple(scenarios)
        self.scenarios = tuple(dict.fromkeys(scenarios.values()))
        self._scenarios = {pattern.casefold(): scenario for pattern, scenario in scenarios.items()}
        self._known: dict[tuple[str, ...], str | None] = {}

    def scenario_of(self, *names: str) -> str | None:
        """Scenario of a list with these names; None if no pattern matches."""
        if names not in self._known:
            matches = (
                scenario
                for pattern, scenario in self._scenarios.items()
                if any(fnmatch.fnmatchcase(name.casefold(), pattern) for name in names)
            )
            self._known[names] = next(matches, None)
        return self._known[names]


def parse_lists(rules: Iterable[str]) -> dict[str, str]:
    """Parses `['Search Results=search', …]` to `{pattern: scenario}`.

    Raises:
      InputError: a rule has other parts, or a pattern stands twice.
    """
    lists: dict[str, str] = {}
    for rule in rules:
        pattern, _, scenario = rule.rpartition("=")
        if not (pattern and scenario):
            raise InputError("--list", repr(rule), "PATTERN=scenario, such as 'Search Results=search'")
        if pattern in lists:
            raise InputError("--list", f"{pattern!r} twice", "each pattern once")
        lists[pattern] = scenario
    return lists
