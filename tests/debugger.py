# In gdb: KVM's init, a vector that is posted, and the vCPU's state before and after that.
# SPDX-License-Identifier: GPL-2.0-only
"""usage: scripts/debug-host --script tests/debugger.py savic_test

The kernel has stopped at svm_init when this begins.
"""
import os
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from in_gdb import check  # noqa: E402  pylint: disable=wrong-import-position


def number_of(expression):
    """An expression's value."""
    return int(gdb.parse_and_eval(expression))


here = gdb.selected_frame().name()
check("the kernel stops where KVM starts", here == "svm_init", here)
said = gdb.execute("lx-ps", to_string=True)
check("the kernel's own commands: its tasks", "swapper/0" in said and "kthreadd" in said, said)
said = gdb.execute("lx-dmesg", to_string=True)
check("and what it said", "Linux version" in said, said)

gdb.execute("hbreak savic_deliver_interrupt")
gdb.execute("continue")
here = gdb.selected_frame().name()
check("a vector is posted", here == "savic_deliver_interrupt", here)
vector = number_of("vector")
savic = "((struct vcpu_svm *)vcpu)->savic"
# It may move: what it is now is looked at from now on.
gdb.execute(f"set $savic = {savic}")
before = number_of(f"$savic->pending[{vector // 64}] >> {vector % 64} & 1")
check(f"vector {vector} is not pending yet", not before, before)
line = gdb.selected_frame().find_sal().line
gdb.execute("next")
check("a step", gdb.selected_frame().find_sal().line != line, line)
gdb.execute("finish")
print(gdb.execute("print *$savic", to_string=True))
after = number_of(f"$savic->pending[{vector // 64}] >> {vector % 64} & 1")
check(f"vector {vector} is pending", after, gdb.execute("print $savic->pending", to_string=True))
said = gdb.execute("monitor info secure-avic", to_string=True)
print(said)
check("the machine shows the vCPU's backing page", "allowed" in said.lower(), said)

gdb.execute("delete")
try:
    gdb.execute("continue")
except gdb.error as e:
    # The machine may have gone before it told gdb. How the test ended is its status, which the caller looks at.
    check("the connection ends with the machine", "Remote" in str(e), e)
