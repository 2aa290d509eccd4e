/* The Internet checksum over a range of a packet (RFC 1071), and its change by one word (RFC 1624 section 3). */
#ifndef TARTAN_CHECKSUM_H
#define TARTAN_CHECKSUM_H

#include "packet.h"

/* The ones' complement sum of the range, folded to 16 bits; 0xffff if the range contains its own right checksum. */
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
 * The same sum, for ranges longer than a header. What of the range lies outside the packet counts as zero. The first
 * form uses AVX2 if the processor has it, and is the second form otherwise; tests compare the two.
 */
uint16_t checksum_fast(const struct packet *p, size_t at, size_t bytes);
uint16_t checksum_scalar(const struct packet *p, size_t at, size_t bytes);

/* The sum of two ranges whose distance is even, from the sum of each. */
static inline uint16_t checksum_add(uint32_t a, uint32_t b)
{
	return (uint16_t)((a + b) + ((a + b) >> 16));
}

/* The value for the checksum field of the range, which is zero now. */
static inline uint16_t checksum_make(const struct packet *p, size_t at, size_t bytes)
{
	return (uint16_t)~checksum_sum(p, at, bytes);
}

/* HC' = ~(~HC + ~m + m'): the form of RFC 1624 that never confuses the two zeros of ones' complement. */
static inline uint16_t checksum_adjust(uint16_t checksum, uint16_t before, uint16_t after)
{
	uint32_t sum = (uint32_t)(uint16_t)~checksum + (uint16_t)~before + after;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

#endif
