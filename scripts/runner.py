# Runs tests: programs on this side, and jobs of the emulated host with many of them in one boot. Imported by test-run,
# trace and debug-host.
# SPDX-License-Identifier: GPL-2.0-only
"""Run tests and tell what came out.

All selftests of a group run in one boot of the emulated host. If it dies or hangs, the test
that was running has failed, and the rest goes on in another boot.
"""
import os
import queue
import re
import shlex
import subprocess
import threading
import time

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = f"{REPO}/build/log/test"
# A selftest is killed after so many seconds, and the machine if it has not said anything about
# a test for a minute more than that (a boot counts as one).
SELFTEST_TIME = 300
BOOT_TIME = 180
KERNEL_TROUBLE = "WARNING:|BUG:|Oops:|general protection|rcu: INFO|refcount_t|KASAN|UBSAN|hung task" \
                 "|kernel BUG at|Kernel panic|Out of memory|ODEBUG|INFO: trying to register|INFO: lockdep|blocked for more than"
# The debug kernel is that much slower.
DEBUG_SLOWDOWN = 4
# A report of KCSAN. Those between functions in tests/kcsan.list are excused, but not with one of these in it.
KCSAN_REPORT = r"BUG: KCSAN:.*?={20,}"
KCSAN_OURS = r"(?:savic|kvm_tdp_try_map_private|kvm_apic_visit_ipi_targets)\w*\+0x"
# While identify_cpu() has the boot CPU's features cleared, KASAN takes memory for that of 4-level paging: a rare
# interrupt at that time is a report. So have 4 levels from the start.
KERNEL_ARGS = {"debug": " no5lvl"}
CHECKED = ("debug", "kcsan")
# What a job on the host starts with. Every program's output is between two marks; what the kernel
# complained about meanwhile comes before the second.
PRELUDE = f"""
run()
{{
	name=$1 limit=$2
	shift 2
	echo "@@ start $name"
	timeout -s KILL "$limit" "$@"
	status=$?
	dmesg -c >/tmp/said
	cat /tmp/said >>/tmp/dmesg
	echo
	grep -E '{KERNEL_TROUBLE}' /tmp/said | grep -v 'BUG: KCSAN:' | sed 's/^/@@ kernel /'
	echo "@@ end $name $status"
}}
dmesg -c >/tmp/dmesg
"""


class Case:
    """One test: its name, what it needs built, and what is expected."""
    def __init__(self, name, needs, command=None, shell=None, limit=SELFTEST_TIME, expected="pass", reason="", plain=False,
                 default=True):
        self.name, self.needs, self.command, self.shell = name, needs, command, shell
        self.limit, self.expected, self.reason, self.plain = limit, expected, reason, plain
        self.default = default
        self.group = name.split("/")[0]

    @property
    def log(self):
        return f"{LOGS}/{self.name.replace('/', '-')}.log"


class ListError(Exception):
    """tests/selftests.list, or a list of the user's, is not what it should be."""


def is_ours(name):
    """True for the selftests that we have written."""
    return os.path.exists(f"{REPO}/tools/testing/selftests/kvm/x86/{name}.c")


def is_selftest(name):
    """Whether there is one of that name on the host, as far as that can be told before it is built."""
    if os.environ.get("SAVIC_YOURS"):
        with open(f"{REPO}/{os.environ['SAVIC_YOURS']}/tests", encoding="utf-8") as f:
            return name in f.read().split()
    places = [f"{top}/tools/testing/selftests/kvm" for top in (REPO, f"{REPO}/build/tree/linux")]
    if not os.path.isdir(places[1]):
        return True
    return any(os.path.exists(f"{place}/{sub}{name}.c") for place in places for sub in ("", "x86/"))


def run_command(case, outcome):
    """A test that is a program on this side."""
    # Of scripts/run, for which there may be several at a time.
    env = {**os.environ, "SAVIC_RUN_LOG": case.log.removesuffix(".log") + "-console.log"}
    started = time.monotonic()
    with open(case.log, "wb") as log:
        try:
            status = subprocess.run(case.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                    timeout=case.limit, cwd=REPO, env=env).returncode
            trouble = None
        except subprocess.TimeoutExpired:
            status, trouble = None, f"took longer than {case.limit} s"
    outcome.report(case, status, time.monotonic() - started, trouble)


def excused_races():
    """The pairs of functions in tests/kcsan.list, each with whether a function of ours may be on the way there."""
    with open(f"{REPO}/tests/kcsan.list", encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            words = line.split("#")[0].split()
            also_ours = words[:1] == ["also-ours"]
            words = words[also_ours:]
            if not words and not also_ours:
                continue
            if len(words) < 3:
                raise ListError(f"tests/kcsan.list:{number}: not [also-ours] FUNCTION FUNCTION reason")
            if "." in "".join(words[:2]):
                raise ListError(f"tests/kcsan.list:{number}: name functions without the compiler's suffixes")
            yield set(words[:2]), also_ours


def kernel_trouble(text):
    """What the kernel complains about in all that it said, or None."""
    excused = list(excused_races())
    for report in re.findall(KCSAN_REPORT, text, re.DOTALL):
        title = report.splitlines()[0].strip()
        functions = re.findall(r"\bin (\w+)\S*(?: \[\w+\])?(?: / (\w+))?", title)
        between = {name for name in functions[0] if name} if functions else set()
        excuses = [also_ours for pair, also_ours in excused if pair == between]
        if not excuses or (re.search(KCSAN_OURS, report) and not any(excuses)):
            return title
    found = re.search(f".*({KERNEL_TROUBLE}).*", re.sub(KCSAN_REPORT, "", text, flags=re.DOTALL))
    return found[0].strip() if found else None


def check_console(group, text, outcome):
    """One more test of the debug kernel: in no boot was anything said, not even between the tests or at the end."""
    case = Case(f"{group}/console", [])
    with open(case.log, "wb") as f:
        f.write(text)
    said = kernel_trouble(text.decode(errors="replace"))
    trouble = f"the kernel complains: {said}" if said else None if text else "the console is empty"
    outcome.report(case, 0, 0, trouble)


def boot(group, todo, outcome):
    """Run cases in one boot of the host. Returns those that it did not come to, and a debug kernel's console."""
    job = PRELUDE
    for case in todo:
        job += f"run {case.name} {case.limit} sh -c {shlex.quote(case.shell)}\n"
    console = f"{LOGS}/{group}-console.log"
    plain = todo[0].plain
    boot_time = BOOT_TIME * (DEBUG_SLOWDOWN if group in CHECKED else 1)
    cmd = [f"{REPO}/scripts/machine", "-t", str(boot_time + sum(c.limit + 60 for c in todo)), "-l", console]
    # The user's is scripts/machine's own choice, if there is one.
    if group == "libvirt":
        cmd += ["--debian", "-f", f"libvirt={REPO}/tests/guest/libvirt",
                "-f", f"exits.rom={REPO}/build/guest-tests/exits.rom"]
    elif group != "yours":
        cmd += ["-k", f"{REPO}/build/linux-{group}/arch/x86/boot/bzImage",
                "-i", f"{REPO}/build/image/{'base' if group == 'base' else 'host'}.cpio"]
    if group in CHECKED:
        cmd += ["-c", f"{REPO}/build/linux-{group}/modules.cpio"]
    cmd += ["-a", "kvm.force_emulation_prefix=1" + KERNEL_ARGS.get(group, "")] + (["--plain"] if plain else []) + [job]
    machine = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = queue.Queue()

    def read():
        for line in machine.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    left = list(todo)
    running, log, trouble, last = None, None, None, ""
    started = time.monotonic()
    deadline = started + boot_time
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                last = "the machine hung and was killed"
                break
            if line is None:
                break
            text = line.decode(errors="replace").rstrip()
            mark = re.match(r"@@ (start|kernel|end) (.*)", text)
            if not mark:
                if text:
                    last = text
                if running and is_ours(running.name.split("/")[1]) and re.match(r"ok \d+ .*# SKIP", text):
                    trouble = trouble or f"a part was skipped: {text}"
                if log:
                    log.write(line)
                continue
            kind, rest = mark.groups()
            if kind == "start":
                running = next(c for c in left if c.name == rest)
                left.remove(running)
                log = open(running.log, "wb")
                trouble, started = None, time.monotonic()
                deadline = started + running.limit + 60
            elif kind == "kernel":
                log.write(line)
                trouble = trouble or f"the kernel complains: {rest}"
            elif running and kind == "end":
                status = int(rest.split()[-1])
                if status == 137:
                    trouble = trouble or f"killed after {running.limit} s"
                log.close()
                outcome.report(running, status, time.monotonic() - started, trouble)
                running = log = None
                deadline = time.monotonic() + 60
    finally:
        machine.terminate()
        machine.wait()
    said = b""
    if group in CHECKED:
        if os.path.exists(console):
            with open(console, "rb") as f:
                said = f.read()
    if running:
        log.write(f"{last}\n".encode())
        log.close()
        outcome.report(running, None, time.monotonic() - started, last)
    elif len(left) == len(todo):
        # It did not even come to the first one: there is no point in another try.
        for case in left:
            with open(case.log, "w", encoding="utf-8") as f:
                f.write(f"{last}\n")
            outcome.report(case, None, time.monotonic() - started, f"the host did not boot: {last}")
        return [], said
    return left, said
