/*
 * The messages of one sendmmsg(2): packets to one peer that follow each other with equal lengths, the last one of them
 * perhaps shorter, go into one message that the kernel or the card takes apart again (UDP_SEGMENT, udp(7)). What is on
 * the wire is the same. No packet is copied: it stays where it is until the messages are sent.
 */
#ifndef TARTAN_OUTGOING_H
#define TARTAN_OUTGOING_H

#include "forward.h"
#include <netinet/in.h>
#include <sys/socket.h>

#define MESSAGES_MAX 64u
#define PIECES_MAX 128u
/* Of one message: what every kernel takes (UDP_MAX_SEGMENTS), and what fits a datagram with room to spare. */
#define RUN_PACKETS_MAX 64u
#define RUN_BYTES_MAX 65000u

/* Packets of one message, next to each other in its pieces. */
struct run {
	struct next_hop hop;
	size_t packets;
	size_t packet_bytes; /* of each but the last */
	size_t bytes;
	bool is_closed; /* a shorter one was added, or none may be: nothing can follow */
};

struct outgoing {
	size_t messages;
	size_t pieces;
	struct run run[MESSAGES_MAX];
	struct sockaddr_in to[MESSAGES_MAX];
	struct iovec piece[PIECES_MAX];
	struct mmsghdr message[MESSAGES_MAX];
	union {
		uint8_t space[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr aligned;
	} control[MESSAGES_MAX];
};

/* Whether one more packet finds place whatever it is. */
static inline bool outgoing_has_room(const struct outgoing *o)
{
	return o->messages < MESSAGES_MAX && o->pieces < PIECES_MAX;
}

/* Adds a packet; `in_bulk` false: it gets a message for itself. Only when there is room. */
void outgoing_add(struct outgoing *o, const struct next_hop *hop, const struct packet *p, bool in_bulk);

/* Fills in what the kernel is told of runs; to be called once before the messages are sent. */
void outgoing_close(struct outgoing *o);

/* Packet `number` of message `i`. */
struct packet outgoing_packet(const struct outgoing *o, size_t i, size_t number);

static inline void outgoing_clear(struct outgoing *o)
{
	o->messages = 0;
	o->pieces = 0;
}

#endif
