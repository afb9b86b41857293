"""Only arch/ and include/weft/detail/{poll,section}_*.hpp ask which CPU, OS, C library or Boost this is."""
import re

from source import read, sources, strip

PLATFORM = re.compile(
    r"\b(__x86_64__|__amd64__|__i386__|__aarch64__|__arm__|__riscv\w*|__powerpc\w*|__s390\w*|__BYTE_ORDER__|__LP64__"
    r"|__linux__|__linux|__unix__|__APPLE__|__FreeBSD__|_WIN32|__ANDROID__|__GLIBC\w*|__MUSL__|__SSE\w*|__AVX\w*"
    r"|BOOST_VERSION|BOOST_(?:ARCH|OS|ABI)_\w+|WEFT_X86_64|WEFT_AARCH64)\b")
CONDITION = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b((?:\\\n|[^\n])*)", re.M)


def check(root, _):
    findings = []
    for path in sources(root, "include", "runtime", "tools"):
        if path.match("include/weft/detail/poll_*.hpp") or path.match("include/weft/detail/section_*.hpp"):
            continue
        text = strip(read(root, path))
        for match in CONDITION.finditer(text):
            macro = PLATFORM.search(match[1])
            if macro:
                line = text.count("\n", 0, match.start()) + 1
                findings.append(f"{path}:{line}: {macro[1]} is for arch/")
    return findings


PLANTED = [
    ({"runtime/core/g.cpp": "int a;\n#if defined(__x86_64__)\n#endif\n"}, "runtime/core/g.cpp:2: __x86_64__"),
    ({"include/weft/go.hpp": "#ifdef __linux__\n#endif\n"}, "__linux__"),
    ({"runtime/core/g.cpp": "#if 0 || \\\n  BOOST_VERSION < 107400\n#endif\n"}, "BOOST_VERSION"),
    ({"arch/cpu.hpp": "#ifdef __x86_64__\n#endif\n", "include/weft/detail/poll_cpu.hpp": "#if __aarch64__\n#endif\n",
      "runtime/core/g.cpp": "// #if __x86_64__\n#ifdef NDEBUG\n#endif\n"}, None),
]
