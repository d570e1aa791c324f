"""What the tests of Brain-Score share: exported networks, a server of them, an experiment."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# brainscore_vision reads these when it is imported: nothing of the user's is read or written, and nothing installed.
_home = tempfile.TemporaryDirectory(prefix="ventral-brainscore-")
os.environ["BS_INSTALL_DEPENDENCIES"] = "no"
os.environ["RESULTCACHING_HOME"] = f"{_home.name}/results"
os.environ["BRAINSCORE_HOME"] = f"{_home.name}/brain-score"

import programs
import pytest
import threadpoolctl
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from brainscore_vision.model_helpers import brain_transformation
from local import LocalModel
from population import Recording, photographs, record
from servers import Server
from ventral_client import Client, Model

# Matrices are small here, and threads that wait for each other take minutes where others compute, too.
threadpoolctl.threadpool_limits(1)

_LINES = pytest.StashKey[list[str]]()

#: Pixels of the input's sides.
SIZE = 64
#: A layer for every area.
LAYERS = ["relu", "layer1", "layer2", "layer4"]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of untrained networks.

    `lc` and `lc-conv-init` have ImageNet's classes, `ten` has ten; `lc-fp16` is `lc` with rounded weights, `grey` takes grey
    images.
    """
    folder = tmp_path_factory.mktemp("network")
    synsets = Path(brain_transformation.__file__).with_name("imagenet_classes.txt")
    ten = folder / "ten.txt"
    ten.write_text("\n".join(f"class {index}" for index in range(10)) + "\n", encoding="utf-8")
    for model, initialisation, names, classes, channels in (
        ("lc", "random", synsets, "1000", "3"),
        ("lc-conv-init", "conv", synsets, "1000", "3"),
        ("ten", "random", ten, "10", "3"),
        ("grey", "random", ten, "10", "1"),
    ):
        checkpoint = folder / f"{model}.safetensors"
        network = ["--architecture", "resnet18", "--width", "8", "--initialisation", initialisation]
        data = ["--input-size", str(SIZE), "--classes", classes, "--class-names", names]
        data += ["--channels", channels] if channels != "3" else []
        programs.run("trainer", "init", "--output", checkpoint, *network, *data, "--device", "cpu")
        export = ["export", checkpoint, "--repository", folder / "models", "--model"]
        programs.run("exporter", *export, model)
        if model == "lc":
            programs.run("exporter", *export, "lc-fp16", "--weights", "fp16")
    return folder / "models"


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A server that no test ends."""
    with Server(repository) as server:
        yield server


@pytest.fixture(scope="session")
def described(server: Server) -> Model:
    """The model `lc`, as the server describes it."""
    with Client(server.address, model="lc") as client:
        return client.model()


@pytest.fixture(scope="session")
def local(repository: Path, described: Model) -> LocalModel:
    """The model `lc` in this process."""
    return LocalModel(repository / "lc" / "1", described)


@pytest.fixture(scope="session")
def stimuli(tmp_path_factory: pytest.TempPathFactory) -> StimulusSet:
    """100 photographs."""
    return photographs(tmp_path_factory.mktemp("stimuli"))


@pytest.fixture(scope="session")
def recording(stimuli: StimulusSet) -> Recording:
    """What the simulated neurons did."""
    return record(stimuli)


@pytest.fixture(scope="session")
def paths(stimuli: StimulusSet) -> list[str]:
    """The photographs' files."""
    return [str(stimuli.get_stimulus(name)) for name in stimuli["stimulus_id"]]


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the end of the report."""
    return request.config.stash.setdefault(_LINES, []).append


def pytest_configure(config: pytest.Config) -> None:
    """Brain-Score's own warnings are for its authors."""
    for warnings in ("::FutureWarning", "::DeprecationWarning", ":Mean of empty slice:RuntimeWarning"):
        config.addinivalue_line("filterwarnings", f"ignore{warnings}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Shows the lines that tests have added: scores are worth knowing."""
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.ensure_newline()
        terminalreporter.section("scores")
        for line in lines:
            terminalreporter.write_line(line)
