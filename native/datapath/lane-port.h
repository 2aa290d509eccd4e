/*
 * The own source port of a thread that sends. From it go packets to peers that answer probes from there, so that the
 * outer packets of two hosts are several flows: to network cards, to the queues of the underlay and to the sockets of the
 * receiver. To all others, and until the first answer, they go from the port of the network, because a stateful firewall
 * takes them for replies. The socket belongs to this process: nothing but answers arrives there, and another process
 * makes its own.
 */
#ifndef TARTAN_LANE_PORT_H
#define TARTAN_LANE_PORT_H

#include "forward.h"

struct worker;

/* What the thread knows of one peer. */
struct lane_peer {
	uint32_t address; /* of the endpoint that was asked */
	uint32_t unanswered; /* in a row */
	bool is_proven;   /* a question from the own port was answered */
	bool is_open;     /* asked and not answered */
	uint64_t opaque;
	uint64_t asked_ns;
	uint64_t next_ns; /* when there is something to do */
};

struct lane_port {
	int fd;
	struct lane_peer *peer; /* PEERS_MAX; a page that no peer has needed takes no memory. NULL: no port */
};

/*
 * Opens the port with the options of `udp`, and on its address. Without one everything goes from `udp`. Call it before
 * the system call filter, when the options of `udp` are set.
 */
void lane_port_open(struct lane_port *l, int udp);

/* The socket for a packet to the peer. It asks from the own port when it is time. */
int lane_port_socket(struct worker *w, const struct peer_endpoint *endpoint);

#endif
