/*
 * The Internet checksum (RFC 1071) over a range of a packet, and its change by one 16-bit word (RFC 1624 section 3).
 */
#ifndef TARTAN_CHECKSUM_H
#define TARTAN_CHECKSUM_H

#include "packet.h"

/* Ones' complement sum of the range, folded to 16 bits; 0xffff when the range contains its own right checksum. */
static inline uint16_t checksum_sum(const struct packet *p, size_t at, size_t bytes)
{
	uint64_t sum = 0;
	size_t end = at + bytes;

	for (; at + 1 < end; at += 2)
		sum += packet_u16(p, at);
	if (at < end)
		sum += (uint32_t)packet_u8(p, at) << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/*
 * The same sum for ranges of more than a header, as fast as the processor can; what of the range is not there counts
 * as zero. The second form is what processors without AVX2 run, and the twin of the first in the tests.
 */
uint16_t checksum_bulk(const struct packet *p, size_t at, size_t bytes);
uint16_t checksum_bulk_plain(const struct packet *p, size_t at, size_t bytes);

/* Two sums of ranges that follow each other at an even distance, in one. */
static inline uint16_t checksum_add(uint32_t a, uint32_t b)
{
	return (uint16_t)((a + b) + ((a + b) >> 16));
}

/* The value for a checksum field that is zero in the range now. */
static inline uint16_t checksum_make(const struct packet *p, size_t at, size_t bytes)
{
	return (uint16_t)~checksum_sum(p, at, bytes);
}

/* HC' = ~(~HC + ~m + m'): the form of RFC 1624 that never turns a right checksum into the other zero. */
static inline uint16_t checksum_adjust(uint16_t checksum, uint16_t before, uint16_t after)
{
	uint32_t sum = (uint32_t)(uint16_t)~checksum + (uint16_t)~before + after;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

#endif
