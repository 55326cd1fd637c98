# Puts the machine's events into trace-cmd's trace.dat of the host, by the same clock. Imported by trace.
# SPDX-License-Identifier: GPL-2.0-only
"""Reads a trace.dat of version 6 (trace-cmd.dat.v6(5)), and writes it again with more events.

Each of the machine's events is one of the system "machine" there, on its CPU, of the task that the host last traced there.
Pages of the ring buffer are as in Linux' include/linux/ring_buffer.h: events with the time since the one before.
"""
import re
import struct

MAGIC = b"\x17\x08\x44tracing6\0"
SYSTEM = "machine"
DATA_MAX, PADDING, TIME_EXTEND, TIME_STAMP = 28, 29, 30, 31
DELTA = 1 << 27
# ns by which the machine's events may be too late: their clock is found by KVM's text, which rounds to microseconds.
ROUNDED = 1000
HEADER = 16     # of a page: its time, and how much is in it
FIELD = re.compile(r"field:([^;]*\b(common_\w+));\s*offset:(\d+);\s*size:(\d+);")


class Bad(Exception):
    """This is not such a file."""


class Dat:
    """A file in parts: what comes before the systems' events, these, what comes after, and the pages of each CPU."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 0
        if self.take(len(MAGIC)) != MAGIC or self.take(2) != b"\0\x08":
            raise Bad(f"{path} is not a trace.dat of version 6 by a little-endian machine of 64 bits")
        self.page, = self.number("<I")
        for name in b"header_page\0", b"header_event\0":
            if self.take(len(name)) != name:
                raise Bad(f"{path} has no {name[:-1].decode()}")
            self.sized("<Q")
        formats = [self.sized("<Q") for _ in range(*self.number("<I"))]
        self.head = self.data[:self.at]
        self.systems = []
        for _ in range(*self.number("<I")):
            name = self.text()
            self.systems.append((name, [self.sized("<Q") for _ in range(*self.number("<I"))]))
        start = self.at
        self.sized("<I")
        self.sized("<I")
        self.sized("<Q")
        cpus, = self.number("<I")
        if self.take(10) != b"options  \0":
            raise Bad(f"{path} has no options")
        while self.number("<H") != (0,):
            self.sized("<I")
        if self.take(10) != b"flyrecord\0":
            raise Bad(f"{path} has no events")
        self.tail = self.data[start:self.at]
        where = [self.number("<QQ") for _ in range(cpus)]
        self.cpus = [self.events(offset, size) for offset, size in where]
        self.formats = [f.decode() for f in formats] + [f.decode() for _, inside in self.systems for f in inside]
        del self.data

    def take(self, size):
        """The next bytes."""
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, kind):
        """The next numbers."""
        return struct.unpack(kind, self.take(struct.calcsize(kind)))

    def sized(self, kind):
        """The next bytes, with their number before them."""
        return self.take(*self.number(kind))

    def text(self):
        """The next text."""
        end = self.data.index(b"\0", self.at)
        return self.take(end + 1 - self.at)[:-1].decode()

    def events(self, offset, size):
        """(time, data) of each event in the pages there."""
        out = []
        for page in range(offset, offset + size, self.page):
            time, used = struct.unpack_from("<QQ", self.data, page)
            at, end = page + HEADER, page + HEADER + (used & 0xfffff)
            while at < end:
                word, = struct.unpack_from("<I", self.data, at)
                kind, delta = word & 31, word >> 5
                at += 4
                more = struct.unpack_from("<I", self.data, at)[0] if kind in (0, PADDING, TIME_EXTEND, TIME_STAMP) else 0
                if kind == TIME_STAMP:
                    time = (more << 27) + delta | time >> 59 << 59
                    at += 4
                    continue
                time += delta
                if kind == TIME_EXTEND:
                    time += more << 27
                    at += 4
                elif kind == PADDING:
                    if not delta:
                        break
                    at += more
                elif kind == 0:
                    out.append((time, self.data[at + 4:at + more]))
                    at += more
                else:
                    out.append((time, self.data[at:at + 4 * kind]))
                    at += 4 * kind
        return out

    def write(self, path):
        """All of it, with pages made anew."""
        systems = struct.pack("<I", len(self.systems))
        for name, formats in self.systems:
            systems += name.encode() + b"\0" + struct.pack("<I", len(formats))
            systems += b"".join(struct.pack("<Q", len(f)) + f for f in formats)
        offset = len(self.head) + len(systems) + len(self.tail) + 16 * len(self.cpus)
        with open(path, "wb") as f:
            f.write(self.head + systems + self.tail)
            pages = [b"".join(paged(events, self.page)) for events in self.cpus]
            offset += -offset % self.page
            for data in pages:
                f.write(struct.pack("<QQ", offset, len(data)))
                offset += len(data)
            f.write(b"\0" * (-f.tell() % self.page))
            for data in pages:
                f.write(data)


def paged(events, size):
    """Pages of the ring buffer with these events, (time, data) in their order."""
    page, first, last = bytearray(), 0, 0
    for time, data in events:
        data += b"\0" * (-len(data) % 4)
        words = len(data) // 4
        body = struct.pack("<I", len(data) + 4) + data if words > DATA_MAX else data
        kind = 0 if words > DATA_MAX else words
        if page and HEADER + len(page) + len(body) + 12 > size:
            yield struct.pack("<QQ", first, len(page)) + page + b"\0" * (size - HEADER - len(page))
            page = bytearray()
        if not page:
            first = last = time
        delta = time - last
        if delta >= DELTA:
            page += struct.pack("<II", TIME_EXTEND | delta % DELTA << 5, delta // DELTA)
            delta = 0
        page += struct.pack("<I", kind | delta << 5) + body
        last = time
    if page:
        yield struct.pack("<QQ", first, len(page)) + page + b"\0" * (size - HEADER - len(page))


def merge(source, target, machine):
    """Write `source` to `target` with the machine's events. Returns the number of these."""
    dat = Dat(source)
    # What all events begin with.
    common = {m[2]: (m[1], int(m[3]), int(m[4])) for m in FIELD.finditer(dat.formats[0])}
    size = max(offset + length for _, offset, length in common.values())
    size += -size % 4
    number = max(int(n) for f in dat.formats for n in re.findall(r"^ID: (\d+)", f, re.MULTILINE))
    identity = {name: number + n for n, name in enumerate(sorted({e.name for e in machine}), 1)}
    fields = "".join(f"\tfield:{text};\toffset:{offset};\tsize:{length};\tsigned:{int(text.startswith('int '))};\n"
                     for text, offset, length in common.values())
    dat.systems.append((SYSTEM, [
        (f"name: {name}\nID: {n}\nformat:\n{fields}\n\tfield:__data_loc char[] text;\toffset:{size};\tsize:4;\tsigned:0;\n\n"
         'print fmt: "%s", __get_str(text)\n').encode() for name, n in identity.items()]))
    pid = common["common_pid"][1]
    count = 0
    for cpu, events in enumerate(dat.cpus):
        # Of two at the same time, the machine's comes first: KVM's traces what has happened.
        both = [(round(e.time * 1e9) - ROUNDED, 0, e) for e in machine if e.cpu == cpu] + [(time, 1, data) for time, data in events]
        both.sort(key=lambda e: e[:2])
        task = events[0][1][pid:pid + 4] if events else b"\0" * 4
        merged = []
        for time, theirs, what in both:
            if theirs:
                task = what[pid:pid + 4]
            else:
                text = what.text.encode() + b"\0"
                data = bytearray(size + 4)
                struct.pack_into("<H", data, common["common_type"][1], identity[what.name])
                data[pid:pid + 4] = task
                struct.pack_into("<I", data, size, len(text) << 16 | size + 4)
                what = bytes(data) + text
                count += 1
            merged.append((time, what))
        dat.cpus[cpu] = merged
    dat.write(target)
    return count
