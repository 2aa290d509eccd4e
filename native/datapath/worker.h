/*
 * A worker: a TUN queue and a UDP socket with all that forwarding between them needs. One thread runs it (loop.h).
 * tartand controls it through the two shared memories only.
 */
#ifndef TARTAN_WORKER_H
#define TARTAN_WORKER_H

#include "buffers.h"
#include "count.h"
#include "forward.h"
#include "gso-denied.h"
#include "lane-port.h"
#include "limiter.h"

/* What a poll found. */
enum progress {
	PROGRESS_NONE,   /* nothing waits any more */
	PROGRESS_MORE,   /* there may be more */
	PROGRESS_BROKEN, /* link down or deleted, or a socket that only fails: try again later */
};

struct worker {
	const struct routes_file *file;
	struct counters_file *counters;
	struct thread_block *block; /* in counters; this worker's */
	int tun;
	int udp;
	int wake; /* eventfd, the doorbell */
	int path_mtu; /* path-mtu.h; -1: none */
	struct lane_port lane_port;
	uint32_t features; /* FEATURE() */
	struct buffers buffers;
	/* Set anew by control_poll(). */
	struct route_table routes;
	uint32_t refused_generation; /* the last one whose slot was refused; it is counted once */
	bool has_refused;
	uint64_t retry_at_ns; /* when a refused slot is verified again */
	struct self self;
	uint64_t now_ns; /* CLOCK_BOOTTIME */
	struct limiter *limiter; /* of all workers */
	struct prober *prober;   /* of all workers; NULL: probes are only counted */
	bool asks;               /* its thread asks the questions of the prober */
	struct gso_denied gso_denied;
};

#endif
