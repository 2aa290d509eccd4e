/*
 * The packet memory of one thread, taken once at the start; pages that no packet ever reached cost nothing. The RX
 * thread receives into places of the longest datagram each. The TX thread reads packets one after another into one
 * arena and cuts super-packets into another. The thread for sparse flows does both.
 */
#ifndef TARTAN_BATCH_H
#define TARTAN_BATCH_H

#include "gso.h"

/* Packets that one poll of the TX thread reads, datagrams that one poll of the RX thread receives. */
#define BATCH_PACKETS 64u
#define BATCH_PLACES 16u
#define BATCH_PACKET_BYTES 65535u
/*
 * Packets of sparse flows that a bulk thread forwards before its own. It is more than any flow that becomes bulk has
 * waiting there, so no packet overtakes another of its flow; and it bounds the wait of bulk flows behind many sparse
 * ones.
 */
#define FIRST_PACKETS 4096u

struct batch {
	uint8_t *memory;
};

/* A range of the memory that is filled from its start. */
struct arena {
	uint8_t *bytes;
	size_t used;
	size_t room;
};

/* Returns 0 or an errno. */
int batch_open(struct batch *batch);

/* Where datagram number `i` begins; BATCH_PACKET_BYTES are its own. */
uint8_t *batch_place(const struct batch *batch, size_t i);

/* Room for packets as they are read, and for segments as they are cut; for more than the longest of either. */
struct arena batch_reading(const struct batch *batch);
struct arena batch_cutting(const struct batch *batch);

#endif
