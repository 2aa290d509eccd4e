# Sourced by check.sh, test.sh and long.sh: runs named steps one after another, shows what each prints, adds up what
# passed, failed and was skipped, and says it in the last line. A step that crashes counts as failed.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
export PATH="$PWD/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
passed=0 failed=0 skipped=0 ended= running=
step_limit=${TARTAN_STEP_LIMIT:-900}
declare -a failures=()
scratch=$(mktemp -d "${TMPDIR:-/tmp}/tartan-steps.XXXXXX")
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

at_exit() {
	local status=$?
	[ -z "$running" ] || { kill "$running"; wait "$running"; } 2>/dev/null
	rm -rf "$scratch"
	[ -n "$ended" ] || { echo "interrupted: $passed passed, $((failed + 1)) failed, $skipped skipped"; exit $((status ? status : 1)); }
}

# bounded SECONDS COMMAND...: a command that hangs is ended, with everything it started in its process group. It runs in
# the background so that Ctrl-C is heard at once.
bounded() {
	local status=0
	timeout --kill-after=15 "$@" </dev/null &
	running=$!
	wait $running || status=$?
	running=
	[ $status -ne 124 ] && [ $status -ne 137 ] || echo "ended: it took more than $1 s"
	return $status
}

heading() { printf '\n== %s\n' "$1"; }

count() { # NAME PASSED FAILED SKIPPED [WHAT FAILED]
	passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
	[ "$3" -eq 0 ] || failures+=("$1${5:+$'\n'$5}")
}

# step NAME COMMAND...: one test, passed when the command ends with 0.
step() {
	local name=$1 begin=$SECONDS
	shift
	heading "$name"
	if bounded "$step_limit" "$@"; then count "$name" 1 0 0; else
		echo "$name: FAILED with exit status $?"
		count "$name" 0 1 0
	fi
	echo "-- $name: $((SECONDS - begin)) s"
}

# suite PROJECT: a vitest project, counted test by test through reporter.ts.
suite() {
	local name=$1 begin=$SECONDS status=0 p=0 f=0 s=0
	heading "vitest $name"
	rm -f "$scratch/counts"
	TARTAN_COUNTS=$scratch/counts bounded "$step_limit" vitest run --project "$name" || status=$?
	read -r p f s <"$scratch/counts" || { p=0 f=0 s=0; }
	[ $status -eq 0 ] || [ "$f" -gt 0 ] || { echo "vitest $name: FAILED with exit status $status"; f=1; }
	[ $((p + f + s)) -gt 0 ] || { echo "vitest $name: FAILED, no test ran"; f=1; }
	count "vitest $name" "$p" "$f" "$s" "$(tail -n +2 "$scratch/counts" 2>/dev/null)"
	echo "-- vitest $name: $p passed, $f failed, $s skipped, $((SECONDS - begin)) s"
}

# native NAME COMMAND...: test programs that each say `PROGRAM: N passed, N failed` about their checks, and then the sum.
# A program counts as one test; so does each `PROGRAM: skipped: REASON` before that.
native() {
	local name=$1 begin=$SECONDS status p f s
	shift
	heading "$name"
	bounded "$step_limit" "$@" >"$scratch/native" 2>&1
	status=$?
	cat "$scratch/native"
	grep -E '^[a-z-]+: [0-9]+ passed, [0-9]+ failed$' "$scratch/native" | head -n -1 >"$scratch/programs"
	p=$(grep -cE ': [1-9][0-9]* passed, 0 failed$' "$scratch/programs")
	f=$(grep -cvE ': [1-9][0-9]* passed, 0 failed$' "$scratch/programs")
	s=$(grep -cE '^[a-z-]+: skipped: ' "$scratch/native")
	[ "$status" -eq 0 ] || [ "$f" -gt 0 ] || { echo "$name: FAILED with exit status $status"; f=1; }
	[ $((p + f)) -gt 0 ] || { echo "$name: FAILED, no test ran"; f=1; }
	count "$name" "$p" "$f" "$s" "$(grep -E '^[^ ]+\.[ch]:[0-9]+: ' "$scratch/native" | sed 's/^/  /')"
	echo "-- $name: $p passed, $f failed, $s skipped, $((SECONDS - begin)) s"
}

# Without what set-up brings nothing else can run.
setup() {
	local before=$failed
	step "set-up ($1)" bash test/support/setup.sh "$1"
	[ "$failed" -eq "$before" ] || finish
}

# All that needs neither root nor a network.
check_steps() {
	step types tsc --noEmit
	step lint oxlint --deny-warnings
	step format prettier --check --log-level warn .
	step knip knip --no-progress
	suite unit
	native 'native with sanitizers' make -s -C native check
	step fuzzing make -s -C native fuzz FUZZ_SECONDS="${fuzz_seconds:-1}"
}

finish() {
	local name
	ended=yes
	echo
	for name in "${failures[@]}"; do echo "failed: $name"; done
	echo "all steps: $SECONDS s"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ] || exit 1
	exit 0
}
