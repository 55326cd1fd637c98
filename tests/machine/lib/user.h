/*
 * Machine tests: code at CPL 3
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef USER_H
#define USER_H

#include "machine.h"

/* The bare machine only: its memory may be used at CPL 3. A guest's may be anyway. */
void user_map(void);
/*
 * Run @fn at CPL 3, with the memory of the caller. Exceptions go to the same
 * handlers. Loads a GDT and TR that stay.
 */
void user_call(void (*fn)(void));

#endif
