/*
 * Reverse map table: instructions and access checks (APM vol. 2, 15.36.3-12)
 *
 * The RMP lives in guest RAM, where RMP_BASE says, in the layout of the
 * firmware ABI: 16 KiB of bookkeeping, then 16 bytes per 4K page. Everything
 * here reads and writes that memory directly, so that software that looks at
 * the table (Linux does on processors without RMPREAD) sees what it expects.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/thread.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/cpu_ldst.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "tcg/helper-tcg.h"
#include "snp.h"
#include "snp-disturb.h"
#include "trace.h"

#define RMP_ENTRY_SIZE          16

/* Quadword 0 of an entry. */
#define RMP_ASSIGNED            (1ULL << 0)
#define RMP_SIZE_2M             (1ULL << 1)
#define RMP_IMMUTABLE           (1ULL << 2)
#define RMP_SUBPAGES_SHIFT      3
#define RMP_SUBPAGES_MASK       (0x1ffULL << RMP_SUBPAGES_SHIFT)
#define RMP_GPA_MASK            MAKE_64BIT_MASK(12, 39)
#define RMP_ASID_SHIFT          51
#define RMP_ASID_MASK           (0x3ffULL << RMP_ASID_SHIFT)
#define RMP_VMSA                (1ULL << 61)
#define RMP_VALIDATED           (1ULL << 62)
#define RMP_LOCK                (1ULL << 63)

#define PFN_IN_2M_MASK          511ULL

/*
 * Where the RMP is in host memory. Never changed and never freed: there is one
 * for each placement that a CPU has enabled SNP with.
 */
typedef struct RmpMap {
    struct RmpMap *next;
    uint64_t base;
    uint64_t end;
    uint64_t cfg;
    uint64_t npages;            /* 4K pages covered, 0: no usable RMP */
    uint64_t *entries;          /* NULL: segmented */
    hwaddr offset;              /* of the first entry in mr */
    /* The same by segment */
    unsigned shift;             /* from PFN to segment */
    uint64_t **segments;
    hwaddr *offsets;
    MemoryRegion *mr;
    uint64_t *cached;           /* per page, see mark_cached() */
    uint8_t *in_use;            /* per page: by how many CPUs in guest mode */
} RmpMap;

static QemuRecMutex rmp_mutex;
static RmpMap *rmp_map;         /* the one used last */
static RmpMap *rmp_maps;        /* all */

/* Pages that a CPU in guest mode uses: PFN + 1, or 0. */
typedef struct RmpUser {
    RmpMap *map;                /* that counts them */
    uint64_t pages[4];
} RmpUser;

static GArray *rmp_users;       /* by CPU index */

static void __attribute__((constructor)) snp_rmp_init(void)
{
    qemu_rec_mutex_init(&rmp_mutex);
    rmp_users = g_array_new(false, true, sizeof(RmpUser));
}

/* Entries at @addr, of which up to *@len bytes can be reached. NULL: no RAM. */
static uint64_t *rmp_map_entries(RmpMap *m, hwaddr addr, hwaddr *len,
                                 hwaddr *offset)
{
    hwaddr want = *len;
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, addr, offset, len,
                                 true, MEMTXATTRS_UNSPECIFIED);
    if (!memory_access_is_direct(mr, true, MEMTXATTRS_UNSPECIFIED) ||
        (m->mr && m->mr != mr)) {
        return NULL;
    }
    if (!m->mr) {
        memory_region_ref(mr);
        m->mr = mr;
    }
    *len = MIN(*len, want);
    return (uint64_t *)((uint8_t *)memory_region_get_ram_ptr(mr) + *offset);
}

/* As far as the segments follow each other */
static void rmp_map_segments(RmpMap *m)
{
    uint64_t table[RMP_SEGMENTS];
    uint64_t gib_max = 1ULL << (RMP_CFG_SHIFT(m->cfg) - 30);

    m->shift = RMP_CFG_SHIFT(m->cfg) - TARGET_PAGE_BITS;
    m->segments = g_new0(uint64_t *, RMP_SEGMENTS);
    m->offsets = g_new0(hwaddr, RMP_SEGMENTS);
    address_space_read(&address_space_memory, m->base + RMP_BOOKKEEPING_SIZE,
                       MEMTXATTRS_UNSPECIFIED, table, sizeof(table));
    for (int i = 0; i < RMP_SEGMENTS; i++) {
        uint64_t entry = le64_to_cpu(table[i]);
        uint64_t pages = MIN(RMP_SEGMENT_GIB(entry), gib_max) << 18;
        hwaddr len = pages * RMP_ENTRY_SIZE;

        m->segments[i] = pages ? rmp_map_entries(m, RMP_SEGMENT_BASE(entry),
                                                 &len, &m->offsets[i]) : NULL;
        if (!m->segments[i]) {
            break;
        }
        m->npages += len / RMP_ENTRY_SIZE;
        if (m->npages != (uint64_t)(i + 1) << m->shift) {
            break;
        }
    }
}

static RmpMap *rmp_map_create(uint64_t base, uint64_t end, uint64_t cfg)
{
    RmpMap *m = g_new0(RmpMap, 1);
    hwaddr len;

    m->base = base;
    m->end = end;
    m->cfg = cfg;
    if (!base || end <= base + RMP_BOOKKEEPING_SIZE) {
        return m;
    }
    if (cfg & RMP_CFG_SEGMENTED) {
        if (RMP_CFG_SHIFT(cfg) < RMP_SEGMENT_SHIFT_MIN ||
            RMP_CFG_SHIFT(cfg) > RMP_SEGMENT_SHIFT_MAX) {
            return m;
        }
        rmp_map_segments(m);
    } else {
        len = end + 1 - base - RMP_BOOKKEEPING_SIZE;
        m->entries = rmp_map_entries(m, base + RMP_BOOKKEEPING_SIZE, &len,
                                     &m->offset);
        /* Only what is contiguous RAM can be looked up. */
        m->npages = m->entries ? len / RMP_ENTRY_SIZE : 0;
    }
    m->cached = g_new0(uint64_t, m->npages);
    m->in_use = g_new0(uint8_t, m->npages);
    return m;
}

static __attribute__((noinline))
uint64_t *rmp_segment_entry(RmpMap *m, uint64_t pfn)
{
    return m->segments[pfn >> m->shift] +
           (pfn & MAKE_64BIT_MASK(0, m->shift)) * 2;
}

/* The two quadwords of a page that the RMP covers */
static inline uint64_t *rmp_entry_at(RmpMap *m, uint64_t pfn)
{
    if (likely(m->entries)) {
        return m->entries + pfn * 2;
    }
    return rmp_segment_entry(m, pfn);
}

static void rmp_entry_dirty(RmpMap *m, uint64_t pfn)
{
    hwaddr offset = m->offset;

    if (!m->entries) {
        offset = m->offsets[pfn >> m->shift];
        pfn &= MAKE_64BIT_MASK(0, m->shift);
    }
    memory_region_set_dirty(m->mr, offset + pfn * RMP_ENTRY_SIZE,
                            RMP_ENTRY_SIZE);
}

static inline RmpMap *rmp_get_map(CPUX86State *env)
{
    RmpMap *m = qatomic_load_acquire(&rmp_map);

    if (likely(m && m->base == env->sev.rmp_base &&
               m->end == env->sev.rmp_end)) {
        return m;
    }

    qemu_rec_mutex_lock(&rmp_mutex);
    for (m = rmp_maps; m; m = m->next) {
        if (m->base == env->sev.rmp_base && m->end == env->sev.rmp_end &&
            m->cfg == env->sev.rmp_cfg) {
            break;
        }
    }
    if (!m) {
        m = rmp_map_create(env->sev.rmp_base, env->sev.rmp_end,
                           env->sev.rmp_cfg);
        m->next = rmp_maps;
        rmp_maps = m;
    }
    qatomic_store_release(&rmp_map, m);
    qemu_rec_mutex_unlock(&rmp_mutex);
    return m;
}

/* Quadword 0 of the page's entry, or 0 (hypervisor-owned) if not covered. */
static inline uint64_t rmp_lo(RmpMap *m, uint64_t pfn)
{
    if (unlikely(pfn >= m->npages)) {
        return 0;
    }
    return le64_to_cpu(qatomic_read(rmp_entry_at(m, pfn)));
}

static inline uint32_t rmp_asid(uint64_t lo)
{
    return (lo & RMP_ASID_MASK) >> RMP_ASID_SHIFT;
}

static void rmp_unpack(SnpRmpEntry *e, uint64_t lo, uint64_t hi)
{
    e->assigned = lo & RMP_ASSIGNED;
    e->size_2m = lo & RMP_SIZE_2M;
    e->immutable = lo & RMP_IMMUTABLE;
    e->subpage_count = (lo & RMP_SUBPAGES_MASK) >> RMP_SUBPAGES_SHIFT;
    e->gpa = lo & RMP_GPA_MASK;
    e->asid = rmp_asid(lo);
    e->vmsa = lo & RMP_VMSA;
    e->validated = lo & RMP_VALIDATED;
    e->lock = lo & RMP_LOCK;
    for (int i = 0; i < 4; i++) {
        e->perm[i] = extract64(hi, i * 8, 8);
    }
    e->hi_rest = hi & ~0xffffffffULL;
}

static void rmp_pack(const SnpRmpEntry *e, uint64_t *lo, uint64_t *hi)
{
    *lo = (e->assigned ? RMP_ASSIGNED : 0) |
          (e->size_2m ? RMP_SIZE_2M : 0) |
          (e->immutable ? RMP_IMMUTABLE : 0) |
          (((uint64_t)e->subpage_count << RMP_SUBPAGES_SHIFT) &
           RMP_SUBPAGES_MASK) |
          (e->gpa & RMP_GPA_MASK) |
          (((uint64_t)e->asid << RMP_ASID_SHIFT) & RMP_ASID_MASK) |
          (e->vmsa ? RMP_VMSA : 0) |
          (e->validated ? RMP_VALIDATED : 0) |
          (e->lock ? RMP_LOCK : 0);
    *hi = e->hi_rest & ~0xffffffffULL;
    for (int i = 0; i < 4; i++) {
        *hi |= (uint64_t)e->perm[i] << (i * 8);
    }
}

static bool rmp_read_pfn(RmpMap *m, uint64_t pfn, SnpRmpEntry *e)
{
    if (pfn >= m->npages) {
        memset(e, 0, sizeof(*e));
        return false;
    }
    rmp_unpack(e, rmp_lo(m, pfn),
               le64_to_cpu(qatomic_read(rmp_entry_at(m, pfn) + 1)));
    return true;
}

/*
 * Readers take no lock: they see either the old or the new quadword 0, and
 * whoever changes an entry drops the cached translations afterwards.
 */
static void rmp_store(RmpMap *m, uint64_t pfn, uint64_t lo, uint64_t hi)
{
    uint64_t *entry = rmp_entry_at(m, pfn);

    qatomic_set(&entry[1], cpu_to_le64(hi));
    qatomic_store_release(&entry[0], cpu_to_le64(lo));
    rmp_entry_dirty(m, pfn);
}

/*
 * Write one entry. A 2M region's first entry counts how many of the 511
 * others are assigned; that count is kept here, so the caller's
 * subpage_count means nothing. Called with the RMP lock held.
 */
static void rmp_write_pfn(RmpMap *m, uint64_t pfn, const SnpRmpEntry *e)
{
    uint64_t head = pfn & ~PFN_IN_2M_MASK;
    uint64_t old, lo, hi;

    if (pfn >= m->npages) {
        return;
    }
    old = rmp_lo(m, pfn);
    rmp_pack(e, &lo, &hi);
    lo = (lo & ~RMP_SUBPAGES_MASK) | (old & RMP_SUBPAGES_MASK);
    rmp_store(m, pfn, lo, hi);

    if (pfn != head && ((old ^ lo) & RMP_ASSIGNED)) {
        uint64_t head_lo = rmp_lo(m, head);
        uint64_t n = (head_lo & RMP_SUBPAGES_MASK) >> RMP_SUBPAGES_SHIFT;

        n += lo & RMP_ASSIGNED ? 1 : -1;
        head_lo = (head_lo & ~RMP_SUBPAGES_MASK) |
                  ((n << RMP_SUBPAGES_SHIFT) & RMP_SUBPAGES_MASK);
        qatomic_set(rmp_entry_at(m, head), cpu_to_le64(head_lo));
        rmp_entry_dirty(m, head);
    }
}

bool snp_rmp_read(CPUX86State *env, hwaddr spa, SnpRmpEntry *e)
{
    return rmp_read_pfn(rmp_get_map(env), spa >> TARGET_PAGE_BITS, e);
}

bool snp_rmp_lookup(CPUX86State *env, hwaddr spa, SnpRmpEntry *e)
{
    RmpMap *m = rmp_get_map(env);
    uint64_t pfn = spa >> TARGET_PAGE_BITS;
    uint64_t head = pfn & ~PFN_IN_2M_MASK;

    if (pfn < m->npages && (rmp_lo(m, head) & RMP_SIZE_2M)) {
        return rmp_read_pfn(m, head, e);
    }
    return rmp_read_pfn(m, pfn, e);
}

void snp_rmp_write(CPUX86State *env, hwaddr spa, const SnpRmpEntry *e)
{
    trace_snp_rmp_write(spa, e->gpa, e->asid, e->assigned, e->size_2m,
                        e->immutable, e->validated, e->vmsa);
    qemu_rec_mutex_lock(&rmp_mutex);
    rmp_write_pfn(rmp_get_map(env), spa >> TARGET_PAGE_BITS, e);
    qemu_rec_mutex_unlock(&rmp_mutex);
}

void snp_rmp_lock(void)
{
    qemu_rec_mutex_lock(&rmp_mutex);
}

void snp_rmp_unlock(void)
{
    qemu_rec_mutex_unlock(&rmp_mutex);
}

void snp_rmp_flush_tlbs(CPUX86State *env)
{
    /*
     * On a vCPU thread (an instruction, or a write to the PSP's mailbox) the
     * flush is complete on all CPUs before that CPU starts its next
     * translation block. Elsewhere it is merely queued.
     */
    CPUState *cs = current_cpu ? current_cpu : env_cpu(env);

    tlb_flush_all_cpus_synced(cs);
}

/*
 * Which translations have to go when an entry changes? The processor's
 * broadcast is precise; a flush of whole TLBs for each page of a guest would be
 * most of what the machine does.
 *
 * Each page has a mark of the translations made since its entry changed last:
 * the CPUs that have made one, and at which virtual address. Nearly always it
 * is one address: a page of the host is used by its kernel's map of all
 * memory, one of a guest by the guest's. Then that entry of the TLB goes.
 * Otherwise the TLB is searched for the page.
 *
 * A CPU that makes a translation marks the page, then reads the entry; who
 * changes the entry writes it, then reads the mark. Either the former sees the
 * new entry or the latter sees the mark. A mark may outlive the translation.
 */
#define MARK_CPUS               MAKE_64BIT_MASK(0, 16)
#define MARK_CPU_LAST           15      /* for this CPU and all behind it */
#define MARK_VPN_SHIFT          16
#define MARK_VPN                MAKE_64BIT_MASK(MARK_VPN_SHIFT, 45)
#define MARK_CODE               (1ULL << 62)
#define MARK_SEVERAL            (1ULL << 63)    /* virtual addresses */

/* What depends on the RMP: all but MMU_PHYS_IDX and MMU_NESTED_IDX */
#define RMP_MMU_INDEXES \
    (MAKE_64BIT_MASK(0, MMU_PHYS_IDX) | \
     MAKE_64BIT_MASK(MMU_GUEST_IDX, MMU_PHYS_IDX))

static uint16_t cpu_mask(CPUState *cs)
{
    return 1 << MIN(cs->cpu_index, MARK_CPU_LAST);
}

static vaddr mark_va(uint64_t mark)
{
    return sextract64(mark, MARK_VPN_SHIFT, 45) << TARGET_PAGE_BITS;
}

static uint64_t mark_merge(uint64_t old, uint64_t mark)
{
    if (!old) {
        return mark;
    }
    if ((old ^ mark) & MARK_VPN) {
        mark = (mark & ~MARK_VPN) | MARK_SEVERAL;
    }
    return old | mark;
}

static void mark_cached(CPUX86State *env, RmpMap *m, uint64_t pfn,
                        const SnpCheck *c)
{
    vaddr va = c->va & TARGET_PAGE_MASK;
    uint64_t mark = cpu_mask(env_cpu(env)) |
                    ((va >> TARGET_PAGE_BITS << MARK_VPN_SHIFT) & MARK_VPN) |
                    (c->prot & PAGE_EXEC ? MARK_CODE : 0);
    uint64_t old = qatomic_read(&m->cached[pfn]), new;

    if (mark_va(mark) != va) {
        mark |= MARK_SEVERAL;
    }
    while ((new = mark_merge(old, mark)) != old) {
        uint64_t seen = qatomic_cmpxchg(&m->cached[pfn], old, new);

        if (seen == old) {
            break;
        }
        old = seen;
    }
    smp_mb();                   /* pairs with the one in flush_after() */
}

typedef struct RmpFlush {
    uint64_t mark;
    uint64_t pfn;
    uint64_t npages;            /* 1, or those of a 2M region */
} RmpFlush;

static void flush_marked_here(CPUState *cs, const RmpFlush *f)
{
    bool code = f->mark & MARK_CODE;

    if (f->mark & MARK_SEVERAL) {
        /* The page, or what stands for its ciphertext; whatever A20 does */
        hwaddr mask = (f->npages > 1 ? ~(hwaddr)0x1fffff : TARGET_PAGE_MASK) &
                      ~(SNP_SCRAMBLED_BASE | 1 << 20);

        tlb_flush_phys_by_mmuidx(cs, (f->pfn << TARGET_PAGE_BITS) & mask, mask,
                                 RMP_MMU_INDEXES, code);
    } else {
        tlb_flush_subpage_by_mmuidx(cs, mark_va(f->mark), RMP_MMU_INDEXES,
                                    code);
    }
}

static void flush_marked_async(CPUState *cs, run_on_cpu_data data)
{
    RmpFlush *f = data.host_ptr;

    flush_marked_here(cs, f);
    g_free(f);
}

/* On all CPUs that the mark says, complete before the next instruction here */
static void flush_marked(CPUX86State *env, const RmpFlush *f)
{
    CPUState *self = env_cpu(env), *cs;
    bool others = false;

    trace_snp_rmp_flush(self->cpu_index, f->pfn << TARGET_PAGE_BITS, f->npages,
                        f->mark & MARK_CPUS, mark_va(f->mark),
                        !!(f->mark & MARK_SEVERAL));
    CPU_FOREACH(cs) {
        if (cs != self && (f->mark & cpu_mask(cs))) {
            async_run_on_cpu(cs, flush_marked_async,
                             RUN_ON_CPU_HOST_PTR(g_memdup2(f, sizeof(*f))));
            others = true;
        }
    }
    if (others) {
        /* When no CPU runs: all have done theirs before they run again. */
        async_safe_run_on_cpu(self, flush_marked_async,
                              RUN_ON_CPU_HOST_PTR(g_memdup2(f, sizeof(*f))));
    } else if (f->mark & cpu_mask(self)) {
        flush_marked_here(self, f);
    }
}

/*
 * Entries of @npages pages have been changed, or of all that a 2M mapping of
 * them depends on. On a vCPU thread, without the lock.
 */
static void flush_after(CPUX86State *env, RmpMap *m, uint64_t pfn,
                        uint64_t npages)
{
    RmpFlush f = { .pfn = pfn, .npages = npages };

    smp_mb();                   /* entries before marks: see mark_cached() */
    for (uint64_t i = 0; i < npages; i++) {
        if (qatomic_read(&m->cached[pfn + i])) {
            f.mark |= qatomic_xchg(&m->cached[pfn + i], 0);
        }
    }
    if (f.mark) {
        if (npages > 1) {
            f.mark |= MARK_SEVERAL;
        }
        flush_marked(env, &f);
    }
}

/* The same for the 2M region of @head */
static void flush_after_2m(CPUX86State *env, RmpMap *m, uint64_t head)
{
    flush_after(env, m, head, MIN(PFN_IN_2M_MASK + 1, m->npages - head));
}

/*
 * VMRUN has put a page in use: what other CPUs have cached may allow them to
 * write there. As for flush_after(), a CPU that makes a translation marks the
 * page, then looks whether it is in use. Its own translations stay, as VMRUN's CPU
 * is in guest mode meanwhile.
 */
static void flush_in_use(CPUX86State *env, RmpMap *m, uint64_t pfn)
{
    uint64_t self = cpu_mask(env_cpu(env)) & ~(1 << MARK_CPU_LAST);
    RmpFlush f = { .pfn = pfn, .npages = 1 };
    uint64_t old, new;

    smp_mb();                   /* in_use before marks: see mark_cached() */
    old = qatomic_read(&m->cached[pfn]);
    do {
        if (!(old & MARK_CPUS & ~self)) {
            return;
        }
        f.mark = old;
        new = old & self ? old & ~(MARK_CPUS & ~self) : 0;
        old = qatomic_cmpxchg(&m->cached[pfn], f.mark, new);
    } while (old != f.mark);
    f.mark &= ~self;
    flush_marked(env, &f);
}

static RmpUser *rmp_user(int cpu_index)
{
    if (rmp_users->len <= cpu_index) {
        g_array_set_size(rmp_users, cpu_index + 1);
    }
    return &g_array_index(rmp_users, RmpUser, cpu_index);
}

/* With the lock held. */
static void count_in_use(RmpMap *m, uint64_t pfn, int change)
{
    if (pfn < m->npages) {
        qatomic_set(&m->in_use[pfn], m->in_use[pfn] + change);
    }
}

void snp_page_set_in_use(CPUX86State *env, hwaddr spa, bool in_use)
{
    RmpMap *m = rmp_get_map(env);
    uint64_t pfn = spa >> TARGET_PAGE_BITS;
    RmpUser *user;

    qemu_rec_mutex_lock(&rmp_mutex);
    user = rmp_user(env_cpu(env)->cpu_index);
    user->map = m;
    for (int i = 0; i < ARRAY_SIZE(user->pages); i++) {
        if (user->pages[i] == (in_use ? 0 : pfn + 1)) {
            user->pages[i] = in_use ? pfn + 1 : 0;
            count_in_use(m, pfn, in_use ? 1 : -1);
            break;
        }
    }
    qemu_rec_mutex_unlock(&rmp_mutex);
    if (in_use && pfn < m->npages && !snp_in_use_write_allowed(env)) {
        flush_in_use(env, m, pfn);
    }
}

static bool in_use_write_refused(CPUX86State *env, RmpMap *m, uint64_t pfn)
{
    return unlikely(qatomic_read(&m->in_use[pfn])) &&
           !snp_in_use_write_allowed(env);
}

bool snp_in_use_write_refused(CPUX86State *env, hwaddr spa)
{
    RmpMap *m = rmp_get_map(env);
    uint64_t pfn = spa >> TARGET_PAGE_BITS;

    return pfn < m->npages && in_use_write_refused(env, m, pfn);
}

bool snp_page_in_use_by(CPUState *cs, hwaddr spa)
{
    bool used = false;
    RmpUser *user;

    qemu_rec_mutex_lock(&rmp_mutex);
    user = rmp_user(cs->cpu_index);
    for (int i = 0; i < ARRAY_SIZE(user->pages); i++) {
        used |= user->pages[i] == (spa >> TARGET_PAGE_BITS) + 1;
    }
    qemu_rec_mutex_unlock(&rmp_mutex);
    return used;
}

void snp_rmp_cpu_reset(CPUState *cs)
{
    RmpUser *user;

    qemu_rec_mutex_lock(&rmp_mutex);
    user = rmp_user(cs->cpu_index);
    for (int i = 0; i < ARRAY_SIZE(user->pages); i++) {
        if (user->pages[i]) {
            count_in_use(user->map, user->pages[i] - 1, -1);
        }
    }
    *user = (RmpUser){};
    qemu_rec_mutex_unlock(&rmp_mutex);
}

/* 15.36.12: covered, ASID, not immutable, VMSA; always taken as a 4K page. */
bool snp_vmrun_vmsa_ok(CPUX86State *env, hwaddr vmsa, uint32_t asid)
{
    SnpRmpEntry e;

    return snp_rmp_lookup(env, vmsa, &e) && e.assigned && !e.size_2m &&
           e.asid == asid && !e.immutable && e.vmsa;
}

bool snp_hypervisor_owned(CPUX86State *env, hwaddr spa)
{
    SnpRmpEntry e;

    if (!snp_enabled(env)) {
        return true;
    }
    return !snp_rmp_lookup(env, spa, &e) || !e.assigned;
}

/* ---- Access checks ------------------------------------------------------ */

/* VMPL permission masks (15.36.7) */
#define VMPL_R                  (1 << 0)
#define VMPL_W                  (1 << 1)
#define VMPL_XU                 (1 << 2)
#define VMPL_XS                 (1 << 3)
#define VMPL_SSS                (1 << 4)
#define VMPL_ALL                (VMPL_R | VMPL_W | VMPL_XU | VMPL_XS | VMPL_SSS)

static int vmpl_prot(CPUX86State *env, uint8_t perm, bool user)
{
    int prot = 0;

    if (!(env->sev.syscfg & SYSCFG_VMPL_EN)) {
        return PAGE_READ | PAGE_WRITE | PAGE_EXEC;
    }
    if (perm & VMPL_R) {
        prot |= PAGE_READ;
        if (perm & VMPL_W) {
            prot |= PAGE_WRITE;
        }
    } else if (perm & VMPL_W) {
        return 0;               /* illegal */
    }
    if (perm & (user ? VMPL_XU : VMPL_XS)) {
        prot |= PAGE_EXEC;
    }
    return prot;
}

/* All but the VMPL: what RMPADJUST and PVALIDATE need as well. */
static bool rmp_owned_by_guest(CPUX86State *env, RmpMap *m, hwaddr spa,
                               uint64_t gpa, SnpRmpEntry *e)
{
    uint64_t pfn = spa >> TARGET_PAGE_BITS;
    uint64_t head = pfn & ~PFN_IN_2M_MASK;
    uint64_t mask = ~0xfffULL;

    if (pfn >= m->npages) {
        return false;
    }
    if (rmp_lo(m, head) & RMP_SIZE_2M) {
        pfn = head;
        mask = ~0x1fffffULL;
    }
    rmp_read_pfn(m, pfn, e);
    return e->assigned && e->asid && e->asid == env->sev.asid &&
           !e->immutable && (e->gpa & mask) == (gpa & mask);
}

static bool check_private(CPUX86State *env, RmpMap *m, SnpCheck *c)
{
    SnpRmpEntry e;
    int prot;

    if (c->cached && c->spa >> TARGET_PAGE_BITS < m->npages) {
        mark_cached(env, m, c->spa >> TARGET_PAGE_BITS, c);
    }
    c->error = SNP_ERROR_RMP | SNP_ERROR_ENC;
    if (!rmp_owned_by_guest(env, m, c->spa, c->gpa, &e) ||
        e.size_2m != (c->page_size > TARGET_PAGE_SIZE)) {
        return false;
    }
    if (!e.validated) {
        c->not_validated = true;
        return false;
    }
    prot = vmpl_prot(env, e.perm[env->sev.vmpl & 3], c->user);
    if (!(prot & (1 << c->access_type))) {
        c->error |= SNP_ERROR_VMPL;
        return false;
    }
    c->prot &= prot;
    return true;
}

static bool check_shared(CPUX86State *env, RmpMap *m, SnpCheck *c)
{
    uint64_t pfn = c->spa >> TARGET_PAGE_BITS;
    uint64_t head_lo, lo;
    bool foreign;

    if (pfn >= m->npages) {
        return true;            /* hypervisor-owned for ever */
    }
    if (c->cached) {
        mark_cached(env, m, pfn, c);
    }
    head_lo = rmp_lo(m, pfn & ~PFN_IN_2M_MASK);
    lo = head_lo & RMP_SIZE_2M ? head_lo : rmp_lo(m, pfn);

    foreign = lo & RMP_ASSIGNED;
    if (c->page_size > TARGET_PAGE_SIZE) {
        /* 1G mappings are checked as 2M; all sub-pages have to be ours. */
        foreign |= head_lo & (RMP_ASSIGNED | RMP_SUBPAGES_MASK);
    }
    if (likely(!foreign)) {
        if (!c->page_table && in_use_write_refused(env, m, pfn)) {
            if (c->access_type == MMU_DATA_STORE) {
                c->error = SNP_ERROR_RMP;
                return false;
            }
            c->prot &= ~PAGE_WRITE;
        }
        return true;
    }
    if (c->page_table || c->access_type == MMU_DATA_STORE) {
        c->error = SNP_ERROR_RMP;
        return false;
    }
    c->prot &= ~PAGE_WRITE;
    if ((lo & RMP_ASSIGNED) && (lo & RMP_ASID_MASK)) {
        c->spa += SNP_SCRAMBLED_BASE;
    }
    return true;
}

bool snp_check_access(CPUX86State *env, SnpCheck *c)
{
    RmpMap *m = rmp_get_map(env);
    bool ok;

    c->error = 0;
    c->not_validated = false;
    ok = c->private_access ? check_private(env, m, c) : check_shared(env, m, c);
    if (unlikely(!ok)) {
        trace_snp_rmp_fault(c->spa, c->gpa, c->access_type, c->error,
                            c->not_validated);
    }
    return ok;
}

SnpAccess snp_access_private(CPUX86State *env, uint64_t gpa, bool write,
                             hwaddr *spa, uint64_t *exit_info_1)
{
    SnpCheck c = {
        .gpa = gpa & TARGET_PAGE_MASK,
        .access_type = write ? MMU_DATA_STORE : MMU_DATA_LOAD,
        .private_access = true,
    };
    CPUTLBEntryFull *full;
    void *host;
    int flags;

    *exit_info_1 = SNP_ERROR_ENC | SVM_NPTEXIT_GPA;
    if (!(env->hflags2 & HF2_NPT_MASK)) {
        return SNP_ACCESS_NPF;          /* not with a VMCB that VMRUN takes */
    }
    flags = probe_access_full_mmu(env, gpa, 0, c.access_type, MMU_NESTED_IDX,
                                  &host, &full);
    if (flags & TLB_INVALID_MASK) {
        *exit_info_1 |= (uint32_t)env->error_code;
        return SNP_ACCESS_NPF;
    }
    c.page_size = 1ULL << full->lg_page_size;
    c.spa = (full->phys_addr & ~(c.page_size - 1)) | (gpa & (c.page_size - 1));
    *spa = c.spa;
    if (snp_check_access(env, &c)) {
        return SNP_ACCESS_OK;
    }
    if (c.not_validated) {
        return SNP_ACCESS_NOT_VALIDATED;
    }
    *exit_info_1 |= c.error | PG_ERROR_P_MASK | PG_ERROR_U_MASK |
                    (write ? PG_ERROR_W_MASK : 0);
    return SNP_ACCESS_NPF;
}

/* ---- Instructions ------------------------------------------------------- */

/* F2/F3 prefix and ModRM byte after 0F 01 */
enum {
    INSN_RMPREAD   = 0xf2fd,
    INSN_RMPUPDATE = 0xf2fe,
    INSN_PVALIDATE = 0xf2ff,
    INSN_RMPQUERY  = 0xf3fd,
    INSN_RMPADJUST = 0xf3fe,
    INSN_PSMASH    = 0xf3ff,
};

/* Return codes in EAX (APM vol. 3) */
enum {
    SNP_SUCCESS           = 0,
    SNP_FAIL_INPUT        = 1,
    SNP_FAIL_PERMISSION   = 2,
    SNP_FAIL_INUSE        = 3,
    SNP_FAIL_OVERLAP      = 4,      /* RMPUPDATE */
    SNP_FAIL_BADADDR      = 4,      /* PSMASH */
    SNP_FAIL_SIZEMISMATCH = 6,
};

/* RDX of RMPADJUST and RMPQUERY */
#define RMPADJUST_VMPL(rdx)     extract64(rdx, 0, 8)
#define RMPADJUST_PERM(rdx)     extract64(rdx, 8, 8)
#define RMPADJUST_VMSA          (1ULL << 16)
#define RMPADJUST_RESERVED      (~0x1ffffULL)

/* Does a CPU in guest mode use one of @npages pages? With the lock held. */
static bool pages_in_use(uint64_t pfn, uint64_t npages)
{
    for (int cpu = 0; cpu < rmp_users->len; cpu++) {
        RmpUser *user = rmp_user(cpu);

        for (int i = 0; i < ARRAY_SIZE(user->pages); i++) {
            if (user->pages[i] && user->pages[i] - 1 - pfn < npages) {
                return true;
            }
        }
    }
    return false;
}

/* With a reading by which an instruction may find another CPU at work there */
#define BUSY_RATE               8

static bool entry_busy(CPUX86State *env, bool may_be)
{
    uint32_t rate = may_be ? BUSY_RATE : env_archcpu(env)->snp.disturb_rate;

    return unlikely(rate) && snp_disturb_rmp(env, rate);
}

static int rmpupdate_4k(RmpMap *m, uint64_t pfn, SnpRmpEntry *new)
{
    uint64_t head = pfn & ~PFN_IN_2M_MASK;

    if (rmp_lo(m, head) & RMP_SIZE_2M) {
        return SNP_FAIL_OVERLAP;
    }
    if (rmp_lo(m, pfn) & RMP_IMMUTABLE) {
        return SNP_FAIL_PERMISSION;
    }
    if (pages_in_use(pfn, 1)) {
        return SNP_FAIL_INUSE;
    }
    rmp_write_pfn(m, pfn, new);
    return SNP_SUCCESS;
}

static int rmpupdate_2m(RmpMap *m, uint64_t head, SnpRmpEntry *new)
{
    /* The other entries of the region: taken, but the first one counts. */
    SnpRmpEntry rest = { .assigned = new->assigned };
    bool was_2m = rmp_lo(m, head) & RMP_SIZE_2M;

    if (rmp_lo(m, head) & RMP_IMMUTABLE) {
        return SNP_FAIL_PERMISSION;
    }
    for (uint64_t pfn = head; pfn <= (head | PFN_IN_2M_MASK); pfn++) {
        uint64_t lo = rmp_lo(m, pfn);

        if (lo & RMP_IMMUTABLE) {
            return SNP_FAIL_PERMISSION;
        }
        if (!was_2m && (lo & RMP_ASSIGNED)) {
            return SNP_FAIL_OVERLAP;
        }
    }
    if (pages_in_use(head, PFN_IN_2M_MASK + 1)) {
        return SNP_FAIL_INUSE;
    }
    new->size_2m = new->assigned;
    rmp_write_pfn(m, head, new);
    for (uint64_t pfn = head + 1; pfn <= (head | PFN_IN_2M_MASK); pfn++) {
        rmp_write_pfn(m, pfn, &rest);
    }
    return SNP_SUCCESS;
}

/* RAX: system physical address; RCX: address of the new state, 16 bytes */
static int do_rmpupdate(CPUX86State *env, uintptr_t ra)
{
    RmpMap *m = rmp_get_map(env);
    uint64_t pfn = env->regs[R_EAX] >> TARGET_PAGE_BITS;
    uint64_t gpa = cpu_ldq_data_ra(env, env->regs[R_ECX], ra);
    uint64_t state = cpu_ldq_data_ra(env, env->regs[R_ECX] + 8, ra);
    SnpRmpEntry new = {
        .gpa = gpa & RMP_GPA_MASK,
        .assigned = extract64(state, 0, 1),
        .immutable = extract64(state, 16, 1),
        .asid = extract64(state, 32, 32),
    };
    bool size_2m = extract64(state, 8, 1);
    bool size_2m_mapped = false;
    uint64_t head = pfn & ~PFN_IN_2M_MASK;
    int ret;

    if ((state & 0xfffefefeULL) || new.asid > SEV_MAX_ASID ||
        (gpa & ~RMP_GPA_MASK) || pfn >= m->npages ||
        (!new.assigned && (new.immutable || new.asid)) ||
        (size_2m && ((pfn & PFN_IN_2M_MASK) || (gpa & 0x1fffff) ||
                     (pfn | PFN_IN_2M_MASK) >= m->npages))) {
        ret = SNP_FAIL_INPUT;
    } else {
        if (entry_busy(env, rmpupdate_may_be_busy(env))) {
            ret = SNP_FAIL_OVERLAP;
            goto out;
        }
        if (new.assigned) {
            new.perm[0] = VMPL_ALL;     /* the others none (15.36.7) */
        }
        snp_rmp_lock();
        if (!(rmp_lo(m, head) & (RMP_ASSIGNED | RMP_SUBPAGES_MASK))) {
            /* The region's first: no 2M mapping may be written through. */
            size_2m_mapped = true;
        }
        ret = size_2m ? rmpupdate_2m(m, pfn, &new) : rmpupdate_4k(m, pfn, &new);
        snp_rmp_unlock();
        if (ret == SNP_SUCCESS) {
            if (size_2m || size_2m_mapped) {
                flush_after_2m(env, m, head);
            } else {
                flush_after(env, m, pfn, 1);
            }
        }
    }
out:
    trace_snp_rmpupdate(env->regs[R_EAX], gpa, new.asid, new.assigned, size_2m,
                        new.immutable, ret);
    return ret;
}

static int psmash(RmpMap *m, uint64_t head)
{
    SnpRmpEntry e;

    if ((head & PFN_IN_2M_MASK)) {
        return SNP_FAIL_INPUT;
    }
    if ((head | PFN_IN_2M_MASK) >= m->npages) {
        return SNP_FAIL_BADADDR;
    }
    rmp_read_pfn(m, head, &e);
    if (!e.assigned || !e.size_2m) {
        return SNP_FAIL_INPUT;
    }
    if (e.immutable) {
        return SNP_FAIL_PERMISSION;
    }
    if (pages_in_use(head, PFN_IN_2M_MASK + 1)) {
        return SNP_FAIL_INUSE;
    }
    /* Backwards: the first entry counts for all until it is written. */
    e.size_2m = false;
    e.vmsa = false;
    for (int i = PFN_IN_2M_MASK; i >= 0; i--) {
        SnpRmpEntry sub = e;

        sub.gpa = e.gpa + ((uint64_t)i << TARGET_PAGE_BITS);
        rmp_write_pfn(m, head + i, &sub);
    }
    return SNP_SUCCESS;
}

/* RAX: system physical address of a 2M page */
static int do_psmash(CPUX86State *env)
{
    RmpMap *m = rmp_get_map(env);
    uint64_t head = env->regs[R_EAX] >> TARGET_PAGE_BITS;
    int ret;

    if (entry_busy(env, psmash_may_be_busy(env))) {
        ret = SNP_FAIL_INUSE;
        goto out;
    }
    snp_rmp_lock();
    ret = psmash(m, head);
    snp_rmp_unlock();
    if (ret == SNP_SUCCESS) {
        /* The guest's, by nested 2M mappings. */
        flush_after_2m(env, m, head);
    }
out:
    trace_snp_psmash(env->regs[R_EAX], ret);
    return ret;
}

/* RAX: system physical address; RCX: where 16 bytes of RMP state go */
static int do_rmpread(CPUX86State *env, uintptr_t ra)
{
    RmpMap *m = rmp_get_map(env);
    uint64_t pfn = env->regs[R_EAX] >> TARGET_PAGE_BITS;
    uint64_t head_lo, state;
    SnpRmpEntry e;

    if (!rmp_read_pfn(m, pfn, &e)) {
        return SNP_FAIL_INPUT;
    }
    head_lo = rmp_lo(m, pfn & ~PFN_IN_2M_MASK);
    state = (uint64_t)e.asid << 32 | (e.immutable ? 1 << 16 : 0) |
            (e.size_2m ? 1 << 8 : 0) | (e.assigned ? 1 : 0);
    if (head_lo & (RMP_ASSIGNED | RMP_SUBPAGES_MASK)) {
        state |= 1 << 9;        /* something in the 2M region is assigned */
    }
    cpu_stq_data_ra(env, env->regs[R_ECX], e.gpa, ra);
    cpu_stq_data_ra(env, env->regs[R_ECX] + 8, state, ra);
    return SNP_SUCCESS;
}

/*
 * Find the RMP entry for a guest's PVALIDATE, RMPADJUST or RMPQUERY. Returns
 * SNP_SUCCESS with the lock held, *@pfn and *@e set; or a return code,
 * without; or raises a fault.
 */
static int guest_entry(CPUX86State *env, RmpMap *m, vaddr va, bool size_2m,
                       SnpTranslation *t, uint64_t *pfn, SnpRmpEntry *e,
                       uintptr_t ra)
{
    uint64_t error = PG_ERROR_P_MASK | PG_ERROR_U_MASK | SNP_ERROR_RMP |
                     SNP_ERROR_ENC;
    int ret = SNP_SUCCESS;

    snp_translate(env, va, MMU_DATA_LOAD, t, ra);

    snp_rmp_lock();
    if (!rmp_owned_by_guest(env, m, t->spa, t->gpa, e)) {
        ret = -1;
    } else if (size_2m) {
        if (t->page_size == TARGET_PAGE_SIZE || !e->size_2m) {
            ret = SNP_FAIL_SIZEMISMATCH;
        }
    } else if (e->size_2m) {
        error |= SNP_ERROR_SIZEM;       /* the host has to PSMASH */
        ret = -1;
    } else if (t->page_size != TARGET_PAGE_SIZE) {
        ret = -1;
    }
    if (ret == SNP_SUCCESS) {
        *pfn = t->spa >> TARGET_PAGE_BITS;
        if (size_2m) {
            *pfn &= ~PFN_IN_2M_MASK;
        }
        return ret;
    }
    snp_rmp_unlock();
    if (ret < 0) {
        trace_snp_rmp_fault(t->spa, t->gpa, MMU_DATA_LOAD, error, false);
        snp_raise_npf(env, t->gpa, error, ra);
    }
    return ret;
}

/*
 * rAX: virtual address; ECX[0]: 2M; EDX[0]: validate, or rescind. Other bits
 * of these are ignored: Linux has bools there, of which compilers set eight.
 */
static int do_pvalidate(CPUX86State *env, vaddr va, bool *unchanged,
                        uintptr_t ra)
{
    RmpMap *m = rmp_get_map(env);
    bool size = env->regs[R_ECX] & 1, validate = env->regs[R_EDX] & 1;
    SnpTranslation t = {};
    SnpRmpEntry e;
    uint64_t pfn;
    int ret;

    va &= TARGET_PAGE_MASK;
    if (size && (va & 0x1fffff)) {
        return SNP_FAIL_INPUT;
    }
    ret = guest_entry(env, m, va, size, &t, &pfn, &e, ra);
    if (ret == SNP_SUCCESS) {
        *unchanged = e.validated == validate;
        if (!*unchanged) {
            e.validated = validate;
            rmp_write_pfn(m, pfn, &e);
        }
        snp_rmp_unlock();
        if (!*unchanged && !validate) {
            /* The other way there is nothing that could be cached. */
            flush_after(env, m, pfn, size ? PFN_IN_2M_MASK + 1 : 1);
        }
    }
    trace_snp_pvalidate(va, t.gpa, t.spa, size, validate, ret, *unchanged);
    return ret;
}

/* RAX: virtual address; RCX[0]: 2M; RDX: VMPL, its rights, VMSA flag */
static int do_rmpadjust(CPUX86State *env, uintptr_t ra)
{
    RmpMap *m = rmp_get_map(env);
    vaddr va = env->regs[R_EAX] & TARGET_PAGE_MASK;
    uint64_t rdx = env->regs[R_EDX];
    bool size = env->regs[R_ECX] & 1;
    uint32_t vmpl = RMPADJUST_VMPL(rdx);
    uint8_t perm = RMPADJUST_PERM(rdx), lost;
    SnpTranslation t = {};
    bool vmsa_changed;
    SnpRmpEntry e;
    uint64_t pfn;
    int ret;

    if ((size && (va & 0x1fffff)) || vmpl >= SNP_NR_VMPLS ||
        (rdx & RMPADJUST_RESERVED) || (perm & ~VMPL_ALL) ||
        (size && (rdx & RMPADJUST_VMSA))) {
        return SNP_FAIL_INPUT;
    }
    if (vmpl <= env->sev.vmpl ||
        ((rdx & RMPADJUST_VMSA) && env->sev.vmpl)) {
        return SNP_FAIL_PERMISSION;
    }
    ret = guest_entry(env, m, va, size, &t, &pfn, &e, ra);
    if (ret != SNP_SUCCESS) {
        goto out;
    }
    if (!e.validated) {
        snp_rmp_unlock();
        env->cr[2] = va;
        sev_es_raise_vc(env, SVM_EXIT_NOT_VALIDATED, PG_ERROR_P_MASK, va, ra);
    }
    vmsa_changed = env->sev.vmpl == 0 && e.vmsa != !!(rdx & RMPADJUST_VMSA);
    if (perm & ~e.perm[env->sev.vmpl & 3]) {
        ret = SNP_FAIL_PERMISSION;
    } else if (vmsa_changed && pages_in_use(pfn, 1)) {
        ret = SNP_FAIL_INUSE;
    } else {
        lost = e.perm[vmpl] & ~perm;
        e.perm[vmpl] = perm;
        e.vmsa ^= vmsa_changed;
        rmp_write_pfn(m, pfn, &e);
        snp_rmp_unlock();
        if (lost) {
            flush_after(env, m, pfn, size ? PFN_IN_2M_MASK + 1 : 1);
        }
        goto out;
    }
    snp_rmp_unlock();
out:
    trace_snp_rmpadjust(va, t.spa, rdx, size, ret);
    return ret;
}

/* RAX: virtual address; RDX[7:0]: VMPL. Out: RCX page size, RDX[16:8] */
static int do_rmpquery(CPUX86State *env, uintptr_t ra)
{
    RmpMap *m = rmp_get_map(env);
    vaddr va = env->regs[R_EAX] & TARGET_PAGE_MASK;
    uint64_t rdx = env->regs[R_EDX];
    uint32_t vmpl = RMPADJUST_VMPL(rdx);
    SnpTranslation t;
    SnpRmpEntry e;

    if (vmpl >= SNP_NR_VMPLS) {
        return SNP_FAIL_INPUT;
    }
    if (vmpl <= env->sev.vmpl) {
        return SNP_FAIL_PERMISSION;
    }
    snp_translate(env, va, MMU_DATA_LOAD, &t, ra);
    if (!rmp_owned_by_guest(env, m, t.spa, t.gpa, &e)) {
        snp_raise_npf(env, t.gpa, PG_ERROR_P_MASK | PG_ERROR_U_MASK |
                      SNP_ERROR_RMP | SNP_ERROR_ENC, ra);
    }
    if (!e.validated) {
        env->cr[2] = va;
        sev_es_raise_vc(env, SVM_EXIT_NOT_VALIDATED, PG_ERROR_P_MASK, va, ra);
    }
    env->regs[R_ECX] = e.size_2m;
    env->regs[R_EDX] = vmpl | (uint64_t)e.perm[vmpl] << 8 |
                       (e.vmsa ? RMPADJUST_VMSA : 0);
    return SNP_SUCCESS;
}

void helper_snp_insn(CPUX86State *env, uint32_t insn, uint32_t aflag)
{
    uintptr_t ra = GETPC();
    bool code64 = env->hflags & HF_CS64_MASK;
    bool unchanged = false;
    vaddr va;
    int ret;

    switch (snp_host(env) ? insn : 0) {
    case INSN_RMPREAD:
        if (!snp_turin(env)) {
            goto illegal;
        }
        /* fall through */
    case INSN_RMPUPDATE:
    case INSN_PSMASH:
        /* For the host, in 64-bit mode, with SNP enabled. */
        if (!code64 || (env->hflags & HF_GUEST_MASK) || !snp_enabled(env)) {
            goto illegal;
        }
        break;
    case INSN_RMPQUERY:
        if (!snp_turin(env)) {
            goto illegal;
        }
        /* fall through */
    case INSN_RMPADJUST:
        if (!code64 || !snp_guest(env)) {
            goto illegal;
        }
        break;
    case INSN_PVALIDATE:
        if (!snp_guest(env)) {
            goto illegal;
        }
        break;
    default:
        goto illegal;
    }
    if ((env->hflags & HF_CPL_MASK) ||
        (insn == INSN_PVALIDATE && env->sev.vmpl)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }

    switch (insn) {
    case INSN_RMPUPDATE:
        ret = do_rmpupdate(env, ra);
        break;
    case INSN_PSMASH:
        ret = do_psmash(env);
        break;
    case INSN_RMPREAD:
        ret = do_rmpread(env, ra);
        break;
    case INSN_RMPADJUST:
        ret = do_rmpadjust(env, ra);
        break;
    case INSN_RMPQUERY:
        ret = do_rmpquery(env, ra);
        break;
    default:
        va = env->regs[R_EAX];
        if (aflag != MO_64) {
            va = (uint32_t)va;
        }
        ret = do_pvalidate(env, va, &unchanged, ra);
        break;
    }

    env->regs[R_EAX] = (uint32_t)ret;
    /* OF, SF, ZF, AF and PF by the return code; CF: PVALIDATE did nothing. */
    CC_SRC = (ret ? 0 : CC_Z) | (ctpop8(ret) & 1 ? 0 : CC_P) |
             (unchanged ? CC_C : 0);
    return;

illegal:
    raise_exception_ra(env, EXCP06_ILLOP, ra);
}

/* ---- What others see of a guest's memory -------------------------------- */

static uint64_t scramble_mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ULL;
    x = (x ^ (x >> 29)) * 0x9e3779b97f4a7c15ULL;
    return x ^ (x >> 32);
}

/*
 * Stands in for ciphertext: the same plaintext at the same address gives the
 * same bytes, any change within 16 bytes changes all 16.
 */
static MemTxResult scrambled_read(void *opaque, hwaddr addr, uint64_t *data,
                                  unsigned size, MemTxAttrs attrs)
{
    *data = 0;
    for (unsigned i = 0; i < size; i++) {
        hwaddr a = addr + i, block = a & ~15ULL;
        uint64_t lo, hi;
        MemTxResult r;

        lo = address_space_ldq_le(&address_space_memory, block, attrs, &r);
        if (r != MEMTX_OK) {
            return r;
        }
        hi = address_space_ldq_le(&address_space_memory, block + 8, attrs, &r);
        if (r != MEMTX_OK) {
            return r;
        }
        lo = scramble_mix(lo ^ scramble_mix(hi ^ scramble_mix(block + 1)));
        hi = scramble_mix(hi ^ lo);
        *data |= extract64(a & 8 ? hi : lo, (a & 7) * 8, 8) << (i * 8);
    }
    return MEMTX_OK;
}

static MemTxResult scrambled_write(void *opaque, hwaddr addr, uint64_t data,
                                   unsigned size, MemTxAttrs attrs)
{
    return MEMTX_ACCESS_ERROR;  /* no translation for writing leads here */
}

static const MemoryRegionOps scrambled_ops = {
    .read_with_attrs = scrambled_read,
    .write_with_attrs = scrambled_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

void snp_add_scrambled_region(X86CPU *cpu, MemoryRegion *root)
{
    MemoryRegion *mr = g_new0(MemoryRegion, 1);

    memory_region_init_io(mr, OBJECT(cpu), &scrambled_ops, NULL,
                          "snp-scrambled", SNP_SCRAMBLED_SIZE);
    memory_region_add_subregion_overlap(root, SNP_SCRAMBLED_BASE, mr, 1);
}

/* ---- MSRs -------------------------------------------------------------- */

/* SYSCFG bits that software may set (APM vol. 2, 3.2.8); 22:18 are MTRR's. */
#define SYSCFG_WRITABLE         (MAKE_64BIT_MASK(18, 5) | \
                                 SYSCFG_MEM_ENCRYPTION_MOD_EN | \
                                 SYSCFG_SNP_EN | SYSCFG_VMPL_EN)

bool snp_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case MSR_AMD64_SYSCFG:
        *val = env->sev.syscfg;
        return true;
    case MSR_K7_HWCR:
        *val = env->sev.hwcr;
        return true;
    case MSR_AMD64_VM_CR:
        *val = env->sev.vm_cr;
        return true;
    case MSR_AMD64_RMP_BASE:
        *val = env->sev.rmp_base;
        return true;
    case MSR_AMD64_RMP_END:
        /* A segmented RMP has none; here it is the end of the last segment. */
        *val = env->sev.rmp_cfg & RMP_CFG_SEGMENTED ? 0 : env->sev.rmp_end;
        return true;
    case MSR_AMD64_RMP_CFG:
        *val = env->sev.rmp_cfg;
        return snp_turin(env);
    default:
        return false;
    }
}

static SnpMsrWrite write_vm_cr(CPUX86State *env, uint64_t val)
{
    const uint64_t locked = VM_CR_LOCK | VM_CR_SVMDIS;

    if ((val & ~VM_CR_WRITABLE) ||
        ((val & VM_CR_SVMDIS) && (env->efer & MSR_EFER_SVME))) {
        return SNP_MSR_GP;
    }
    if (env->sev.vm_cr & VM_CR_LOCK) {
        val = (val & ~locked) | (env->sev.vm_cr & locked);
    }
    env->sev.vm_cr = val;
    return SNP_MSR_DONE;
}

SnpMsrWrite snp_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    switch (msr) {
    case MSR_AMD64_SYSCFG:
        trace_snp_wrmsr(env_cpu(env)->cpu_index, msr, val);
        if (snp_enabled(env)) {
            return SNP_MSR_DONE;        /* 15.36.2: ignored from now on */
        }
        if (val & ~SYSCFG_WRITABLE) {
            return SNP_MSR_GP;
        }
        if (val != env->sev.syscfg) {
            env->sev.syscfg = val;
            /* C-bit and RMP checks are part of cached translations. */
            tlb_flush(env_cpu(env));
        }
        return SNP_MSR_DONE;

    case MSR_K7_HWCR:
        env->sev.hwcr = val | (env->sev.hwcr & HWCR_SMM_LOCK);
        return SNP_MSR_DONE;

    case MSR_AMD64_VM_CR:
        return write_vm_cr(env, val);
    case MSR_EFER:
        /* 15.30.1: SVMDIS makes SVME a bit that must be zero. */
        return (val & MSR_EFER_SVME) && (env->sev.vm_cr & VM_CR_SVMDIS)
               ? SNP_MSR_GP : SNP_MSR_OTHER;

    case MSR_AMD64_RMP_BASE:
    case MSR_AMD64_RMP_END:
        trace_snp_wrmsr(env_cpu(env)->cpu_index, msr, val);
        if (val & ~MAKE_64BIT_MASK(0, SEV_C_BIT_POS)) {
            return SNP_MSR_GP;
        }
        if (snp_enabled(env)) {
            return SNP_MSR_DONE;
        }
        if (msr == MSR_AMD64_RMP_BASE) {
            env->sev.rmp_base = val & ~0x1fffULL;
        } else if (!(env->sev.rmp_cfg & RMP_CFG_SEGMENTED)) {
            env->sev.rmp_end = val | 0x1fff;
        }
        return SNP_MSR_DONE;

    case MSR_AMD64_RMP_CFG:
        if (!snp_turin(env)) {
            return SNP_MSR_OTHER;
        }
        if (val & ~(uint64_t)RMP_CFG_WRITABLE) {
            return SNP_MSR_GP;
        }
        if (!snp_enabled(env)) {
            /* The same on all CPUs by the time that SNP is enabled */
            env->sev.rmp_cfg = val;
            qatomic_set(&rmp_map, NULL);
        }
        return SNP_MSR_DONE;

    /* 15.36.2: the system's memory map is locked. */
    case MSR_MTRRfix64K_00000:
    case MSR_MTRRfix16K_80000:
    case MSR_MTRRfix16K_A0000:
    case MSR_MTRRfix4K_C0000:
    case MSR_MTRRfix4K_C8000:
    case MSR_MTRRfix4K_D0000:
    case MSR_MTRRfix4K_D8000:
    case MSR_MTRRfix4K_E0000:
    case MSR_MTRRfix4K_E8000:
    case MSR_MTRRfix4K_F0000:
    case MSR_MTRRfix4K_F8000:
    case MSR_AMD64_IORR_BASE0:
    case MSR_AMD64_IORR_MASK0:
    case MSR_AMD64_IORR_BASE1:
    case MSR_AMD64_IORR_MASK1:
    case MSR_AMD64_TOP_MEM:
    case MSR_AMD64_TOP_MEM2:
    case MSR_AMD64_SMM_KEY:
        return snp_enabled(env) ? SNP_MSR_GP : SNP_MSR_OTHER;

    case MSR_VM_HSAVE_PA:
        /* 15.36.12; the caller checks the address itself. */
        return snp_hypervisor_owned(env, val) ? SNP_MSR_OTHER : SNP_MSR_GP;

    default:
        return SNP_MSR_OTHER;
    }
}
