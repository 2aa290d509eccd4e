/*
 * The command line, which is nothing but numbers (see the end of layout.h), and the descriptors that it names. tartand
 * writes it, so all faults share one message.
 */
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
	/* As many of one as of the other: one for each lane and, if there are several, the last for sparse flows. */
	struct descriptors tun;
	struct descriptors udp;
	struct descriptors wake; /* of the TX threads, then of the RX threads, then of the sparse thread */
};

static inline size_t options_lanes(const struct options *o)
{
	return o->tun.count > 1 ? o->tun.count - 1 : 1;
}

bool options_parse(struct options *options, int argc, char **argv);

/* Gathers the descriptors of a hello, in its order. `fds` has room for DESCRIPTORS_MAX. Returns how many there are. */
#define DESCRIPTORS_MAX (3 + 2 * QUEUES_MAX + THREADS_MAX)
size_t options_descriptors(const struct options *options, int *fds);

/*
 * Makes the named descriptors non-blocking and closes all others but 0, 1 and 2: a log or a store connection of tartand
 * would outlive tartand here, within reach of whoever takes this process over. Returns 0 or an errno.
 */
int options_take_descriptors(const struct options *options);

#endif
