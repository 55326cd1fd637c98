/*
 * Monitor commands of the AMD SEV-SNP host model: RMP entries, and Secure AVIC
 * state of the guests' vCPUs (APM vol. 2, 15.36.3 and 15.36.21)
 *
 * These show what the processor sees: a hypervisor on the machine cannot read
 * most of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "monitor/hmp.h"
#include "monitor/hmp-target.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-misc-target.h"
#include "qobject/qdict.h"
#include "snp.h"
#include "x86-savic-regs.h"

/* Bits of a VMPL's permission mask (15.36.7) */
#define PERM_READ                       (1 << 0)
#define PERM_WRITE                      (1 << 1)
#define PERM_EXECUTE_USER               (1 << 2)
#define PERM_EXECUTE_SUPERVISOR         (1 << 3)
#define PERM_SHADOW_STACK               (1 << 4)

#define LARGE_PAGE_SIZE                 0x200000ULL

/*
 * A CPU that has SNP on. NULL and @errp if there is none; all CPUs have the
 * same RMP.
 */
static CPUX86State *snp_cpu(Error **errp)
{
    CPUState *cs = first_cpu;

    if (!cs || !snp_host(cpu_env(cs))) {
        error_setg(errp, "this machine has no RMP: it needs snp-host=on");
        return NULL;
    }
    if (!snp_enabled(cpu_env(cs))) {
        error_setg(errp, "SNP is not enabled: SYSCFG[24] of CPU 0 is 0");
        return NULL;
    }
    return cpu_env(cs);
}

/* ---- RMP entries -------------------------------------------------------- */

static RmpPermissions *vmpl_permissions(uint8_t perm)
{
    RmpPermissions *p = g_new0(RmpPermissions, 1);

    p->read = perm & PERM_READ;
    p->write = perm & PERM_WRITE;
    p->execute_user = perm & PERM_EXECUTE_USER;
    p->execute_supervisor = perm & PERM_EXECUTE_SUPERVISOR;
    p->supervisor_shadow_stack = perm & PERM_SHADOW_STACK;
    return p;
}

RmpEntryInfo *qmp_x_query_rmp_entry(uint64_t address, Error **errp)
{
    CPUX86State *env = snp_cpu(errp);
    RmpEntryInfo *info;
    SnpRmpEntry e;
    CPUState *cs;

    if (!env) {
        return NULL;
    }
    address &= TARGET_PAGE_MASK;
    if (!snp_rmp_lookup(env, address, &e)) {
        error_setg(errp, "0x%" PRIx64 " is not covered by the RMP: "
                   "such a page belongs to the hypervisor", address);
        return NULL;
    }
    if (e.size_2m) {
        address &= ~(LARGE_PAGE_SIZE - 1);
    }

    info = g_new0(RmpEntryInfo, 1);
    info->address = address;
    info->assigned = e.assigned;
    info->page_size = e.size_2m ? LARGE_PAGE_SIZE : TARGET_PAGE_SIZE;
    info->immutable = e.immutable;
    info->subpage_count = e.subpage_count;
    info->gpa = e.gpa;
    info->asid = e.asid;
    info->vmsa = e.vmsa;
    info->validated = e.validated;
    for (int vmpl = SNP_NR_VMPLS - 1; vmpl >= 0; vmpl--) {
        QAPI_LIST_PREPEND(info->permissions, vmpl_permissions(e.perm[vmpl]));
    }
    CPU_FOREACH(cs) {
        if (snp_page_in_use_by(cs, address)) {
            QAPI_LIST_PREPEND(info->in_use, cs->cpu_index);
        }
    }
    return info;
}

void hmp_info_rmp(Monitor *mon, const QDict *qdict)
{
    intList *cpu;
    Error *err = NULL;
    g_autoptr(RmpEntryInfo) e = NULL;
    int vmpl = 0;

    e = qmp_x_query_rmp_entry(qdict_get_int(qdict, "address"), &err);
    if (hmp_handle_error(mon, err)) {
        return;
    }
    monitor_printf(mon, "0x%016" PRIx64 ": ", e->address);
    if (!e->assigned) {
        monitor_printf(mon, "hypervisor-owned, %u assigned 4K pages behind "
                       "it\n", e->subpage_count);
    } else {
        monitor_printf(mon, "assigned, %s, GPA 0x%016" PRIx64 ", ASID %u%s%s%s\n",
                       e->page_size == LARGE_PAGE_SIZE ? "2M" : "4K", e->gpa,
                       e->asid, e->immutable ? ", immutable" : "",
                       e->validated ? ", validated" : ", not validated",
                       e->vmsa ? ", VMSA" : "");
        monitor_printf(mon, "  permissions:");
        for (RmpPermissionsList *l = e->permissions; l; l = l->next, vmpl++) {
            RmpPermissions *p = l->value;

            monitor_printf(mon, " VMPL%d %c%c%c%c%c", vmpl,
                           p->read ? 'r' : '-', p->write ? 'w' : '-',
                           p->execute_user ? 'u' : '-',
                           p->execute_supervisor ? 's' : '-',
                           p->supervisor_shadow_stack ? 'S' : '-');
        }
        monitor_printf(mon, "\n");
    }
    for (cpu = e->in_use; cpu; cpu = cpu->next) {
        monitor_printf(mon, "  in use by CPU %" PRId64 "\n", cpu->value);
    }
}

/* ---- Secure AVIC --------------------------------------------------------- */

/* What a CPU has of the vCPU that it runs, and the VMSA has not yet. */
typedef struct RunningVcpu {
    bool here;
    uint64_t vmsa;
    uint64_t control;
    uint64_t vintr_ctrl;
} RunningVcpu;

static void get_running_vcpu(CPUState *cs, run_on_cpu_data data)
{
    CPUX86State *env = cpu_env(cs);
    RunningVcpu *r = data.host_ptr;

    r->here = (env->hflags & HF_GUEST_MASK) && env->sev.vmsa_loaded &&
              x86_savic_mode(env);
    r->vmsa = env->sev.vmsa;
    r->control = env->sev.savic_control;
    r->vintr_ctrl = (env->sev.vintr_ctrl & VMSA_VINTR_CTRL_BUSY) |
                    (uint32_t)env->int_ctl;
}

/* The next entry from *@spa on that describes a page of its own. */
static bool next_entry(CPUX86State *env, hwaddr *spa, SnpRmpEntry *e)
{
    hwaddr at = *spa;

    if (!snp_rmp_read(env, at, e)) {
        return false;
    }
    *spa += e->size_2m ? LARGE_PAGE_SIZE : TARGET_PAGE_SIZE;
    return true;
}

/* Where a guest's validated private page is: the RMP, read backwards. */
static bool find_private(CPUX86State *env, uint32_t asid, uint64_t gpa,
                         hwaddr *spa)
{
    SnpRmpEntry e;
    hwaddr next = 0;

    for (hwaddr at = 0; next_entry(env, &next, &e); at = next) {
        uint64_t size = e.size_2m ? LARGE_PAGE_SIZE : TARGET_PAGE_SIZE;

        if (e.assigned && e.validated && e.asid == asid &&
            gpa - e.gpa < size) {
            *spa = at + (gpa - e.gpa);
            return true;
        }
    }
    return false;
}

static uint32_t page_dword(const uint8_t *page, unsigned reg)
{
    return ldl_le_p(page + reg);
}

/* Vectors of a register of 256 bits in the page, in ascending order. */
static uint8List *page_vectors(const uint8_t *page, unsigned reg)
{
    uint8List *list = NULL;

    for (int vector = 255; vector >= 0; vector--) {
        if (page_dword(page, reg + vector / 32 * 16) & 1u << vector % 32) {
            QAPI_LIST_PREPEND(list, vector);
        }
    }
    return list;
}

static SecureAvicPage *describe_page(CPUX86State *env, hwaddr spa)
{
    SecureAvicPage *info;
    uint8_t page[TARGET_PAGE_SIZE];

    if (address_space_read(env_cpu(env)->as, spa, MEMTXATTRS_UNSPECIFIED,
                           page, sizeof(page)) != MEMTX_OK) {
        return NULL;
    }
    info = g_new0(SecureAvicPage, 1);
    info->address = spa;
    info->apic_id = page_dword(page, REG_ID);
    info->tpr = page_dword(page, REG_TPR);
    info->ppr = page_dword(page, REG_PPR);
    info->irr = page_vectors(page, REG_IRR);
    info->isr = page_vectors(page, REG_ISR);
    info->tmr = page_vectors(page, REG_TMR);
    info->allowed_irr = page_vectors(page, PAGE_ALLOWED_IRR);
    info->nmi_req = page_dword(page, PAGE_NMI_REQ) & 1;
    return info;
}

/* The vCPU of a VMSA page, or NULL if it is not in Secure AVIC mode. */
static SecureAvicInfo *describe_vcpu(CPUX86State *env, hwaddr vmsa,
                                     uint32_t asid, const RunningVcpu *running)
{
    CPUState *cs = env_cpu(env);
    uint64_t vintr_ctrl = x86_ldq_phys(cs, vmsa + VMSA_VINTR_CTRL);
    SecureAvicInfo *info;
    hwaddr spa;

    if (!(x86_ldq_phys(cs, vmsa + VMSA_SEV_FEATURES) &
          SEV_FEATURE_SECURE_AVIC)) {
        return NULL;
    }
    info = g_new0(SecureAvicInfo, 1);
    info->vmsa = vmsa;
    info->asid = asid;
    info->vmpl = x86_ldub_phys(cs, vmsa + VMSA_VMPL);
    info->control = x86_ldq_phys(cs, vmsa + VMSA_SECURE_AVIC_CONTROL);
    CPU_FOREACH(cs) {
        const RunningVcpu *r = &running[cs->cpu_index];

        if (r->here && r->vmsa == vmsa) {
            info->has_cpu_index = true;
            info->cpu_index = cs->cpu_index;
            info->control = r->control;
            vintr_ctrl = r->vintr_ctrl;
        }
    }
    info->enabled = info->control & CONTROL_ENABLE;
    info->allowed_nmi = info->control & CONTROL_ALLOWED_NMI;
    info->gpa = info->control & CONTROL_PAGE;
    info->busy = vintr_ctrl & VMSA_VINTR_CTRL_BUSY;
    info->v_nmi_pending = vintr_ctrl & V_NMI_PENDING_MASK;
    info->v_nmi_blocked = vintr_ctrl & V_NMI_BLOCKED_MASK;
    if ((info->enabled || info->gpa) &&
        find_private(env, asid, info->gpa, &spa)) {
        info->page = describe_page(env, spa);
    }
    return info;
}

static int nr_cpus(void)
{
    int n = 0;
    CPUState *cs;

    CPU_FOREACH(cs) {
        n = MAX(n, cs->cpu_index + 1);
    }
    return n;
}

SecureAvicInfoList *qmp_x_query_secure_avic(Error **errp)
{
    CPUX86State *env = snp_cpu(errp);
    g_autofree RunningVcpu *running = NULL;
    SecureAvicInfoList *list = NULL, **tail = &list;
    SnpRmpEntry e;
    hwaddr next = 0;
    CPUState *cs;

    if (!env) {
        return NULL;
    }
    running = g_new0(RunningVcpu, nr_cpus());
    CPU_FOREACH(cs) {
        run_on_cpu(cs, get_running_vcpu,
                   RUN_ON_CPU_HOST_PTR(&running[cs->cpu_index]));
    }
    for (hwaddr at = 0; next_entry(env, &next, &e); at = next) {
        SecureAvicInfo *info;

        if (e.assigned && e.vmsa && !e.size_2m) {
            info = describe_vcpu(env, at, e.asid, running);
            if (info) {
                QAPI_LIST_APPEND(tail, info);
            }
        }
    }
    return list;
}

/* Vectors with runs joined: "32-47 236". */
static void print_vectors(Monitor *mon, const char *name, uint8List *l)
{
    monitor_printf(mon, "  %-12s", name);
    if (!l) {
        monitor_printf(mon, " none");
    }
    while (l) {
        int first = l->value, last = first;

        for (l = l->next; l && l->value == last + 1; l = l->next) {
            last++;
        }
        monitor_printf(mon, last == first ? " %d" : " %d-%d", first, last);
    }
    monitor_printf(mon, "\n");
}

static void print_page(Monitor *mon, SecureAvicPage *page)
{
    monitor_printf(mon, "  APIC ID %u, TPR 0x%02x, PPR 0x%02x, NmiReq %d\n",
                   page->apic_id, page->tpr, page->ppr, page->nmi_req);
    print_vectors(mon, "IRR", page->irr);
    print_vectors(mon, "ISR", page->isr);
    print_vectors(mon, "TMR", page->tmr);
    print_vectors(mon, "ALLOWED_IRR", page->allowed_irr);
}

static void print_vcpu(Monitor *mon, SecureAvicInfo *v)
{
    monitor_printf(mon, "vCPU with VMSA 0x%016" PRIx64 ", ASID %u, VMPL %u, ",
                   v->vmsa, v->asid, v->vmpl);
    if (v->has_cpu_index) {
        monitor_printf(mon, "in guest mode on CPU %" PRId64 "\n",
                       v->cpu_index);
    } else {
        monitor_printf(mon, "not in guest mode\n");
    }
    monitor_printf(mon, "  SECURE_AVIC_CONTROL 0x%016" PRIx64 ": engine %s, "
                   "NMI %sallowed, backing page at GPA 0x%" PRIx64 "\n",
                   v->control, v->enabled ? "on" : "off",
                   v->allowed_nmi ? "" : "not ", v->gpa);
    monitor_printf(mon, "  V_NMI %s%s\n",
                   v->v_nmi_pending ? "pending" : "not pending",
                   v->v_nmi_blocked ? ", blocked" : "");
    if (v->busy) {
        monitor_printf(mon, "  VINTR_CTRL.BUSY: the next VMRUN fails\n");
    }
    if (v->page) {
        monitor_printf(mon, "  backing page at 0x%016" PRIx64 "\n",
                       v->page->address);
        print_page(mon, v->page);
    } else if (v->enabled) {
        monitor_printf(mon, "  backing page: no validated page of this guest "
                       "is there\n");
    }
}

void hmp_info_secure_avic(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    g_autoptr(SecureAvicInfoList) list = qmp_x_query_secure_avic(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (!list) {
        monitor_printf(mon, "no guest has a vCPU in Secure AVIC mode\n");
    }
    for (SecureAvicInfoList *l = list; l; l = l->next) {
        print_vcpu(mon, l->value);
    }
}
