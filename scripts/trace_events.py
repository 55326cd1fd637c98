# Reads the trace events of KVM and of the machine, and follows each interrupt through them. Imported by trace.
# SPDX-License-Identifier: GPL-2.0-only
"""Events by one clock, what they say in words, and which of them belong to one interrupt.

The two clocks differ, and the host's is calibrated by the emulated one. What both see is the
end of a world switch: on each CPU, the n-th last #VMEXIT of the machine is the n-th last kvm_exit. KVM's event comes
a little later, so the smallest difference among those nearby is the distance of the clocks.
"""
import bisect
import re

# Too many to be of use: one at each look at the backing page.
QUIET = {"x86_savic_evaluate"}
WINDOW = 100
# KVM posts no vector below that (SAVIC_FIRST_VECTOR).
FIRST_VECTOR = 16

KVM_LINE = re.compile(r"^.{16,40}?\[(\d+)\]\s+\S+\s+([\d.]+): (\w+): (.*)$")
MACHINE_LINE = re.compile(r"^\d+@([\d.]+):(\w+) (.*)$")

EXITS = {0x52: "NMI trap", 0x60: "INTR", 0x61: "NMI", 0x62: "SMI", 0x64: "VINTR", 0x78: "HLT", 0x77: "PAUSE", 0xa6: "Idle HLT",
         0x7f: "SHUTDOWN", 0x400: "NPF", 0x402: "Secure AVIC no acceleration", 0x403: "VMGEXIT",
         0xffffffff: "INVALID", 0xffffffffffffffff: "INVALID", 0xfffffffffffffffe: "BUSY",
         0xfffffffffffffffd: "IDLE_REQUIRED", 0xfffffffffffffffc: "INVALID_PMC"}


class Event:
    """Something that happened: when (KVM's clock), on which CPU, who says so, what."""
    __slots__ = ("time", "cpu", "who", "name", "text", "vcpu", "raw")

    def __init__(self, time, cpu, who, name, text):
        self.time, self.cpu, self.who, self.name, self.text = time, cpu, who, name, text
        self.vcpu, self.raw = None, time

    def number(self, key):
        """The number behind a word in the event's text, or None."""
        m = re.search(rf"\b{key} (-?(?:0x[0-9a-f]+|\d+))", self.text)
        return int(m[1], 0) if m else None


def read_kvm(path):
    """Events of KVM's log, by time."""
    out = []
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            m = KVM_LINE.match(line.rstrip())
            if m:
                out.append(Event(float(m[2]), int(m[1]), "KVM", m[3], m[4]))
    out.sort(key=lambda e: e.time)
    return out


def read_machine(path):
    """Events of the machine's log, by its own time."""
    out = []
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            m = MACHINE_LINE.match(line.rstrip())
            if m and m[2] not in QUIET:
                cpu = re.search(r"\bcpu (\d+)", m[3])
                out.append(Event(float(m[1]), int(cpu[1]) if cpu else -1, "machine", m[2], m[3]))
    out.sort(key=lambda e: e.time)
    return out


def align(kvm, machine):
    """Move the machine's events to KVM's clock. Returns the number of world switches that match."""
    pairs = []
    for cpu in {e.cpu for e in machine}:
        # From the end, as KVM may have been traced from later on.
        ends = [e for e in reversed(machine) if e.cpu == cpu and e.name in ("sev_es_vmexit", "sev_es_vmrun_failed")]
        exits = [e for e in reversed(kvm) if e.cpu == cpu and e.name == "kvm_exit"]
        pairs += [(m.time, k.time - m.time) for m, k in zip(ends, exits)]
    if not pairs:
        return 0
    pairs.sort()
    times = [t for t, _ in pairs]
    distances = [d for _, d in pairs]
    for e in machine:
        at = bisect.bisect_left(times, e.raw)
        near = distances[max(0, at - WINDOW):at + WINDOW] or distances[-WINDOW:]
        e.time = e.raw + min(near)
    return len(pairs)


def attribute(events):
    """Say which vCPU a machine event is about: the one that KVM last entered there."""
    running = {}
    for e in events:
        if e.who == "KVM":
            e.vcpu = e.number("vcpu")
            if e.name == "kvm_entry":
                running[e.cpu] = e.vcpu
        else:
            e.vcpu = running.get(e.cpu)


def exit_name(code):
    """A #VMEXIT code in words."""
    if code is None:
        return "?"
    if 0x40 <= code < 0x60:
        return f"exception {code - 0x40}"
    return EXITS.get(code, f"0x{code:x}")


def tell(e):
    """One event in words."""
    n = e.number
    if e.name == "kvm_savic_post":
        return f"vector {n('vector')} posted for vCPU {e.vcpu} ({'level' if 'level' in e.text else 'edge'})"
    if e.name == "kvm_savic_notify":
        how = e.text.split()[2]
        return {"none": f"vCPU {e.vcpu} will look by itself",
                "wake": f"vCPU {e.vcpu} is blocked: woken",
                "kick": f"vCPU {e.vcpu} kicked on CPU {n('cpu')}",
                "doorbell": f"vCPU {e.vcpu} runs on CPU {n('cpu')}: doorbell"}.get(how, e.text)
    if e.name == "x86_vnmi_inject":
        return f"guest takes an NMI at RIP {n('RIP'):#x}"
    if e.name == "kvm_savic_request":
        what = ["REQUESTED_IRR: " + ", ".join(map(str, vectors_of(e)))] * bool(vectors_of(e)) + ["an NMI"] * wants_nmi(e)
        return f"VMRUN of vCPU {e.vcpu}, {', '.join(what)}"
    if e.name == "kvm_savic_ipi":
        return f"vCPU {e.vcpu} sends vector {n('icr') & 0xff} to APIC ID {n('icr') >> 32:#x}" + (", forwarded to KVM's own code" if "forwarded" in e.text else "")
    if e.name == "kvm_exit":
        return f"vCPU {e.vcpu} left the guest: " + e.text.split(" rip")[0].removeprefix(f"vcpu {e.vcpu} ")
    if e.name == "sev_es_vmexit":
        return f"#VMEXIT({exit_name(n('EXITCODE'))}) at RIP {n('RIP'):#x}"
    if e.name == "sev_es_vmrun":
        return f"VMRUN, guest RIP {n('RIP'):#x}"
    if e.name == "sev_es_vmrun_failed":
        return f"VMRUN failed: {exit_name(n('EXITCODE'))}"
    if e.name == "x86_savic_posted":
        return f"VMRUN moved vector {n('vector')} to the backing page's IRR"
    if e.name == "x86_savic_dropped":
        return f"vector {n('vector')} is not allowed by the guest: dropped"
    if e.name == "x86_savic_inject":
        return f"guest takes vector {n('vector')} at RIP {n('RIP'):#x}"
    if e.name == "x86_savic_self_ipi":
        return f"guest sends itself vector {n('vector')}"
    if e.name == "x86_savic_eoi":
        return f"guest ends vector {n('vector')}" + (" (level: #VC)" if n("level") else ", without an exit")
    if e.name == "kvm_savic_eoi":
        return f"EOI of vector {n('vector')} by vCPU {e.vcpu}" + (", which halted without it" if "missing" in e.text else "")
    if e.name == "x86_savic_doorbell":
        return f"doorbell rung for the CPU with APIC ID {e.text.split()[-1]}"
    if e.name == "x86_savic_doorbell_taken":
        return "doorbell arrives" + ("" if n("guest") else ", not in guest mode: no effect")
    return f"{e.name} {e.text}"


def vectors_of(e):
    """The vectors that a kvm_savic_request asks for."""
    words = re.search(r"irr ([0-9a-f:]+)", e.text)
    if not words:
        return []
    # The highest word comes first.
    value = 0
    for word in words[1].split(":"):
        value = value << 64 | int(word, 16)
    return [v for v in range(256) if value >> v & 1]


def wants_nmi(e):
    """Whether a kvm_savic_request asks for an NMI."""
    return e.text.endswith(" nmi")


def outcome(way):
    """What became of an interrupt: taken, dropped or pending."""
    names = {e.name for e in way}
    if "x86_savic_inject" in names or "x86_vnmi_inject" in names:
        return "taken"
    return "dropped" if "x86_savic_dropped" in names else "pending"


def lost(ways, seconds, end):
    """Those that nobody took or dropped within so many seconds: (number, vCPU, vector, events)."""
    for number, (vcpu, vector, way) in enumerate(ways, 1):
        over = next((e.time for e in way if outcome([e]) != "pending"), None)
        if (end if over is None else over) - way[0].time > seconds:
            yield number, vcpu, vector, way


def miscounted(kvm, counts):
    """Where the number of events isn't what KVM counts."""
    def notified(how):
        return sum(e.name == "kvm_savic_notify" and e.text.split()[2] == how for e in kvm)

    seen = {"posted": sum(e.name == "kvm_savic_post" and e.number("vector") >= FIRST_VECTOR for e in kvm),
            "ipis": sum(e.name == "kvm_savic_ipi" for e in kvm),
            "kicks": notified("kick"), "doorbells": notified("doorbell"), "wakes": notified("wake"),
            "level_eois": sum(e.name == "kvm_savic_eoi" and e.number("vector") >= 0 for e in kvm)}
    return [f"{seen[name]} {name} in the trace, {counts[name]} in KVM's statistics" for name in counts if counts[name] != seen[name]]


def balance(ways, left):
    """What became of KVM's posts: {what: number}. And the (vCPU, vector)s that are nowhere: the machine hasn't got
    them, and they aren't in `left`, which has what KVM still holds for each vCPU."""
    became, nowhere = {"taken": 0, "dropped": 0, "pending": 0, "merged": 0}, []
    for vcpu, vector, way in ways:
        names = [e.name for e in way]
        posts = names.count("kvm_savic_post")
        if not posts:
            continue
        became[outcome(way)] += 1
        became["merged"] += posts - 1
        if outcome(way) == "pending" and "x86_savic_posted" not in names and vector not in left.get(vcpu, ()):
            nowhere.append((vcpu, vector))
    return became, nowhere


class Accounts:
    """Groups events by interrupt: self.all is a list of (vCPU, vector, events)."""
    def __init__(self):
        self.all = []
        self.pending = {}       # (vCPU, vector) -> events, until the guest takes it
        self.taken = {}         # (vCPU, vector) -> events, until the guest ends it
        self.posting = {}       # CPU -> (vCPU, vector) that KVM is posting there
        self.sending = {}       # CPU -> events of an IPI that KVM is sending there
        self.last_run = {}      # vCPU -> its last VMRUN
        self.cause = {}         # CPU -> what KVM was asked for there: an MSI, a line
        self.posts = 0

    def way(self, key, begin=()):
        """The events of a pending interrupt; a new one begins with `begin`."""
        if key not in self.pending:
            self.pending[key] = list(begin)
            self.all.append((*key, self.pending[key]))
        return self.pending[key]

    def add(self, e):
        """Take one more event."""
        method = getattr(self, "on_" + e.name, None)
        if method:
            method(e, (e.vcpu, e.number("vector")))

    def on_kvm_entry(self, e, _):
        self.sending.pop(e.cpu, None)
        self.cause.pop(e.cpu, None)
        self.posting.pop(e.cpu, None)

    def on_kvm_savic_ipi(self, e, _):
        self.sending[e.cpu] = [e]

    def on_kvm_savic_post(self, e, key):
        self.posts += 1
        ipi = self.sending.get(e.cpu, ())
        if ipi and ipi[0].number("icr") & 0xff != key[1]:
            ipi = ()
        self.way(key, [*self.cause.pop(e.cpu, ()), *ipi]).append(e)
        self.posting[e.cpu] = key

    def on_kvm_msi_set_irq(self, e, _):
        self.cause[e.cpu] = [e]

    on_kvm_set_irq = on_kvm_ioapic_set_irq = on_kvm_msi_set_irq

    def on_x86_vnmi_inject(self, e, _):
        key = e.vcpu, "NMI"
        self.way(key).append(e)
        self.pending.pop(key)

    def on_kvm_savic_notify(self, e, _):
        key = self.posting.get(e.cpu)
        if key and key[0] == e.vcpu:
            if key in self.pending:
                self.pending[key].append(e)
        elif e.cpu in self.sending:
            # The sender has set the bit in the target's backing page already: KVM only has to tell the target.
            ipi = self.sending[e.cpu]
            self.way((e.vcpu, ipi[0].number("icr") & 0xff), ipi).append(e)
            self.sending[e.cpu] = ipi[:1]

    def on_x86_savic_doorbell(self, e, _):
        key = self.posting.get(e.cpu)
        if key in self.pending:
            self.pending[key].append(e)
        elif e.cpu in self.sending:
            self.sending[e.cpu].append(e)

    def on_x86_savic_doorbell_taken(self, e, _):
        for key, way in self.pending.items():
            if key[0] == e.vcpu and any(x.name == "x86_savic_doorbell" for x in way) \
                    and not any(x.name == e.name for x in way):
                way.append(e)

    def on_sev_es_vmrun(self, e, _):
        self.last_run[e.vcpu] = e

    def on_sev_es_vmexit(self, e, _):
        for key, way in self.pending.items():
            if key[0] == e.vcpu and not any(x.name == e.name for x in way):
                way.append(e)

    def on_kvm_savic_request(self, e, _):
        if wants_nmi(e):
            self.way((e.vcpu, "NMI")).append(e)
        for vector in vectors_of(e):
            if (e.vcpu, vector) in self.pending:
                self.pending[e.vcpu, vector].append(e)

    def on_x86_savic_self_ipi(self, e, key):
        self.way(key).append(e)

    def on_x86_savic_posted(self, e, key):
        self.way(key).append(e)

    def on_x86_savic_dropped(self, e, key):
        self.way(key).append(e)
        del self.pending[key]

    def on_x86_savic_inject(self, e, key):
        way = self.way(key)
        run = self.last_run.get(e.vcpu)
        if way and run and run.time > way[-1].time:
            way.append(run)
        way.append(e)
        self.taken[key] = self.pending.pop(key)

    def on_x86_savic_eoi(self, e, key):
        if key in self.taken:
            self.taken.pop(key).append(e)
