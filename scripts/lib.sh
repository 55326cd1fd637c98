# What the scripts share: where things are, how they talk. Sourced, never run.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034
repo=${repo:-$(cd "$(dirname "$0")/.." && pwd)}
build=$repo/build
log=$build/log
# shellcheck source=../versions
linux_asked=${LINUX_PACKAGE-}
. "$repo/versions"

# die TEXT: one line that says what is wrong and what to do, then end.
die()
{
	echo "savic: $*" >&2
	exit 1
}

# LINUX_PACKAGE in the environment stands for the one in versions.
case $linux_asked in
"" | "$LINUX_PACKAGE") ;;
linux-source-7.[01] | linux-source-[0-6].*)
	die "LINUX_PACKAGE=$linux_asked: Linux 7.2 or newer, an older one isn't a guest with Secure AVIC" ;;
linux-source-[0-9]*.*[0-9])
	LINUX_PACKAGE=$linux_asked
	LINUX_VERSION=${linux_asked#linux-source-}
	;;
*) die "LINUX_PACKAGE=$linux_asked: one of Debian's packages of Linux' source, like $LINUX_PACKAGE" ;;
esac

# inside ARGUMENT...: run this very script in the toolbox, unless we are there.
inside()
{
	if [ -z "${SAVIC_INSIDE-}" ]; then
		exec "$repo/scripts/toolbox-run" "scripts/$(basename "$0")" "$@"
	fi
}

# say TEXT: a line of progress, with the time since `savic` started.
say()
{
	t=$(($(date +%s) - ${SAVIC_STARTED:-$(date +%s)}))
	printf '[%2d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*"
}

# logged NAME TEXT COMMAND...: run COMMAND with its output in build/log/NAME.log; if
# it fails, show the end of that and stop with TEXT. All in one line with $briefly, for sources that are not ours.
logged()
{
	logfile=$log/$1.log
	whatfor=$2
	shift 2
	mkdir -p "$log"
	if ! "$@" >"$logfile" 2>&1 </dev/null; then
		if [ -n "${briefly-}" ]; then
			# Files by their names in the user's directory.
			line=$({ grep -m 1 -iE '(error|fatal|cannot|failed)' "$logfile" || tail -n 1 "$logfile"; } |
				sed "s,$build/tree/[a-z]*/,,g; s,\(\.\./\)*/*mnt/,,g")
			die "$whatfor: $line; the whole output is in ${logfile#"$repo"/}"
		fi
		# What make says of it says less.
		grep -iE '(error|fatal|cannot|failed)' "$logfile" | grep -v '^make' | tail -n 5 >&2
		die "$whatfor: failed; the whole output is in ${logfile#"$repo"/}"
	fi
}

# has_room GIGABYTES: stop unless build/ has that much free.
has_room()
{
	mkdir -p "$build"
	free=$(df -Pk "$build" | awk 'NR == 2 { print int($4 / 1048576) }')
	[ "$free" -ge "$1" ] || die "$build has $free GB free and this needs $1: make room, or clone to a larger disk"
}
