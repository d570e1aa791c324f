"""What is published: a source distribution, the wheel that is built from it, and the README's examples in a fresh place."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import programs
import pytest
from servers import Server

PROJECT = Path(__file__).parents[1]


def run(*command: str | Path, folder: Path) -> str:
    """Runs a program that is expected to succeed; returns its standard output."""
    finished = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, (
        f"{command}: exit code {finished.returncode}\n{finished.stderr}{finished.stdout}"
    )
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution away from the checkout."""
    folder = tmp_path_factory.mktemp("package")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=PROJECT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(folder, filter="data")
    assert any(name.endswith("/proto/ventral/v1/ventral.proto") for name in names)
    assert not any("_pb2" in name for name in names)
    source = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_wheel_of_the_checkout_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """The stubs are in it, typed; it fits every platform."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, folder=PROJECT)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(tmp_path / wheel.name) as other:
        contents = {name: one.read(name) for name in one.namelist()}
        assert contents == {name: other.read(name) for name in other.namelist()}
    for name in (
        "py.typed",
        "brainscore/__init__.py",
        "brainscore/extractor.py",
        "v1/__init__.py",
        "v1/ventral_pb2.py",
        "v1/ventral_pb2.pyi",
        "v1/ventral_pb2_grpc.py",
        "report/data/pogodin-latham-2022.csv",
    ):
        assert f"ventral_client/{name}" in contents


def test_the_readme_s_examples_run_where_the_wheel_is_installed(
    wheel: Path, repository: Path, paths: list[Path], tmp_path: Path
) -> None:
    """In a new virtual environment, whose other packages are this one's."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, folder=tmp_path)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, folder=tmp_path)
    purelib = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'), end='')", folder=tmp_path
    )
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(purelib) / "others.pth").write_text("\n".join(others) + "\n")
    for module in ("ventral_client", "ventral_client.brainscore"):
        where = run(python, "-c", f"import {module}; print({module}.__file__)", folder=tmp_path)
        assert Path(where).is_relative_to(environment)

    examples = re.findall(
        r"^```python\n(.*?)^```", (PROJECT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(examples) == 2
    models = tmp_path / "models"
    models.mkdir()
    (models / "lc").symlink_to(repository / "lc")
    shutil.copy(paths[0], tmp_path / "boot.png")
    shutil.copy(paths[1], tmp_path / "bag.png")
    shutil.copytree(paths[0].parent, tmp_path / "stimuli")
    with Server(models) as server:
        printed = []
        for number, example in enumerate(examples):
            assert "localhost:50051" in example
            script = tmp_path / f"example{number}.py"
            script.write_text(example.replace("localhost:50051", server.address), encoding="utf-8")
            printed.append(run(python, script, folder=tmp_path))
        layers = run(
            environment / "bin" / "ventral-client", "layers", "--address", server.address, folder=tmp_path
        )
    assert "(2, 4, 32, 32) float32" in printed[0]
    assert printed[1].count(".png") == len(paths)
    assert (tmp_path / "activations.h5").is_file()
    assert layers.startswith("bn1\t")


def test_the_checkout_s_readme_has_an_example_that_runs(server: Server, tmp_path: Path) -> None:
    """Against a server of several models, on an image that its commands write."""
    readme = (PROJECT.parents[1] / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert "localhost:50051" in example
    assert "trainer stimuli --output images " in readme
    programs.run("trainer", "stimuli", "--output", tmp_path / "images")
    script = tmp_path / "example.py"
    script.write_text(example.replace("localhost:50051", server.address), encoding="utf-8")
    assert run(sys.executable, script, folder=tmp_path) == "(1, 4, 32, 32)\n"


def test_it_is_typed_throughout() -> None:
    """By mypy's strictest rules."""
    run(sys.executable, "-m", "mypy", folder=PROJECT)
