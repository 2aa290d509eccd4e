/*
 * TUN -> underlay: reads packets until the queue is empty or the budget is used up, judges each, finishes its checksum
 * or cuts it into segments, and sends. The counters count packets as they cross the underlay.
 *
 * Sparse flows go first: before a thread sends what it has read of bulk flows, it polls the worker of sparse flows
 * until nothing waits there. This keeps the order of a flow that becomes bulk, because its last packet in the sparse
 * queue was there before its first packet in the bulk queue. The same holds for rx.h.
 */
#ifndef TARTAN_TX_H
#define TARTAN_TX_H

#include "tx-batch.h"
#include "worker.h"

struct tx {
	struct worker *worker;
	struct tx *sparse; /* of sparse flows, read and sent before anything of this one is sent; NULL: none */
	struct tx_batch batch;
	struct arena packets; /* packets that leave as they were read lie here until they are sent */
	struct arena segments;
};

void tx_open(struct tx *tx, struct worker *worker, struct tx *sparse);

/* To be called with the worker's lock and after control_poll(). Everything read is sent when it returns. */
enum progress tx_poll(struct tx *tx);

#endif
