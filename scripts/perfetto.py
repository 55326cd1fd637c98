# Writes traced interrupts as a Trace Event file, which ui.perfetto.dev and chrome://tracing open. Imported by trace.
# SPDX-License-Identifier: GPL-2.0-only
"""Tracks for physical CPUs, vCPUs and sources, and a flow for each interrupt, from its cause to its EOI.

The format is Google's "Trace Event Format" in JSON. Slices of one track nest, or viewers draw nonsense: what has a
duration of its own (host, guest, in service) is cut to fit, a step of an interrupt is a slice of less than 1 us.
"""
import json

from trace_events import exit_name, tell

CPUS, VCPUS, SERVICE, SOURCES = 1, 2, 3, 4
NAMES = {CPUS: "physical CPUs", VCPUS: "vCPUs", SERVICE: "interrupts in service", SOURCES: "sources"}
SOURCE_TRACKS = ["IPI", "MSI", "line", "timer, or KVM's own", "NMI", "the guest's own"]
STEP = 0.5
# What is in something ends so much before it does, and everything so much before the next one begins: viewers add
# floating numbers, and nest what seems to overlap.
GAP = 0.001


def source(way):
    """What caused an interrupt, by its first events."""
    names = [e.name for e in way]
    if "kvm_savic_ipi" in names or "x86_savic_self_ipi" in names:
        return "IPI"
    if "x86_vnmi_inject" in names or ("kvm_savic_request" in names and "kvm_savic_post" not in names):
        return "NMI"
    if "kvm_msi_set_irq" in names:
        return "MSI"
    if any(name in names for name in ("kvm_set_irq", "kvm_ioapic_set_irq")) or any("level" in e.text for e in way
                                                                                    if e.name == "kvm_savic_post"):
        return "line"
    return "timer, or KVM's own" if "kvm_savic_post" in names else "the guest's own"


class Trace:
    """The events of one file."""
    def __init__(self, start):
        self.out, self.start, self.tracks = [], start, {}

    def time(self, e):
        """Microseconds since the start."""
        return round((e.time - self.start) * 1e6, 3)

    def add(self, kind, pid, tid, ts, name, **more):
        """One record."""
        self.out.append({"ph": kind, "pid": pid, "tid": tid, "ts": ts, "name": name, **more})

    def slice(self, pid, tid, begin, end, name, **args):
        """Something with a duration; those of a track are cut to nest by close()."""
        self.tracks.setdefault((pid, tid), []).append([begin, end, name, args])

    def close(self):
        """Give slices durations that nest, and sort all by time."""
        for (pid, tid), slices in self.tracks.items():
            # A step of an interrupt gives way to what has a duration of its own.
            slices.sort(key=lambda s: (s[0], s[1] - s[0] <= STEP and "interrupt" in s[3], -s[1]))
            inside = []
            for s in slices:
                s[1] = max(s[0], s[1])
                while inside and inside[-1][1] - GAP <= s[0]:
                    inside.pop()
                while inside and inside[-1][1] < s[1] and "interrupt" in inside[-1][3] and "interrupt" not in s[3] and pid == CPUS:
                    inside.pop()[1] = s[0]
                if inside:
                    s[1] = max(s[0], min(s[1], inside[-1][1] - GAP))
                inside.append(s)
            for begin, end, name, args in slices:
                # Viewers put arguments behind the name, also none.
                more = {"args": args} if args else {}
                self.add("X", pid, tid, begin, name, dur=max(0, round(end - begin - GAP, 3)), **more)
        self.out.sort(key=lambda r: r["ts"])


def run_slices(trace, events, last):
    """On each physical CPU: the guest, and the host by the reason why it runs; on each vCPU: when it runs."""
    since, reason, vcpu = {}, {}, {}
    for e in events:
        if e.who != "machine" or e.cpu < 0:
            continue
        now = trace.time(e)
        if e.name == "sev_es_vmrun":
            if e.cpu in since:
                trace.slice(CPUS, e.cpu, since[e.cpu], now, f"host: {reason.get(e.cpu, '?')}")
            since[e.cpu], vcpu[e.cpu] = now, e.vcpu
        elif e.name in ("sev_es_vmexit", "sev_es_vmrun_failed"):
            reason[e.cpu] = exit_name(e.number("EXITCODE"))
            if e.cpu in vcpu and vcpu[e.cpu] is not None:
                trace.slice(CPUS, e.cpu, since[e.cpu], now, f"guest: vCPU {vcpu[e.cpu]}")
                trace.slice(VCPUS, vcpu[e.cpu], since[e.cpu], now, f"on CPU {e.cpu}", exit=reason[e.cpu])
            vcpu.pop(e.cpu, None)
            since[e.cpu] = now
    for cpu, begin in since.items():
        name = f"guest: vCPU {vcpu[cpu]}" if vcpu.get(cpu) is not None else f"host: {reason.get(cpu, '?')}"
        trace.slice(CPUS, cpu, begin, last, name)


def flow(trace, number, vcpu, vector, way):
    """One interrupt: a slice for each step, and the arrows between these."""
    label = f"vector {vector}" if vector != "NMI" else "NMI"
    cause = source(way)
    steps = [(SOURCES, SOURCE_TRACKS.index(cause), way[0], f"{label} for vCPU {vcpu}")]
    steps += [(CPUS, e.cpu, e, tell(e)) for e in way if e.cpu >= 0]
    steps.sort(key=lambda s: s[2].time)
    last = None
    for n, (pid, tid, e, name) in enumerate(steps):
        # Arrows go forward.
        at = max(trace.time(e), last + 0.001 if last is not None else 0)
        at = last = round(at, 3)
        trace.slice(pid, tid, at, at + STEP, name, interrupt=number)
        kind = "s" if n == 0 else "f" if n == len(steps) - 1 else "t"
        more = {"bp": "e"} if kind == "f" else {}
        trace.add(kind, pid, tid, at, "interrupt", cat="interrupt", id=number, **more)
        if e.name == "x86_savic_dropped":
            trace.add("i", pid, tid, at, f"dropped: {label} for vCPU {vcpu}", s="p")


def counters(trace, ways):
    """How many are pending and in service, for each vCPU."""
    changes = []
    for vcpu, _, way in ways:
        times = {e.name: trace.time(e) for e in reversed(way)}
        taken = times.get("x86_savic_inject", times.get("x86_vnmi_inject"))
        end = times.get("x86_savic_eoi")
        gone = taken if taken is not None else times.get("x86_savic_dropped")
        changes.append((trace.time(way[0]), vcpu, "pending", 1))
        if gone is not None:
            changes.append((gone, vcpu, "pending", -1))
        if taken is not None and end is not None and end > taken:
            changes += [(taken, vcpu, "in service", 1), (end, vcpu, "in service", -1)]
    value = {}
    for now, vcpu, what, by in sorted(changes, key=lambda c: (c[0], -c[3])):
        value[vcpu, what] = value.get((vcpu, what), 0) + by
        trace.add("C", VCPUS, vcpu, now, f"vCPU {vcpu}: {what}", args={what: value[vcpu, what]})


def record(events, ways):
    """All of it, and the names of its tracks."""
    trace = Trace(events[0].time)
    run_slices(trace, events, trace.time(events[-1]))
    for number, (vcpu, vector, way) in enumerate(ways, 1):
        flow(trace, number, vcpu, vector, way)
        times = {e.name: trace.time(e) for e in reversed(way)}
        if "x86_savic_inject" in times and "x86_savic_eoi" in times:
            trace.slice(SERVICE, vcpu, times["x86_savic_inject"], times["x86_savic_eoi"], f"vector {vector}", interrupt=number)
    counters(trace, ways)
    trace.close()
    names = {}
    for pid, tid in sorted({(r["pid"], r["tid"]) for r in trace.out}):
        names[pid, tid] = SOURCE_TRACKS[tid] if pid == SOURCES else f"{'CPU' if pid == CPUS else 'vCPU'} {tid}"
    return trace, names


def write(path, events, ways):
    """All of it to a file."""
    trace, names = record(events, ways)
    head = [{"ph": "M", "pid": pid, "tid": 0, "ts": 0, "name": "process_name", "args": {"name": name}} for pid, name in NAMES.items()]
    for (pid, tid), name in names.items():
        head.append({"ph": "M", "pid": pid, "tid": tid, "ts": 0, "name": "thread_name", "args": {"name": name}})
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"traceEvents": head + trace.out, "displayTimeUnit": "ns"}, f)
