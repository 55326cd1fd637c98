# Results, one a line, for the programs here. Imported by them.
# SPDX-License-Identifier: GPL-2.0-only
"""check() and eq() print a result each, need() is the last one if it is bad, done() says how many there were."""
import sys

results = []


def check(what, good, more=""):
    """One result; `more` says what is wrong if it is bad. Returns whether it is good."""
    results.append(bool(good))
    print(f"{'ok' if good else 'not ok'} {len(results)} - {what}{'' if good else f': {more}'}", flush=True)
    return bool(good)


def eq(seen, expected, what):
    """Two values have to be the same."""
    return check(what, seen == expected, f"{seen!r}, not {expected!r}")


def need(what, good, more=""):
    """What goes on from here makes no sense without it."""
    if not check(what, good, more):
        done()


def done():
    """The plan, and the exit status."""
    print(f"1..{len(results)}", flush=True)
    sys.exit(0 if results and all(results) else 1)
