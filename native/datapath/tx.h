/*
 * TUN -> underlay: reads packets until the queue is empty or a batch is there, decides about each, finishes and
 * cuts what the kernel left unfinished, and sends. What is counted are packets as they go over the underlay.
 *
 * Sparse flows first: before a thread sends what it has read of bulk flows, it takes turns of the worker for sparse ones
 * until nothing waits there. A flow that becomes bulk keeps its order by that, because its last sparse packet was in its
 * queue before the first bulk one. The same holds for rx.h.
 */
#ifndef TARTAN_TX_H
#define TARTAN_TX_H

#include "outgoing.h"
#include "worker.h"

struct tx {
	struct worker *worker;
	struct tx *first; /* of sparse flows, read and sent before anything of this one is sent; NULL: none */
	struct outgoing outgoing;
	struct arena reading; /* packets that leave as they were read lie here until they are sent */
	struct arena cutting;
};

void tx_open(struct tx *tx, struct worker *worker, struct tx *first);

/* To be called with the worker's lock and after turn_begin(). Everything read is sent when it returns. */
enum progress tx_turn(struct tx *tx);

#endif
