# What came out of the tests: for people, as KTAP, as JUnit's XML. Imported by test-run.
# SPDX-License-Identifier: GPL-2.0-only
"""Results of tests, counted and written in three formats that agree.

People get a line for each test and the count at the end. KTAP 1 (Documentation/dev-tools/ktap.rst of Linux) has one
more level below each test whose output is TAP itself, as that of kvm_test_harness is. JUnit has a suite for each
group and a case for each test.
"""
import datetime
import re
import threading
import time
import xml.sax.saxutils

KSFT_SKIP = 4
# What is expected of somebody's own selftests that no list has.
PASS_OR_SKIP = "pass or skip"
SAID_SKIP = re.compile(r"# SKIP\S*\s+(?:- )?(.*\S)")
# Of a test's output, what goes to where people read: its end.
SHOWN_LINES = 200
TAP_RESULT = re.compile(r"(?:not )?ok\b.*")
TAP_PLAN = re.compile(r"1\.\.\d+\b.*")
# What XML 1.0 can't have.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Result:
    """One finished test: what was seen, what that means (pass, fail, skip, xfail), and why."""
    def __init__(self, case, status, seconds, trouble):
        self.case, self.seconds = case, seconds
        self.timed_out = status is None or (trouble or "").startswith("killed after")
        seen = "skip" if status == KSFT_SKIP and not trouble else "pass" if status == 0 and not trouble else "fail"
        self.why = ""
        if case.expected == PASS_OR_SKIP and seen != "fail":
            self.verdict, self.why = seen, self.skipped_because() if seen == "skip" else ""
            return
        if seen == case.expected:
            self.verdict = {"pass": "pass", "skip": "skip", "fail": "xfail"}[seen]
            self.why = case.reason
            return
        self.verdict = "fail"
        if seen == "pass":
            self.why = f"passes now, but is listed as {case.expected} ({case.reason})"
        elif seen == "skip":
            self.why = f"was skipped, and {case.expected} is expected"
        else:
            self.why = trouble or ("it did not end" if status is None else f"exit status {status}")

    def skipped_because(self):
        """A test's own reason."""
        said = [m[1] for m in map(SAID_SKIP.search, self.output()) if m]
        return said[-1] if said else "it did not say why"

    def output(self):
        """What the test said, by line."""
        try:
            with open(self.case.log, "rb") as f:
                return f.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []


class Results:
    """Takes results from any thread and prints each at once; KTAP if it is asked for, else a line for people."""
    def __init__(self, planned, ktap=False, junit=None, relative=str):
        self.all, self.ktap, self.junit, self.relative = [], ktap, junit, relative
        self.began = time.time()
        self.lock = threading.Lock()
        if ktap:
            print(f"KTAP version 1\n1..{planned}", flush=True)

    def count(self, *verdicts):
        """How many of these there are."""
        return sum(r.verdict in verdicts for r in self.all)

    def report(self, case, status, seconds, trouble=None):
        """One finished test: exit status (None: it never ended), and the first complaint of the kernel or the machine."""
        result = Result(case, status, seconds, trouble)
        with self.lock:
            self.all.append(result)
            print("\n".join(ktap_lines(len(self.all), result)) if self.ktap else self.line(result), flush=True)

    def line(self, r):
        """For people."""
        shown = f"{r.case.name} ({r.seconds:.0f} s)"
        return {"pass": f"ok    {shown}",
                "skip": f"skip  {shown}: {r.why}",
                "xfail": f"skip  {shown}: known to fail: {r.why}",
                "fail": f"FAIL  {shown}: {r.why}; see {self.relative(r.case.log)}"}[r.verdict]

    def finish(self):
        """The count, and the file for JUnit. Returns whether all is well."""
        print(f"{'# ' if self.ktap else ''}{self.count('pass')} passed, {self.count('fail')} failed, "
              f"{self.count('skip', 'xfail')} skipped", flush=True)
        if self.junit:
            with open(self.junit, "w", encoding="utf-8") as f:
                f.write(junit_text(self.all, self.began))
        return bool(self.count("pass")) and not self.count("fail")


def subtests(lines):
    """The results in a test's own TAP, numbered anew from 1: some count on from a test that ended early."""
    if not any(TAP_PLAN.fullmatch(line) for line in lines):
        return []
    out = []
    for line in lines:
        if TAP_RESULT.fullmatch(line):
            m = re.match(r"(not )?ok\s*(\d*)\s*(?:- )?(.*)", line)
            out.append(f"{m[1] or ''}ok {len(out) + 1} {m[3]}".rstrip())
    return out


def ktap_lines(number, r):
    """One result, with what it has below."""
    lines = [line.rstrip() for line in r.output()]
    below = subtests(lines)
    out = []
    if below:
        out += ["  KTAP version 1", f"  1..{len(below)}"] + ["  " + line for line in below]
    if r.verdict == "fail":
        out += [f"# {line}" for line in lines[-SHOWN_LINES:]] + [f"# {r.why}"]
    out.append(f"# {r.case.name}: {r.seconds:.1f} s")
    directive = {"skip": f" # SKIP {r.why}", "xfail": f" # XFAIL {r.why}", "pass": "",
                 "fail": f" # TIMEOUT {r.case.limit} seconds" if r.timed_out else ""}[r.verdict]
    # "#" begins a directive.
    out.append(f"{'not ok' if r.verdict == 'fail' else 'ok'} {number} {r.case.name}{directive}")
    return out


def quote(text):
    """An attribute of XML, with its quotes."""
    return xml.sax.saxutils.quoteattr(NOT_XML.sub("?", text))


def junit_text(results, began):
    """All of it."""
    out = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    stamp = datetime.datetime.fromtimestamp(began, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    for group in dict.fromkeys(r.case.group for r in results):
        suite = [r for r in results if r.case.group == group]
        failed, skipped = (sum(r.verdict in v for r in suite) for v in (("fail",), ("skip", "xfail")))
        out.append(f'  <testsuite name={quote(group)} tests="{len(suite)}" failures="{failed}" errors="0" '
                   f'skipped="{skipped}" time="{sum(r.seconds for r in suite):.3f}" timestamp="{stamp}">')
        for r in suite:
            out.append(f'    <testcase classname={quote(group)} name={quote(r.case.name.split("/", 1)[1])} '
                       f'time="{r.seconds:.3f}">')
            if r.verdict in ("skip", "xfail"):
                known = "known to fail: " if r.verdict == "xfail" else ""
                out.append(f"      <skipped message={quote(known + r.why)}/>")
            elif r.verdict == "fail":
                out.append(f'      <failure type="failure" message={quote(r.why)}/>')
            text = "\n".join(r.output()[-SHOWN_LINES:])
            out.append(f"      <system-out>{xml.sax.saxutils.escape(NOT_XML.sub('?', text))}</system-out>")
            out.append("    </testcase>")
        out.append("  </testsuite>")
    out.append("</testsuites>")
    return "\n".join(out) + "\n"
