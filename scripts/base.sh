# How a script that builds in build/tree/X builds the unmodified source. Sourced after lib.sh.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154

# base_tree ARGUMENT...: start this script again with build/tree/linux-base mounted in the
# place of build/tree/linux, for this process only. The compiler then sees the same
# names for both, and ccache knows most of the files of one from the other.
base_tree()
{
	base_mounted tree/linux "$@"
}

# other_tree DIRECTORY ARGUMENT...: the same with another source of Linux, below build/.
other_tree()
{
	other=$1
	shift
	mkdir -p "$build/tree/linux"
	mounted_over "$other" tree/linux "$@"
}

# base_mounted DIRECTORY ARGUMENT...: the same for any directory below build/: DIRECTORY-base is
# mounted in its place. Called for several in the same order each time.
base_mounted()
{
	over=$1
	shift
	mounted_over "$over-base" "$over" "$@"
}

# mounted_over SOURCE DIRECTORY ARGUMENT...: SOURCE in the place of DIRECTORY, both below build/.
mounted_over()
{
	source=$1 mounted=$2
	shift 2
	case " ${SAVIC_MOUNTED-} " in
	*" $mounted "*) return ;;
	esac
	SAVIC_MOUNTED="${SAVIC_MOUNTED-} $mounted"
	export SAVIC_MOUNTED
	# shellcheck disable=SC2016 # the inner shell's arguments
	exec unshare --mount --propagation unchanged sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh \
		"$build/$source" "$build/$mounted" "$0" "$@"
}
