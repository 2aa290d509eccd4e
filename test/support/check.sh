#!/bin/bash
# `npm run check`: everything that can be proven without root and without a network, in under a minute.
. "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
setup check
check_steps
finish
