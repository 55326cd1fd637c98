# How a script that builds in build/tree/linux builds the unmodified source. Sourced after lib.sh.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154

# base_tree ARGUMENT...: start this script again with build/tree/linux-base mounted in the
# place of build/tree/linux, for this process only. The compiler then sees the same
# names for both, and ccache knows most of the files of one from the other.
base_tree()
{
	if [ -z "${SAVIC_MOUNTED-}" ]; then
		SAVIC_MOUNTED=1
		export SAVIC_MOUNTED
		# shellcheck disable=SC2016 # the inner shell's arguments
		exec unshare --mount --propagation unchanged sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh \
			"$build/tree/linux-base" "$build/tree/linux" "$0" "$@"
	fi
}
