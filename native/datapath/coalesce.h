/*
 * The other way round than segment.h: packets of one flow that follow each other become one super-packet, so that one
 * write to the TUN carries them all and the kernel works once for all of them. Only what the kernel can take apart
 * again into the same packets is merged; everything else goes on alone, and never past a packet of its own flow. Pure:
 * what is to be written is given to a function, in order.
 */
#ifndef TARTAN_COALESCE_H
#define TARTAN_COALESCE_H

#include "gso.h"
#include "ipv4.h"
#include <sys/uio.h>

/* Flows with packets that wait for more at one time. */
#define FLOWS_MAX 16u

/* Who talks to whom, and through which peer. */
struct flow {
	uint32_t peer;
	uint32_t source;
	uint32_t destination;
	uint32_t ports; /* as they stand in the header */
	uint8_t protocol;
};

/* One packet, or several that are one super-packet now. */
struct burst {
	struct vnet_header vnet;
	size_t segments;
	size_t bytes;   /* of the packet that is written */
	size_t pieces;  /* the first one is left to the writer; the second one has all headers */
	struct iovec piece[1 + GSO_SEGMENTS_MAX];
	/* Of the packets that came in. */
	size_t received_bytes;
	uint32_t trimmed;
	uint32_t options;
	uint32_t strange_ports;
	/* For the next packet. */
	struct flow flow;
	struct packet head;
	size_t header_bytes; /* IP and transport */
	size_t payload_bytes; /* of each but the last */
	uint32_t sequence; /* that a TCP packet must have to follow */
	uint16_t identification;
};

/* What of a packet is counted beside it (forward.h). */
struct beside {
	bool trimmed;
	bool options;
	bool strange_port;
};

struct coalescer {
	/* Writes the burst; its bytes are good until the next coalesce_flush() has returned. */
	void (*write)(void *context, struct burst *burst);
	void *context;
	bool merges_udp; /* the kernel can take UDP super-packets (USO) */
	uint32_t waiting; /* bit i: burst[i] waits */
	uint32_t next;    /* which one goes when a place is needed */
	struct burst burst[FLOWS_MAX];
};

/* A packet that may pass, of the length its header says. Its bytes stay where they are until coalesce_flush(). */
void coalesce_add(struct coalescer *c, const struct packet *p, const struct ipv4 *h, uint32_t peer,
		  const struct beside *beside);

/* Writes what waits. */
void coalesce_flush(struct coalescer *c);

#endif
