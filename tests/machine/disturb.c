/*
 * Disturbances: exits by INTR without an interrupt, and RMP entries that are busy for a moment,
 * with x-disturb; none without
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "rmp.h"
#include "svm.h"

#define PAGE		0x8000000UL

static struct vcpu v;

static void g_spin(void)
{
	for (int i = 0; i < 20000; i++)
		cpu_relax();
	vmmcall(0);
}

void test_main(void)
{
	bool disturbed = machine_has("x-disturb", "5:4", false);
	u32 exits = 0, busy = 0, wrong = 0;

	apic_id();
	svm_init();
	rmp_clear();
	rmp_enable();

	section("TEST disturb", "x-disturb makes a guest exit, and RMPUPDATE fail, for no other reason.");
	for (int i = 0; i < 300; i++) {
		u64 code;

		svm_set_up(&v, g_spin);
		/* So that INTR could come */
		asm volatile("clgi; sti" : : : "memory");
		while ((code = svm_run(&v)) == EXIT_INTR) {
			exits++;
			asm volatile("clgi" : : : "memory");
		}
		asm volatile("cli" : : : "memory");
		wrong += code != EXIT_VMMCALL;
	}
	for (int i = 0; i < 1000; i++) {
		u32 ret;

		while ((ret = i & 1 ? rmp_release(PAGE, false) : rmp_assign(PAGE, 0, 1, false, false)) == FAIL_OVERLAP)
			busy++;
		wrong += ret != RMP_OK;
	}
	print("# %u exits, RMPUPDATE was busy %u times\n", exits, busy);
	check_eq(!!exits, disturbed, "exits by INTR");
	check_eq(!!busy, disturbed, "busy entries");
	check_eq(wrong, 0, "nothing else");
}
