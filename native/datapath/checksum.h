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
