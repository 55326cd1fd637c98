# In gdb: a Linux guest's kernel by its own symbols, and what the machine knows of its vCPU meanwhile.
# SPDX-License-Identifier: GPL-2.0-only
"""usage: scripts/debug-host --script tests/debugger-guest.py run

A CPU that runs the guest's kernel has stopped at start_kernel when this begins.
"""
import os
import re
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from in_gdb import check  # noqa: E402  pylint: disable=wrong-import-position

# As in scripts/debug-host: not the host's kernel at the same address.
IN_GUEST = "$cr3 >> 51 & 1"


def here():
    """The symbol at RIP, with the offset after it."""
    return gdb.execute("info symbol $rip", to_string=True).split(" in section")[0].strip()


def go_to(symbol):
    """Continue to where the guest calls it."""
    gdb.execute(f"thbreak *{symbol} if {IN_GUEST}")
    gdb.execute("continue")
    check(f"the guest calls {symbol}", here() == symbol, here())


check("the guest stops where its kernel starts", here() == "start_kernel", here())
go_to("savic_setup")
said = gdb.execute("monitor info secure-avic", to_string=True)
print(said)
check("Secure AVIC is not on yet", "off" in said, said)
said = gdb.execute("x/2i $rip", to_string=True)
check("its instructions", "<savic_setup>:" in said, said)
gdb.execute("stepi")
check("a step", here().startswith("savic_setup + "), here())
# Its local timer.
go_to("savic_eoi")
said = gdb.execute("monitor info secure-avic", to_string=True)
print(said)
check("the vector that the guest is about to end is in service", re.search(r"\n +ISR +[1-9]", said), said)
try:
    gdb.execute("continue")
except gdb.error as e:
    # The machine may have gone before it told gdb. How the guest ended is its status, which the caller looks at.
    check("the connection ends with the machine", "Remote" in str(e), e)
