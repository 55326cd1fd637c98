# A copy of the scripts, for tests that have them refuse things in one line. Sourced by these.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034
#
# Its toolbox is a directory with only the notes of what it has: nothing here may change the one that this runs in.
repo=$(cd "$(dirname "$0")/.." && pwd)
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
export SAVIC_TOOLBOX="$top/toolbox" SAVIC_STARTED=0
unset LINUX_PACKAGE
here=$top/repo
mkdir "$here" "$here/configs"
cp -a "$repo/savic" "$repo/versions" "$repo/scripts" "$here/"
cp "$repo/configs/packages" "$here/configs/"
git -C "$here" init -q
. "$repo/versions"
mkdir "$SAVIC_TOOLBOX"
echo "$TOOLBOX_SUITE $LINUX_SUITE $QEMU_SUITE $QEMU_PACKAGE" \
	"$(sed 's/#.*//' "$repo/configs/packages" | tr -s '\n ' ',,' | sed 's/^,//; s/,$//')" >"$SAVIC_TOOLBOX/.savic"

bad=0 number=0
ok()
{
	number=$((number + 1))
	echo "ok $number - $1"
}

not_ok()
{
	number=$((number + 1)) bad=1
	echo "not ok $number - $1: $2"
	sed 's/^/# /' "$top/said"
}

# refused NAME TEXT COMMAND...: COMMAND fails and says one line to stderr, with TEXT (a pattern) in it.
refused()
{
	name=$1 text=$2 status=0
	shift 2
	(cd "$here" && "$@") >"$top/out" 2>"$top/said" </dev/null || status=$?
	if [ "$status" = 0 ]; then
		not_ok "$name" "it wasn't refused"
	elif [ "$(wc -l <"$top/said")" != 1 ] || ! grep -qx "savic\( [a-z]*\)\?: .*$text.*" "$top/said"; then
		not_ok "$name" "not one line with '$text'"
	else
		ok "$name"
	fi
}

# works NAME COMMAND...
works()
{
	name=$1
	shift
	if (cd "$here" && "$@") >"$top/said" 2>&1 </dev/null; then ok "$name"; else not_ok "$name" "status $?"; fi
}

# holds NAME COMMAND...: COMMAND says yes.
holds()
{
	works "$@"
}

# pin VERSION
pin()
{
	sed -i "s/^LINUX_VERSION=.*/LINUX_VERSION=$1/; s/^LINUX_PACKAGE=.*/LINUX_PACKAGE=linux-source-$1/" "$here/versions"
}

# source_of VERSION NAME LINE: $top/NAME is a tarball of Linux VERSION, whose file "code" has that line.
source_of()
{
	rm -rf "$top/source"
	mkdir -p "$top/source/linux/deep"
	printf 'VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = 4\nEXTRAVERSION =\n' "${1%.*}" "${1#*.}" >"$top/source/linux/Makefile"
	echo "$3" >"$top/source/linux/code"
	head -c 200000 /dev/urandom >"$top/source/linux/deep/large"
	tar -cJf "$top/$2" -C "$top/source" linux
}

# patch NAME FROM TO: one more of the series.
patch()
{
	mkdir -p "$here/patches/linux"
	cat >"$here/patches/linux/$1.patch" <<-END
		From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
		From: savic <savic@localhost>
		Date: Sat, 1 Jan 2000 00:00:00 +0000
		Subject: [PATCH] $1

		---
		 code | 2 +-
		 1 file changed, 1 insertion(+), 1 deletion(-)

		diff --git a/code b/code
		--- a/code
		+++ b/code
		@@ -1 +1 @@
		-$2
		+$3
	END
	echo "$1.patch" >>"$here/patches/linux/series"
}
