"""The files of a report: what they hold, and that the page stands alone."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import pyplot
from rich.console import Console

from usr_tf import metrics, report
from usr_tf.errors import InputError
from usr_tf.metrics import Predictions
from usr_tf.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "scenarios": ["search", "recommendation", "feed", "video"],
        "tasks": [{"name": "ctr", "action": "click"}, {"name": "ctcvr", "action": "purchase"}],
        "features": {"item_id": {"group": "item", "type": "categorical"}},
    }
)
TITLE = 'runs/<b>"mmoe"</b> & test'


class Page(HTMLParser):
    """Addresses, tables (rows of cells) and pictures (their text and address) of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tables, self.pictures, self.tags = [], [], [], []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        if tag == "img":
            self.pictures.append((attributes["alt"], attributes["src"]))
        if tag == "table":
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
        if self._in_cell:
            self.tables[-1][-1][-1] += data


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
    predictions = Predictions(
        scenario=scenario,
        user=(np.arange(n) // 5 % 40).astype(str).astype(object),
        request=(np.arange(n) // 5).astype(str).astype(object),
        item=generator.integers(0, 20, n).astype(str).astype(object),
        position=np.where(scenario == 1, 0, np.arange(n) % 5 + 1),
        labels={"ctr": click, "ctcvr": click * (generator.uniform(size=n) < 0.4) * (scenario < 2)},
        probabilities={"ctr": probabilities, "ctcvr": probabilities * 0.4},
        oracle={"ctr": true, "ctcvr": np.where(scenario == 1, np.nan, true * 0.4)},
    )
    document = metrics.metrics_document(predictions, SCHEMA)
    details = metrics.details_document(predictions, SCHEMA, {"0": (3, 10), "1": (1, 10)}, replicates=20)
    return {"document": document, "details": details, "predictions": predictions, "schema": SCHEMA, "title": TITLE}


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "made" / "here"
    report.write_report(path, **evaluation)
    return path


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_writes_three_files_and_leaves_nothing_else(folder, evaluation):
    assert sorted(path.name for path in folder.iterdir()) == ["details.json", "metrics.json", "report.html"]
    assert json.loads((folder / "metrics.json").read_text()) == evaluation["document"]
    assert json.loads((folder / "details.json").read_text()) == evaluation["details"]


def test_a_failed_report_leaves_the_earlier_one_whole(evaluation, tmp_path):
    report.write_report(tmp_path, **evaluation)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = evaluation["document"] | {"extra": float("nan")}
    with pytest.raises(ValueError, match="JSON compliant"):
        report.write_report(tmp_path, **(evaluation | {"document": broken, "title": "other"}))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_evaluation_gives_the_same_page(folder, evaluation, tmp_path):
    report.write_report(tmp_path, **evaluation)
    assert (tmp_path / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_page_fetches_nothing(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"url\(|@import|https?:", text)


def test_page_escapes_names(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>runs/&lt;b&gt;&quot;mmoe&quot;&lt;/b&gt; &amp; test</h1>" in text
    assert "b" not in page.tags


def test_headline_table(page, evaluation):
    header, *rows = page.tables[0]
    assert header == [
        "scenario", "task", "rows", "positives", "AUC", "95% interval", "position", "popularity", "oracle",
    ]  # fmt: skip
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
    header, *rows = page.tables[1]
    assert header == ["scenario", "task", "logloss", "oracle", "NE", "oracle", "calibration"]
    figures = evaluation["document"]["scenarios"]["search"]["ctr"]
    oracle = evaluation["details"]["scenarios"]["search"]["ctr"]["oracle"]
    assert rows[0][2:] == [
        f"{value:.4f}"
        for value in (figures["logloss"], oracle["logloss"], figures["ne"], oracle["ne"], figures["calibration"])
    ]
    recommendation_ctcvr, video_ctr = rows[3], rows[6]
    assert recommendation_ctcvr[3] == recommendation_ctcvr[5] == "–"  # some rows have no true probability
    assert video_ctr[2:] == ["–"] * 5


def test_figures_and_rows_tables(page, evaluation):
    header, *rows = page.tables[2]
    assert header[2:] == ["AUC", "GAUC", "logloss", "NE", "calibration", "NDCG@10"]
    overall = evaluation["document"]["overall"]["ctcvr"]
    assert rows[-1][2:] == [f"{overall[name]:.4f}" for name in metrics.FIGURES]
    assert page.tables[3][0] == ["scenario", "task", "rows", "positives", "positive rate"]
    assert page.tables[3][6] == ["", "ctcvr", "30", "0", "0.000%"]
    assert page.tables[3][7] == ["video", "ctr", "0", "0", "–"]


def test_a_picture_for_each_scenario_and_task_with_rows(page):
    assert [alt for alt, _ in page.pictures] == [
        f"Calibration, scores and ROC curve of {scenario} · {task}"
        for scenario in ("search", "recommendation", "feed")
        for task in ("ctr", "ctcvr")
    ]
    for _, address in page.pictures:
        root = ElementTree.fromstring(base64.b64decode(address.partition(",")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        names = {node.get("id", "") for node in root.iter()}
        assert {"axes_1", "axes_2", "axes_3", "axes_4"} <= names  # calibration, its counts, scores, ROC
    assert pyplot.get_fignums() == []


def test_reliability_bins():
    probabilities = np.array([0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    labels = np.array([0.0, 1, 0, 0, 1, 0, 1, 1])
    bins = report._reliability_bins(labels[::-1], probabilities[::-1], bins=4, least=2)
    # Edges at every second row: 0.1, 0.1, 0.3, 0.5; the three tied rows stay together, with 0.2.
    np.testing.assert_array_equal(bins["rows"], [4, 2, 2])
    np.testing.assert_array_equal(bins["positives"], [1, 1, 2])
    np.testing.assert_allclose(bins["predicted"], [0.125, 0.35, 0.55])
    np.testing.assert_allclose(bins["lower"], [0.1, 0.3, 0.5])
    np.testing.assert_allclose(bins["upper"], [0.2, 0.4, 0.6])
    assert len(report._reliability_bins(labels, probabilities)["rows"]) == 1  # too few rows for more


def test_wilson_interval():
    # 1 of 10 at z = 1.96: centre (0.1 + 0.19208) / 1.38416, half √(0.009 + 0.0096040) · 1.96 / 1.38416.
    low, high = report._wilson(np.array([1.0]), np.array([10]))
    assert low[0] == pytest.approx(0.211016 - 0.193137, abs=1e-5)
    assert high[0] == pytest.approx(0.211016 + 0.193137, abs=1e-5)


def test_refuses_a_file_for_a_folder(evaluation, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=r"file: found no folder .*, expected a folder to write the report to"):
        report.write_report(path, **evaluation)


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
