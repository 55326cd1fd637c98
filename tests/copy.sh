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
