/* The two shared memories of layout.h, `routes` and `counters`: their files, mapped and with checked heads. */
#ifndef TARTAN_SHARED_FILES_H
#define TARTAN_SHARED_FILES_H

#include "../shared/layout.h"

struct shared_files {
	const struct routes_file *routes; /* mapped by a read-only descriptor, so this process can never write to it */
	struct counters_file *counters;
};

/* Returns 0 or an errno with the step that failed: EPROTO for another layout, EACCES if `routes` is writable. */
int shared_files_open(struct shared_files *files, int routes_fd, int counters_fd, const char **step);

#endif
