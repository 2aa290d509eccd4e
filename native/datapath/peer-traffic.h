/* What a thread notes of the data that it carries to and from a peer, once for each run of packets. */
#ifndef TARTAN_PEER_TRAFFIC_H
#define TARTAN_PEER_TRAFFIC_H

#include "peer-blocks.h"

/* A pair of hosts is active while data passed between them within this time, in either direction. */
#define ACTIVE_NS UINT64_C(10000000000)

/* Packets that follow each other, all to or from one peer. */
struct peer_run {
	uint32_t peer; /* its number */
	uint32_t packets; /* 0: those that were to be sent were refused */
	uint64_t bytes; /* of inner packets */
};

/*
 * Each returns whether the pair may have become active: after a silence, and every few seconds, because a peer may also
 * begin to answer probes while data passes.
 */
bool peer_traffic_sent(struct counters_file *counters, const struct route_table *table, const struct peer_run *run,
		       uint64_t now_ns);
bool peer_traffic_received(struct counters_file *counters, const struct route_table *table, const struct peer_run *run,
			   uint32_t source, uint16_t port, uint64_t now_ns);

/* Notes a port from which data may come beside that of the endpoint. Under the lock of the prober. */
void peer_traffic_note_port(struct peer_block *block, uint16_t port);

/* Whether data was announced to come from the port, lately. */
bool peer_traffic_knows_port(const struct peer_block *block, uint16_t port);

/* Whether data passed within ACTIVE_NS. */
bool peer_traffic_is_active(const struct peer_block *block, uint64_t now_ns);

/* Notes when the peer was heard, by whatever datagram. */
void peer_traffic_heard(struct peer_block *block, uint64_t now_ns);

#endif
