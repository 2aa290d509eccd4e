#!/bin/bash
# `npm run test:long`: what does not fit into ten minutes - long fuzzing, the namespace suites with sanitizer builds of
# the data process, and repetition. Its output is kept in test/long-output.txt. Needs root.
# Without address space randomisation, which the run-time of ThreadSanitizer does not always survive; children inherit it.
[ -n "${TARTAN_SAME_ADDRESSES:-}" ] || TARTAN_SAME_ADDRESSES=1 exec setarch -R bash "${BASH_SOURCE[0]}" "$@"
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
# Where the tree lies is nobody's business.
exec > >(sed -u "s|$PWD|.|g" | tee test/long-output.txt) 2>&1
export TARTAN_FUZZ=yes NO_COLOR=1
step_limit=3600

# sanitized NAME: the namespace suites with that build in the place of the release.
sanitized() {
	step "$1 build of the data process" make -s -C native "datapath-$1"
	cp "native/build/tartan-datapath-$1" dist/tartan-datapath.new && mv dist/tartan-datapath.new dist/tartan-datapath
	for project in integration e2e; do suite $project; done
	rm -f dist/tartan-datapath
	step 'release build' make -s -C native
}

date -u '+%Y-%m-%d'
setup all
bash test/support/traces.sh >"$scratch/before"
native 'native with sanitizers' make -s -C native check
step 'threads with TSan' make -s -C native tsan
step 'long fuzzing' nice -n 19 make -s -C native fuzz FUZZ_SECONDS="${TARTAN_FUZZ_SECONDS:-600}"
sanitized asan
sanitized tsan
for round in $(seq "${TARTAN_ROUNDS:-5}"); do
	heading "round $round"
	for project in contract integration e2e; do suite $project; done
done
step 'ten thousand lease schedules' env TARTAN_SCHEDULES="${TARTAN_SCHEDULES:-10000}" \
	vitest run --project unit test/unit/lease-schedules.test.ts
step 'twenty races' env TARTAN_RACES=20 vitest run --project contract test/contract/store-etcd-race-lengths.test.ts
step 'five thousand hosts' env TARTAN_HOSTS=5000 vitest run --project contract test/contract/store-etcd-scale.test.ts
step 'faults again and again' env TARTAN_REPEAT="${TARTAN_REPEAT:-50}" vitest run --project e2e test/e2e/faults
step 'soak' bash test/support/soak.sh --minutes "${TARTAN_SOAK_MINUTES:-2}"
step 'nothing is left behind' bash test/support/traces.sh --compare "$scratch/before"
finish
