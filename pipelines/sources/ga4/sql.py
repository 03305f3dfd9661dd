"""BigQuery SQL that turns GA4's events into the log tables, by the rules of the import.

Three rules are the import's alone: an item that stands out because another one of its name was in the list shown last;
one that stands out because it was not in that list; and equal items of different events at one microsecond, which are
told apart here. What is shown most, of items of one name, is counted among impressions with that name.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.logs import bigquery
from pipelines.sources.export_row import MISSING
from pipelines.sources.ga4.acted_items import ALL, EXTRA, FIRST
from pipelines.sources.ga4.source import GA4, SEARCH, SEARCHES, SELECTION
from pipelines.sources.lists import PAGE
from usr_tf.errors import InputError

_SIGNS = {
    "quantity": "quantity > 0",
    "twice": "copies > 1",
    "no_index": "indexed = item_count - 1 AND item_index IS NULL",
    "index_above": "indexed = item_count AND item_index > first_index + item_count - 1",
    "own_list": "lists = 2 AND item_count > 2 AND list_items = 1",
}

_EVENTS = """\
CREATE TEMP FUNCTION present(value STRING) AS (IF(LOWER(TRIM(value)) IN ({missing}), NULL, value));

-- Relevant events of known users, each once, with the query of the session so far.
CREATE TEMP TABLE events AS
WITH exported AS (
  {tables}
), once AS (
  SELECT
    event_name, event_timestamp, user_pseudo_id AS user_id,
    MD5(CONCAT(
      user_pseudo_id, '/', CAST(event_timestamp AS STRING), '/', event_name, '/', TO_JSON_STRING(items)
    )) AS event_id,
    {session} AS session_id,
    {url} AS url,
    {search_term} AS search_term,
    {list_name} AS event_list_name,
    {list_id} AS event_list_id,
    IFNULL(present(device.category), '') AS device,
    IFNULL(present(platform), '') AS platform,
    IFNULL(present(geo.country), '') AS country,
    IFNULL(present(traffic_source.medium), '') AS medium,
    present(ecommerce.transaction_id) AS transaction_id,
    items
  FROM exported
  WHERE event_name IN ({names}) AND present(user_pseudo_id) IS NOT NULL
  QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY event_timestamp) = 1
)
SELECT
  *,
  REGEXP_EXTRACT(url, '^[^:/?#]+://[^/?#]*([^?#]*)') AS path,
  COALESCE(
    search_term,
    LAST_VALUE(IF(event_name IN ({searches}), IFNULL(search_term, ''), NULL) IGNORE NULLS) OVER (
      PARTITION BY user_id, session_id ORDER BY event_timestamp, CASE {order} END
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ),
    ''
  ) AS query
FROM once;

-- Items of the events. In an event that shows a list and acts on an item of it, all are in the list of most of them.
CREATE TEMP TABLE event_items AS
WITH named AS (
  SELECT
    events.* EXCEPT (items),
    place,
    COALESCE(present(item.item_id), present(item.item_name)) AS item_id,
    LOWER(present(item.item_name)) AS name,
    present(item.item_brand) AS brand,
    NULLIF(ARRAY_TO_STRING([
      present(item.item_category), present(item.item_category2), present(item.item_category3),
      present(item.item_category4), present(item.item_category5)
    ], '/'), '') AS category,
    item.price AS price,
    item.quantity AS quantity,
    SAFE_CAST(present(item.item_list_index) AS INT64) AS item_index,
    CONCAT(IFNULL(present(item.item_list_name), ''), '/', IFNULL(present(item.item_list_id), '')) AS own_list,
    IF(COALESCE(present(item.item_list_name), present(item.item_list_id)) IS NULL,
      event_list_name, present(item.item_list_name)) AS list_name,
    IF(COALESCE(present(item.item_list_name), present(item.item_list_id)) IS NULL,
      event_list_id, present(item.item_list_id)) AS list_id
  FROM events CROSS JOIN UNNEST(items) AS item WITH OFFSET AS place
), majority AS (
  SELECT event_id, list_name, list_id
  FROM named
  GROUP BY event_id, list_name, list_id
  QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY COUNT(*) DESC, MIN(place)) = 1
), first_place AS (
  SELECT IF(COUNTIF(item_index = 0) > 0, 0, 1) AS first_index FROM named WHERE event_name IN ({shown})
), listed AS (
  SELECT
    named.* EXCEPT (list_name, list_id),
    first_index,
    IF({both}, majority.list_name, named.list_name) AS list_name,
    IF({both}, majority.list_id, named.list_id) AS list_id
  FROM named JOIN majority USING (event_id) CROSS JOIN first_place
)
SELECT
  *,
  COALESCE(list_name, list_id, event_name) AS list,
  COUNT(item_id) OVER (PARTITION BY event_id) AS item_count,
  COUNT(IF(item_id IS NULL, NULL, item_index)) OVER (PARTITION BY event_id) AS indexed,
  COUNT(*) OVER (PARTITION BY event_id) - COUNT(item_index) OVER (PARTITION BY event_id) AS without_index,
  COUNTIF(item_index = first_index) OVER (PARTITION BY event_id) AS in_first_place,
  COUNT(*) OVER (PARTITION BY event_id, item_id) AS copies,
  COUNT(*) OVER (PARTITION BY event_id, own_list) AS list_items,
  COUNT(DISTINCT IF(item_id IS NULL, NULL, own_list)) OVER (PARTITION BY event_id) AS lists,
  COUNT(DISTINCT item_id) OVER (PARTITION BY event_id) AS distinct_items
FROM listed;

-- What is meant where an event carries several items: the rule that tells, or NULL where none does.
CREATE TEMP TABLE acted_items AS
WITH acts AS (
  SELECT
    *,
    CASE {action} END AS action,
    {keys}
  FROM event_items
  WHERE event_name IN ({actions}) AND item_id IS NOT NULL
), settled AS (
  SELECT
    *,
    CASE
      WHEN distinct_items = 1 OR action = 'purchase' THEN 'all'
      {rules}
    END AS rule
  FROM acts
)
SELECT
  *,
  CASE {action_scenario} END AS scenario
FROM settled
WHERE CASE rule
  WHEN 'all' THEN TRUE
  WHEN 'first' THEN list_place = 1
  {chosen}
  ELSE FALSE
END;

CREATE TEMP TABLE shown_items AS
SELECT
  *,
  CONCAT(user_id, '/', CAST(event_timestamp AS STRING), '/', list) AS request_id,
  CASE {shown_scenario} END AS scenario,
  IF(
    2 * COUNTIF(item_index IS NULL) OVER (PARTITION BY event_id, list) >= COUNT(*) OVER (PARTITION BY event_id, list),
    ROW_NUMBER() OVER (PARTITION BY event_id, list ORDER BY place),
    item_index + 1 - first_index
  ) AS position
FROM event_items
LEFT JOIN (SELECT DISTINCT event_id, item_id, TRUE AS acted FROM acted_items) USING (event_id, item_id)
WHERE event_name IN ({shown})
QUALIFY item_id IS NOT NULL
  -- What has replaced the first item of the list is in the event for the action alone.
  AND NOT ({both} AND (distinct_items = 1 OR (
    acted AND copies = 1
    AND without_index = IF(item_index IS NULL, 1, 0) AND in_first_place = IF(item_index = first_index, 1, 0)
  ) IS TRUE))
  AND ROW_NUMBER() OVER (PARTITION BY user_id, event_timestamp, list, item_id ORDER BY event_id, place) = 1;

CREATE OR REPLACE TABLE `{out}.impressions` AS
SELECT
  request_id, scenario, user_id, item_id, DIV(event_timestamp, 1000) AS timestamp, position,
  IF(price > 0, price, NULL) AS price,
  IF(scenario = '{search}', query, '') AS query,
  device, platform, country, medium,
  CAST(EXTRACT(HOUR FROM TIMESTAMP_MICROS(event_timestamp) AT TIME ZONE {zone}) AS STRING) AS hour,
  IFNULL(REGEXP_EXTRACT(path, '^([^/]*(?:/[^/]*){{0,2}})'), '') AS page
FROM shown_items
WHERE scenario IS NOT NULL;

CREATE TEMP TABLE actions_once AS
SELECT
  acted.user_id, acted.item_id, acted.event_timestamp, acted.action, acted.name, acted.brand, acted.category,
  IF(shown.item_id IS NULL, acted.scenario, shown.scenario) AS scenario,
  shown.request_id
FROM acted_items AS acted
LEFT JOIN (
  SELECT DISTINCT event_id, item_id, request_id, scenario FROM shown_items WHERE scenario IS NOT NULL
) AS shown USING (event_id, item_id)
WHERE shown.item_id IS NOT NULL OR NOT (
  acted.action = 'click' AND acted.scenario IS NULL AND COALESCE(acted.list_name, acted.list_id) IS NOT NULL
  AND {on_list_page}
)
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY acted.user_id, acted.event_timestamp, acted.action, acted.item_id ORDER BY acted.event_id, acted.place
  ) = 1
  AND (acted.action != 'purchase' OR acted.transaction_id IS NULL OR ROW_NUMBER() OVER (
    PARTITION BY acted.user_id, acted.action, acted.transaction_id, acted.item_id ORDER BY acted.event_timestamp
  ) = 1);

CREATE OR REPLACE TABLE `{out}.actions` AS
WITH shown AS (
  SELECT DISTINCT item_id FROM `{out}.impressions`
), shown_as AS (
  SELECT name, item_id
  FROM shown_items
  WHERE scenario IS NOT NULL AND name IS NOT NULL
  GROUP BY name, item_id
  QUALIFY ROW_NUMBER() OVER (PARTITION BY name ORDER BY COUNT(*) DESC, item_id DESC) = 1
)
SELECT
  actions_once.user_id,
  IF(shown.item_id IS NULL, COALESCE(shown_as.item_id, actions_once.item_id), actions_once.item_id) AS item_id,
  DIV(actions_once.event_timestamp, 1000) AS timestamp,
  actions_once.action, actions_once.scenario, actions_once.request_id
FROM actions_once
LEFT JOIN shown ON shown.item_id = actions_once.item_id
LEFT JOIN shown_as ON shown_as.name = actions_once.name;

CREATE OR REPLACE TABLE `{out}.items` AS
WITH told AS (
  SELECT item_id, name, category, brand FROM shown_items WHERE scenario IS NOT NULL
  UNION ALL
  SELECT item_id, name, category, brand FROM actions_once
), {features}
SELECT item_id, name, category, brand
FROM (SELECT item_id FROM `{out}.impressions` UNION DISTINCT SELECT item_id FROM `{out}.actions`)
LEFT JOIN names USING (item_id)
LEFT JOIN categories USING (item_id)
LEFT JOIN brands USING (item_id);
"""


def print_sql(source: str, inputs: Sequence[str], out: str, options: Mapping[str, Any]) -> str:
    """SQL script for `bigquery:` tables of GA4 events, with `schema.yaml` of its tables as a comment at the end.

    Args:
      source: The log source, `ga4`.
      inputs: `bigquery:PROJECT.DATASET.TABLE`, where TABLE may end in `*`.
      out: `bigquery:PROJECT.DATASET` or `PROJECT.DATASET`, for the tables `impressions`, `actions` and `items`.
      options: Keyword arguments of `GA4`.

    Raises:
      InputError: another source, an input that is no such table, or wrong options.
    """
    if source != GA4.name:
        raise InputError("--print_sql", f"--source {source}", f"--source {GA4.name}")
    tables = [_table(name) for name in inputs]
    parts = out.removeprefix("bigquery:").split(".")
    if len(parts) != 2 or not all(re.fullmatch(r"[\w:-]+", part) for part in parts):
        raise InputError("--out", repr(out), "PROJECT.DATASET, where --print_sql is given")
    ga4 = GA4(**options)
    schema = "".join(f"-- {line}".rstrip() + "\n" for line in ga4.schema().splitlines())
    return f"{_script(ga4, tables, '.'.join(parts))}\n-- schema.yaml:\n{schema}".rstrip()


def _table(name: str) -> str:
    if not bigquery.is_table(name):
        raise InputError("--input", repr(name), "bigquery:PROJECT.DATASET.TABLE, where --print_sql is given")
    project, dataset, table = bigquery.parse_name(name)
    if not re.fullmatch(r"\w+\*?|\*", table):
        raise InputError("--input", repr(name), "a table, or a pattern whose only * is its last character")
    return f"{project}.{dataset}.{table}"


def _script(ga4: GA4, tables: Sequence[str], out: str) -> str:
    both = [name for name in ga4.shown if name in ga4.actions]
    order = dict.fromkeys((*SEARCHES, *ga4.shown, *ga4.actions))
    # A rule of pages asks for the page of the list, where a selection alone is sure to happen.
    on_list_page = f"acted.event_name = {_literal(SELECTION)}" if ga4.lists.reads_pages else "TRUE"
    of_action = _scenarios(ga4, ("list_name", "list_id"))
    if ga4.lists.reads_pages:
        of_action = f"WHEN event_name != {_literal(SELECTION)} THEN NULL {of_action}"
    else:
        of_action = f"WHEN COALESCE(list_name, list_id) IS NULL THEN NULL {of_action}"
    return _EVENTS.format(
        missing=_literals(MISSING),
        tables="\n  UNION ALL\n  ".join(f"SELECT * FROM `{table}`" for table in tables),
        session=_param("ga_session_id"),
        url=_param("page_location"),
        search_term=_param("search_term"),
        list_name=_param("item_list_name"),
        list_id=_param("item_list_id"),
        names=_literals(order),
        searches=_literals(SEARCHES),
        shown=_literals(ga4.shown),
        actions=_literals(ga4.actions),
        order=" ".join(f"WHEN event_name = {_literal(name)} THEN {place}" for place, name in enumerate(order)),
        both=f"event_name IN ({_literals(both)})" if both else "FALSE",
        shown_scenario=_scenarios(ga4, ("COALESCE(list_name, IF(list_id IS NULL, event_name, NULL))", "list_id")),
        action_scenario=of_action,
        action=" ".join(
            f"WHEN event_name = {_literal(name)} THEN {_literal(action)}" for name, action in ga4.actions.items()
        ),
        keys=",\n    ".join(
            [
                f"COUNT(DISTINCT IF({sign}, item_id, NULL)) OVER (PARTITION BY event_id) AS {name}_items"
                for name, sign in _SIGNS.items()
            ]
            + ["MIN(IFNULL(quantity, 0)) OVER (PARTITION BY event_id) AS least_quantity"]
            + ["ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY item_index IS NULL, item_index, place) AS list_place"]
        ),
        rules="\n      ".join(_rules(ga4.several)),
        chosen="\n  ".join(f"WHEN '{name}' THEN {sign}" for name, sign in _SIGNS.items()),
        on_list_page=on_list_page,
        out=out,
        search=SEARCH,
        zone=_literal(str(ga4.timezone)),
        features=", ".join(
            _most_frequent(plural, name)
            for plural, name in (("names", "name"), ("categories", "category"), ("brands", "brand"))
        ),
    )


def _rules(several: Sequence[str]) -> list[str]:
    rules = []
    for rule in several:
        if rule in (ALL, FIRST):
            return [*rules, f"ELSE '{rule}'"]
        if rule != EXTRA:
            return rules
        rules.append("WHEN action = 'cart' AND least_quantity > 0 THEN 'all'")
        rules += [f"WHEN {name}_items = 1 THEN '{name}'" for name in _SIGNS]
    return rules


def _scenarios(ga4: GA4, names: Sequence[str]) -> str:
    cases = []
    for pattern, scenario in ga4.lists.rules.items():
        regex = _literal(_regex(pattern.removeprefix(PAGE)))
        texts = ("url", "path") if pattern.startswith(PAGE) else names
        found = " OR ".join(f"IFNULL(REGEXP_CONTAINS({text}, {regex}), FALSE)" for text in texts)
        cases.append(f"WHEN {found} THEN {_literal(scenario)}")
    return " ".join(cases)


def _regex(pattern: str) -> str:
    """RE2 of a pattern of `fnmatch`, case-insensitive."""
    parts = re.split(r"(\*|\?|\[!?\]?[^\]]*\])", pattern)
    known = {"*": ".*", "?": "."}
    escaped = [
        known.get(part)
        or (
            f"[^{part[2:]}"
            if part.startswith("[!")
            else part
            if part.startswith("[") and len(part) > 2
            else re.escape(part)
        )
        for part in parts
    ]
    return f"(?is)^{''.join(escaped)}$"


def _most_frequent(table: str, feature: str) -> str:
    return f"""{table} AS (
  SELECT item_id, {feature}
  FROM told
  WHERE {feature} IS NOT NULL
  GROUP BY item_id, {feature}
  QUALIFY ROW_NUMBER() OVER (PARTITION BY item_id ORDER BY COUNT(*) DESC, {feature}) = 1
)"""


def _param(name: str) -> str:
    values = (
        "param.value.string_value",
        *(f"CAST(param.value.{kind}_value AS STRING)" for kind in ("int", "float", "double")),
    )
    found = ", ".join(f"present({value})" for value in values)
    return f"(SELECT COALESCE({found}) FROM UNNEST(event_params) AS param WHERE param.key = {_literal(name)} LIMIT 1)"


def _literals(texts: Any) -> str:
    return ", ".join(map(_literal, texts))


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
