"""Generates the gRPC stubs when a wheel is built; a source distribution carries the `.proto` file instead."""

import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Seen from the checkout's root, and inside a source distribution.
PROTO = Path("proto/ventral/v1/ventral.proto")

#: The stubs' package, which is the folder that they think the `.proto` file is in.
PACKAGE = "ventral_client/v1"


class StubsHook(BuildHookInterface):
    """Adds what is generated to what is built, without writing into the source folder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before anything is put together."""
        proto = self._proto()
        if self.target_name == "sdist":
            build_data["force_include"][str(proto)] = PROTO.as_posix()
            return
        self._folder = Path(tempfile.mkdtemp(prefix="ventral-client-"))
        generate(proto, self._folder)
        generated = self._folder / PACKAGE
        if version == "editable":
            # What is imported is the source folder itself; git ignores this one.
            generated = Path(shutil.copytree(generated, Path(self.root, "src", PACKAGE), dirs_exist_ok=True))
        for file in generated.iterdir():
            build_data["force_include"][str(file)] = f"{PACKAGE}/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when everything is put together."""
        if self.target_name != "sdist":
            shutil.rmtree(self._folder)

    def _proto(self) -> Path:
        root = Path(self.root)
        # A folder near the root of the file system hasn't two above it.
        folders = [root, *root.parents[1:2]]
        for folder in folders:
            if (folder / PROTO).is_file():
                return folder / PROTO
        message = f"{PROTO} isn't in {' or '.join(map(str, folders))}: build in a whole checkout"
        raise FileNotFoundError(message)


def generate(proto: Path, output: Path) -> None:
    """Writes the package of stubs into the folder `output`."""
    from grpc_tools import protoc

    package = output / PACKAGE
    package.mkdir(parents=True)
    with resources.as_file(resources.files("grpc_tools") / "_proto") as well_known:
        status = protoc.main(
            [
                "protoc",
                f"-I{PACKAGE}={proto.parent}",
                f"-I{well_known}",
                f"--python_out={output}",
                f"--pyi_out={output}",
                f"--grpc_python_out={output}",
                f"{PACKAGE}/{proto.name}",
            ]
        )
    if status != 0:
        raise RuntimeError(f"protoc can't read {proto}: exit code {status}")
    (package / "__init__.py").write_text(
        '"""Messages and stubs of `ventral.v1`, generated."""\n', encoding="utf-8"
    )
