#!/bin/bash
# `npm run test:long [-- PART...]`: what does not fit into ten minutes, in parts that can be run apart, each for up to an
# hour. The last output of each is kept in test/long-output/PART.txt. Needs root.
parts=(fuzz asan tsan rounds store scale churn faults upgrade soak docker metrics web diagnosis kernel kernels kernel-traffic
	package trees)
self=${BASH_SOURCE[0]}
# Without address space randomisation, which the run-time of ThreadSanitizer does not always survive; children inherit it.
[ -n "${TARTAN_SAME_ADDRESSES:-}" ] || TARTAN_SAME_ADDRESSES=1 exec setarch -R bash "$self" "$@"
if [ $# -ne 1 ]; then
	[ $# -gt 0 ] || set -- "${parts[@]}"
	failures=0
	for part in "$@"; do bash "$self" "$part" || failures=$((failures + 1)); done
	echo "$# parts, $failures failed"
	[ $failures -eq 0 ]
	exit
fi
part=$1
[[ " ${parts[*]} " == *" $part "* ]] || { echo "test:long: no part '$part'; there are: ${parts[*]}" >&2; exit 64; }
. "$(dirname "$self")/steps.sh"
mkdir -p test/long-output
# Where the tree lies is nobody's business.
exec > >(sed -u "s|$PWD|.|g" | tee "test/long-output/$part.txt") 2>&1
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

echo "$part, $(date -u '+%Y-%m-%d'), commit $(git rev-parse --short HEAD)"
setup all
[ "$part" = fuzz ] || bash test/support/traces.sh >"$scratch/before"
case $part in
	kernel)
		for seed in 1 2 3; do step "a million packets through the kernel programs, seed $seed" bash test/support/kernel-rules.sh 1000000 $seed; done
		step 'many daemons, and a withdrawal' vitest run --project long test/long/kernel-life.test.ts
		;;
	kernels)
		setup kernels
		step "the engine kernel on Debian's kernels" vitest run --project long test/long/kernels.test.ts
		;;
	kernel-traffic)
		base=$(git rev-parse --verify --short=7 "${TARTAN_BASE:-3deb625}^{commit}")
		step "build of commit $base" bash test/support/earlier.sh "$base" ".cache/earlier/$base"
		export TARTAN_EARLIER="$PWD/.cache/earlier/$base"
		step 'what the engine kernel must not change' vitest run --project long test/long/kernel-traffic.test.ts
		step 'what a kernel pair outlives' vitest run --project long test/long/kernel-pair-life.test.ts
		;;
	fuzz) step 'long fuzzing' nice -n 19 make -s -C native fuzz FUZZ_SECONDS="${TARTAN_FUZZ_SECONDS:-600}" ;;
	asan)
		native 'native with sanitizers' make -s -C native check
		sanitized asan
		;;
	tsan)
		step 'threads with TSan' make -s -C native tsan
		sanitized tsan
		;;
	rounds)
		for round in $(seq "${TARTAN_ROUNDS:-3}"); do
			heading "round $round"
			for project in contract integration e2e; do suite $project; done
		done
		;;
	store)
		step 'ten thousand lease schedules' env TARTAN_SCHEDULES="${TARTAN_SCHEDULES:-10000}" \
			vitest run --project unit test/unit/lease-schedules.test.ts
		step 'twenty races' env TARTAN_RACES=20 vitest run --project contract test/contract/store-etcd-race-lengths.test.ts
		step 'a partition at the pace of the daemon' env TARTAN_PROOF_MS=25000 \
			vitest run --project integration test/integration/store-partition.test.ts
		step 'a hundred thousand calls' env TARTAN_CALLS=100000 vitest run --project contract test/contract/store-etcd-memory.test.ts
		step 'a thousand hosts at once' env TARTAN_RACE_HOSTS=1000 vitest run --project contract test/contract/store-etcd-race.test.ts
		step 'five thousand hosts' env TARTAN_HOSTS=5000 vitest run --project contract test/contract/store-etcd-scale.test.ts
		;;
	scale) step 'a host in a large cluster, and on a large host' vitest run --project long test/long/scale.test.ts ;;
	churn)
		base=$(git rev-parse --verify --short=7 "${TARTAN_BASE:-3deb625}^{commit}")
		step "build of commit $base" bash test/support/earlier.sh "$base" ".cache/earlier/$base"
		for peers in 100 4999; do
			step "ten lease changes a second among $peers peers" env TARTAN_EARLIER="$PWD/.cache/earlier/$base" TARTAN_CHURN_SECONDS=20 \
				TARTAN_PEERS=$peers vitest run --project e2e test/e2e/scale.test.ts -t 'a host among|fault C23'
		done
		;;
	faults)
		step 'faults again and again' env TARTAN_REPEAT="${TARTAN_REPEAT:-50}" vitest run --project e2e test/e2e/faults
		step 'a hundred deaths at start' env TARTAN_START_KILLS=100 vitest run --project e2e test/e2e/sudden-death.test.ts
		step 'a hang by its real limits' env TARTAN_HANG=real vitest run --project integration \
			test/integration/datapath-hang.test.ts
		step 'upgrades' env TARTAN_GAP_MS=50 vitest run --project e2e test/e2e/upgrade.test.ts
		;;
	upgrade)
		base=$(git rev-parse --verify --short=7 "${TARTAN_BASE:-3deb625}^{commit}")
		step "build of commit $base" bash test/support/earlier.sh "$base" ".cache/earlier/$base"
		step "from commit $base and back" env TARTAN_EARLIER="$PWD/.cache/earlier/$base" TARTAN_GAP_MS=200 \
			vitest run --project long test/long/upgrade
		;;
	docker)
		step 'who sees whom, in every combination' env TARTAN_DOCKER_MATRIX=all vitest run --project e2e test/e2e/docker-flows.test.ts
		step "Docker's own networks over restarts" env TARTAN_DOCKER_MATRIX=all vitest run --project e2e test/e2e/docker-pools.test.ts
		step 'the demo' npm run -s demo
		step 'twenty restarts' env TARTAN_RESTARTS=20 vitest run --project e2e test/e2e/docker-restarts.test.ts
		;;
	diagnosis) step 'every fault that people call about' env TARTAN_DIAGNOSIS=all vitest run --project e2e test/e2e/diagnosis.test.ts ;;
	metrics)
		step 'every alert by a real fault' vitest run --project long test/long/metrics.test.ts
		step 'what it costs to be looked at' vitest run --project long test/long/look-cost.test.ts
		;;
	web) step 'five hundred hosts in a browser' vitest run --project long test/long/web.test.ts ;;
	package)
		step 'set-up of the packages' bash test/support/setup.sh package
		step 'set-up of what judges and runs them' bash test/support/setup.sh release
		made=.cache/long-package
		step 'all packages, from a clean checkout' bash test/support/clean-build.sh $made/checkout $made/first
		step 'and from another one' env TZ=Pacific/Kiritimati LC_ALL=C bash -c "umask 077 &&
			bash test/support/clean-build.sh $made/further/down/checkout $made/second"
		step 'both have the same bytes' diff -r $made/first $made/second
		step 'lintian' bash test/support/lintian.sh $made/first/*.deb
		step 'cloud-config' env "PYTHONPATH=.cache/release/cloud/usr/lib/python3/dist-packages" /usr/bin/python3 \
			-m cloudinit.cmd.main schema --config-file config/cloud/cloud-config.yaml
		step 'Ignition' .cache/release/cloud/usr/bin/ignition-validate config/cloud/ignition.json
		step 'its states on a host' env TARTAN_DEB="$(echo $made/first/*_amd64.deb)" vitest run --project long test/long/docker-gate.test.ts
		[ "$(uname -m)" != x86_64 ] ||
			step 'arm64: versions, the addon and a part of the unit project' bash test/support/arm64.sh $made/first/*-image-arm64.tar $made/arm64
		for kind in npm image; do
			step "the package: $kind" env TARTAN_PACKAGES="$PWD/$made/first" vitest run --project long "test/long/package-$kind.test.ts"
		done
		;;
	trees)
		step 'set-up of the packages' bash test/support/setup.sh package
		step 'a package' npm run -s package -- --fast --only deb,tarball --arch amd64 --out .cache/long-trees/ours
		step 'one of a later build' bash test/support/next-package.sh 0.1.1 .cache/long-trees/next
		export TARTAN_DEB TARTAN_NEXT_DEB TARTAN_TARBALL
		TARTAN_DEB=$(echo "$PWD"/.cache/long-trees/ours/*.deb)
		TARTAN_NEXT_DEB=$(echo "$PWD"/.cache/long-trees/next/*.deb)
		TARTAN_TARBALL=$(echo "$PWD"/.cache/long-trees/ours/*.tar.gz)
		for suite in ${TARTAN_TREES:-bookworm trixie noble}; do
			step "a root tree of $suite" bash test/support/trees.sh "$suite"
			[ ! -d ".cache/trees/$suite" ] ||
				step "two hosts of $suite" env TARTAN_ROOT_TREE="$PWD/.cache/trees/$suite" vitest run --project long test/long/trees.test.ts
		done
		;;
	soak) step 'soak' bash test/support/soak.sh --minutes "${TARTAN_SOAK_MINUTES:-30}" --seed "${TARTAN_SOAK_SEED:-1}" ;;
esac
[ "$part" = fuzz ] || step 'nothing is left behind' bash test/support/traces.sh --compare "$scratch/before"
finish
