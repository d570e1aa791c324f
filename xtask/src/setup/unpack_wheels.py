"""Unpacks parts of all wheels of a folder.

Arguments: the wheels' folder, the folder to unpack into, and patterns of members' names; one that begins with '!'
leaves members out again.
"""

import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

source, target, *patterns = sys.argv[1:]
taken = [pattern for pattern in patterns if not pattern.startswith("!")]
left_out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

for path in sorted(Path(source).glob("*.whl")):
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if any(fnmatchcase(name, pattern) for pattern in taken) and not any(
                fnmatchcase(name, pattern) for pattern in left_out
            ):
                wheel.extract(name, target)
