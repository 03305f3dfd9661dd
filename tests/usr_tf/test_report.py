"""Report files: contents, and a self-contained page."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from usr_tf import metrics
from usr_tf.config import Config
from usr_tf.errors import InputError
from usr_tf.evaluation import report
from usr_tf.evaluation.report import RowText, RunSummary, headline, html, score_curves, slices, worst_errors
from usr_tf.evaluation.report.evaluation_page import evaluation_page
from usr_tf.evaluation.report.learning_curves import best_epoch
from usr_tf.metrics import Predictions, Training, slices_of
from usr_tf.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "scenarios": ["search", "recommendation", "feed", "video"],
        "tasks": [{"name": "ctr", "action": "click"}, {"name": "ctcvr", "action": "purchase"}],
        "features": {
            "item_id": {"group": "item", "type": "categorical"},
            "price": {"group": "item", "type": "numeric"},
        },
    }
)
TITLE = 'runs/<b>"mmoe"</b> & test'
EVIL = "<script>alert('x')</script>&$\\frac$"
HISTORY = [
    {"epoch": 1, "loss": 0.9, "nll": 0.8, "val_nll": 0.7, "search/ctr_auc": 0.6, "val_search/ctr_auc": 0.61},
    {"epoch": 2, "loss": 0.8, "nll": 0.7, "val_nll": 0.6, "search/ctr_auc": 0.7, "val_search/ctr_auc": 0.66},
    {"epoch": 3, "loss": 0.7, "nll": 0.6, "val_nll": 0.65, "search/ctr_auc": 0.8, "val_search/ctr_auc": 0.67},
]
COUNTS = {"impressions": 300, "ctr": 90, "ctcvr": 30, "global_ctr": 120, "global_ctcvr": 45}
QUALITY = {
    "search": {
        "item_id": {"rows": 300, "coverage": 0.5, "values": 150, "oov": 3},
        "price": {"rows": 100, "coverage": 0.8, "clamped": {"below": 0, "low": None, "above": 1, "high": 5.5}},
    },
    "video": {  # no rows
        "item_id": {"rows": 0, "coverage": None, "values": 0, "oov": 0},
        "price": {"rows": 0, "coverage": None, "clamped": {"below": 0, "low": None, "above": 0, "high": None}},
    },
}
PICTURE = {
    "points": [[[0.0, 1.0], [1.0, 0.0]]] * 4,
    "explained": [0.75, 0.125],
    "silhouette": 0.321,
    "cosine_of_views": 0.432,
    "cosine_of_rows": 0.543,
}
VIEWS = {
    "name": "run",
    "rows": 2,
    "scenarios": list(SCHEMA.scenarios),
    "contrastive": True,
    "gates": {"item_id": [0.25, 1.0, 1.5, 1.75]},
    "features": PICTURE,
    "interests": None,
    "attention": {
        "difference": 0.375,
        "examples": [
            {
                "scenario": "search",
                "request": "r1",
                "user": EVIL,
                "item": "i1",
                "labels": ["ctr"],
                "candidate": {"item_id": "i1", "brand": "acme"},
                "history": [
                    {
                        "item": {"item_id": f"h{number}", "brand": "other"},
                        "action": "click",
                        "scenario": "search",
                        "age": 13,
                        "weights": [number / 45, 0.1, 0.1, 0.1],
                    }
                    for number in range(10)
                ],
            }
        ],
    },
}


class Page(HTMLParser):
    """Addresses, tables (rows of cells), headings, pictures and the words of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tables, self.tags, self.pictures, self.ids, self.words = [], [], [], [], [], []
        self._in_cell = False
        self.feed(text)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "svg":
            self.pictures.append(attributes["aria-label"])
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        self.words += data.replace("\N{NO-BREAK SPACE}", " ").split()
        if self._in_cell:
            self.tables[-1][-1][-1] += data

    def table(self, *columns):
        """Rows below the first header that starts with `columns`."""
        return next(rows for header, *rows in self.tables if tuple(header[: len(columns)]) == columns)


@pytest.fixture(scope="module")
def evaluation():
    """Search has all, recommendation no position but probabilities of 0 and 1, feed no purchase, video no row."""
    generator = np.random.default_rng(0)
    n = 600
    scenario = np.repeat([0, 1, 2], [300, 270, 30])
    true = 1 / (1 + np.exp(-generator.normal(-1, 1, n)))
    click = (generator.uniform(size=n) < true).astype(np.float64)
    probabilities = true.copy()
    probabilities[300:310] = 0
    probabilities[310:320] = 1
    user = np.array([f"{EVIL}{number // 5 % 40}" for number in range(n)], object)
    item = generator.integers(0, 20, n).astype(str).astype(object)
    predictions = Predictions(
        scenario=scenario,
        user=user,
        request=(np.arange(n) // 5).astype(str).astype(object),
        item=item,
        position=np.where(scenario == 1, 0, np.arange(n) % 5 + 1),
        labels={"ctr": click, "ctcvr": click * (generator.uniform(size=n) < 0.4) * (scenario < 2)},
        probabilities={"ctr": probabilities, "ctcvr": probabilities * 0.4},
        oracle={"ctr": true, "ctcvr": np.where(scenario == 1, np.nan, true * 0.4)},
    )
    clicks = {"0": (3, 10), "1": (1, 10)}
    by_item = slices_of(predictions, Training(users={}, items=clicks))["item"]
    predictions = Predictions(**{**vars(predictions), "slices": {"item": by_item}})
    return {
        "document": metrics.metrics_document(predictions, SCHEMA),
        "details": metrics.details_document(predictions, SCHEMA, clicks, replicates=20),
        "predictions": predictions,
        "schema": SCHEMA,
        "title": TITLE,
        "run_summary": RunSummary(
            config=Config(backbone="mmoe", data="somewhere"),
            trained="2026-01-02 03:04 UTC",
            split="test",
            command=["usr-tf", "evaluate", "--run", "my run --1"],
            history=HISTORY,
            stats={
                "rows": {"impressions": {"read": 1234, "written": 1230, "rejected": {"no item": 4}}},
                "splits": {"test": {"search": COUNTS}},
                "quality": {"test": QUALITY},
            },
            vocabulary_sizes={"item_id": 77},
            views=VIEWS,
            beside=VIEWS | {"name": "without", "contrastive": False, "gates": None, "attention": None},
        ),
    }


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "made" / "here"
    report.write_report(path, **evaluation)
    return path


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_writes_three_files_and_leaves_nothing_else(folder, evaluation):
    assert sorted(path.name for path in folder.iterdir()) == ["details.json", "metrics.json", "report.html"]
    assert json.loads((folder / "metrics.json").read_text()) == evaluation["document"]
    assert json.loads((folder / "details.json").read_text()) == evaluation["details"]


def test_a_failed_report_leaves_the_earlier_one_whole(folder, evaluation):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = evaluation["document"] | {"extra": object()}
    with pytest.raises(TypeError, match="JSON serializable"):
        report.write_report(folder, **(evaluation | {"document": broken, "title": "other"}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_refuses_a_file_for_a_folder(evaluation, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=r"file: found no writable directory \(.*\), expected one that can be written"):
        report.write_report(path, **evaluation)


def test_refuses_a_folder_for_a_file(evaluation, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report.html: found no writable file \(Is a directory\)"):
        report.write_report(tmp_path, **{**evaluation, "predictions": None, "run_summary": None})
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_same_documents_give_the_same_page(evaluation):
    document, details = evaluation["document"], evaluation["details"]
    ctr = {"scenarios": {"search": {"ctr": document["scenarios"]["search"]["ctr"]}}}
    one = ctr | {"overall": {"ctr": document["overall"]["ctr"]}}
    first, second = (evaluation_page(one, details, SCHEMA, "once") for _ in range(2))
    assert first == second
    assert "Worst errors" not in first  # which needs the rows
    assert "How it was made" not in first


def test_page_fetches_nothing_and_runs_nothing(text, page):
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"url\((?!#p)|@import|https?:| on\w+=", text)


def test_page_escapes_names(text, page):
    assert "<h1>runs/&lt;b&gt;&quot;mmoe&quot;&lt;/b&gt; &amp; test</h1>" in text
    assert EVIL in page.text
    assert "b" not in re.findall(r"<(\w+)[ >]", text.split("<h1>")[1].split("</h1>")[0])


def test_ids_are_unlike_and_every_link_leads_somewhere(page):
    assert len(set(page.ids)) == len(page.ids)
    assert {address[1:] for address in page.addresses} <= set(page.ids)


def test_headline_table(page, evaluation):
    rows = page.table("scenario", "task", "rows", "positives", "AUC", "95% interval", "position", "popularity")
    assert [(row[0], row[1]) for row in rows] == [
        (name if task == "ctr" else "", task) for name in (*SCHEMA.scenarios, "overall") for task in ("ctr", "ctcvr")
    ]
    search = evaluation["document"]["scenarios"]["search"]["ctr"]
    details = evaluation["details"]["scenarios"]["search"]["ctr"]
    low, high = details["intervals"]["auc"]
    assert rows[0][2:] == [
        "300",
        str(search["positives"]),
        f"{search['auc']:.4f}",
        f"{low:.4f}–{high:.4f}",
        f"{details['baselines']['position']['auc']:.4f}",
        f"{details['baselines']['popularity']['auc']:.4f}",
        f"{search['oracle_auc']:.4f}",
    ]
    recommendation_ctcvr, feed_ctcvr, video_ctr = rows[3], rows[5], rows[6]
    assert recommendation_ctcvr[6] == recommendation_ctcvr[8] == "–"  # neither position nor oracle known
    assert feed_ctcvr[2:] == ["30", "0", *["–"] * 5]
    assert video_ctr[2:] == ["0", "0", *["–"] * 5]


def test_logloss_stands_beside_the_oracles(page, evaluation):
    rows = page.table("scenario", "task", "logloss", "oracle", "NE", "oracle", "calibration")
    figures = evaluation["document"]["scenarios"]["search"]["ctr"]
    oracle = evaluation["details"]["scenarios"]["search"]["ctr"]["oracle"]
    assert rows[0][2:] == [
        f"{value:.4f}"
        for value in (figures["logloss"], oracle["logloss"], figures["ne"], oracle["ne"], figures["calibration"])
    ]
    assert rows[3][3] == rows[3][5] == "–"  # some rows have no true probability
    assert rows[6][2:] == ["–"] * 5


def test_every_figure_of_the_documents_is_on_the_page(text, evaluation):
    for tasks in (*evaluation["document"]["scenarios"].values(), evaluation["document"]["overall"]):
        for figures in tasks.values():
            for name, value in figures.items():
                assert value is None or (f"{value:,}" if isinstance(value, int) else f"{value:.4f}") in text, name
    for tasks in evaluation["details"]["scenarios"].values():
        for detail in tasks.values():
            for low, high in filter(None, detail["intervals"].values()):
                assert f"{low:.4f}–{high:.4f}" in text


def test_the_verdict_says_what_the_intervals_say(evaluation):
    document, details = json.loads(json.dumps([evaluation["document"], evaluation["details"]]))
    one = document | {"scenarios": {"search": document["scenarios"]["search"]}}
    gains = details["scenarios"]["search"]
    figures = one["scenarios"]["search"]
    for task, position, popularity in (("ctr", [0.01, 0.2], [0.1, 0.2]), ("ctcvr", [-0.1, 0.1], [-0.2, -0.1])):
        gains[task]["baselines"]["position"] = {"auc": 0.5, "auc_gain": position}
        gains[task]["baselines"]["popularity"] = {"auc": 0.5, "auc_gain": popularity}
        figures[task] |= {"auc": 0.6, "oracle_auc": 0.75, "calibration": 1.0}
    figures["ctcvr"] |= {"auc": 0.7, "calibration": 0.75}
    shown = Page(headline.verdict(one, details)).text
    assert (
        "Ranks better than popularity in 1 of 2 scenarios and tasks (worse in search · ctcvr), and better than "
        "position in 1 of 2 scenarios and tasks (about as well in search · ctcvr)." in shown
    )
    assert "Its AUC covers 40% to 80% of the way from guessing to the oracle." in shown
    assert "Predicted rates are 25% too low in search · ctcvr, and within 10% elsewhere." in shown


def test_undefined_figures_give_a_page_too():
    nothing = Predictions(
        *(np.zeros(0, kind) for kind in (int, object, object, object, int)),
        labels={task: np.zeros(0) for task in SCHEMA.task_names},
        probabilities={task: np.zeros(0) for task in SCHEMA.task_names},
    )
    document, details = metrics.metrics_document(nothing, SCHEMA), metrics.details_document(nothing, SCHEMA)
    page = Page(evaluation_page(document, details, SCHEMA, "empty", nothing))
    assert "No ranking to judge" in page.text
    assert "No rows of this scenario." in page.text
    assert page.pictures == []


def test_three_pictures_for_each_scenario_and_task_with_rows(page):
    pictures = [label.replace("\N{NO-BREAK SPACE}", " ") for label in page.pictures]
    for scenario in ("search", "recommendation", "feed"):
        for task in SCHEMA.task_names:
            for kind in ("ROC", "Calibration", "Scores"):
                assert f"{kind} of {scenario} · {task}" in pictures
    assert not any("video" in label for label in pictures)


def test_slices_stand_in_a_table_below_their_picture(page, evaluation):
    rows = page.table("scenario", "item", "rows", "positives", "AUC")
    assert "AUC of ctr by item" in page.pictures
    expected = evaluation["details"]["scenarios"]["search"]["ctr"]["slices"]["item"]
    for row, part in zip(rows, expected, strict=False):
        low, high = part["auc_interval"]
        auc = f"{part['auc']:.3f}{low:.3f}–{high:.3f}"
        assert row[1:5] == [part["value"], str(part["n"]), str(part["positives"]), auc]
    assert {part["value"] for part in expected} == {"new", "seen"}


def test_a_slice_by_a_feature_has_the_features_name_and_its_own_order(evaluation):
    rows = evaluation["predictions"]
    city = pd.Categorical(np.where(np.arange(len(rows)) % 2, "20 Rue", "3 <Elm>"), categories=["3 <Elm>", "20 Rue"])
    rows = Predictions(**{**vars(rows), "slices": {"feature:city": city}})
    details = metrics.details_document(rows, SCHEMA, replicates=2)
    page = Page(slices.section(evaluation["document"], details).content)
    assert "city feature" in page.text
    assert [row[1] for row in page.table("scenario", "city")] == ["3 <Elm>", "20 Rue"] * 3


def test_figures_of_fewer_than_ten_positives_are_grey(evaluation):
    """Of ten positives they are not: in the tile, in every table and in the slices' pictures."""
    positives = np.repeat([1.0, 0], [19, 11])  # the first ten in search, nine in recommendation
    rows = Predictions(
        scenario=np.repeat([0, 1, 0, 1], [10, 9, 6, 5]),
        user=np.arange(30).astype(str).astype(object),
        request=np.arange(30).astype(str).astype(object),
        item=np.arange(30).astype(str).astype(object),
        position=np.zeros(30, int),
        labels={"ctr": positives},
        probabilities={"ctr": np.linspace(0.1, 0.9, 30)},
        slices={"feature:city": pd.Categorical(["Lyon"] * 30)},
    )
    schema = SCHEMA.model_copy(update={"scenarios": ("search", "recommendation"), "tasks": SCHEMA.tasks[:1]})
    documents = metrics.metrics_document(rows, schema), metrics.details_document(rows, schema, replicates=2)
    tiles = re.findall(r'<div class="card tile( weak)?"><p class="label">([a-z]+)', headline.verdict(*documents))
    assert tiles == [("", "search"), (" weak", "recommendation")]
    for content in (headline.section(*documents).content, slices.section(*documents).content):
        for scenario, few in (("search", False), ("recommendation", True)):
            row = re.search(rf'<td class="name">{scenario}</td>.*?</tr>', content)[0]
            assert ('<td class="main weak">' in row, '<td class="main">' in row) == (few, not few)
        assert "ewer than 10 positives" in content or "ewer than 10 positives" in slices.section(*documents).lead
    assert "few cases" in headline.section(*documents).content
    everything = Page(headline.section(*documents).content)
    assert everything.table("figure", "ctr")[1] == ["positives", "10"]


def test_a_tile_has_gauc_and_ndcg_beside_auc_each_with_its_interval(evaluation):
    document, details = evaluation["document"], evaluation["details"]
    figures, intervals = document["scenarios"]["search"]["ctr"], details["scenarios"]["search"]["ctr"]["intervals"]
    shown = [f"{figures['auc']:.3f} AUC, {intervals['auc'][0]:.3f}–{intervals['auc'][1]:.3f}"]
    for name, called in (("gauc", "GAUC"), ("ndcg@10", "NDCG@10")):
        low, high = intervals[name]
        shown.append(f"{called} {figures[name]:.3f} {low:.3f}–{high:.3f}")
    text = Page(headline.verdict(document, details)).text
    assert all(words in text for words in shown)


def test_legends_stand_above_the_plots_and_hide_no_interval(evaluation, monkeypatch):
    """In a window as small as the picture, with probabilities of 0 and 1 and rows without positives among them."""
    seen = []

    def draw_only(draw, width, height, label):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        draw(figure)
        figure.canvas.draw()
        (axes,) = figure.axes
        legend = axes.get_legend()
        if legend:
            seen.append(legend.get_window_extent().y0 >= axes.bbox.y1)
            assert legend.get_window_extent().x1 <= figure.bbox.x1
        return ""

    monkeypatch.setattr(score_curves, "svg", draw_only)
    score_curves.section(evaluation["document"], evaluation["details"])
    assert seen == [True] * 17  # three of six scenarios and tasks, but no ROC of feed without a purchase


def test_every_picture_and_table_can_scroll_on_a_narrow_screen(text):
    assert text.count("<svg") == text.count('<div class="plot"><svg') > 0
    assert text.count("<table") == text.count('<div class="table"><table') > 0


def test_a_long_name_is_broken_and_not_cut():
    table = html.table(["feature", "AUC"], [("n" * 33, "0.5"), ("n" * 32 + "\nbelow", "0.5")])
    assert re.findall(r'<td class="name( long)?">n', table) == [" long", ""]


def test_the_best_epoch_is_the_one_that_training_chose():
    assert best_epoch(HISTORY, "val_nll") == 2
    assert best_epoch(HISTORY, "val_search/ctr_auc") == 3  # higher is better
    assert best_epoch([{"epoch": 1, "nll": 0.5}, {"epoch": 2, "nll": 0.5}], "val_nll") == 1  # no validation; a tie
    assert best_epoch([{"epoch": 1, "val_nll": float("nan")}], "val_nll") is None


def test_learning_curves_for_each_term(page):
    assert {"loss", "nll", "ctr"} <= set(page.pictures)
    assert "The best by val_nll is epoch 2" in page.text


def test_what_the_views_learned(page, text):
    assert page.table("feature", "group", "search") == [["item_id", "item", "0.25", "1.00", "1.50", "1.75", "1.50"]]
    assert "This run has no feature generator" in page.text  # of the run beside
    rows = page.table("action of the history", "search")
    assert len(rows) == 8  # the two of least weight are left out
    assert "and 2 other actions" in page.text
    assert rows[0] == ["h9otherclick in search, over 1 h ago", "20%", "10%", "10%", "10%"]
    assert "37.5% lies on other actions" in page.text
    assert text.count("silhouette of the views 0.321") == 2
    assert text.count("views 0.432, of different rows in one view 0.543") == 2
    assert "contrastive loss off" in page.text


def test_worst_errors_are_the_rows_that_it_was_surest_of(page, evaluation):
    rows = evaluation["predictions"].only(evaluation["predictions"].scenario == 0)
    labels, probabilities = rows.labels["ctr"], rows.probabilities["ctr"]
    worst = np.flatnonzero(labels == 0)[np.argmax(probabilities[labels == 0])]
    shown = page.table("item", "p", "oracle")
    assert len(shown) == 5
    assert shown[0] == [
        f"{rows.item[worst]}{rows.user[worst]}, {rows.request[worst]}, position {rows.position[worst]}",
        f"{probabilities[worst]:.2g}",
        f"{rows.oracle['ctr'][worst]:.2g}",
    ]


def test_a_request_is_placed_by_its_best_positive_and_ties_share_a_place():
    schema = SCHEMA.model_copy(update={"scenarios": ("s",), "tasks": SCHEMA.tasks[:1]})
    predictions = Predictions(
        scenario=np.zeros(7, int),
        user=np.array(list("aaaabbb"), object),
        request=np.array(list("rrrrqqq"), object),
        item=np.array(list("1234567"), object),
        position=np.zeros(7, int),
        labels={"ctr": np.array([0.0, 0, 1, 1, 0, 0, 1])},
        probabilities={"ctr": np.array([0.9, 0.8, 0.7, 0.1, 0.5, 0.2, 0.2])},
    )
    page = Page(worst_errors.section(predictions, schema).content)
    # In r the better of two positives is third of four; in q two share places 2 and 3.
    rows = page.table("request", "first positive at", "of")
    assert rows == [["rpositive: 3a", "3", "4"], ["qpositive: 7b", "2.5", "3"]]


def test_worst_errors_have_query_and_title_and_ask_once_for_the_rows_shown_alone(evaluation):
    asked = []

    def texts_of(rows):
        asked.append(rows)
        return {row: RowText(f"query {row}" if row % 2 else "", f"title {row}") for row in rows}

    predictions = evaluation["predictions"]
    page = Page(worst_errors.section(predictions, SCHEMA, texts_of).content)
    (rows,) = asked
    assert rows == sorted(set(rows))
    assert len(rows) <= 15 * 6  # three tables of five rows, of three scenarios and two tasks
    labels, probabilities = predictions.labels["ctr"], predictions.probabilities["ctr"]
    here = np.flatnonzero((predictions.scenario == 1) & (labels == 0))
    worst = here[np.argmax(probabilities[here])]
    (cell,) = {row[0] for _, *table in page.tables for row in table if re.search(rf"title {worst}\D", row[0])}
    query = f"query “query {worst}”" if worst % 2 else ""
    keys = f"{predictions.user[worst]}, {predictions.request[worst]}"
    assert cell == f"{predictions.item[worst]}title {worst}{query}{keys}"


def test_data_and_making(page):
    assert page.table("split", "scenario", "impressions") == [
        ["test", "search", "300", "9030.00%", "3010.00%", "12040.00%", "4515.00%"]
    ]
    assert page.table("table", "rows read") == [["impressions", "1,234", "1,230", "4", "no item 4"]]
    assert page.table("feature", "group", "type") == [
        ["item_id", "item", "categorical", "77", "50.00%", "2.00%", "–"],
        ["price", "item", "numeric", "–", "80.00%", "–", "1.25%"],
    ]
    assert page.table("setting", "this run") == [["backbone", "mmoe", "shared_bottom"]]
    assert "usr-tf evaluate \\ --run 'my run --1'" in page.text
    assert "2026-01-02 03:04 UTC" in page.text


def test_terminal_tables_fit_eighty_columns(evaluation):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report.format_table(evaluation["document"], evaluation["details"]))
    whole = capture.get()
    assert "…" not in whole
    text, losses = whole.split("Logloss")
    oracle = evaluation["details"]["scenarios"]["search"]["ctr"]["oracle"]["logloss"]
    row = next(line for line in losses.splitlines() if line.strip().startswith("search"))
    assert row.split()[3] == f"{oracle:.4f}"
    search = evaluation["document"]["scenarios"]["search"]["ctr"]
    line = next(line for line in text.splitlines() if line.strip().startswith("search"))
    low, high = evaluation["details"]["scenarios"]["search"]["ctr"]["intervals"]["auc"]
    assert line.split()[:4] == ["search", "ctr", f"{search['auc']:.4f}", f"{low:.4f}–{high:.4f}"]
    assert line.split()[-1] == f"{search['oracle_auc']:.4f}"
    assert [line.split()[0] for line in text.splitlines() if " ctr " in line] == [*SCHEMA.scenarios, "overall"]
