/*
 * The packet buffers of one thread, mapped once at the start. A page that no packet has reached takes no memory. The RX
 * thread receives each datagram into a buffer that holds the longest one. The TX thread reads packets one after another
 * into one arena and writes the segments of TSO packets into another. The sparse thread does both.
 */
#ifndef TARTAN_BUFFERS_H
#define TARTAN_BUFFERS_H

#include "gso.h"

/* Packets that one poll of the TX thread reads, datagrams that one poll of the RX thread receives. */
#define TX_BUDGET 64u
#define RX_BUDGET 16u
#define DATAGRAM_BYTES_MAX 65535u
/* More packets than a flow that becomes bulk or dense has waiting among the sparse ones. */
#define SPARSE_WAITING_MAX 4096u

struct buffers {
	uint8_t *memory;
};

/* A part of the memory that is filled from its start. */
struct arena {
	uint8_t *bytes;
	size_t used;
	size_t room;
};

/* Returns 0 or an errno. */
int buffers_open(struct buffers *buffers);

/* The buffer of datagram number `i`, with room for DATAGRAM_BYTES_MAX. */
uint8_t *buffers_datagram(const struct buffers *buffers, size_t i);

/* Room for one packet while it is cut, and for one that is cut out of it; each holds DATAGRAM_BYTES_MAX. */
uint8_t *buffers_whole(const struct buffers *buffers);
uint8_t *buffers_fragment(const struct buffers *buffers);

/* The arena of packets as the TUN hands them over, and that of segments. Each holds more than the longest one. */
struct arena buffers_packets(const struct buffers *buffers);
struct arena buffers_segments(const struct buffers *buffers);

#endif
