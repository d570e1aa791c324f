"""What the tests share: the golden networks as bundles, made by the programs, and lines for the end of the report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import golden
import onnx
import onnxruntime
import programs
import pytest
from golden import NETWORKS, Golden, Network

LINES = pytest.StashKey[list[str]]()

#: `exporter export`'s options for the two forms of a bundle.
FORMS = {"folded": [], "unfolded": ["--keep-preactivations"]}


@dataclass(frozen=True)
class Bundle:
    """An exported network and what it has to compute."""

    name: str
    repository: Path
    golden: Golden
    unfolded: bool
    """Whether convolutions' outputs before the BatchNorm are layers too."""

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.repository / "lc" / "1" / "model.onnx"

    def graph(self) -> onnx.ModelProto:
        """The ONNX file without the weights."""
        return onnx.load(self.path, load_external_data=False)

    def session(self) -> onnxruntime.InferenceSession:
        """The bundle in ONNX Runtime, on the CPU."""
        return onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session", params=NETWORKS, ids=lambda network: network.name)
def network(request: pytest.FixtureRequest) -> Network:
    """One of the authors' networks."""
    return request.param


@pytest.fixture(scope="session")
def checkpoint(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, imported."""
    path = tmp_path_factory.mktemp(network.name) / "imported.safetensors"
    options = ["--preprocessing", "unit-range", *network.import_options]
    programs.run("trainer", "import", network.checkpoint, "--output", path, *options)
    return path


@pytest.fixture(scope="session", params=FORMS)
def bundle(request: pytest.FixtureRequest, network: Network, checkpoint: Path) -> Bundle:
    """The network, exported in one of the two forms."""
    form = request.param
    repository = checkpoint.parent / form / "models"
    programs.run("exporter", "export", checkpoint, "--repository", repository, "--model", "lc", *FORMS[form])
    return Bundle(f"{network.name} {form}", repository, golden.read(network), form == "unfolded")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the end of the report."""
    return request.config.stash.setdefault(LINES, []).append


def pytest_configure() -> None:
    """Refuses to begin where there are no programs to test."""
    try:
        programs.folder()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Shows the lines that tests have added: the worst errors are worth knowing."""
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.ensure_newline()
        terminalreporter.section("relative errors")
        for line in sorted(lines):
            terminalreporter.write_line(line)
