/*
 * Memory for the packets of one turn of one thread, taken once at the start. Each place has headroom for the virtio
 * header before the packet, so that a packet goes between socket and TUN without a copy of ours.
 */
#ifndef TARTAN_BATCH_H
#define TARTAN_BATCH_H

#include "gso.h"

#define BATCH_PACKETS 64u
#define BATCH_PACKET_BYTES 65535u

struct batch {
	uint8_t *places;
};

/* Returns 0 or an errno. */
int batch_open(struct batch *batch);

/* Where packet number `i` begins; VNET_HEADER_BYTES before and BATCH_PACKET_BYTES after it are its own. */
uint8_t *batch_packet(const struct batch *batch, size_t i);

#endif
