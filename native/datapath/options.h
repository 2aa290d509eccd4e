/* The command line: nothing but numbers, see the end of layout.h. Written by tartand, so one message for all faults. */
#ifndef TARTAN_OPTIONS_H
#define TARTAN_OPTIONS_H

#include "../shared/layout.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct descriptors {
	size_t count;
	int fd[THREADS_MAX];
};

struct options {
	int status;
	int routes;
	int counters;
	int listen;
	uid_t uid;
	gid_t gid;
	uid_t owner;
	/* As many of one as of the other: one for each lane and, when there are several, the last for sparse flows. */
	struct descriptors tun;
	struct descriptors udp;
	struct descriptors wake; /* one for each thread: those that send, those that receive, the one for sparse flows */
};

static inline size_t options_lanes(const struct options *o)
{
	return o->tun.count > 1 ? o->tun.count - 1 : 1;
}

bool options_parse(struct options *options, int argc, char **argv);

#endif
