/*
 * What libvirt makes of the log of a QEMU that ended
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <config.h>

#include "testutils.h"

#define LIBVIRT_QEMU_PROCESSPRIV_H_ALLOW
#include "qemu/qemu_processpriv.h"

#define VIR_FROM_THIS VIR_FROM_QEMU

#define TIME "2026-11-29T15:51:05.974701Z "
#define QEMU "qemu-system-x86_64: "

struct testData {
    const char *log;
    const char *expected;
};


static int
testLogErrors(const void *opaque)
{
    const struct testData *data = opaque;
    g_autofree char *actual = qemuProcessLogErrors(data->log, 100);

    return virTestCompareToString(data->expected, actual);
}


static int
mymain(void)
{
    int ret = 0;

#define DO_TEST(name, log, expected) \
    do { \
        struct testData data = { log, expected }; \
        if (virTestRun("Errors in a log: " name, testLogErrors, &data) < 0) \
            ret = -1; \
    } while (0)

    DO_TEST("nothing", "", "");
    DO_TEST("one", TIME QEMU "-accel kvm: no such thing", "-accel kvm: no such thing");
    DO_TEST("no time", QEMU "no such thing\n", "no such thing");
    DO_TEST("a path", TIME "/opt/x/bin/qemu-kvm: no such thing\n", "no such thing");
    DO_TEST("from the monitor", "SEV-SNP: no such thing\n", "SEV-SNP: no such thing");
    DO_TEST("several", TIME QEMU "no such thing\nDo you mean this thing?\n" TIME QEMU "the end\n",
            "no such thing; Do you mean this thing?; the end");
    DO_TEST("after warnings",
            TIME QEMU "warning: odd\nwarning: odder\n" TIME QEMU "info: 1\n" TIME QEMU "the end\n",
            "the end");
    DO_TEST("warnings only", TIME QEMU "warning: odd\n", "warning: odd");
    DO_TEST("before exec",
            "libvirt:  error : cannot execute binary /x/qemu: Permission denied\n",
            "libvirt:  error : cannot execute binary /x/qemu: Permission denied");
    DO_TEST("more than fits",
            TIME QEMU "the first one\n"
            TIME QEMU "the second one, of which there is a lot more to say than this\n"
            TIME QEMU "the third one, of which there is less to say\n",
            "the third one, of which there is less to say");
    DO_TEST("one that does not fit",
            TIME QEMU "the first one\n"
            TIME QEMU "the second one, of which there is so much to say that it is longer than"
            " all that was asked for\n",
            "the second one, of which there is so much to say that it is longer than"
            " all that was asked for");

    return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

VIR_TEST_MAIN(mymain)
