/*
 * One forwarding thread: what it reads from and writes to, its view of the routes, its counters. Only the thread
 * itself touches its worker once it runs; the rest of the world speaks to it through the two shared files.
 */
#ifndef TARTAN_WORKER_H
#define TARTAN_WORKER_H

#include "batch.h"
#include "counters.h"
#include "forward.h"
#include "limiter.h"
#include "refusals.h"

/* How long a thread sleeps at most: the header words are looked at again then, also when a doorbell was lost. */
#define IDLE_MS 1000
/* How long it leaves a broken descriptor alone (link down or deleted) before it tries again. */
#define BROKEN_MS 50

struct worker {
	const struct routes_file *file;
	struct thread_block *block;
	int tun;
	int udp;
	int wake; /* eventfd, the doorbell */
	int path_mtu; /* path-mtu.h; -1: none */
	uint32_t features; /* FEATURE() */
	struct batch batch;
	/* Renewed by turn_begin(). */
	struct route_table routes;
	uint32_t refused_generation; /* the last one whose slot was no good; counted once */
	bool has_refused;
	uint64_t retry_at_ns; /* when a refused slot is looked at again */
	struct self self;
	uint64_t now_ns; /* CLOCK_BOOTTIME */
	struct limiter limiter;
	struct refusals refusals;
};

/* One direction each; they return when the drain word is set and everything read was passed on. */
void loop_tx(struct worker *worker); /* TUN -> underlay */
void loop_rx(struct worker *worker); /* underlay -> TUN */

#endif
