"""A virtual environment that has a wheel and what it says that it needs, and nothing else."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(wheel: Path, extras: Iterable[str]) -> dict[str, Distribution]:
    """What a wheel with these extras needs, and what that needs in turn, of what is installed here: by their names."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    own = canonicalize_name(metadata["Name"])
    found: dict[str, Distribution] = {}
    pending, seen = [(own, frozenset(extras))], set()
    while pending:
        package, chosen = pending.pop()
        if (package, chosen) in seen:
            continue
        seen.add((package, chosen))
        lines = metadata.get_all("Requires-Dist") if package == own else found[package].requires
        for requirement in map(Requirement, lines or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *chosen}):
                wanted = canonicalize_name(requirement.name)
                if wanted != own:
                    found[wanted] = distribution(wanted)
                    assert requirement.specifier.contains(found[wanted].version), requirement
                pending.append((wanted, frozenset(requirement.extras)))
    return found


def isolated(folder: Path, wheel: Path, extras: Iterable[str] = ()) -> Path:
    """Makes the environment in `folder`, by links to what is installed here; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdin=subprocess.DEVNULL)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([python, *install, wheel], check=True, stdin=subprocess.DEVNULL)
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'), end='')"]
    purelib = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout)
    for package in needed(wheel, extras).values():
        for file in package.files or ():
            # Programs are outside. Packages share folders, so that it is files that are linked.
            if ".." not in file.parts and file.suffix != ".pyc":
                link = purelib / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(file.locate())))
    return python
