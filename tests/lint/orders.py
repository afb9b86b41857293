"""Every memory order other than relaxed carries a tag. The comment that opens the file defines it or says where that is done,
or the comment of a file does that is named there or that the file itself includes: what an include brings along is nothing
that a reader sees. Each tag stands at two places of the code or more, since an order alone orders nothing."""
import collections
import pathlib
import re

from source import header_comment, read, sources, strip

ORDER = re.compile(r"memory_order(?:_|::)(?:acquire|release|acq_rel|seq_cst|consume)\b"
                   r"|(?<=[(,])\s*(?:acquire|release|acq_rel|seq_cst)\s*(?=[,)])")
# Fences whose order their own definition spells.
FENCE = re.compile(r"(?<!void )\bpublish_fence\(")
OPERATION = re.compile(r"(?:\.|->)(?:load|store|exchange|fetch_(?:add|sub|or|and|xor)|compare_exchange_(?:weak|strong))\(")
ALIAS = re.compile(r"^\s*(?:inline\s+)?constexpr\b.*=|^\s*using\b")
TAG = re.compile(r"\[([a-z][a-z0-9_-]*)\]")
INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)
FILE_NAME = re.compile(r"[\w/]*\w+\.[hc]pp\b")


def comment_of(line, code):
    """The comment part of a line: what strip() took away."""
    at = line.find("//")
    while at >= 0 and code[at:at + 2] == "//":
        at = line.find("//", at + 2)
    return line[at:] if at >= 0 else ""


def tags_at(lines, code, index):
    """The tags of the statement on line `index`: its lines' comments and the comment lines right before it."""
    found = TAG.findall(comment_of(lines[index], code[index]))
    if found:
        return found
    index -= 1
    # The earlier lines of the same statement, then the comment above it.
    while index >= 0 and code[index].strip() and not re.search(r"[;{}:]\s*$", code[index]):
        found += TAG.findall(comment_of(lines[index], code[index]))
        index -= 1
    while index >= 0 and not code[index].strip() and lines[index].strip().startswith("//"):
        found += TAG.findall(lines[index])
        index -= 1
    return found


def arguments(code, at):
    """The text between the parenthesis that ends at `at` and its partner."""
    depth, end = 1, at
    while depth and end < len(code):
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        end += 1
    return code[at:end]


def implied(path, code):
    """Operations that leave their order to the default, seq_cst."""
    for match in OPERATION.finditer(code):
        if not re.search(r"\b(?:memory_order|relaxed|acquire|release|acq_rel|seq_cst|order)", arguments(code, match.end())):
            yield f"{path}:{code.count(chr(10), 0, match.start()) + 1}: the memory order is not spelled out"


def included(texts, path):
    """What the file itself includes of the tree."""
    return {other for name in INCLUDE.findall(texts[path]) if (other := pathlib.PurePosixPath(name)) in texts}


def check(root, _):
    findings, places = [], collections.defaultdict(list)
    texts = {pathlib.PurePosixPath(path): read(root, path) for path in sources(root, "arch", "runtime")}
    defined = {path: set(TAG.findall(header_comment(text))) for path, text in texts.items()}
    for path, text in texts.items():
        named = {other for name in FILE_NAME.findall(header_comment(text)) for other in texts
                 if other.as_posix() == name or ("/" not in name and other.name == name)}
        known = set().union(defined[path], *(defined[other] for other in named | included(texts, path)))
        stripped = strip(text)
        findings += implied(path, stripped)
        lines, code = text.splitlines(), stripped.splitlines()
        for index, line in enumerate(code):
            if not (ORDER.search(line) or FENCE.search(line)) or ALIAS.search(line):
                continue
            where = f"{path}:{index + 1}"
            tags = tags_at(lines, code, index)
            if not tags:
                findings.append(f"{where}: memory order without a [tag]")
            for tag in tags:
                places[tag].append(where)
                if tag not in known:
                    findings.append(f"{where}: [{tag}] is not defined where the file says: in its header, or that of a file that it names or includes")
    for tag, where in sorted(places.items()):
        if len(where) < 2:
            findings.append(f"{where[0]}: [{tag}] stands nowhere else: what does it pair with?")
    return findings


PAIR = ("// Idle.\n// Orders [idle] store-load on both sides.\n"
        "void f() {\n  a.store(1, release);  // [idle] pairs with g()\n}\n"
        "void g() {\n  // [idle]\n  a.load(std::memory_order_acquire);\n}\n")
PLANTED = [
    ({"runtime/sched/idle.cpp": PAIR.replace("  // [idle] pairs with g()", "")}, "without a [tag]"),
    ({"runtime/sched/idle.cpp": PAIR.replace("// Orders [idle] store-load on both sides.\n", "")}, "not defined"),
    ({"runtime/sched/idle.cpp": PAIR.replace("  // [idle]\n  a.load(std::memory_order_acquire);\n", "")},
     "stands nowhere else"),
    ({"runtime/core/p.hpp": "// Orders [idle] as there.\n", "runtime/sched/sched.hpp": '#include "runtime/core/p.hpp"\n',
      "runtime/sched/idle.cpp": PAIR.replace("// Orders [idle] store-load on both sides.\n", '#include "runtime/sched/sched.hpp"\n')},
     "not defined"),
    ({"runtime/sched/idle.cpp": PAIR + "int z = c.load();\n"}, "not spelled out"),
    ({"runtime/sched/idle.cpp": PAIR + "void p() { publish_fence(a); }\n"}, "without a [tag]"),
    ({"runtime/core/p.hpp": "// Orders [idle] as there.\n",
      "runtime/sched/idle.cpp": PAIR.replace("// Orders [idle] store-load on both sides.\n", '#include "runtime/core/p.hpp"\n')}, None),
    ({"runtime/sched/idle.cpp": PAIR,
      "arch/futex.cpp": "// Tags: see idle.cpp.\nint x = b.compare_exchange_strong(\n    y, 1, acq_rel,  // [idle]\n"
                        "    acquire);\nint y = c.load(relaxed);\nvoid h() { acquire(p); q.release(); }\n"}, None),
]
