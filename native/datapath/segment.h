/*
 * What the kernel leaves to us in a packet from the TUN, by the virtio header before it (TUNSETOFFLOAD): a checksum to
 * finish, or a super-packet to cut into the packets that a network card would have made of it. Pure.
 */
#ifndef TARTAN_SEGMENT_H
#define TARTAN_SEGMENT_H

#include "gso.h"
#include "ipv4.h"

struct super {
	size_t whole_bytes;    /* as it was read */
	size_t segments;       /* that it will be on the wire; 1 for a packet that is not cut */
	size_t segment_bytes;  /* of each but the last, headers included; 0 when it is not cut */
	size_t payload_bytes;  /* of each but the last */
	size_t header_bytes;   /* IP and transport */
	uint8_t protocol;      /* that the kind of segmentation is for */
	bool wants_checksum;   /* the field holds the sum of the pseudo header alone */
	size_t checksum_start; /* what is summed, to the end */
	size_t checksum_at;
};

/* False when the header makes no sense for a packet of this length: then there is nothing that could be sent. */
bool super_read(struct super *s, const struct vnet_header *v, const struct packet *p);

/* Whether the header says the same as the packet, whose header was found sound; only then may it be cut or finished. */
bool super_fits(const struct super *s, const struct ipv4 *h);

/* Puts the right checksum into a packet that wants one and is not cut. */
void super_finish(const struct super *s, struct packet *p, const struct ipv4 *h);

/*
 * Segment `number`, from 0, whole and with right checksums. `into` is room on entry and the segment after; false, and
 * nothing written, when the room is too small.
 */
bool super_cut(const struct super *s, const struct packet *p, const struct ipv4 *h, size_t number, struct packet *into);

#endif
