"""What is published: a source distribution, the wheel that is built from it, and the README's examples in a fresh place."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import programs
import pytest
from isolation import isolated, needed
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
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert any(name_there.endswith(f"/{name}") for name_there in names)
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
    metadata = contents["ventral_client-0.1.0.dist-info/METADATA"].decode()
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        licence = (PROJECT.parents[1] / name).read_bytes()
        assert contents[f"ventral_client-0.1.0.dist-info/licenses/{name}"] == licence
        assert f"License-File: {name}" in metadata.splitlines()
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


def test_the_wheel_alone_has_what_it_needs(wheel: Path, repository: Path, tmp_path: Path) -> None:
    """Without any extra: it is imported, and its program runs; what an extra is for says which one."""
    assert set(needed(wheel, ())) == {"grpcio", "protobuf", "numpy", "typing-extensions"}
    python = isolated(tmp_path / "environment", wheel)
    check = (
        "import ventral_client, ventral_client.brainscore, ventral_client.report, ventral_client.thingsvision\n"
        "try:\n"
        "    import ventral_client.extraction\n"
        "except ventral_client.MissingPackage as error:\n"
        "    print(error, end='')\n"
    )
    said = run(python, "-c", check, folder=tmp_path)
    assert said == "extract needs h5py: pip install 'ventral-client[extract]'"
    with Server(repository) as server:
        program = python.with_name("ventral-client")
        layers = run(program, "layers", "--address", server.address, "--model", "lc", folder=tmp_path)
    assert layers.startswith("bn1\t")


def test_the_readme_s_examples_run_where_the_wheel_is_installed(
    wheel: Path, repository: Path, paths: list[Path], tmp_path: Path
) -> None:
    """In a new virtual environment, with the extras that it names and nothing else."""
    assert "pip install 'ventral-client[all]'" in (PROJECT / "README.md").read_text("utf-8")
    python = isolated(tmp_path / "environment", wheel, ["all"])
    for module in ("ventral_client", "ventral_client.brainscore"):
        where = run(python, "-c", f"import {module}; print({module}.__file__)", folder=tmp_path)
        assert Path(where).is_relative_to(tmp_path / "environment")

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
    assert "(2, 4, 32, 32) float32" in printed[0]
    assert printed[1].count(".png") == len(paths)
    assert (tmp_path / "activations.h5").is_file()


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


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_python_that_is_supported_takes_it(wheel: Path, version: str, tmp_path: Path) -> None:
    """As far as there is one: its sources are compiled, and imported where what it needs is installed."""

    def tell(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"python{version}", *command],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        found = tell("-c", "import sys; print('%d.%d' % sys.version_info[:2], end='')").stdout
    except FileNotFoundError:
        found = ""
    if found != version:
        pytest.skip(f"there is no python{version} here")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    compiled = tell("-m", "compileall", "-q", "ventral_client")
    assert compiled.returncode == 0, compiled.stdout
    if tell("-c", "import grpc, google.protobuf, numpy").returncode != 0:
        pytest.skip(
            f"its syntax is python{version}'s; that lacks grpcio, protobuf or numpy to import it with"
        )
    imported = tell("-c", "import ventral_client.cli, ventral_client.brainscore, ventral_client.thingsvision")
    assert imported.returncode == 0, imported.stderr


def test_a_shallow_folder_is_no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building there says so."""
    monkeypatch.syspath_prepend(PROJECT)
    from hatch_build import StubsHook

    for root in ("/", "/nowhere"):
        hook = StubsHook(root, {}, None, None, "", "wheel")
        with pytest.raises(FileNotFoundError, match="build in a whole checkout"):
            hook._proto()
