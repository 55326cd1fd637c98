# Takes the options about the user's own trees and kernels out of the arguments. Sourced by savic, first of all.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154
#
# --linux DIR [--linux-ref REF] [--series] [--config FILE|TARGET], --host-kernel FILE [--host-modules DIR], --qemu DIR
#
# Leaves the other arguments as they are. SAVIC_YOURS (below the repository) is where all that comes of these is
# built, and SAVIC_QEMU the same for QEMU. What is wrong with them is said here, before anything is built.

yours_wrong()
{
	echo "savic: $*" >&2
	exit 2
}

# their_git ARGUMENT...: git in the user's directory, which is only read.
their_git()
{
	GIT_OPTIONAL_LOCKS=0 git -c safe.directory='*' -C "$yours_linux" "$@"
}

# their_makefile: Linux' own, of the commit or the directory.
their_makefile()
{
	if [ -n "$yours_ref" ]; then
		their_git show "$yours_ref:Makefile"
	else
		cat "$yours_linux/Makefile"
	fi 2>/dev/null
}

check_linux()
{
	[ -d "$yours_linux" ] || yours_wrong "--linux: there is no directory '$yours_linux'"
	if [ -z "$yours_ref" ] && [ "$(their_git rev-parse --is-bare-repository 2>/dev/null)" = true ]; then
		yours_ref=HEAD
	fi
	if [ -n "$yours_ref" ]; then
		their_git rev-parse --git-dir >/dev/null 2>&1 || yours_wrong "--linux-ref: '$yours_linux' is not a git tree"
		their_git rev-parse -q --verify "$yours_ref^{commit}" >/dev/null 2>&1 ||
			yours_wrong "--linux-ref: '$yours_linux' has no commit '$yours_ref'"
	fi
	yours_version=$(their_makefile | sed -n '1,/^EXTRAVERSION/s/^\(VERSION\|PATCHLEVEL\) = //p' | paste -sd.)
	case $yours_version in
	[0-9]*.[0-9]*) ;;
	*) yours_wrong "--linux: '$yours_linux'${yours_ref:+ at $yours_ref} is not a source of Linux" ;;
	esac
	case $yours_version in
	[0-5].* | 6.[0-9] | 6.1[0-5]) yours_wrong "--linux: '$yours_linux' is Linux $yours_version, and this takes 6.16 or newer" ;;
	esac
}

# absolute PATH
absolute()
{
	case $1 in
	/*) echo "$1" ;;
	*) echo "$PWD/$1" ;;
	esac
}

# key TEXT PATH: a name for what is built from PATH by these options.
key()
{
	echo "$(basename "$2" | tr -c 'A-Za-z0-9._\n' _)-$(printf %s "$1" | sha256sum | cut -c1-8)"
}

yours_linux='' yours_ref='' yours_series='' yours_config='' yours_kernel='' yours_modules='' yours_qemu=''
left=$#
while [ "$left" -gt 0 ]; do
	left=$((left - 1))
	case $1 in
	--linux | --linux-ref | --config | --host-kernel | --host-modules | --qemu)
		[ "$left" -gt 0 ] || yours_wrong "$1 needs a value"
		left=$((left - 1))
		case $1 in
		--linux) yours_linux=$(absolute "$2") ;;
		--linux-ref) yours_ref=$2 ;;
		--config) yours_config=$2 ;;
		--host-kernel) yours_kernel=$2 ;;
		--host-modules) yours_modules=$(absolute "$2") ;;
		--qemu) yours_qemu=$(absolute "$2") ;;
		esac
		shift 2
		;;
	--series) yours_series=1; shift ;;
	--)
		# What comes after it is not for us.
		while [ "$left" -ge 0 ]; do
			set -- "$@" "$1"
			shift
			left=$((left - 1))
		done
		;;
	*)
		set -- "$@" "$1"
		shift
		;;
	esac
done

if [ -n "$yours_linux" ]; then
	[ -z "$yours_kernel" ] || yours_wrong "--linux and --host-kernel are two hosts: take one of them"
	check_linux
	case $yours_config in
	*/*)
		yours_config=$(absolute "$yours_config")
		[ -f "$yours_config" ] || yours_wrong "--config: there is no '$yours_config'"
		;;
	"" | *config) ;;
	*) yours_wrong "--config: a file (with a / in its name), or a target of make like defconfig, not '$yours_config'" ;;
	esac
	SAVIC_YOURS=build/yours/$(key "$yours_linux  $yours_series $yours_config" "$yours_linux")
	# The names of its selftests, for scripts/test-run.
	mkdir -p "$repo/$SAVIC_YOURS"
	{
		selftests=tools/testing/selftests/kvm
		if [ -n "$yours_ref" ]; then
			their_git ls-tree --name-only "$yours_ref" "$selftests/" "$selftests/x86/"
		else
			(cd "$yours_linux" && ls "$selftests"/*.c "$selftests"/x86/*.c 2>/dev/null)
		fi
		[ -z "$yours_series" ] || (cd "$repo" && ls "$selftests"/x86/*.c)
	} | sed -n 's,.*/\(.*\)\.c$,\1,p' >"$repo/$SAVIC_YOURS/tests"
	[ -s "$repo/$SAVIC_YOURS/tests" ] ||
		yours_wrong "--linux: '$yours_linux'${yours_ref:+ at $yours_ref} has no selftests of KVM: is that all of Linux?"
elif [ -n "$yours_ref$yours_series$yours_config" ]; then
	yours_wrong "--linux-ref, --series and --config belong to --linux DIR"
elif [ -n "$yours_kernel" ]; then
	case $yours_kernel in
	debian) ;;
	*)
		yours_kernel=$(absolute "$yours_kernel")
		[ -f "$yours_kernel" ] || yours_wrong "--host-kernel: there is no '$yours_kernel'; debian means Debian's own"
		case $yours_kernel in
		*.deb) ;;
		*)
			[ "$(dd if="$yours_kernel" bs=1 skip=514 count=4 2>/dev/null)" = HdrS ] ||
				yours_wrong "--host-kernel: '$yours_kernel' is neither a bzImage nor a package of Debian"
			;;
		esac
		;;
	esac
	[ ! -d "$yours_modules/usr/lib/modules" ] || yours_modules=$yours_modules/usr
	[ -z "$yours_modules" ] || [ -d "$yours_modules/lib/modules" ] ||
		yours_wrong "--host-modules: no lib/modules in '$yours_modules' (make modules_install INSTALL_MOD_PATH=...)"
	SAVIC_YOURS=build/yours/$(key "$yours_kernel $yours_modules" "$yours_kernel")
	# The pinned kernel's selftests run on it.
	mkdir -p "$repo/$SAVIC_YOURS"
	awk '$2 == "base" || $2 == "both" { print $1 }' "$repo/tests/selftests.list" >"$repo/$SAVIC_YOURS/tests"
elif [ -n "$yours_modules" ]; then
	yours_wrong "--host-modules belongs to --host-kernel FILE"
fi
if [ -n "$yours_qemu" ]; then
	if [ -d "$yours_qemu" ]; then
		[ -x "$yours_qemu/configure" ] && [ -e "$yours_qemu/VERSION" ] && [ -d "$yours_qemu/target/i386" ] ||
			[ -x "$yours_qemu/qemu-system-x86_64" ] ||
			yours_wrong "--qemu: '$yours_qemu' is neither a source of QEMU nor has it a qemu-system-x86_64"
	else
		yours_wrong "--qemu: there is no directory '$yours_qemu'"
	fi
	SAVIC_QEMU=build/yours/$(key "qemu $yours_qemu" "$yours_qemu")
fi
SAVIC_SERIES=$yours_series
export SAVIC_SERIES
export SAVIC_YOURS="${SAVIC_YOURS-}" SAVIC_QEMU="${SAVIC_QEMU-}"
# Hosts without our series have no Secure AVIC.
if [ -n "$SAVIC_YOURS" ] && [ -z "$yours_series" ]; then
	SAVIC_KIND=snp
	export SAVIC_KIND
fi
