"""The C++ blocks of README.md compile without a warning; a block with main() also runs, and prints the ```text block that
follows it, if one does."""
import concurrent.futures
import os
import pathlib
import re
import shlex
import tempfile

from source import compilers, execute

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.M | re.S)
PREAMBLE = "#include <weft/weft.hpp>\nusing namespace std::chrono_literals;\n"
WARNINGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror"]


def blocks(text):
    """(line, code, expected output or None) of each C++ block."""
    found = list(BLOCK.finditer(text))
    for block, following in zip(found, found[1:] + [None]):
        if block[1] != "cpp":
            continue
        expected = None
        if following and following[1] == "text" and len(text[block.end():following.start()].split("\n\n")) <= 2:
            expected = following[2]
        yield text.count("\n", 0, block.start()) + 1, block[2], expected


def library_flags(build, stage):
    """How a program is linked against the library of a build folder, once that is installed below `stage`."""
    status, output = execute(["meson", "install", "-C", str(build), "--no-rebuild", "--destdir", stage])
    if status:
        raise RuntimeError(output)
    found = next(pathlib.Path(stage).rglob("weft.pc")).parent
    status, output = execute(["pkg-config", "--cflags", "--libs", "weft"],
                             env={**os.environ, "PKG_CONFIG_PATH": str(found)})
    if status:
        raise RuntimeError(output)
    return shlex.split(output) + [f"-Wl,-rpath,{found.parent}"]


def run_block(code, expected, flags):
    """What is wrong with a whole program; None if nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = f"{scratch}/block.cpp", f"{scratch}/block"
        pathlib.Path(source).write_text(code)
        status, output = execute([compilers()[0], *WARNINGS, "-o", program, source, *flags])
        if status:
            return output
        status, output = execute(["timeout", "-s", "QUIT", "-k", "5", "60", program], cwd=scratch)
        if expected is not None and output != expected:
            return f"printed:\n{output}instead of:\n{expected}"
        return f"exit status {status}:\n{output}" if status and expected is None else None


def compile_block(code, flags):
    """What is wrong with a piece: it stands in a file or in a function's body."""
    outputs = []
    for text in (PREAMBLE + code, PREAMBLE + "void snippet() {\n" + code + "}\n"):
        with tempfile.NamedTemporaryFile("w", suffix=".cpp") as source:
            source.write(text)
            source.flush()
            status, output = execute([compilers()[0], *WARNINGS, "-Wno-unused", "-Wno-comment", "-fsyntax-only",
                                      source.name, *flags])
        if not status:
            return None
        outputs.append(output)
    return min(outputs, key=len)


def check(root, build):
    readme = pathlib.Path(root) / "README.md"
    if not readme.exists():
        return ["README.md: there is none"]
    found = list(blocks(readme.read_text()))
    includes = ["-I", str(pathlib.Path(root) / "include")]
    with tempfile.TemporaryDirectory() as stage, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        whole = any("int main(" in code for _, code, _ in found)
        link = library_flags(build, stage) if build and whole else []

        def one(block):
            line, code, expected = block
            wrong = run_block(code, expected, includes + link) if "int main(" in code else compile_block(code, includes)
            return f"README.md:{line}: {wrong.strip()[:2000]}" if wrong else None

        return [finding for finding in pool.map(one, found) if finding]


EMPTY = {"include/weft/weft.hpp": "#pragma once\n#include <chrono>\nvoid go();\n"}
HELLO = "```cpp\n#include <cstdio>\nint main() { std::puts(\"hello\"); }\n```\n"
PLANTED = [
    ({**EMPTY, "README.md": "```cpp\nstart();\n```\n"}, "README.md:1"),
    ({**EMPTY, "README.md": HELLO + "It prints\n```text\ngood bye\n```\n"}, "instead of"),
    ({**EMPTY, "README.md": HELLO.replace("}", "return 3; }")}, "exit status 3"),
    ({**EMPTY, "README.md": "text\n```cpp\ngo();\n```\n```cpp\nvoid f() { go(); }\n```\n" + HELLO
                            + "It prints\n```text\nhello\n```\n"}, None),
]
