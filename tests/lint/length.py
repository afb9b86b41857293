"""A file of more than 700 lines holds two ideas."""
from source import read, sources

LINES_MAX = 700


def check(root, _):
    return [f"{path}: {n} lines, at most {LINES_MAX}"
            for path in sources(root) if (n := read(root, path).count("\n")) > LINES_MAX]


PLANTED = [
    ({"runtime/core/g.cpp": "\n" * (LINES_MAX + 1)}, "at most"),
    ({"runtime/core/g.cpp": "\n" * LINES_MAX}, None),
]
