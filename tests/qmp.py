# A QEMU under test and its monitor, for the programs here.
# SPDX-License-Identifier: GPL-2.0-only
"""Machine runs QEMU with a QMP monitor."""
import importlib.machinery
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def load(path):
    """A script of ours as a module."""
    loader = importlib.machinery.SourceFileLoader(os.path.basename(path), path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


scripts_machine = load(f"{REPO}/scripts/machine")
QEMU = f"{REPO}/build/qemu/qemu-system-x86_64"


class Machine:
    """A QEMU with a QMP monitor; `lines` is what its program has printed."""
    def __init__(self, *args):
        ours, theirs = socket.socketpair()
        # The machine ends with this program, whatever happens.
        self.qemu = subprocess.Popen(
            ["timeout", "60", QEMU, *(w for d in scripts_machine.FIRMWARE for w in ("-L", d)), "-display", "none", "-nodefaults", *args, "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"],
            pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        theirs.close()
        self.qmp = ours.makefile("rw")
        self.lines = []
        assert "QMP" in self.qmp.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """The answer, or the text of the error."""
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                return answer["error"]["desc"]

    def hmp(self, line):
        """What HMP prints, with single newlines."""
        return self.ask("human-monitor-command", **{"command-line": line}).replace("\r", "")

    def run_to(self, place):
        """Wait until the program says that it has come there."""
        for line in self.qemu.stdout:
            self.lines.append(line.rstrip())
            if self.lines[-1] == f"# at {place}":
                return
            if line.startswith("Bail out!"):
                break
        sys.exit(f"monitor: the program did not come to '{place}': {self.lines[-3:]}")

    def go_on(self):
        self.qemu.stdin.write("\n")
        self.qemu.stdin.flush()

    def said(self, name):
        """The number that the program has printed under that name."""
        return next(int(m[1], 0) for m in (re.match(rf"# {name} (\w+)", l) for l in self.lines) if m)

    def end(self):
        self.ask("quit")
        self.qemu.wait()


def enter(script):
    """Go on in the toolbox, if we are not there."""
    if not os.environ.get("SAVIC_INSIDE"):
        os.execv(f"{REPO}/scripts/toolbox-run", ["toolbox-run", f"tests/{os.path.basename(script)}"])
