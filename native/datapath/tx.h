/* The outbound direction of a worker, from the TUN to the underlay; tx.c starts with a picture of the path. */
#ifndef TARTAN_TX_H
#define TARTAN_TX_H

#include "turns.h"
#include "tx-batch.h"
#include "worker.h"

struct tx {
	struct worker *worker;
	struct turns *turns; /* of the sparse worker, in this direction; NULL: none */
	bool is_sparse; /* it takes these turns; a lane waits for them */
	struct tx_batch batch;
	struct arena packets; /* as they were read; those that are not cut are sent from here */
	struct arena segments;
};

void tx_open(struct tx *tx, struct worker *worker, struct turns *turns, bool is_sparse);

/* Call it after control_poll(). Everything that was read is sent when it returns. */
enum progress tx_poll(struct tx *tx);

#endif
