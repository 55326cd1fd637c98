# What scripts that gdb runs (scripts/debug-host --script) share. Imported by them.
# SPDX-License-Identifier: GPL-2.0-only
"""Results, one a line."""
import itertools

import gdb

_numbers = itertools.count(1)


def check(what, good, more=""):
    """One result; the first one that is bad is the last one."""
    print(f"{'ok' if good else 'not ok'} {next(_numbers)} - {what}{'' if good else f': {more}'}", flush=True)
    if not good:
        gdb.execute("quit 1")
