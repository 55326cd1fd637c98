/*
 * Monitor commands of the AMD SEV-SNP host model, in a QEMU without TCG
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp-target.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc-target.h"

#define NO_TCG "the SNP host model is not available: QEMU is built without TCG"

RmpEntryInfo *qmp_x_query_rmp_entry(uint64_t address, Error **errp)
{
    error_setg(errp, NO_TCG);
    return NULL;
}

SecureAvicInfoList *qmp_x_query_secure_avic(Error **errp)
{
    error_setg(errp, NO_TCG);
    return NULL;
}

void hmp_info_rmp(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, "%s\n", NO_TCG);
}

void hmp_info_secure_avic(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, "%s\n", NO_TCG);
}
