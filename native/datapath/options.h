/* The command line: nothing but numbers, see the end of layout.h. Written by tartand, so one message for all faults. */
#ifndef TARTAN_OPTIONS_H
#define TARTAN_OPTIONS_H

#include "layout.h"
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
	struct descriptors tun;  /* 1..QUEUES_MAX */
	struct descriptors udp;  /* 1..QUEUES_MAX */
	struct descriptors wake; /* one for each thread: those that read a TUN queue, then those that read a socket */
};

bool options_parse(struct options *options, int argc, char **argv);

#endif
