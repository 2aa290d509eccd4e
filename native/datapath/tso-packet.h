/*
 * What the kernel leaves unfinished in a packet from the TUN, according to the virtio header before it (TUNSETOFFLOAD):
 * a checksum, or the segmentation of a TSO packet (of UDP: a USO packet) into what a network card would have sent.
 * Pure.
 */
#ifndef TARTAN_TSO_PACKET_H
#define TARTAN_TSO_PACKET_H

#include "gso.h"
#include "ipv4.h"

struct tso_packet {
	size_t whole_bytes;    /* of the packet as it was read */
	size_t segments;       /* 1 for a packet that is not cut */
	size_t segment_bytes;  /* of each but the last, headers included; 0 when it is not cut */
	size_t payload_bytes;  /* of each but the last */
	size_t header_bytes;   /* IP and transport */
	uint8_t protocol;      /* the one of the type of segmentation */
	bool wants_checksum;   /* the checksum field holds the sum of the pseudo header only */
	size_t checksum_start; /* the checksum covers the packet from here on */
	size_t checksum_at;
};

/* False if the virtio header makes no sense for a packet of this length. Then the packet cannot be sent. */
bool tso_packet_read(struct tso_packet *t, const struct vnet_header *v, const struct packet *p);

/* Whether the virtio header agrees with the sound IPv4 header. Only then may the packet be cut or finished. */
bool tso_packet_fits(const struct tso_packet *t, const struct ipv4 *h);

/*
 * Has a TCP packet cut into segments of at most `longest` bytes. Datagrams of UDP keep their lengths, because each is a
 * message of its own.
 */
void tso_packet_shorten(struct tso_packet *t, const struct packet *p, size_t longest);

/* Finishes the checksum of a packet that wants one and is not cut. */
void tso_packet_finish(const struct tso_packet *t, struct packet *p, const struct ipv4 *h);

/*
 * Writes segment `number`, counted from 0, with right checksums. The length of `into` is its room before and the
 * segment's length after. False, and nothing is written, if the room is too small.
 */
bool tso_packet_cut(const struct tso_packet *t, const struct packet *p, const struct ipv4 *h, size_t number,
		    struct packet *into);

#endif
