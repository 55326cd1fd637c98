/*
 * q35 as an AMD SEV-SNP host: what firmware and board provide (TCG only)
 *
 * With "-machine q35,snp-host=on" the machine comes up as firmware would
 * leave an SNP-capable server: memory encryption is on in SYSCFG, SMM is
 * locked, a range of RAM is set aside for the RMP (APM vol. 2, 15.36.4) and
 * there are an IOMMU with SNPSup and a security processor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "hw/loader.h"
#include "hw/i386/amd_psp.h"
#include "hw/i386/snp-host.h"
#include "hw/i386/x86-iommu.h"
#include "hw/pci/pci.h"
#include "hw/qdev-properties.h"
#include "hw/sysbus.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "system/tcg.h"
#include "target/i386/cpu.h"
#include "target/i386/snp-cpu.h"
#include "amd_iommu.h"

#define TYPE_FCH_SMBUS          "amd-fch-smbus"

#define RMP_ENTRY_SIZE          16
/* Segmented, a GiB takes so much; segments begin at 1M, behind their table */
#define RMP_GIB_SIZE            (4 * MiB)
#define RMP_SEGMENTS_OFFSET     (2 * MiB)
#define RMP_SEGMENT_SHIFT       31

/*
 * The architecture wants 8K and firmware 1M; 2M also keeps Linux from
 * reserving what shares a large page with it.
 */
#define RMP_ALIGN               (2 * MiB)

/*
 * IOMMU and PSP cannot be migrated either, and QEMU names the first device that
 * it meets: this one says why.
 */
static const VMStateDescription vmstate_snp_host = {
    .name = "machine with snp-host=on",
    .unmigratable = 1,
    .priority = MIG_PRI_MAX,
};

static bool snp_host_get(Object *obj, Error **errp)
{
    return PC_MACHINE(obj)->snp_host;
}

static void snp_host_set(Object *obj, bool value, Error **errp)
{
    PC_MACHINE(obj)->snp_host = value;
}

static bool segmented_rmp_get(Object *obj, Error **errp)
{
    return PC_MACHINE(obj)->segmented_rmp;
}

static void segmented_rmp_set(Object *obj, bool value, Error **errp)
{
    PC_MACHINE(obj)->segmented_rmp = value;
}

void snp_host_class_init(ObjectClass *oc)
{
    object_class_property_add_bool(oc, "x-segmented-rmp", segmented_rmp_get,
                                   segmented_rmp_set);
    object_class_property_set_description(oc, "x-segmented-rmp",
        "With snp-host=on: segment the RMP (needs x-generation=turin of "
        "the CPU)");
    object_class_property_add_bool(oc, "snp-host", snp_host_get, snp_host_set);
    object_class_property_set_description(oc, "snp-host",
        "Model an AMD host with SEV, SEV-ES, SEV-SNP and Secure AVIC "
        "(TCG only; needs -cpu EPYC-Genoa or a later AMD model)");
}

static void snp_host_set_cpu_property(const char *name, uint64_t value)
{
    g_autofree char *str = g_strdup_printf("0x%" PRIx64, value);

    object_register_sugar_prop(TYPE_X86_CPU, name, str, false);
}

/* Bytes of the RMP for addresses below @end; ends at @end itself */
static uint64_t rmp_size(PCMachineState *pcms, hwaddr end)
{
    uint64_t size;

    if (pcms->segmented_rmp) {
        size = RMP_SEGMENTS_OFFSET + DIV_ROUND_UP(end, GiB) * RMP_GIB_SIZE;
    } else {
        size = RMP_BOOKKEEPING_SIZE + (end >> 12) * RMP_ENTRY_SIZE;
    }
    return ROUND_UP(size, RMP_ALIGN) + end % RMP_ALIGN;
}

/*
 * What firmware leaves in memory of a segmented RMP: the table. Nothing says that
 * segments are in the order of what they cover, so they are not.
 */
static uint64_t init_segment_table(PCMachineState *pcms, hwaddr end)
{
    uint64_t table[RMP_SEGMENTS] = {};
    uint64_t gib = DIV_ROUND_UP(end, GiB);
    unsigned shift = RMP_SEGMENT_SHIFT, n;
    hwaddr at = pcms->rmp_base + RMP_SEGMENTS_OFFSET;

    while (gib > (uint64_t)RMP_SEGMENTS << (shift - 30)) {
        shift++;
    }
    n = DIV_ROUND_UP(gib, 1ULL << (shift - 30));
    for (int i = n - 1; i >= 0; i--) {
        uint64_t covers = MIN(gib - ((uint64_t)i << (shift - 30)),
                              1ULL << (shift - 30));

        table[i] = cpu_to_le64(at | covers);
        at += covers * RMP_GIB_SIZE;
    }
    rom_add_blob_fixed("rmp-segment-table", table, sizeof(table),
                       pcms->rmp_base + RMP_BOOKKEEPING_SIZE);
    return RMP_CFG_SEGMENTED | shift << 8;
}

void snp_host_init_memory(PCMachineState *pcms)
{
    MachineState *ms = MACHINE(pcms);
    X86MachineState *x86ms = X86_MACHINE(pcms);
    Error *blocker = NULL;
    uint64_t above, size;
    hwaddr end;

    if (!tcg_enabled()) {
        error_report("snp-host=on needs the TCG accelerator");
        exit(EXIT_FAILURE);
    }
    if (!module_object_class_by_name(TYPE_AMD_PSP)) {
        error_report("snp-host=on: this QEMU is built without AMD IOMMU");
        exit(EXIT_FAILURE);
    }
    if (ms->maxram_size > ms->ram_size) {
        error_report("snp-host=on: memory hotplug (maxmem) is not possible, "
                     "the RMP covers the RAM that is there at start");
        exit(EXIT_FAILURE);
    }

    /*
     * The RMP covers everything from 0 to the end of RAM, itself included. It
     * always lies above 4G, if need be by moving RAM there: below, firmware,
     * kernel and initrd compete for the top of RAM.
     */
    above = x86ms->above_4g_mem_size;
    end = x86ms->above_4g_mem_start + above;
    for (;;) {
        size = rmp_size(pcms, end);
        if (size <= above) {
            break;
        }
        above = ROUND_UP(size, RMP_ALIGN);
        end = x86ms->above_4g_mem_start + above;
    }
    if (above >= ms->ram_size) {
        error_report("snp-host=on: no room for the RMP, need more RAM");
        exit(EXIT_FAILURE);
    }
    x86ms->above_4g_mem_size = above;
    x86ms->below_4g_mem_size = ms->ram_size - above;

    pcms->rmp_size = size;
    pcms->rmp_base = end - size;

    object_register_sugar_prop(TYPE_X86_CPU, "snp-host", "on", false);
    snp_host_set_cpu_property("rmp-base", pcms->rmp_base);
    snp_host_set_cpu_property("rmp-end",
                              ROUND_DOWN(end, RMP_ALIGN) - 1);
    if (pcms->segmented_rmp) {
        snp_host_set_cpu_property("rmp-cfg", init_segment_table(pcms, end));
    }

    error_setg(&blocker, "snp-host=on: the state of the security processor, "
               "the RMP and SEV guests cannot be saved or migrated");
    migrate_add_blocker(&blocker, &error_fatal);
    vmstate_register(NULL, 0, &vmstate_snp_host, pcms);
}

/*
 * Interrupt remapping takes an I/O APIC whose requester ID, 00:14.0, is that of
 * the southbridge: Linux 7.3 looks for an SMBus controller or an ISA bridge
 * there. No register of it is modelled.
 */
static void fch_smbus_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->vendor_id = PCI_VENDOR_ID_AMD;
    k->device_id = 0x790b;
    k->class_id = PCI_CLASS_SERIAL_SMBUS;
    dc->hotpluggable = false;
    /* Reason: a part of the machine, at a fixed address */
    dc->user_creatable = false;
    dc->desc = "AMD FCH SMBus controller, without registers";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo fch_smbus_info = {
    .name = TYPE_FCH_SMBUS,
    .parent = TYPE_PCI_DEVICE,
    .class_init = fch_smbus_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { },
    },
};

static void snp_host_register_types(void)
{
    type_register_static(&fch_smbus_info);
}

type_init(snp_host_register_types);

void snp_host_create_devices(PCMachineState *pcms)
{
    DeviceState *iommu = qdev_new(TYPE_AMD_IOMMU_DEVICE);

    if (X86_MACHINE(pcms)->above_4g_mem_start != 4 * GiB) {
        error_report("snp-host=on: RAM does not fit below the range at 1T");
        exit(EXIT_FAILURE);
    }
    qdev_prop_set_bit(iommu, "snpsup", true);
    qdev_prop_set_bit(iommu, "xtsup", true);
    sysbus_realize_and_unref(SYS_BUS_DEVICE(iommu), &error_fatal);

    pci_create_simple(pcms->pcibus, AMDVI_IOAPIC_SB_DEVID, TYPE_FCH_SMBUS);
    pci_create_simple(pcms->pcibus, -1, TYPE_AMD_PSP);
}
