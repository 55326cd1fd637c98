# Where the source of Linux comes from, and what is wrong with it. Sourced after lib.sh.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154

# linux_tarball: the pinned one, or the user's own.
linux_tarball()
{
	if [ -e "$build/tarball/linux" ]; then
		echo "$build/tarball/linux"
	else
		echo "/usr/src/$LINUX_PACKAGE.tar.xz"
	fi
}

# linux_version MAKEFILE: what that source says it is, like 7.3.4. Nothing if it isn't Linux.
linux_version()
{
	sed -n '1,/^EXTRAVERSION/s/^\(VERSION\|PATCHLEVEL\|SUBLEVEL\) = //p' "$1" 2>/dev/null | paste -sd.
}

# version_fits VERSION PINNED: 7.3.4 fits 7.3, 7.30 doesn't.
version_fits()
{
	case $1 in
	"$2" | "$2".*) ;;
	*) return 1 ;;
	esac
}

# unpack_linux TARBALL DIRECTORY: its times are now: objects of another version that is replaced are older.
unpack_linux()
{
	[ -e "$1" ] || die "there is no ${1##*/} in the toolbox's /usr/src: ./savic build toolbox fetches it"
	mkdir -p "$2" "$log"
	tar -xmf "$1" --strip-components=1 -C "$2" >"$log/unpack-linux.log" 2>&1 || damaged "$1"
}

# damaged TARBALL: end with what to do about one that can't be read to its end.
damaged()
{
	case $1 in
	/usr/src/*)
		package=${1#/usr/src/}
		package=${package%.tar.xz}
		die "the toolbox's $1 is damaged, perhaps half of it is missing:" \
			"scripts/toolbox-run apt-get install --reinstall -y $package"
		;;
	*) die "${1##*/} can't be read to its end as a tarball: get it again" ;;
	esac
}

# libvirt_version FILE: what the meson.build of a source says it is.
libvirt_version()
{
	sed -n "s/^  version: '\([0-9.]*\)',/\1/p" "$1" 2>/dev/null | head -n 1
}

# check_tarball linux|qemu|libvirt PINNED TARBALL NAME: it is complete, and of that version. NAME is for the user.
check_tarball()
{
	case $1 in
	linux) file=Makefile ;;
	qemu) file=VERSION ;;
	libvirt) file=meson.build ;;
	esac
	top=$(mktemp -d) status=0
	tar -xf "$3" -C "$top" --strip-components=1 --wildcards --no-wildcards-match-slash "*/$file" 2>/dev/null || status=$?
	case $1 in
	linux) found=$(linux_version "$top/$file") ;;
	qemu) found=$(cat "$top/$file" 2>/dev/null || :) ;;
	libvirt) found=$(libvirt_version "$top/$file") ;;
	esac
	rm -rf "$top"
	# It also fails if there is no such file in it.
	[ "$status" = 0 ] || tar -tf "$3" >/dev/null 2>&1 || damaged "$4"
	[ -n "$found" ] || die "$4 isn't a tarball of $1's source"
	version_fits "$found" "$2" || die "$4 is $1 $found, and versions pins $2: change one of them"
}
