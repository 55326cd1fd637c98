# How a Debian root is made by mmdebstrap. Sourced after lib.sh, outside of the toolbox.
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2034 # mode is the caller's

# as_root COMMAND...: run it with the rights that the files of such a root need.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		unshare --user --map-root-user --map-auto "$@"
	fi
}

# need_mmdebstrap: have it on this system, and set mode to the one that it has to be called with.
need_mmdebstrap()
{
	needed="mmdebstrap"
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || needed="$needed debian-archive-keyring"
	if [ "$(id -u)" = 0 ]; then
		mode=root
	else
		mode=unshare
		command -v newuidmap >/dev/null || needed="$needed uidmap"
	fi
	if ! command -v mmdebstrap >/dev/null || [ "$needed" != mmdebstrap ]; then
		if [ "$mode" = root ] && command -v apt-get >/dev/null; then
			say "installing on this system: $needed"
			install_them()
			{
				# Lists may be absent on a fresh system, or older than what the mirror has.
				# shellcheck disable=SC2086
				apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $needed
			}
			logged host-packages "installing $needed (is there a network?)" install_them
		else
			die "missing on this system: $needed; install with your package manager and start again"
		fi
	fi
	if [ "$mode" = unshare ] && ! unshare --user --map-root-user --map-auto true 2>/dev/null; then
		die "you are not root and may not use user namespaces (see newuidmap(1) and /etc/subuid): run as root, or get that right"
	fi
}
