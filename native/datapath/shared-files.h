/* The mapped `routes` and `counters` files of layout.h, checked before anything in them is believed. */
#ifndef TARTAN_SHARED_FILES_H
#define TARTAN_SHARED_FILES_H

#include "../shared/layout.h"

struct shared_files {
	const struct routes_file *routes; /* not writable by this process, whatever it may come to do */
	struct counters_file *counters;
};

/* Returns 0 or an errno with the step that failed: EPROTO for another layout, EACCES for a writable `routes`. */
int shared_files_open(struct shared_files *files, int routes_fd, int counters_fd, const char **step);

#endif
