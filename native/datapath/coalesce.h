/*
 * Coalescing, the reverse of tso-packet.h: packets of one flow that follow each other are merged into one GSO packet,
 * so that one write to the TUN carries all of them and the kernel processes them as one. A packet is merged only if the
 * kernel can cut the result into the same packets again. Any other packet is written unmerged, and no packet overtakes
 * another of its flow. Pure: a function of the caller writes the packets.
 */
#ifndef TARTAN_COALESCE_H
#define TARTAN_COALESCE_H

#include "count.h"
#include "gso.h"
#include "ipv4.h"
#include <sys/uio.h>

/* How many flows may have a packet waiting. */
#define FLOWS_MAX 16u

/* A flow of TCP or UDP that arrives from one peer. */
struct flow {
	uint32_t peer;
	uint32_t source;
	uint32_t destination;
	uint32_t ports; /* both, as in the header */
	uint8_t protocol;
};

/* One packet, or several that are merged. */
struct gro_packet {
	struct vnet_header vnet;
	size_t segments;
	size_t bytes; /* of the packet that is written */
	size_t iovs;  /* iov[0] is the writer's, for the virtio header; iov[1] holds all headers */
	struct iovec iov[1 + GSO_SEGMENTS_MAX];
	/* Sums over the packets that arrived. */
	size_t received_bytes;
	uint32_t trimmed;
	uint32_t options;
	uint32_t unexpected_ports;
	/* What the next packet must have. */
	struct flow flow;
	struct packet head;
	size_t header_bytes; /* IP and transport */
	size_t payload_bytes; /* of each but the last */
	uint32_t sequence; /* of TCP */
	uint16_t identification;
};

struct coalescer {
	/* Writes the packet, whose bytes stay valid until the next coalesce_flush() has returned. */
	void (*write)(void *context, struct gro_packet *packet);
	void *context;
	bool merges_udp; /* the kernel takes UDP GSO packets (USO) */
	uint32_t waiting; /* bit i: packet[i] waits */
	uint32_t next;    /* the one to write when all wait and another flow begins */
	struct gro_packet packet[FLOWS_MAX];
};

/* Adds a packet that may pass and has the length its header says. Its bytes must stay valid until coalesce_flush(). */
void coalesce_add(struct coalescer *c, const struct packet *p, const struct ipv4 *h, uint32_t peer,
		  const struct notes *notes);

/* Writes all packets that wait. */
void coalesce_flush(struct coalescer *c);

#endif
