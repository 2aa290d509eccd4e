/*
 * Sends messages to the underlay with as few system calls as possible and counts each packet. An error belongs to the
 * message it happened to. A message that may have failed because of UDP_SEGMENT is sent again packet by packet.
 */
#ifndef TARTAN_SENDING_H
#define TARTAN_SENDING_H

#include "tx-batch.h"
#include "worker.h"

/* Sends and counts all packets of the batch, and empties it. */
void tx_flush(struct worker *worker, struct tx_batch *batch);

#endif
