"""Reports of accuracy and Brain-Score: the paper's networks, one's own, and files that can't be read."""

from __future__ import annotations

import csv
import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.stats
from ventral_client import InvalidRequest, MissingPackage, VentralError
from ventral_client.cli import main
from ventral_client.report import (
    Correlation,
    InvalidScores,
    Resampling,
    brain_report,
    paper_scores,
    read_scores,
)
from ventral_client.report.correlation import correlate, ranks

#: Invented, with what the paper's have not: areas, and a further initialisation.
OWN = """name,Connectivity,initialization,sleep_every,top1_percent,V1,V2,V4,IT,behavior,trained
plain,conv,conv,,69.9,0.50,0.30,0.40,0.44,0.50,yes
a,LC,random,,44.9,0.56,0.31,0.41,0.40,0.30,yes
"b, slow",lc,Random,100,56.5,0.54,0.32,0.43,0.42,0.38,yes
c,LC,random,10,60.9,0.53,0.33,0.43,0.43,0.40,yes

d,LC,"conv, deviation 0.3",1,62.0,0.52,0.31,0.42,0.43,0.41,yes
e,LC + 1st conv,conv,,52.5,0.55,,0.41,0.39,0.33,yes
f,LC,conv,,,0.53,0.11,0.12,0.13,-,no
"""


def write(folder: Path, text: str) -> Path:
    """A file of scores."""
    path = folder / "scores.csv"
    path.write_text(text, encoding="utf-8")
    return path


def of(correlations: list[Correlation], panel: str, group: str, method: str) -> Correlation:
    """The one that is named."""
    (found,) = [
        entry for entry in correlations if (entry.panel, entry.group, entry.method) == (panel, group, method)
    ]
    return found


def test_the_paper_s_networks_are_those_of_its_table() -> None:
    """Thirteen; what the paper doesn't print is not there."""
    networks = paper_scores().networks
    assert len(networks) == 13
    assert [network.top1_percent is None for network in networks] == [
        not network.trained for network in networks
    ]
    best = max(networks, key=lambda network: network.scores["average"])
    assert best.label == "LC, conv initialisation, sleep every 1"
    assert (best.top1_percent, best.scores["average"]) == (64.4, 0.433)
    assert sum(network.scores["average"] for network in networks) == pytest.approx(4.825)
    assert {network.label: network.scores["V1"] for network in networks if "V1" in network.scores} == {
        "conv, untrained": 0.516,
        "LC, random initialisation, untrained": 0.347,
    }
    assert not any("without_behaviour" in network.scores for network in networks)


def test_the_paper_s_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, which says what it left out."""
    output = tmp_path / "new" / "report"
    assert main(["brain-report", "--paper", "--out", str(output)]) == 0
    printed = capsys.readouterr()
    files = [Path(line) for line in printed.out.splitlines()]
    assert [file.name for file in files] == [
        "brain-report.png",
        "brain-report.svg",
        "brain-report.md",
        "correlations.csv",
    ]
    for words in (
        "The panel “Without behaviour” is left out: the column `without_behaviour` is empty or not there.",
        "The panel “V1” is left out: no network has both an accuracy and a score.",
        "LC, random initialisation, untrained has no accuracy; its score in “All areas” is 0.137.",
    ):
        assert words in printed.err and words in files[2].read_text("utf-8")

    with PIL.Image.open(files[0]) as picture:
        assert picture.width > 1000 and picture.height > 700
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    # The full blue and orange, and nothing but white at the edges.
    assert {(0, 114, 178), (213, 94, 0)} <= colours
    texts = [
        "".join(text.itertext()).strip()
        for text in ET.parse(files[1]).iter("{http://www.w3.org/2000/svg}text")
    ]
    for words in ("All areas", "Brain-Score", "random", "LC + 1st conv", "every 10 iterations"):
        assert words in texts
    assert "Pearson r = 0.84 (95 %: 0.49 to 0.96), n = 11" in texts
    assert "V1" not in texts

    with files[3].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trained = [network for network in paper_scores().networks if network.top1_percent is not None]
    x = [network.top1_percent for network in trained]
    y = [network.scores["average"] for network in trained]
    expected = scipy.stats.pearsonr(x, y)
    assert float(rows[0]["coefficient"]) == pytest.approx(expected.statistic, abs=1e-6)
    assert float(rows[0]["fisher_low"]) == pytest.approx(expected.confidence_interval().low, abs=1e-6)
    assert float(rows[0]["fisher_high"]) == pytest.approx(expected.confidence_interval().high, abs=1e-6)
    assert float(rows[1]["coefficient"]) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-6)
    # Networks with convolutional initialisation are ordered alike in both, as the paper says.
    conv = [row for row in rows if row["networks"].endswith("conv initialisation")]
    assert [(row["n"], row["method"]) for row in conv] == [("5", "Pearson"), ("5", "Spearman")]
    assert float(conv[1]["coefficient"]) == pytest.approx(1) and conv[1]["fisher_low"] == ""


def test_a_report_is_the_same_every_time(tmp_path: Path) -> None:
    """To the byte, so that it can be kept under version control."""
    one, other = (brain_report(paper_scores(), tmp_path / name) for name in ("one", "other"))
    for file, again in zip(one.files, other.files, strict=True):
        assert file.read_bytes() == again.read_bytes(), file.name


def test_the_example_is_a_file_of_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, to begin one's own with."""
    assert main(["brain-report", "--example"]) == 0
    assert read_scores(write(tmp_path, capsys.readouterr().out)).networks == paper_scores().networks


def test_all_three_panels_of_areas(tmp_path: Path) -> None:
    """Means are made of the areas where all are there; other spellings and capitals are understood."""
    report = brain_report(write(tmp_path, OWN), tmp_path)
    assert "`average` is the mean of V1, V2, V4, IT, behaviour." in report.notes
    assert not any("left out" in note for note in report.notes)
    networks = {network.name: network for network in read_scores(tmp_path / "scores.csv").networks}
    assert networks["plain"].scores == pytest.approx({"average": 0.428, "without_behaviour": 0.41, "V1": 0.5})
    # One area isn't known, so the means aren't.
    assert networks["e"].scores == {"V1": 0.55}
    assert networks["f"].scores == pytest.approx({"without_behaviour": 0.2225, "V1": 0.53})
    slow = networks["b, slow"]
    assert (slow.connectivity, slow.initialisation, slow.sleep_every) == ("LC", "random", 100)
    assert [of(report.correlations, panel, "all", "Pearson").count for panel in ("average", "V1")] == [5, 6]
    assert of(report.correlations, "V1", "all", "Pearson").coefficient < -0.9
    text = report.files[1].read_text("utf-8")
    for words in ("All areas", "Without behaviour", "V1", "conv, deviation 0.3", "Off the scale: f, 0.223"):
        assert f">{words}<" in text
    # Untrained, and among the others' scores: a line.
    assert ">f<" in text
    table = [line.strip("| ").split(" | ") for line in report.files[2].read_text("utf-8").splitlines()]
    none = "\N{EN DASH}"
    assert ["e (LC + 1st conv)", "conv", none, "52.5", none, none, "0.550"] in table


@pytest.mark.parametrize("method", ["Pearson", "Spearman"])
def test_coefficients_and_intervals_are_those_of_scipy(method: str) -> None:
    """With ties; the bootstrap's percentiles are another generator's, and so nearly the same."""
    generator = np.random.default_rng(5)
    accuracies = np.round(generator.uniform(40, 70, 25))
    scores = np.round(accuracies / 200 + generator.normal(0, 0.04, 25), 2)
    function = {"Pearson": scipy.stats.pearsonr, "Spearman": scipy.stats.spearmanr}[method]
    samples = scores[generator.integers(0, 25, (3, 25))]
    np.testing.assert_array_equal(ranks(samples), scipy.stats.rankdata(samples, axis=-1))
    found = next(
        entry for entry in correlate("V1", "all", accuracies, scores, Resampling()) if entry.method == method
    )
    assert found.coefficient == pytest.approx(function(accuracies, scores).statistic)
    bootstrap = scipy.stats.bootstrap(
        (accuracies, scores),
        lambda one, other: function(one, other).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.bootstrap.low == pytest.approx(bootstrap.low, abs=0.04)
    assert found.bootstrap.high == pytest.approx(bootstrap.high, abs=0.04)
    if method == "Spearman":
        # Bonett & Wright 2000.
        error = math.sqrt((1 + found.coefficient**2 / 2) / 22)
        centre = math.atanh(found.coefficient)
        assert found.fisher.low == pytest.approx(math.tanh(centre - 1.959964 * error))
        assert found.fisher.high == pytest.approx(math.tanh(centre + 1.959964 * error))


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Fisher's, of normal samples: 95 of 100 times, within what chance allows."""
    generator = np.random.default_rng(8)
    truth, held = 0.6, 0
    for _ in range(400):
        one = generator.normal(size=15)
        other = truth * one + math.sqrt(1 - truth**2) * generator.normal(size=15)
        found = next(correlate("V1", "all", one, other, Resampling(samples=100)))
        held += found.fisher.low <= truth <= found.fisher.high
    assert 365 <= held <= 395


def test_too_few_or_equal_networks_have_no_coefficient(tmp_path: Path) -> None:
    """And no interval; the report says how many there are."""
    header = "connectivity,initialisation,top1_percent,V1\n"
    report = brain_report(write(tmp_path, header + "LC,conv,50,0.5\nLC,conv,60,0.5\n"), tmp_path)
    entry = of(report.correlations, "V1", "all", "Pearson")
    assert (entry.count, entry.coefficient, entry.fisher, entry.bootstrap) == (2, None, None, None)
    rows = "".join(f"LC,conv,{accuracy},0.1\n" for accuracy in range(50, 60))
    report = brain_report(write(tmp_path, header + rows), tmp_path)
    entry = of(report.correlations, "V1", "all", "Spearman")
    assert (entry.count, entry.coefficient, entry.bootstrap) == (10, None, None)
    assert "not defined, n = 10" in report.files[1].read_text("utf-8")


HEADER = "connectivity,initialisation,sleep_every,trained,top1_percent,average\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "scores.csv: is empty"),
        (HEADER, "scores.csv: has a header and no networks"),
        ("connectivity,top1_percent,V1\nLC,50,0.5\n", "line 1: there is no column `initialisation`"),
        (
            "connectivity,initialisation,top1,V1\nLC,conv,50,0.5\n",
            "line 1: there is no column `top1_percent`; is `top1` meant to be it?",
        ),
        ("connectivity;initialisation;V1\n", "columns are separated by commas"),
        ("connectivity,initialisation,top1_percent\nLC,conv,50\n", "line 1: there is no column with scores"),
        (
            "connectivity,initialisation,top1_percent,V1,v1\nLC,conv,50,0.5,0.5\n",
            "line 1, column `V1`: stands there twice",
        ),
        (HEADER + "LC,conv,,,50\n", "line 2: 5 cells, where the header has 6 columns"),
        (HEADER + "LC,conv,,,50,0.4\n\n,conv,,,50,0.4\n", "line 4, column `connectivity`: is empty"),
        (
            HEADER + "LC,conv,often,,50,0.4\n",
            "line 2, column `sleep_every`: `often` is no number of iterations",
        ),
        (HEADER + "LC,conv,0,,50,0.4\n", "line 2, column `sleep_every`: `0` is no number of iterations"),
        (HEADER + "LC,conv,,maybe,50,0.4\n", "line 2, column `trained`: `maybe` is neither `yes` nor `no`"),
        (HEADER + 'LC,conv,,,"50,5",0.4\n', "line 2, column `top1_percent`: `50,5` is no number"),
        (HEADER + "LC,conv,,,150,0.4\n", "line 2, column `top1_percent`: 150 can't be"),
        (HEADER + "LC,conv,,,nan,0.4\n", "line 2, column `top1_percent`: nan can't be"),
        (
            HEADER + "LC,conv,,,0.5,0.4\nLC,conv,,,0.6,0.4\n",
            "line 2, column `top1_percent`: 0.5, as all others",
        ),
        (
            HEADER + "LC,conv,,,50,42.6\n",
            "line 2, column `average`: 42.6 can't be; Brain-Scores are about 0 to 1",
        ),
        (HEADER + "LC,conv,,,,0.4\n", "there is nothing to draw. The panel “All areas” is left out"),
        (HEADER + 'LC,"conv\nLC,conv,,,50,0.4\n', "line 2: isn't CSV"),
    ],
)
def test_bad_files_say_where_and_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    """One line, exit code 1, nothing written."""
    path = write(tmp_path, text)
    assert main(["brain-report", str(path), "-o", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"ventral-client: {path}") and printed.err.count("\n") == 1
    assert words in printed.err
    assert not (tmp_path / "out").exists()


def test_lines_are_counted_as_editors_count_them(tmp_path: Path) -> None:
    """Where cells have line breaks, and files have Windows' ones and a byte order mark."""
    rows = 'LC,"conv\r\nfrom a checkpoint",,,50,0.4\r\nLC,conv,,,51,four\r\n'
    path = tmp_path / "scores.csv"
    path.write_bytes(("\ufeff" + HEADER.replace("\n", "\r\n") + rows).encode())
    with pytest.raises(InvalidScores) as raised:
        read_scores(path)
    assert (raised.value.line, raised.value.column) == (4, "average")


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    """Say so."""
    with pytest.raises(InvalidScores, match=r"nowhere\.csv: can't be read: No such file"):
        read_scores(tmp_path / "nowhere.csv")
    path = tmp_path / "table.xlsx"
    path.write_bytes(b"PK\x03\x04\xff")
    with pytest.raises(InvalidScores, match=r"table\.xlsx: isn't UTF-8 text, from byte 4 on"):
        read_scores(path)


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    """With the one that may be meant."""
    text = "connectivity,initialisation,top1_percent,V1,seed,sleep every,without_behavoiur\nLC,conv,50,0.5,1,10,0.4\n"
    scores = read_scores(write(tmp_path, text))
    assert scores.notes == [
        "The column `seed` isn't used.",
        "The column `without_behavoiur` isn't used; `without_behaviour` is.",
    ]
    assert scores.networks[0].sleep_every == 10


def test_what_can_t_be_drawn_or_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many kinds, odd intervals, no folder, no matplotlib."""
    header = "connectivity,initialisation,top1_percent,V1\n"
    rows = "".join(f"LC,number {index},{50 + index},0.5\n" for index in range(7))
    with pytest.raises(
        InvalidRequest, match=r"7 initialisations besides random and conv .* 4 at most: number 0"
    ):
        brain_report(write(tmp_path, header + rows), tmp_path)
    for arguments, words in (
        ({"confidence": 95}, "between 0 and 1"),
        ({"samples": 5}, "100 samples or more"),
        ({"seed": -1}, "0 or more"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            Resampling(**arguments)
    (tmp_path / "file").touch()
    with pytest.raises(VentralError, match=r"can't be written to .*file/report: Not a directory"):
        brain_report(paper_scores(), tmp_path / "file" / "report")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackage, match=re.escape("pip install 'ventral-client[report]'")):
        brain_report(paper_scores(), tmp_path / "without")
