/*
 * Checked access to the bytes of one packet. A read past the received length gives 0 and a write past it does nothing,
 * whatever the header claims: no other file of the data process indexes packet bytes.
 */
#ifndef TARTAN_PACKET_H
#define TARTAN_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

#endif
