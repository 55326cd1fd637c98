# What scripts that gdb runs (scripts/debug-host --script) share. Imported by them.
# SPDX-License-Identifier: GPL-2.0-only
"""Results as in checks.py, and gdb's own end."""
import gdb

import checks


def check(what, good, more=""):
    """One result; the first one that is bad is the last one."""
    if not checks.check(what, good, more):
        gdb.execute("quit 1")
