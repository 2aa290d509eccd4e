/*
 * A slow second implementation of icmp.c over plain bytes, from RFC 792, RFC 1122 section 3.2.2 and RFC 1812 section
 * 4.3: whether a packet with a sound header may get an error as reply, and the reply, byte by byte.
 */
#ifndef TARTAN_ICMP_REFERENCE_H
#define TARTAN_ICMP_REFERENCE_H

#include "icmp.h"
#include "reference.h"

static inline bool reference_icmp_allowed(const uint8_t *b)
{
	static const uint8_t queries[] = { 0, 8, 9, 10, 13, 14, 15, 16, 17, 18 };
	const size_t ip = (b[0] & 15u) * 4u, total = (size_t)(b[2] << 8 | b[3]);

	for (size_t address = 12; address <= 16; address += 4)
		if (b[address] == 0 || b[address] == 127 || b[address] >= 224)
			return false;
	if ((b[6] & 0x1f) != 0 || b[7] != 0)
		return false;
	return b[9] != 1 || (total > ip && memchr(queries, b[ip], sizeof queries) != NULL);
}

/* Writes the reply about `received` bytes of `b` (20 or more) to `o`, into `room` (28 or more). Returns its length. */
static inline size_t reference_icmp(uint8_t *o, size_t room, const struct icmp_error *e, uint32_t from,
				    const uint8_t *b, size_t received)
{
	const size_t total = (size_t)(b[2] << 8 | b[3]);
	size_t n = 28 + (b[0] & 15u) * 4u + 8;

	if (n > 28 + total)
		n = 28 + total;
	if (n > 28 + received)
		n = 28 + received;
	if (n > room)
		n = room;
	const uint8_t head[28] = { 0x45, 0xc0, (uint8_t)(n >> 8), (uint8_t)n, 0, 0, 0x40, 0, 64, 1, 0, 0,
				   (uint8_t)(from >> 24), (uint8_t)(from >> 16), (uint8_t)(from >> 8), (uint8_t)from,
				   b[12], b[13], b[14], b[15],
				   e->type, e->code, 0, 0, 0, 0, (uint8_t)(e->mtu >> 8), (uint8_t)e->mtu };
	memcpy(o, head, 28);
	memcpy(o + 28, b, n - 28);
	reference_put(o + 10, reference_sum(0, o, 20));
	reference_put(o + 22, reference_sum(0, o + 20, n - 20));
	return n;
}

#endif
