#!/bin/bash
# `npm test`: set-up, every test, and a check that they left nothing on the machine. Needs root.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
# With clang; TARTAN_FUZZ= (empty) does without and replays the seeds.
export TARTAN_FUZZ="${TARTAN_FUZZ-yes}"
fuzz_seconds=5
setup all
bash test/support/traces.sh >"$scratch/before"
check_steps
step 'bytecode is what clang makes' node native/bpf/generate.mjs --check
if [ "$(uname -m)" = x86_64 ]; then
	native 'native arm64' make -s -C native arm64
	native 'native without AVX2' make -s -C native no-avx2
fi
for project in contract integration e2e; do suite $project; done
step 'nothing is left behind' bash test/support/traces.sh --compare "$scratch/before"
finish
