#!/usr/bin/env python3
"""Runs the lints over the tree and over planted violations, which each of them must find. Prints TAP."""
import argparse
import importlib
import pathlib
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

LINTS = ("layers", "orders", "platform", "length", "listed", "headers", "snippets")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def check_planted(lint):
    """What the lint got wrong about the trees that it brings along."""
    wrong = []
    for files, expected in lint.PLANTED:
        with tempfile.TemporaryDirectory() as tree:
            for name, text in files.items():
                path = pathlib.Path(tree) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            findings = lint.check(tree, None)
        if expected is None and findings:
            wrong.append(f"found something in a clean tree: {findings}")
        if expected is not None and not any(expected in finding for finding in findings):
            wrong.append(f"did not find \"{expected}\" in {sorted(files)}: {findings}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", help="the build folder whose library README.md's programs are linked against")
    parser.add_argument("name", nargs="?", help="of one test, as printed")
    args = parser.parse_args()
    tests = {}
    for name in LINTS:
        lint = importlib.import_module(name)
        tests[f"{name} finds planted violations"] = lambda lint=lint: check_planted(lint)
        tests[name] = lambda lint=lint: lint.check(ROOT, args.build and pathlib.Path(args.build).resolve())
    if args.name and args.name not in tests:
        parser.error(f"no such test; there are: {', '.join(tests)}")
    chosen = [args.name] if args.name else list(tests)
    print(f"1..{len(chosen)}")
    failed = False
    for number, name in enumerate(chosen, 1):
        findings = tests[name]()
        for finding in findings:
            print(finding)
        print(f"{'not ok' if findings else 'ok'} {number} - {name}", flush=True)
        failed = failed or bool(findings)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
