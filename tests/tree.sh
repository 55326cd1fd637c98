#!/bin/sh
# Checks of the repository itself: patches, work trees, licences.
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: tree.sh spdx | links | names | refresh linux|qemu|libvirt | series linux|qemu|libvirt | checkpatch linux|qemu |
#                docs linux|qemu | schema libvirt
set -eu
cd "$(dirname "$0")/.."
repo=$PWD
build=$repo/build
. scripts/git.sh
what=${1-}
x=${2-}

case $what in
spdx)
	# Every text file says its licence near its top; patches say it in the files that they change.
	bad=0
	for file in $(git -C "$repo" ls-files -co --exclude-standard); do
		case $file in
		COPYING | .gitignore | .shellcheckrc | patches/*/*.patch | patches/*/cover | patches/*/cover.*) continue ;;
		# Compared byte by byte with what libvirt writes.
		libvirt/tests/*data/*) continue ;;
		esac
		[ -f "$file" ] || continue
		head -n 40 "$file" | grep -q 'SPDX-License-Identifier: GPL-2.0\(-only\|-or-later\)\?$\|SPDX-License-Identifier: GPL-2.0\(-only\|-or-later\)\? [*-]' || {
			echo "no SPDX-License-Identifier: $file"
			bad=1
		}
	done
	exit $bad
	;;
links)
	# An edit in a tree is an edit here: each new file is a link that leads to it.
	bad=0
	for x in linux qemu libvirt; do
		top=$repo
		[ $x = linux ] || top=$repo/$x
		# Made when somebody asks for it.
		[ $x != libvirt ] || [ -e build/tree/libvirt ] || continue
		for path in $(new_files $x); do
			if [ "$(readlink -f "build/tree/$x/$path")" != "$top/$path" ]; then
				echo "build/tree/$x/$path does not lead to $top/$path"
				bad=1
			fi
		done
	done
	exit $bad
	;;
names)
	# The trace events, statistics and parameters in our pages are those in the code, and the other way round.
	page=Documentation/virt/kvm/x86/secure-avic.rst
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	{
		sed -n 's/^TRACE_EVENT(\(.*\),$/\1/p' arch/x86/kvm/svm/savic_trace.h
		sed -n 's/^module_param(\(savic_[a-z_]*\),.*/\1/p' arch/x86/kvm/svm/savic*.c
		sed -n 's/.*STATS_DESC_COUNTER(VCPU, \(savic_.*\)),$/\1/p' "$build/tree/linux/arch/x86/kvm/x86.c"
	} | LC_ALL=C sort -u >"$out/code"
	grep -oP '\x60\x60\K(kvm_)?savic_\w+(?=\x60\x60)' "$page" | LC_ALL=C sort -u >"$out/page"
	{
		grep -ohP 'kvm_savic_\w+|\x60\Ksavic_\w+(?=\x60)' scripts/trace README.md qemu/docs/system/i386/*.rst
		# What a test takes of KVM's statistics.
		grep -oP '\(statistic \K\w+' image/run-guest | sed 's/^/savic_/'
	} | LC_ALL=C sort -u >"$out/others"
	LC_ALL=C comm -23 "$out/code" "$out/page" | sed "s,\$, isn't in $page," >"$out/wrong"
	LC_ALL=C comm -13 "$out/code" "$out/page" | sed "s,\$, is in $page but not in the code," >>"$out/wrong"
	LC_ALL=C comm -13 "$out/code" "$out/others" | sed 's,$, is in scripts/trace or image/run-guest or the docs but not in the code,' >>"$out/wrong"
	[ -s "$out/code" ] || echo "no trace events and statistics found" >>"$out/wrong"
	cat "$out/wrong"
	[ ! -s "$out/wrong" ]
	;;
refresh)
	# tree and refresh: there and back without a difference.
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	scripts/refresh "$x" "$out/patches"
	for file in "patches/$x"/*.patch "patches/$x/series"; do
		cmp "$file" "$out/patches/$(basename "$file")"
	done
	[ "$(find "$out/patches" -name '*.patch' | wc -l)" = "$(find "patches/$x" -name '*.patch' | wc -l)" ]
	;;
series)
	# git am takes the series, and each part of it on what that part needs, and the result is what the tree has.
	scripts/series "$x"
	tree=$build/tree/$x
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	git clone -q --shared --no-checkout "$tree" "$out/tree"
	cd "$out/tree"
	git fetch -q origin '+refs/savic/*:refs/savic/*'
	for part in "" $(cd "$repo/patches/$x" && find . -name 'cover.*' | sed 's,^./cover.,-,'); do
		# Only what the series touches is checked out.
		git diff --name-only --no-renames base "refs/savic/series$part" | sed 's,^,/,' >"$out/paths"
		git sparse-checkout set --no-cone --stdin <"$out/paths"
		git checkout -q "refs/savic/base$part"
		find "$repo/build/series/$x$part" -name '*.patch' ! -name '0000-*' | LC_ALL=C sort | xargs git am -q
		git diff --exit-code --stat HEAD "refs/savic/series$part"
		if grep -q '\*\*\* \(SUBJECT\|BLURB\) HERE' "$repo/build/series/$x$part"/0000-cover-letter.patch; then
			echo "patches/$x/cover is missing: the cover letter is empty"
			exit 1
		fi
		if git log base.. | grep 'Savic-'; then
			echo "a trailer of ours is left in a message"
			exit 1
		fi
	done
	;;
checkpatch)
	# The upstream projects' own check. Signing off is for whoever sends the patches, and
	# MAINTAINERS for whoever takes them; other excuses are in checkpatch.list.
	scripts/series "$x" >/dev/null
	cd "$build/tree/$x"
	# What was said of a patch is kept for as long as neither that nor the base changes, whatever its place in the series is.
	said=$build/checkpatch/$x
	mkdir -p "$said"
	rm -rf "$said.new"
	mkdir "$said.new"
	for patch in "$build/series/$x"/*.patch; do
		case $patch in
		*/0000-*) continue ;;
		esac
		key=$({ sed '1d; s/^Subject: \[PATCH[^]]*\]/Subject:/' "$patch"; git rev-parse base; cat "$repo/tests/tree.sh"; } | sha256sum | cut -d' ' -f1)
		[ ! -e "$said/$key" ] || mv "$said/$key" "$said.new/"
		echo "$patch $said.new/$key"
	done >"$said.new/patches"
	case $x in
	linux) check="perl scripts/checkpatch.pl --terse --no-summary --show-types --showfile
		--ignore MISSING_SIGN_OFF,NO_AUTHOR_SIGN_OFF,FILE_PATH_CHANGES,COMMIT_LOG_LONG_LINE" ;;
	qemu) check="perl scripts/checkpatch.pl --no-signoff --terse --no-summary" ;;
	esac
	# shellcheck disable=SC2016 # for the inner shell
	check="$check" xargs -P"$(nproc)" -n2 sh -c '[ -e "$2" ] || { { $check "$1" >"$2.new" || [ $? = 1 ] || exit 255; } && mv "$2.new" "$2"; }' sh <"$said.new/patches"
	rm -rf "$said"
	mv "$said.new" "$said"
	found=$(sed "s,.* $said.new/,$said/," "$said/patches" | xargs cat |
		case $x in
		linux) cat ;;
		qemu) grep 'ERROR: ' ;;
		esac | "$repo/scripts/checkpatch-left")
	# None of our own files has tabs where QEMU wants none.
	tabs=$([ "$x" = linux ] || grep -rlP '\t' "$repo/qemu" --include='*.[ch]') || :
	[ -z "$tabs" ] || found="$found${found:+
}tabs in $tabs"
	if [ -n "$found" ]; then
		echo "$found"
		exit 1
	fi
	;;
docs)
	# The manuals with our pages in them, as far as these are likely to refer: no warning about a file
	# that we add or change.
	out=$build/docs/$x
	mkdir -p "$out"
	case $x in
	linux) make -s -C "build/tree/$x" O="$out" SPHINXDIRS=virt/kvm htmldocs ;;
	qemu)
		sphinx-build -q -b dummy -d "$out/doctrees" -D version=0 -D release=0 \
			-D exclude_patterns=about,devel,interop,specs,tools,user "build/tree/$x/docs" "$out"
		;;
	esac >"$out/said" 2>&1 || { cat "$out/said"; exit 1; }
	cat "$out/said"
	pages=$( (new_files "$x"; git -C "build/tree/$x" diff --name-only --no-renames base HEAD) |
		grep '\.\(rst\|inc\|hx\)$' || :)
	[ -n "$pages" ] || { echo "no page of ours"; exit 1; }
	bad=0
	for page in $pages; do
		! grep -F "/$page:" "$out/said" || bad=1
	done
	exit $bad
	;;
schema)
	# libvirt's schemas take the domains that we show, start and test with, and refuse those that are to be refused.
	schemas=$build/tree/libvirt/src/conf/schemas
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	python3 - "$out" <<-'END'
		import re, runpy, sys, textwrap
		page = open("qemu/docs/system/i386/secure-avic.rst", encoding="utf-8").read()
		shown = textwrap.dedent(re.search(r"^ *<domain .*?</domain>$", page, re.M | re.S)[0])
		tested = runpy.run_path("tests/guest/libvirt")["domain"]("tested", vcpus=2, most=4)
		for name, xml in ("shown", shown), ("tested", tested.lstrip()):
		    open(f"{sys.argv[1]}/{name}.xml", "w", encoding="utf-8").write(xml)
	END
	bad=0
	for file in "$out"/*.xml image/debian/etc/libvirt/qemu/*.xml libvirt/tests/qemuxmlconfdata/*.xml \
		libvirt/tests/domainschemadata/*.xml libvirt/tests/domaincapsdata/*.xml; do
		case $file in
		*/domaincapsdata/*) schema=domaincaps.rng ;;
		*) schema=domain.rng ;;
		esac
		status=0
		xmllint --noout --relaxng "$schemas/$schema" "$file" >"$out/said" 2>&1 || status=$?
		case $status:$file in
		0:*-invalid.xml) echo "$file: $schema takes it" ;;
		0:* | 3:*-invalid.xml) continue ;;
		*) cat "$out/said" ;;
		esac
		bad=1
	done
	exit $bad
	;;
*)
	echo "usage: tree.sh spdx|links|names|refresh X|series X|checkpatch X|docs X|schema X" >&2
	exit 2
	;;
esac
