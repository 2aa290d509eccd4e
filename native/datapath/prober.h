/*
 * The prober of the data process: it answers the questions of peers. All workers have one, and its lock: a thread takes
 * it last, after those of workers.
 */
#ifndef TARTAN_PROBER_H
#define TARTAN_PROBER_H

#include "answer-limit.h"
#include "worker.h"

/* What the process keeps of one peer beside its block. It belongs to the identity. */
struct probed_peer {
	uint32_t identity[4];
	struct answer_limit limit;
};

struct prober {
	pthread_mutex_t lock;
	uint64_t random[2];         /* state of the generator */
	struct probed_peer *peer;   /* PEERS_MAX; a page that no peer has needed takes no memory */
};

/* Before the system call filter. Returns 0 or an errno. */
int prober_open(struct prober *prober);

/* Takes a probe that forward_inbound() found to be of peer `sender`. Call it with the worker's lock. */
void prober_take(struct worker *worker, const struct packet *p, const struct outer *outer, uint32_t sender);

#endif
