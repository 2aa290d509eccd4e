#!/bin/bash
# `npm test`: set-up, every test, and a check that they left nothing on the machine. Needs root.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
setup all
bash test/support/traces.sh >"$scratch/before"
check_steps
for project in contract integration e2e; do suite $project; done
step 'nothing is left behind' bash test/support/traces.sh --compare "$scratch/before"
finish
