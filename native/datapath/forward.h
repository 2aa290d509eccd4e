/*
 * The verdict about one packet, in either direction: where it goes and the one counter in which it ends. Pure, so that
 * it can be fuzzed, timed and tested by tables; tx.c and rx.c act on the verdict.
 */
#ifndef TARTAN_FORWARD_H
#define TARTAN_FORWARD_H

#include "count.h"
#include "icmp.h"
#include "route-table.h"

enum verdict { SEND_TO_PEER, WRITE_TO_TUN, TAKE_PROBE, REPLY_ICMP, DROP };

/* The open gate lets packets through. The others drop both directions and have a counter each. */
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
	uint32_t longest_received; /* bytes of an inner packet */
	enum gate gate;
};

struct peer_endpoint {
	uint32_t address;
	uint16_t port;
	uint32_t peer; /* its number */
};

/* What the outer header says of a datagram. */
struct outer {
	uint32_t source;
	uint16_t port;
	bool truncated; /* MSG_TRUNC: the rest of it is lost */
};

struct outcome {
	enum counter counter; /* exactly one; of a packet that passes, the one to use if it is sent or written */
	struct notes notes;            /* of WRITE_TO_TUN */
	uint32_t sender;               /* of WRITE_TO_TUN and TAKE_PROBE: the number of the peer */
	struct peer_endpoint endpoint; /* of SEND_TO_PEER */
	struct icmp_error error;       /* of REPLY_ICMP */
	struct ipv4 header;            /* of all but DROP and TAKE_PROBE; its TTL is the one received */
};

/*
 * From the TUN: SEND_TO_PEER (TTL lowered, length trimmed; the caller cuts what is longer than the MTU, which has no
 * DF), REPLY_ICMP or DROP. `segment_bytes` is the length of the
 * longest segment of a TSO packet, whose segments are judged as one; 0 for any other packet.
 */
enum verdict forward_outbound(struct packet *p, size_t segment_bytes, const struct self *self,
			      const struct route_table *routes, struct outcome *out);

/*
 * The same for a packet with DF to which SEND_TO_PEER was said, and that is longer than the path carries: REPLY_ICMP with
 * the `longest` inner packet, or DROP. `r` may be NULL.
 */
enum verdict forward_refuse_size(struct packet *p, size_t longest, const struct self *self, const struct route *r,
				 struct outcome *out);

/* From the underlay: WRITE_TO_TUN (length trimmed), TAKE_PROBE or DROP; never a reply. */
enum verdict forward_inbound(struct packet *p, const struct outer *outer, const struct self *self,
			     const struct route_table *routes, struct outcome *out);

#endif
