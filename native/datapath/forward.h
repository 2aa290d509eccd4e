/*
 * The decision about one packet, in either direction: where it goes and the one counter it ends in. No system call
 * and no state but the arguments, so that it can be fuzzed, timed and tested by tables; the loops act on it.
 */
#ifndef TARTAN_FORWARD_H
#define TARTAN_FORWARD_H

#include "icmp.h"
#include "../shared/layout.h"
#include "route-table.h"

enum verdict { SEND_TO_PEER, WRITE_TO_TUN, REPLY_ICMP, DROP };

/* OPEN lets packets through; the others drop both directions and have counters of their own. */
enum gate { GATE_OPEN, GATE_FENCED, GATE_ORPHANED };

/* This node, as the head of the routes file described it before the poll. */
struct self {
	uint32_t network;
	uint32_t network_length;
	uint32_t subnet; /* also the tunnel address */
	uint32_t subnet_length;
	uint32_t public_ip;
	uint32_t flags;
	uint32_t mtu;
	enum gate gate;
};

struct peer_endpoint {
	uint32_t address;
	uint16_t port;
};

/* Where a datagram came from. */
struct outer {
	uint32_t source;
	uint16_t port;
	bool truncated; /* MSG_TRUNC: the rest of it is lost */
};

struct outcome {
	enum counter counter; /* exactly one; for a packet that passes, the one to use if sending it succeeds */
	/* What is counted in addition. */
	bool trimmed;
	bool options;
	bool unexpected_port;
	struct peer_endpoint endpoint;     /* of SEND_TO_PEER */
	struct icmp_error error; /* of REPLY_ICMP */
	struct ipv4 header;      /* set from REPLY_ICMP and SEND_TO_PEER on; its TTL is the one received */
};

/* From the TUN: SEND_TO_PEER (TTL lowered, length trimmed), REPLY_ICMP or DROP. */
enum verdict forward_outbound(struct packet *p, const struct self *self, const struct route_table *routes,
			      struct outcome *out);

/* The same for a TSO packet, whose segments have at most `segment_bytes`. They are judged as one. */
enum verdict forward_outbound_tso(struct packet *p, size_t segment_bytes, const struct self *self,
				    const struct route_table *routes, struct outcome *out);

/* From the underlay: WRITE_TO_TUN (length trimmed) or DROP; never a reply. */
enum verdict forward_inbound(struct packet *p, const struct outer *outer, const struct self *self,
			     const struct route_table *routes, struct outcome *out);

#endif
