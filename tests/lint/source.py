"""What the lints share: the tree's files, their text without comments and strings, compilers."""
import os
import pathlib
import re
import shutil
import subprocess

FOLDERS = ("arch", "runtime", "include", "tests", "tools")

TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<delim>[^(\s]{0,16})\(.*?\)(?P=delim)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'',
    re.S)


def sources(root, *folders):
    """The C++ files below the folders, with paths relative to root, sorted."""
    root = pathlib.Path(root)
    found = []
    for folder in folders or FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.suffix in (".hpp", ".cpp", ".h") and path.is_file():
                found.append(path.relative_to(root))
    return sorted(found)


def read(root, path):
    return (pathlib.Path(root) / path).read_text(errors="replace")


def strip(text):
    """The code: comments become blanks, strings become empty, line numbers stay."""
    def blank(match):
        token = match[0]
        if token[0] in "/":
            return re.sub(r"[^\n]", " ", token)
        return token[0] + "\n" * token.count("\n") + token[-1] if token[0] != "R" else '""' + "\n" * token.count("\n")
    return TOKEN.sub(blank, text)


def header_comment(text):
    """The comment that opens the file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        lines.append(line)
    return "\n".join(lines)


def compilers():
    """g++ and clang++ as far as they are there."""
    found = [os.environ.get("GXX", "g++")]
    for clang in ("clang++-14", "clang++"):
        if shutil.which(clang):
            found.append(clang)
            break
    return found


def execute(command, **options):
    """(status, output) of a command."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=300, **options)
    return done.returncode, done.stdout
