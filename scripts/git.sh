# What the scripts that handle git trees share. Sourced after lib.sh, in the toolbox.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154

# The user's settings must not change what we write, and the tree's owner need not be us.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_CONFIG_COUNT=4 \
	GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' \
	GIT_CONFIG_KEY_1=diff.algorithm GIT_CONFIG_VALUE_1=histogram \
	GIT_CONFIG_KEY_2=commit.gpgsign GIT_CONFIG_VALUE_2=false \
	GIT_CONFIG_KEY_3=advice.detachedHead GIT_CONFIG_VALUE_3=false
# No lines of progress: ours say what takes time.
export GIT_PROGRESS_DELAY=86400
export GIT_COMMITTER_NAME=savic GIT_COMMITTER_EMAIL=savic@localhost
export GIT_AUTHOR_NAME=savic GIT_AUTHOR_EMAIL=savic@localhost

# clean TREE: no uncommitted changes to files that git knows, none half-way through git am.
clean()
{
	git -C "$1" update-index -q --refresh >/dev/null 2>&1 || :
	git -C "$1" diff-index --quiet HEAD -- && [ ! -d "$1/.git/rebase-apply" ]
}

# new_files linux|qemu|libvirt: our files for that tree, by their path in it.
new_files()
{
	case $1 in
	linux) git -C "$repo" ls-files -co --exclude-standard -- arch tools Documentation include virt ;;
	*) git -C "$repo/$1" ls-files -co --exclude-standard 2>/dev/null ;;
	esac | LC_ALL=C sort -u | while read -r path; do
		# ls-files also names what was deleted and not committed yet.
		case $1 in
		linux) [ -e "$repo/$path" ] && echo "$path" ;;
		*) [ -e "$repo/$1/$path" ] && echo "$path" ;;
		esac || :
	done
}

# series_hash linux|qemu|libvirt: changes when the series or a patch in it does.
series_hash()
{
	cat -- "$repo/patches/$1/series" "$repo/patches/$1"/*.patch 2>/dev/null | sha256sum | cut -d' ' -f1
}
