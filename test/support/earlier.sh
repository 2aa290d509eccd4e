#!/bin/bash
# earlier.sh COMMIT DIRECTORY: that commit with modules of its own, built in a worktree in that directory. It is kept, so
# that the next time nothing is left to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
commit=$1 directory=$2
if [ ! -e "$directory/.git" ]; then
	git worktree prune
	git worktree add --quiet --detach "$directory" "$commit"
fi
exec bash "$directory/test/support/setup.sh" check
