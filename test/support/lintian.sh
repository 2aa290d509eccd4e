#!/bin/bash
# Debian's judge of packages, as set-up unpacked it: `lintian.sh DEB...` fails at an error, at a warning, and at an
# override that nothing needs. What is overridden is shown with its reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
base=$PWD/.cache/release/lintian/usr
libraries=("$base"/lib/*-linux-gnu)
modules=("$base"/share/perl5 "$base"/lib/*-linux-gnu/perl5/*/ "$base"/lib/*-linux-gnu/perl5)
export PATH="$PATH:$base/bin" LD_LIBRARY_PATH="${libraries[0]}" LC_ALL=C.UTF-8 PERL5LIB
PERL5LIB=$(IFS=: && echo "${modules[*]}")
[ -x "$base/bin/lintian" ] || { echo "lintian.sh: no $base/bin/lintian: run test/support/setup.sh release" >&2; exit 1; }
lintian --version
status=0
for deb in "$@"; do
	# Its own --fail-on=warning fails for what is overridden, too.
	found=$(lintian --allow-root --display-info --show-overrides --fail-on none "$deb")
	echo "$(basename "$deb"):"
	grep -E '^[EWON]: ' <<<"$found" || :
	! grep -E '^[EW]: |^I: .*unused-override|^I: .*mismatched-override' <<<"$found" || status=1
done
exit $status
