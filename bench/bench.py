# What the programs in bench/ share.
# SPDX-License-Identifier: GPL-2.0-only
"""The toolbox, programs that use KVM's selftest library, and counting QEMU's own instructions."""
import glob
import os
import re
import subprocess
import sys
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = f"{REPO}/build"


def enter(name):
    """Go on in the toolbox, if we are not there."""
    if not os.environ.get("SAVIC_INSIDE"):
        os.execv(f"{REPO}/scripts/toolbox-run", ["toolbox-run", f"bench/{name}", *sys.argv[1:]])


def selftest_program(name):
    """Compile bench/NAME.c with the library of KVM's selftests; the program's path."""
    kvm = f"{BUILD}/tree/linux/tools/testing/selftests/kvm"
    tools = f"{BUILD}/tree/linux/tools"
    libraries = glob.glob(f"{BUILD}/kvm-selftests/lib/**/*.o", recursive=True)
    if not libraries:
        sys.exit(f"{name}: no selftests in build/kvm-selftests: run ./savic build selftests")
    program = f"{BUILD}/bench/{name}"
    os.makedirs(os.path.dirname(program), exist_ok=True)
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-std=gnu99", "-O2", "-Wall", "-fno-stack-protector", "-fno-PIE", "-no-pie", "-static", "-pthread",
                    "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-march=x86-64-v2", "-mno-red-zone", "-DCONFIG_64BIT",
                    *(f"-fno-builtin-{f}" for f in ("memcmp", "memcpy", "memset", "strnlen")),
                    f"-I{tools}/testing/selftests", f"-I{tools}/include", f"-I{tools}/arch/x86/include",
                    f"-I{BUILD}/headers/usr/include", f"-I{kvm}/include", f"-I{kvm}/include/x86", f"-I{kvm}/../rseq", f"-I{kvm}/..",
                    "-o", program, f"{REPO}/bench/{name}.c", *libraries, "-ldl"], check=True)
    return program


def measured(name, kernel, program, commands, *options):
    """Run commands of a host that has the program as /NAME: [(words before the number, number)] of the "@@" lines."""
    done = subprocess.run([f"{REPO}/scripts/machine", "-t", "400", "-l", f"{BUILD}/log/bench.log",
                           "-k", f"{BUILD}/{kernel}/arch/x86/boot/bzImage", "-f", f"{name}={program}", *options,
                           # Until the kernel has settled on its clock; a thread of ours is never to be throttled.
                           "sleep 10; echo -1 >/proc/sys/kernel/sched_rt_runtime_us;"
                           f"chmod +x /{name}; {commands}"], stdout=subprocess.PIPE, text=True, check=False)
    found = [(m[1], int(m[2])) for m in re.finditer(r"@@ (.+) (\d+)", done.stdout)]
    if done.returncode or not found:
        print(done.stdout, file=sys.stderr)
        sys.exit(f"{os.path.basename(sys.argv[0])}: '{commands}' failed on {kernel} with status {done.returncode}")
    return found


def counted(name, kernel, program, argument, *options):
    """Run a program on a host with one CPU, whose TSC counts instructions: as measured()."""
    return measured(name, kernel, program, f"/{name} {argument}", "--icount", "--smp", "1", *options)


FIRMWARE = ["-L", "/usr/share/seabios", "-L", "/usr/share/qemu"]


def callgrind(cmd, status=(0,)):
    """Run a QEMU under callgrind; the number of instructions that its process executed."""
    with tempfile.TemporaryDirectory() as d:
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={d}/out", f"--log-file={d}/log",
                               "--dump-instr=no", "--dump-line=no", *cmd], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        with open(f"{d}/log", encoding="utf-8", errors="replace") as f:
            log = f.read()
    m = re.search(r"Collected : (\d+)", log)
    if done.returncode not in status or not m:
        sys.exit(f"{os.path.basename(sys.argv[0])}: QEMU under callgrind ended with {done.returncode}: {done.stderr[-300:]}{log[-300:]}")
    return int(m[1])
