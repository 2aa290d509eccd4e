/*
 * Messages to the underlay: all of them with as few calls as go, each packet counted. A failure belongs to the message
 * it happened to; one that may be of the offload's making is tried again packet by packet.
 */
#ifndef TARTAN_SENDING_H
#define TARTAN_SENDING_H

#include "outgoing.h"
#include "worker.h"

/* Sends and counts everything in `o`, and leaves it empty. */
void sending_flush(struct worker *w, struct outgoing *o);

#endif
