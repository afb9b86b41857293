"""Every source stands in a meson.build: a file that is on no list is built by nobody."""
import pathlib
import re

from source import read, sources


def check(root, _):
    listed = set()
    for build in pathlib.Path(root).rglob("meson.build"):
        folder = build.parent.relative_to(root)
        for name in re.findall(r"'([^']+\.cpp)'", build.read_text()):
            listed.add((folder / name).as_posix())
    return [f"{path}: in no meson.build"
            for path in sources(root, "arch", "runtime", "tests", "tools")
            if path.suffix == ".cpp" and not path.as_posix().startswith("tests/consumers/")
            and path.as_posix() not in listed]


PLANTED = [
    ({"runtime/meson.build": "files('core/g.cpp')\n", "runtime/core/m.cpp": ""}, "runtime/core/m.cpp"),
    ({"runtime/meson.build": "files('core/g.cpp')\n", "runtime/core/g.cpp": ""}, None),
]
