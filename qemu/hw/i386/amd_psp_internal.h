/*
 * AMD security processor: state and services shared by the parts of the
 * firmware model. "ABI" is the SEV-SNP Firmware ABI Specification (56860),
 * "SEV API" the one for SEV and SEV-ES (55766).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_AMD_PSP_INTERNAL_H
#define HW_I386_AMD_PSP_INTERNAL_H

#include "hw/i386/amd_psp.h"
#include "hw/pci/pci_device.h"
#include "qom/object.h"
#include "target/i386/cpu.h"
#include "target/i386/snp.h"
#include "target/i386/snp-cpu.h"

OBJECT_DECLARE_SIMPLE_TYPE(AmdPspState, AMD_PSP)

/* Status codes, ABI table "Status Codes" */
typedef enum PspStatus {
    PSP_SUCCESS                     = 0x00,
    PSP_INVALID_PLATFORM_STATE      = 0x01,
    PSP_INVALID_GUEST_STATE         = 0x02,
    PSP_INVALID_CONFIG              = 0x03,
    PSP_INVALID_LENGTH              = 0x04,
    PSP_ALREADY_OWNED               = 0x05,
    PSP_INVALID_CERTIFICATE         = 0x06,
    PSP_POLICY_FAILURE              = 0x07,
    PSP_INACTIVE                    = 0x08,
    PSP_INVALID_ADDRESS             = 0x09,
    PSP_BAD_SIGNATURE               = 0x0a,
    PSP_BAD_MEASUREMENT             = 0x0b,
    PSP_ASID_OWNED                  = 0x0c,
    PSP_INVALID_ASID                = 0x0d,
    PSP_WBINVD_REQUIRED             = 0x0e,
    PSP_DF_FLUSH_REQUIRED           = 0x0f,
    PSP_INVALID_GUEST               = 0x10,
    PSP_INVALID_COMMAND             = 0x11,
    PSP_ACTIVE                      = 0x12,
    PSP_HARDWARE_PLATFORM           = 0x13,
    PSP_HARDWARE_UNSAFE             = 0x14,
    PSP_UNSUPPORTED                 = 0x15,
    PSP_INVALID_PARAM               = 0x16,
    PSP_RESOURCE_LIMIT              = 0x17,
    PSP_SECURE_DATA_INVALID         = 0x18,
    PSP_INVALID_PAGE_SIZE           = 0x19,
    PSP_INVALID_PAGE_STATE          = 0x1a,
    PSP_INVALID_MDATA_ENTRY         = 0x1b,
    PSP_INVALID_PAGE_OWNER          = 0x1c,
    PSP_AEAD_OFLOW                  = 0x1d,
    PSP_RMP_INIT_REQUIRED           = 0x20,
    PSP_BAD_SVN                     = 0x21,
    PSP_RMP_INITIALIZATION_FAILED   = 0x26,
    PSP_INVALID_KEY                 = 0x27,
    PSP_SHUTDOWN_INCOMPLETE         = 0x28,
    /* What a legacy command's own buffer gets: page-state code + 40h */
    PSP_BUFFER_PAGE_STATE           = PSP_INVALID_PAGE_STATE + 0x40,
} PspStatus;

#define PSP_API_MAJOR           1
#define PSP_API_MINOR           55
#define PSP_BUILD               25

/* Boot loader, TEE, SNP and microcode SVNs in the layout of Genoa. */
#define PSP_TCB                 0x4817000000000009ULL

/* SEV API 4.1 / ABI 5.1 */
enum { SEV_UNINIT, SEV_INIT, SEV_WORKING };
enum { SNP_UNINIT, SNP_INIT };

typedef enum PspAsidState {
    ASID_DIRTY,
    ASID_CLEAN,
    ASID_ALLOCATED,
    ASID_IN_USE,
} PspAsidState;

typedef enum PspPageState {
    PAGE_DEFAULT,               /* not covered by the RMP */
    PAGE_HYPERVISOR,
    PAGE_HV_FIXED,
    PAGE_FIRMWARE,
    PAGE_FIRMWARE_IOMMU,
    PAGE_CONTEXT,
    PAGE_METADATA,
    PAGE_RECLAIM,
    PAGE_PRE_GUEST,
    PAGE_PRE_SWAP,
    PAGE_GUEST_INVALID,
    PAGE_GUEST_VALID,
} PspPageState;

struct AmdPspState {
    PCIDevice parent_obj;

    MemoryRegion mmio;

    /* Registers */
    uint32_t cmdresp;
    uint32_t cmdbuf_lo;
    uint32_t cmdbuf_hi;
    uint32_t inten;
    uint32_t intsts;

    /* Platform */
    uint8_t sev_state;
    uint8_t snp_state;
    bool rmp_init;
    bool sev_es;
    bool df_flushed;            /* since INIT: the SEV-ES TMR is in use */
    hwaddr tmr;
    uint32_t tmr_len;
    uint64_t committed_tcb;
    uint64_t reported_tcb;
    uint32_t config_mask;       /* bits 0, 1: MASK_CHIP_ID, MASK_CHIP_KEY */
    uint8_t asid[SEV_MAX_ASID + 1];
    uint8_t chip_id[64];
    uint8_t secret[32];         /* root of derived keys, new at every start */

    /* Guests: by handle, by address of the context page */
    GHashTable *sev_guests;
    GHashTable *snp_guests;
    uint32_t next_handle;
};

/* Handlers get the command buffer, copied in; they may change it. */
typedef PspStatus PspHandler(AmdPspState *s, uint8_t *buf);

/* ---- amd_psp.c -------------------------------------------------------- */

static inline CPUX86State *psp_env(void)
{
    return &X86_CPU(first_cpu)->env;
}

/*
 * Address check of every pointer in a command: drop the C-bit from *@addr,
 * then INVALID_ADDRESS or INVALID_CONFIG unless all of it is RAM that
 * software may use.
 */
PspStatus psp_check_address(AmdPspState *s, uint64_t *addr, uint64_t len);
bool psp_read(AmdPspState *s, hwaddr addr, void *buf, size_t len);
bool psp_write(AmdPspState *s, hwaddr addr, const void *buf, size_t len);

/* True if the page at @addr lies inside the RMP. */
bool psp_in_rmp(AmdPspState *s, hwaddr addr);
/*
 * The entry that governs @addr and the state that it is in. INVALID_PARAM for
 * an address inside the RMP. @e is zero where the RMP does not reach.
 */
PspStatus psp_lookup(AmdPspState *s, hwaddr addr, SnpRmpEntry *e,
                     PspPageState *state);
/* Give the 4K page the form that a state has in the RMP; no guest states. */
void psp_set_page_state(AmdPspState *s, hwaddr addr, PspPageState state);
/* Output buffers: while SNP is INIT, FIRMWARE or DEFAULT; else PAGE_STATE. */
PspStatus psp_check_output(AmdPspState *s, uint64_t *addr, uint64_t len);

/* DF_FLUSH fails until every CPU has executed WBINVD. */
void psp_request_wbinvd(AmdPspState *s);
/*
 * Give up an ASID. Only one that a guest has run on needs a flush: what got
 * no further than its launch leaves it clean.
 */
PspStatus psp_asid_available(AmdPspState *s, uint32_t asid, bool active);
void psp_release_asid(AmdPspState *s, uint32_t asid);

void psp_random(void *buf, size_t len);
void psp_sha256(const struct iovec *iov, size_t n, uint8_t digest[32]);
void psp_sha384(const void *buf, size_t len, uint8_t digest[48]);

/* ---- amd_psp_sev.c: SEV and SEV-ES guests ------------------------------ */

void psp_sev_reset(AmdPspState *s);
uint32_t psp_sev_guest_count(AmdPspState *s);

PspHandler psp_sev_decommission, psp_sev_activate, psp_sev_deactivate,
           psp_sev_guest_status, psp_sev_launch_start,
           psp_sev_launch_update_data, psp_sev_launch_update_vmsa,
           psp_sev_launch_measure, psp_sev_launch_secret,
           psp_sev_launch_finish, psp_sev_dbg_decrypt, psp_sev_dbg_encrypt;

/* ---- amd_psp_snp.c: SNP guests ----------------------------------------- */

void psp_snp_reset(AmdPspState *s);
uint32_t psp_snp_guest_count(AmdPspState *s);

PspHandler psp_snp_decommission, psp_snp_activate, psp_snp_guest_status,
           psp_snp_gctx_create, psp_snp_guest_request, psp_snp_launch_start,
           psp_snp_launch_update, psp_snp_launch_finish, psp_snp_dbg_decrypt,
           psp_snp_dbg_encrypt, psp_snp_page_reclaim, psp_snp_page_unsmash,
           psp_snp_page_set_state;

/*
 * Check the contents of a CPUID page (ABI 8.17.2.6) against this processor.
 * False if something had to be corrected, in place.
 */
bool psp_check_cpuid_page(uint8_t *page);

#endif
