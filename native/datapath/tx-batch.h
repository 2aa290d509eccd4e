/*
 * The transmit batch: the messages of one sendmmsg(2). Packets to one peer that follow each other with equal lengths,
 * of which the last may be shorter, are one GSO run. A run is one message, which the kernel or the card cuts
 * (UDP_SEGMENT, udp(7)); the wire carries the same datagrams. No packet is copied: it stays where it is until it is
 * sent.
 */
#ifndef TARTAN_TX_BATCH_H
#define TARTAN_TX_BATCH_H

#include "forward.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define MESSAGES_MAX 64u
#define IOVS_MAX 128u
/* The limits of one message: what every kernel takes (UDP_MAX_SEGMENTS), and less than the longest datagram. */
#define GSO_RUN_PACKETS_MAX 64u
#define GSO_RUN_BYTES_MAX 65000u

/* The packets of one message, one after another in its iovs. */
struct gso_run {
	struct peer_endpoint endpoint;
	size_t packets;
	size_t packet_bytes; /* of each but the last */
	size_t bytes;
	bool is_closed; /* no packet can follow: the last one was shorter, or the run is for one packet */
};

struct tx_batch {
	size_t messages;
	size_t iovs;
	struct gso_run gso_run[MESSAGES_MAX];
	struct sockaddr_in to[MESSAGES_MAX];
	struct iovec iov[IOVS_MAX];
	struct mmsghdr message[MESSAGES_MAX];
	union {
		uint8_t space[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr aligned;
	} control[MESSAGES_MAX];
};

/* Whether there is room for one more packet of any length. */
static inline bool tx_batch_has_room(const struct tx_batch *b)
{
	return b->messages < MESSAGES_MAX && b->iovs < IOVS_MAX;
}

/* Adds a packet, if there is room. Without `use_gso` the packet gets a message of its own. */
void tx_batch_add(struct tx_batch *b, const struct peer_endpoint *endpoint, const struct packet *p, bool use_gso);

/* Writes the segment size of each run into its message. Call it once, before the messages are sent. */
void tx_batch_finish(struct tx_batch *b);

static inline struct sockaddr_in tx_batch_address(const struct peer_endpoint *endpoint)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(endpoint->port),
		.sin_addr.s_addr = htonl(endpoint->address),
	};
}

/* Packet `number` of message `i`. */
struct packet tx_batch_packet(const struct tx_batch *b, size_t i, size_t number);

static inline void tx_batch_clear(struct tx_batch *b)
{
	b->messages = 0;
	b->iovs = 0;
}

#endif
