#!/bin/sh
# run.sh NAME PROGRAM...: runs test programs, each of which ends with "<what>: N passed, N failed", and adds them up.
# A program that dies (a sanitizer, a signal) is one failure more. Exit code 1 when anything failed. What a program says
# it skipped ("<what>: skipped: <reason>") is shown.
# RUNNER, when set, is the command that runs them: an emulator and its arguments.
name=$1
shift
passed=0
failed=0
for program in "$@"; do
	output=$(${RUNNER:-} "$program" 2>&1)
	status=$?
	last=$(printf '%s\n' "$output" | tail -n 1)
	counts=$(printf '%s\n' "$last" | sed -n 's/^[^:]*: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
	if [ -z "$counts" ]; then
		counts='0 1'
	elif [ "$status" -ne 0 ] && [ "${counts#* }" -eq 0 ]; then
		counts="${counts% *} 1"
	fi
	passed=$((passed + ${counts% *}))
	failed=$((failed + ${counts#* }))
	if [ "${counts#* }" -ne 0 ]; then
		printf '%s\n' "$output"
		printf 'FAILED %s (exit %d)\n' "$program" "$status"
	else
		printf '%s\n' "$output" | grep -E '^[a-z-]+: skipped: '
		printf '%s\n' "$last"
	fi
done
printf '%s: %d passed, %d failed\n' "$name" "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
