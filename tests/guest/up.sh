# What jobs on the emulated host share that need a guest which runs. Sourced by them.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh

# guest ARGUMENT...: start one (image/run-guest), whose process is $qemu, and wait until it is up.
guest()
{
	sh /vmm/run "$@" >/tmp/guest 2>&1 </dev/null &
	qemu=$!
	for i in $(seq 200); do
		! grep -q "the guest is up" /tmp/guest || break
		sleep 1
	done
	grep "the guest is up" /tmp/guest || { cat /tmp/guest; exit 1; }
}
