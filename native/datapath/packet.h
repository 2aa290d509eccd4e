/*
 * Checked access to the bytes of one packet. A read past the received length gives 0, and a write past it does nothing,
 * whatever the header claims. No other file of the data process indexes packet bytes.
 */
#ifndef TARTAN_PACKET_H
#define TARTAN_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct packet {
	uint8_t *bytes;
	size_t length; /* received, or shorter after a trim; never longer */
};

static inline bool packet_holds(const struct packet *p, size_t at, size_t bytes)
{
	return at <= p->length && bytes <= p->length - at;
}

static inline uint8_t packet_u8(const struct packet *p, size_t at)
{
	return packet_holds(p, at, 1) ? p->bytes[at] : 0;
}

static inline uint16_t packet_u16(const struct packet *p, size_t at)
{
	if (!packet_holds(p, at, 2))
		return 0;
	return (uint16_t)((uint32_t)p->bytes[at] << 8 | p->bytes[at + 1]);
}

static inline uint32_t packet_u32(const struct packet *p, size_t at)
{
	if (!packet_holds(p, at, 4))
		return 0;
	return (uint32_t)packet_u16(p, at) << 16 | packet_u16(p, at + 2);
}

static inline void packet_put_u8(struct packet *p, size_t at, uint8_t value)
{
	if (packet_holds(p, at, 1))
		p->bytes[at] = value;
}

static inline void packet_put_u16(struct packet *p, size_t at, uint16_t value)
{
	if (!packet_holds(p, at, 2))
		return;
	p->bytes[at] = (uint8_t)(value >> 8);
	p->bytes[at + 1] = (uint8_t)value;
}

static inline void packet_put_u32(struct packet *p, size_t at, uint32_t value)
{
	if (!packet_holds(p, at, 4))
		return;
	packet_put_u16(p, at, (uint16_t)(value >> 16));
	packet_put_u16(p, at + 2, (uint16_t)value);
}

/* Copies the range, or nothing if one of the packets does not hold all of it. They must not overlap. */
static inline void packet_copy(struct packet *to, size_t to_at, const struct packet *from, size_t from_at, size_t bytes)
{
	if (packet_holds(to, to_at, bytes) && packet_holds(from, from_at, bytes))
		memcpy(to->bytes + to_at, from->bytes + from_at, bytes);
}

/* Whether both packets hold the range and it is equal. */
static inline bool packet_equal(const struct packet *a, size_t a_at, const struct packet *b, size_t b_at, size_t bytes)
{
	return packet_holds(a, a_at, bytes) && packet_holds(b, b_at, bytes) &&
	       memcmp(a->bytes + a_at, b->bytes + b_at, bytes) == 0;
}

#endif
