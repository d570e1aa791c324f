"""Reads scores: a CSV file, a row a network.

| column | |
|---|---|
| `connectivity` | needed: `conv`, `LC`, `LC + 1st conv`, or another |
| `initialisation` | needed: `random`, `conv`, or another |
| `top1_percent` | needed: top-1 accuracy on ImageNet, 0 to 100; empty for untrained networks |
| `sleep_every` | iterations from one sleep phase to the next; empty: no sleep phase |
| `trained` | `yes` or `no`; without it, all are |
| `average` | Brain-Score over V1, V2, V4, IT and behaviour |
| `without_behaviour` | Brain-Score over V1, V2, V4 and IT |
| `V1`, `V2`, `V4`, `IT`, `behaviour` | Brain-Scores of areas and of behaviour |
| `name` | what the network is called |

Means that have no column are made of the areas' columns where all are there. Cells are empty where something isn't known;
a hyphen or a dash is as good.
"""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

from ..errors import VentralError
from .networks import PANELS, Network

NEEDED: Final = ("connectivity", "initialisation", "top1_percent")
AREAS: Final = ("V1", "V2", "V4", "IT")
BEHAVIOUR: Final = "behaviour"

#: Scores that are means of others, where they have no column.
MEANS: Final[Mapping[str, tuple[str, ...]]] = {
    "average": (*AREAS, BEHAVIOUR),
    "without_behaviour": AREAS,
}

SCORES: Final = ("average", "without_behaviour", *AREAS, BEHAVIOUR)
#: Columns that a reader may want and a report doesn't.
_BESIDE: Final = ("learning_rate", "brain_score_model")

COLUMNS: Final = (*NEEDED, "sleep_every", "trained", *SCORES, "name")

#: A score divided by its ceiling can be a little above 1, and one that isn't can be below 0.
SCORE_RANGE: Final = (-1.0, 1.5)

_PAPER: Final = "pogodin-latham-2022.csv"
_UNKNOWN: Final = ("", "-", "\N{EN DASH}", "\N{EM DASH}")
_YES_NO: Final = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}

#: Other spellings of the columns.
_ALIASES: Final = {
    "initialization": "initialisation",
    "without_behavior": "without_behaviour",
    "behavior": BEHAVIOUR,
}


class InvalidScores(VentralError, ValueError):
    """Scores that can't be read; the message names line and column."""

    def __init__(self, file: str, problem: str, line: int | None = None, column: str | None = None) -> None:
        """`line` is counted from 1, the header's; `column` is the one in the header."""
        where = [] if line is None else [f"line {line}"]
        where += [] if column is None else [f"column `{column}`"]
        super().__init__(f"{file}{', ' if where else ''}{', '.join(where)}: {problem}")
        self.file = file
        self.problem = problem
        self.line = line
        self.column = column

    def __reduce__(self) -> tuple[type[InvalidScores], tuple[str, str, int | None, str | None]]:
        """Pickles it with what it is made of."""
        return type(self), (self.file, self.problem, self.line, self.column)


@dataclass(frozen=True)
class Scores:
    """Networks, and what is to be known about them."""

    networks: Sequence[Network]
    source: str
    """The file, as it was named."""
    notes: Sequence[str] = field(default_factory=list)
    """Columns that were made, or aren't used."""


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Reads a file of scores.

    Raises:
        InvalidScores: Where it can't be read, or says what can't be.
    """
    file = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidScores(file, f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidScores(file, f"isn't UTF-8 text, from byte {error.start} on") from error
    return parse_scores(text, file)


def paper_scores() -> Scores:
    """The 13 networks of Pogodin & Latham 2022: their table 1, and the V1 scores that its text has."""
    return parse_scores(paper_text(), "Pogodin & Latham 2022")


def paper_text() -> str:
    """The same as the CSV file."""
    return (resources.files(__package__) / "data" / _PAPER).read_text(encoding="utf-8")


def parse_scores(text: str, file: str) -> Scores:
    """What a file says. `file` names it in messages.

    Raises:
        InvalidScores: Where it says what can't be.
    """
    lines = _lines(text, file)
    _, header = next(lines, (1, []))
    columns, notes = _columns(header, file)
    rows: list[_Row] = []
    for number, cells in lines:
        if len(cells) != len(header):
            problem = (
                f"{len(cells)} cells, where the header has {len(header)} columns; text with commas is quoted"
            )
            raise InvalidScores(file, problem, number)
        named = {column: cells[index].strip() for column, index in columns.items()}
        rows.append(_Row(file, number, named, {column: header[index] for column, index in columns.items()}))
    if not rows:
        raise InvalidScores(file, "has a header and no networks")
    made = [
        mean
        for mean, parts in MEANS.items()
        if mean not in columns and all(part in columns for part in parts)
    ]
    notes += [f"`{mean}` is the mean of {', '.join(MEANS[mean])}." for mean in made]
    networks = [row.network(made) for row in rows]
    _check_percent(rows, networks)
    return Scores(networks, file, notes)


def _lines(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that aren't empty, with the lines that they begin on."""
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    first = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InvalidScores(file, f"isn't CSV: {error}", first) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield first, cells
        first = reader.line_num + 1


def _columns(header: Sequence[str], file: str) -> tuple[dict[str, int], list[str]]:
    """Known columns with their positions, and notes about unknown ones."""
    if not header:
        raise InvalidScores(
            file, f"is empty; expected a header with the columns {', '.join(NEEDED)} and scores"
        )
    known = {column.lower(): column for column in COLUMNS}
    columns: dict[str, int] = {}
    unknown: list[str] = []
    for index, title in enumerate(header):
        plain = title.strip().lower().replace(" ", "_").replace("-", "_")
        column = known.get(_ALIASES.get(plain, plain))
        if column is None:
            unknown.append(title.strip())
        elif column in columns:
            raise InvalidScores(file, "stands there twice", 1, column)
        else:
            columns[column] = index
    for column in NEEDED:
        if column not in columns:
            raise InvalidScores(file, _missing(column, header, unknown), 1)
    if not any(score in columns for score in SCORES):
        raise InvalidScores(file, f"there is no column with scores; known are {', '.join(SCORES)}", 1)
    return columns, [_unused(title) for title in unknown if title and title not in _BESIDE]


def _missing(column: str, header: Sequence[str], unknown: Sequence[str]) -> str:
    if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
        return f"there is no column `{column}`; columns are separated by commas"
    similar = difflib.get_close_matches(column, unknown, 1, 0.5)
    if similar:
        return f"there is no column `{column}`; is `{similar[0]}` meant to be it?"
    return f"there is no column `{column}`"


def _unused(title: str) -> str:
    similar = difflib.get_close_matches(title.lower(), [column.lower() for column in COLUMNS], 1, 0.8)
    meant = next((f"; `{column}` is" for column in COLUMNS if similar == [column.lower()]), "")
    return f"The column `{title}` isn't used{meant}."


@dataclass(frozen=True)
class _Row:
    """One network's cells."""

    file: str
    line: int
    cells: Mapping[str, str]
    titles: Mapping[str, str]

    def network(self, made: Sequence[str]) -> Network:
        """The network; `made` are scores that are means of others."""
        found = {score: self.number(score, *SCORE_RANGE, "Brain-Scores are about 0 to 1") for score in SCORES}
        for mean in made:
            parts = [found[part] for part in MEANS[mean]]
            known = [part for part in parts if part is not None]
            found[mean] = sum(known) / len(known) if len(known) == len(parts) else None
        return Network(
            connectivity=self.word("connectivity"),
            initialisation=self.word("initialisation"),
            sleep_every=self.iterations("sleep_every"),
            trained=self.yes_or_no("trained"),
            top1_percent=self.number("top1_percent", 0, 100, "accuracies are percentages, 0 to 100"),
            scores={panel: score for panel, score in found.items() if panel in PANELS and score is not None},
            name=self.cells.get("name", ""),
        )

    def word(self, column: str) -> str:
        """What must be there."""
        if self.cells[column] in _UNKNOWN:
            raise self.invalid(column, "is empty; expected a word, such as " + _EXAMPLES[column])
        text = " ".join(self.cells[column].split())
        usual = {word.lower(): word for word in _USUAL[column]}
        return usual.get(text.lower(), text)

    def iterations(self, column: str) -> int | None:
        """A whole number of iterations, if any."""
        cell = self.cells.get(column, "")
        if cell in _UNKNOWN:
            return None
        if not (cell.isascii() and cell.isdigit()) or int(cell) == 0:
            raise self.invalid(column, f"`{cell}` is no number of iterations; expected 1, 10, …, or nothing")
        return int(cell)

    def yes_or_no(self, column: str) -> bool:
        """Yes, unless it says otherwise."""
        cell = self.cells.get(column, "")
        if cell in _UNKNOWN:
            return True
        if cell.lower() not in _YES_NO:
            raise self.invalid(column, f"`{cell}` is neither `yes` nor `no`")
        return _YES_NO[cell.lower()]

    def number(self, column: str, low: float, high: float, expected: str) -> float | None:
        """A number in a range, if any."""
        cell = self.cells.get(column, "")
        if cell in _UNKNOWN:
            return None
        try:
            value = float(cell)
        except ValueError as error:
            raise self.invalid(column, f"`{cell}` is no number; {expected}, or nothing") from error
        if not low <= value <= high:
            raise self.invalid(column, f"{cell} can't be; {expected}")
        return value

    def invalid(self, column: str, problem: str) -> InvalidScores:
        """An error about one cell."""
        return InvalidScores(self.file, problem, self.line, self.titles[column].strip())


_USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "connectivity": ("conv", "LC", "LC + 1st conv"),
    "initialisation": ("random", "conv"),
}
_EXAMPLES: Final = {column: " or ".join(f"`{word}`" for word in words) for column, words in _USUAL.items()}


def _check_percent(rows: Sequence[_Row], networks: Sequence[Network]) -> None:
    """An accuracy of 0.62 is possible, all of them below 1 are another unit."""
    known = [
        (row, network)
        for row, network in zip(rows, networks, strict=True)
        if network.top1_percent is not None
    ]
    if known and all(network.top1_percent is not None and network.top1_percent <= 1 for _, network in known):
        row = known[0][0]
        problem = (
            f"{row.cells['top1_percent']}, as all others, is 1 or less; accuracies are percentages, 0 to 100"
        )
        raise row.invalid("top1_percent", problem)
