# What jobs on the emulated host share that start QEMU there. Sourced by them.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
bad=0 number=0

# qemu ARGUMENT...: the VMM.
qemu()
{
	timeout -s KILL 120 /vmm/lib/ld-linux-x86-64.so.2 --library-path /vmm/lib /vmm/qemu -L /vmm/rom \
		-nodefaults -no-user-config -display none -m 64M "$@"
}

# snp ACCEL MACHINE OBJECT QEMU-ARGUMENT...: the same with an SEV-SNP guest; the first three are options to add.
snp()
{
	accel=$1 machine=$2 object=$3
	shift 3
	qemu -accel "$accel" -machine "q35,smm=off,vmport=off,confidential-guest-support=sev0$machine" \
		-object "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1$object" "$@"
}

# check NAME STATUS: one result; what was said is in /tmp/said.
check()
{
	number=$((number + 1))
	if [ "$2" = 0 ]; then
		echo "ok $number - $1"
	else
		echo "not ok $number - $1"
		sed 's/^/# /' /tmp/said
		bad=1
	fi
}

# said STATUS TEXT: QEMU ended with that status, and said so in one line, with nothing else but warnings and what each
# failure of KVM's ends in.
said()
{
	[ "$status" = "$1" ] && [ "$(grep -cF -- "$2" /tmp/said)" = 1 ] &&
		[ "$(grep -cvF -e "warning: " -e "failed to initialize kvm: " /tmp/said)" = 1 ]
}

# refused NAME TEXT ACCEL MACHINE OBJECT QEMU-ARGUMENT...: QEMU does not start the guest, and TEXT is why.
refused()
{
	name=$1 text=$2
	shift 2
	status=0
	snp "$@" >/tmp/said 2>&1 </dev/null || status=$?
	said 1 "$text"
	check "$name" $?
	grep -F -- "$text" /tmp/said | sed 's/^/# /'
}
