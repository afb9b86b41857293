#!/usr/bin/env python3
"""Runs test executables (GoogleTest) and test scripts (TAP), counting each test by itself.

A GoogleTest executable that dies is started again with the tests that are left, so that one crash costs one test.
When nothing happens for --limit seconds it gets SIGQUIT, at which the runtime dumps all goroutines, then SIGKILL.
Each test adds a line to --results: passed, failed or skipped, and its name, separated by tabs.
A script takes the name of a test as its last argument and then runs that test alone.
"""
import argparse
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

GTEST_END = re.compile(r"\[  (     OK|FAILED |SKIPPED) \] ([\w./]+)(?:, where .*)? \(\d+ ms\)$")
GTEST_RUN = re.compile(r"\[ RUN      \] ([\w./]+)$")
TAP_END = re.compile(r"^(ok|not ok) \d+ - (.*)$")
DUMP_SECONDS = 10


class Process:
    """A child in a process group of its own, its output as lines; ended when it is silent for too long."""

    def __init__(self, command, limit):
        self.limit = limit
        self.hung = False
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        self.pending = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.pending.put(line.decode(errors="replace").rstrip("\n"))
        self.pending.put(None)

    def lines(self):
        """Yields until the output ends, or the process is gone and what it left behind is silent."""
        self.progress = time.monotonic()
        while True:
            try:
                line = self.pending.get(timeout=0.5)
            except queue.Empty:
                if self.process.poll() is not None:
                    break
                self.check_limit()
                continue
            if line is None:
                break
            yield line
            self.check_limit()
        try:
            self.process.wait(timeout=DUMP_SECONDS)
        except subprocess.TimeoutExpired:
            self.hung = True
        self.kill_group()
        self.process.wait()

    def check_limit(self):
        silent = time.monotonic() - self.progress
        if silent > self.limit and not self.hung:
            self.hung = True
            self.process.send_signal(signal.SIGQUIT)
        if silent > self.limit + DUMP_SECONDS:
            self.kill_group()

    def kill_group(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def ending(self):
        if self.hung:
            return f"no progress for {self.limit} s"
        status = self.process.returncode
        return f"signal {-status}" if status < 0 else f"exit status {status}"


class Report:
    def __init__(self, label, path):
        self.label = label
        self.results = open(path, "a")
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.terminal = sys.stderr.isatty()

    def progress(self, text):
        if self.terminal:
            sys.stderr.write(f"\r\033[K[{self.label}] {text}"[:100])
            sys.stderr.flush()

    def add(self, verdict, name, output=(), reproduce="", why=""):
        self.counts[verdict] += 1
        print(verdict, f"{self.label} {name}", sep="\t", file=self.results, flush=True)
        if verdict == "failed":
            self.progress("")
            for line in output:
                print(line)
            print(f"FAILED [{self.label}] {name}" + (f": {why}" if why else ""))
            print(f"  reproduce: {reproduce}", flush=True)

    def summary(self, name, seconds):
        self.progress("")
        counts = ", ".join(f"{n} {verdict}" for verdict, n in self.counts.items() if n or verdict != "skipped")
        print(f"[{self.label}] {name}: {counts} in {seconds:.0f} s", flush=True)


def list_gtest(command):
    names, suite = [], ""
    for line in subprocess.run(command + ["--gtest_list_tests"], stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, check=True).stdout.splitlines():
        line = line.split("#")[0].rstrip()
        if line.startswith("  "):
            if not line.strip().startswith("DISABLED_") and not suite.startswith("DISABLED_"):
                names.append(suite + line.strip())
        elif line.endswith("."):
            suite = line
    return names


def run_gtest(command, report, limit):
    left = list_gtest(command)
    total = len(left)
    shown = " ".join(shlex.quote(part) for part in command)
    while left:
        child = Process(command + ["--gtest_color=no", "--gtest_filter=" + ":".join(left)], limit)
        running, output, finished, failed = None, [], 0, 0
        for line in child.lines():
            begin, end = GTEST_RUN.search(line), GTEST_END.search(line)
            if begin:
                running, output = begin[1], []
                child.progress = time.monotonic()
                report.progress(f"{total - len(left)}/{total} {running}")
            elif end and end[2] == running:
                verdict = {"     OK": "passed", "FAILED ": "failed", "SKIPPED": "skipped"}[end[1]]
                report.add(verdict, running, output + [line], f"{shown} --gtest_filter={running}")
                failed += verdict == "failed"
                finished += 1
                left.remove(running)
                running = None
                child.progress = time.monotonic()
            else:
                output.append(line)
        status = child.process.returncode
        if running is not None:
            report.add("failed", running, output, f"{shown} --gtest_filter={running}", child.ending())
            left.remove(running)
        elif left and finished == 0:
            report.add("failed", "start", output, shown, child.ending())
            return
        elif not left and status != 0 and not failed:
            report.add("failed", "exit", output, shown, child.ending())


def run_tap(command, report, limit):
    shown = " ".join(shlex.quote(part) for part in command)
    child = Process(command, limit)
    output, failed = [], 0
    for line in child.lines():
        end = TAP_END.search(line)
        if end:
            verdict = "passed" if end[1] == "ok" else "failed"
            report.add(verdict, end[2], output, f"{shown} {shlex.quote(end[2])}")
            failed += verdict == "failed"
            output = []
            child.progress = time.monotonic()
            report.progress(end[2])
        else:
            output.append(line)
    if child.process.returncode != 0 and not failed:
        report.add("failed", os.path.basename(command[-1]), output, shown, child.ending())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--label", required=True, help="what the results are filed under")
    parser.add_argument("--results", required=True, help="file that each test adds a line to")
    parser.add_argument("--limit", type=int, default=180, help="seconds without a test ending")
    parser.add_argument("--name", help="of the suite, in its summary")
    parser.add_argument("--tap", action="store_true", help="COMMAND is a script that prints TAP")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    report = Report(args.label, args.results)
    start = time.monotonic()
    (run_tap if args.tap else run_gtest)(args.command, report, args.limit)
    report.summary(args.name or os.path.basename(args.command[-1]), time.monotonic() - start)
    return 1 if report.counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
