/*
 * A slow second implementation of forward.c for the overlay of fixture.h, over plain bytes: the counter in which a
 * packet ends, rule after rule in the order of the counters.
 */
#ifndef TARTAN_RULES_H
#define TARTAN_RULES_H

#include "icmp-reference.h"
#include "fixture.h"

static inline uint32_t rules_address(const uint8_t *b)
{
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* The endpoint of the peer that has this address in its subnet, or 0. */
static inline uint32_t rules_endpoint(uint32_t address)
{
	const uint32_t subnet = address >> 8;

	return subnet == 0x0a0502 ? 0xc0000202 : subnet == 0x0a0503 ? 0xc0000203 : 0;
}

static inline bool rules_martian(uint32_t address)
{
	return address >> 24 == 0 || address >> 24 == 127 || address >> 24 >= 224;
}

/* 0 for a sound header, else the number of the check that fails: 1 short, 2 version, 3 IHL, 4 length, 5 checksum. */
static inline unsigned int rules_header(const uint8_t *b, size_t n)
{
	if (n < 20)
		return 1;
	const size_t ip = (b[0] & 15u) * 4u, total = (size_t)(b[2] << 8 | b[3]);
	if (b[0] >> 4 != 4)
		return 2;
	if (ip < 20 || ip > n)
		return 3;
	if (total < ip || total > n)
		return 4;
	return reference_sum(0, b, ip) != 0 ? 5 : 0;
}

static inline bool rules_source_route(const uint8_t *o, size_t n)
{
	while (n > 0 && o[0] != 0) {
		if (o[0] == 131 || o[0] == 137)
			return true;
		const size_t step = o[0] == 1 ? 1 : n < 2 || o[1] < 2 ? n : o[1];
		if (step >= n)
			return false;
		o += step;
		n -= step;
	}
	return false;
}

/* A datagram whose first byte is 0xE.: of version 1 and family 4, with the prefix of the peer that it comes from. */
static inline enum counter rules_typed(const uint8_t *b, size_t n, uint32_t source)
{
	if (b[0] != 0xe0)
		return rx_bad_type;
	if (n < 24 || b[1] != 1 || b[2] < 1 || b[2] > 2 || b[16] != 4 || b[17] != 24 || b[21] != 0)
		return rx_bad_probe;
	const size_t arrived = (size_t)(b[22] << 8 | b[23]);
	if (b[2] == 1 ? arrived != 0 : arrived < n)
		return rx_bad_probe;
	return rules_endpoint(rules_address(b + 18)) == source ? rx_probe : rx_bad_probe;
}

static inline enum counter rules_inbound(const uint8_t *b, size_t n, const struct outer *outer, uint32_t flags)
{
	static const enum counter faults[] = { rx_ok, rx_short, rx_bad_version, rx_bad_ihl, rx_bad_len, rx_bad_csum };

	if (outer->truncated || n > MTU)
		return rx_oversize;
	if (n < 20)
		return rx_short;
	if (outer->source != 0xc0000202 && outer->source != 0xc0000203)
		return rx_not_member;
	if (b[0] >> 4 == 14)
		return rules_typed(b, n, outer->source);
	if (rules_header(b, n) != 0)
		return faults[rules_header(b, n)];
	const size_t ip = (b[0] & 15u) * 4u, payload = (size_t)(b[2] << 8 | b[3]) - ip;
	if (b[8] == 0)
		return rx_ttl;
	if (rules_martian(rules_address(b + 12)))
		return rx_martian;
	if (!(flags & FLAG_NO_SOURCE_CHECK) && rules_endpoint(rules_address(b + 12)) != outer->source)
		return rx_spoof_src;
	if (!(flags & FLAG_NO_DESTINATION_CHECK) && rules_address(b + 16) >> 8 != 0x0a0501)
		return rx_bad_dst;
	/* The broadcasts of our subnet and of the network. */
	if (rules_address(b + 16) == 0x0a0501ff || rules_address(b + 16) == 0x0a05ffff)
		return rx_bad_dst;
	if (rules_source_route(b + 20, ip - 20))
		return rx_srcroute;
	if ((size_t)((b[6] & 0x1f) << 8 | b[7]) * 8 + payload > 65535)
		return rx_bad_frag;
	return (b[6] & 0x20) != 0 && (payload == 0 || payload % 8 != 0) ? rx_bad_frag : rx_ok;
}

/* `longest` is the length of the longest segment of a packet that would be cut, else 0. */
static inline enum counter rules_outbound(const uint8_t *b, size_t n, size_t longest, uint32_t flags)
{
	static const enum counter faults[] = { tx_ok, tx_short, tx_bad_version, tx_bad_ihl, tx_bad_len, tx_bad_csum };

	if (rules_header(b, n) != 0)
		return faults[rules_header(b, n)];
	if (rules_martian(rules_address(b + 12)))
		return tx_bad_src;
	if (!(flags & FLAG_NO_SOURCE_CHECK) && rules_address(b + 12) >> 8 != 0x0a0501)
		return tx_spoof_src;
	if (rules_endpoint(rules_address(b + 16)) == 0)
		return tx_noroute;
	if (b[8] < 2)
		return tx_ttl;
	/* What may be cut is sent. */
	return (b[6] & 0x40) != 0 && (longest != 0 ? longest : (size_t)(b[2] << 8 | b[3])) > MTU ? tx_oversize : tx_ok;
}

/* Whether the sender of a packet that ended in this counter gets a reply. */
static inline bool rules_told(const uint8_t *b, enum counter why)
{
	if (why != tx_noroute && why != tx_ttl && why != tx_oversize)
		return false;
	for (size_t at = 12; at <= 16; at += 4) {
		const uint32_t address = rules_address(b + at);
		if (address == 0x0a05ffff || address == 0x0a0501ff)
			return false;
		/* The broadcast of a peer's subnet is known from the route of the packet. */
		if (why != tx_noroute && address == (rules_address(b + 16) | 0xff))
			return false;
	}
	return reference_icmp_allowed(b);
}

#endif
