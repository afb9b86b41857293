"""Includes point down only: the layers of runtime/, and who may see what outside of it."""
import re

from source import read, sources

# Lowest first; folders of one row do not see each other. All of them may include arch/ and the public headers.
LAYERS = [{"arch"}, {"base"}, {"core"}, {"sched"}, {"block"}, {"net"}, {"obs", "gc", "sim"}, {"runtime.cpp"}]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
INTERNALS = "tests/support/internals.hpp"


def rank(path):
    """(row, folder) of a file of arch/ or runtime/; None for others."""
    parts = path.split("/")
    name = "arch" if parts[0] == "arch" else parts[1] if parts[0] == "runtime" and len(parts) > 1 else None
    for row, folders in enumerate(LAYERS):
        if name in folders:
            return row, name
    return None


def refusal(path, quoted, target):
    """Why `path` may not include `target`; None if it may."""
    folder = path.split("/")[0]
    internal = target.startswith(("runtime/", "arch/"))
    if folder == "include":
        if target.startswith("weft/"):
            return None
        if quoted or "/" in target or (target.endswith(".h") and not target.startswith("std") and target != "errno.h"):
            return "public headers include only the standard library and each other"
    elif folder == "tools":
        if internal:
            return "tools use the public headers only"
    elif folder == "tests":
        if internal and path != INTERNALS:
            return f"tests reach internals only through {INTERNALS}"
    elif internal:
        here, there = rank(path), rank(target)
        if here is None:
            return "this folder is in no layer"
        if there is None:
            return "the included folder is in no layer"
        if there[1] != here[1] and there[0] >= here[0]:
            return f"{here[1]} does not see {there[1]}"
    if folder in ("arch", "runtime") and target.startswith(("tests/", "tools/")):
        return "the library does not see its tests and tools"
    if folder in ("arch", "runtime") and quoted and not internal:
        return "internal headers are spelled from the root of the tree"
    return None


def check(root, _):
    findings = []
    for path in sources(root):
        text = read(root, path)
        for match in INCLUDE.finditer(text):
            why = refusal(path.as_posix(), match[1] == '"', match[2])
            if why:
                line = text.count("\n", 0, match.start()) + 1
                findings.append(f"{path}:{line}: includes {match[2]}: {why}")
    return findings


PLANTED = [
    ({"runtime/core/g.hpp": '#include "runtime/sched/loop.hpp"\n'}, "core does not see sched"),
    ({"runtime/obs/dump.cpp": '#include "runtime/sim/sim.hpp"\n'}, "obs does not see sim"),
    ({"arch/tls.hpp": '#include "runtime/base/check.hpp"\n'}, "arch does not see base"),
    ({"include/weft/go.hpp": '#include "runtime/core/g.hpp"\n'}, "public headers"),
    ({"include/weft/fd.hpp": "#include <sys/epoll.h>\n"}, "public headers"),
    ({"tools/tour.cpp": '#include "runtime/core/g.hpp"\n'}, "tools use the public headers"),
    ({"tests/unit/a_test.cpp": '#include "runtime/core/g.hpp"\n'}, "only through"),
    ({"runtime/core/g.cpp": '#include "g.hpp"\n'}, "from the root"),
    ({"runtime/sched/loop.cpp": '#include "runtime/core/g.hpp"\n#include "arch/tls.hpp"\n#include <weft/go.hpp>\n',
      "runtime/runtime.cpp": '#include "runtime/obs/dump.hpp"\n',
      "include/weft/go.hpp": "#include <weft/chan.hpp>\n#include <vector>\n#include <stdint.h>\n#include <errno.h>\n",
      INTERNALS: '#include "runtime/core/g.hpp"\n'}, None),
]
