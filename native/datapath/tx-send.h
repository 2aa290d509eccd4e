/*
 * Sending of a transmit batch. A message that the underlay refuses is tried again: a GSO run packet by packet, and a
 * packet without DF that is too long for the path in fragments. What cannot be sent is counted, and its sender is told.
 */
#ifndef TARTAN_TX_SEND_H
#define TARTAN_TX_SEND_H

#include "tx-batch.h"
#include "worker.h"

/* Sends and counts each packet, and clears the batch. */
void tx_send(struct worker *worker, struct tx_batch *batch);

#endif
