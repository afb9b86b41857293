"""Each public header compiles alone, twice in a file, without a warning, in gcc and clang."""
import concurrent.futures
import os
import pathlib

from source import compilers, execute, sources

FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", "-"]


def compile_alone(compiler, root, path):
    name = path.relative_to("include").as_posix()
    include = f'#include <{name}>\n'
    status, output = execute(["sh", "-c", f"printf '%s' '{include * 2}' | \"$@\"", "sh", compiler,
                              "-I", str(pathlib.Path(root) / "include"), *FLAGS])
    return f"{path} ({compiler}): {output.strip()[:2000]}" if status else None


def check(root, _):
    jobs = [(compiler, root, path) for path in sources(root, "include") for compiler in compilers()
            if not path.match("include/weft/detail/poll_*.hpp") and not path.match("include/weft/detail/section_*.hpp")]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for finding in pool.map(lambda job: compile_alone(*job), jobs) if finding]


PLANTED = [
    ({"include/weft/go.hpp": "#pragma once\ninline std::string f();\n"}, "include/weft/go.hpp"),
    ({"include/weft/go.hpp": "int f() { return 1; }\n"}, "redefinition"),
    ({"include/weft/go.hpp": "#pragma once\ninline void f(int unused) {}\n"}, "unused"),
    ({"include/weft/go.hpp": "#pragma once\n#include <string>\ninline std::string f() { return {}; }\n"}, None),
]
