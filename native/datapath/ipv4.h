/*
 * The IPv4 header of one packet: its offsets, its fields after the checks that both directions share, and the classes
 * of addresses that never belong on a tunnel (RFC 1122 section 3.2.1.3).
 */
#ifndef TARTAN_IPV4_H
#define TARTAN_IPV4_H

#include "packet.h"

#define IPV4_HEADER_BYTES 20u
#define IPV4_HEADER_MAX 60u
#define IPV4_BYTES_MAX 65535u
#define IPV4_MTU_MIN 68u /* RFC 791: every link carries as much */

/* Offsets in the header. */
#define IPV4_AT_TOS 1u
#define IPV4_AT_TOTAL 2u
#define IPV4_AT_IDENTIFICATION 4u
#define IPV4_AT_FRAGMENT 6u
#define IPV4_AT_TTL 8u
#define IPV4_AT_CHECKSUM 10u
#define IPV4_AT_SOURCE 12u
#define IPV4_AT_DESTINATION 16u

#define IPV4_DONT_FRAGMENT 0x4000u
#define IPV4_MORE_FRAGMENTS 0x2000u
#define IPV4_OFFSET_MASK 0x1fffu

/* Types of options. One with the copied bit belongs to each fragment. */
#define IPV4_OPTION_NOP 1u
#define IPV4_OPTION_COPIED 0x80u

#define PROTOCOL_ICMP 1u
#define PROTOCOL_TCP 6u
#define PROTOCOL_UDP 17u

struct ipv4 {
	size_t header_bytes; /* 20..60 and received */
	size_t total_bytes;  /* header_bytes..received */
	size_t fragment_offset; /* bytes */
	bool more_fragments;
	bool dont_fragment;
	uint8_t ttl;
	uint8_t protocol;
	uint32_t source;
	uint32_t destination;
};

/* In the order of the checks. */
enum ipv4_fault {
	IPV4_SOUND,
	IPV4_SHORT,
	IPV4_BAD_VERSION,
	IPV4_BAD_IHL,
	IPV4_BAD_LENGTH,
	IPV4_BAD_CHECKSUM,
	IPV4_FAULTS,
};

enum ipv4_fault ipv4_parse(const struct packet *p, struct ipv4 *header);

static inline uint8_t ipv4_version(const struct packet *p)
{
	return (uint8_t)(packet_u8(p, 0) >> 4);
}

static inline bool ipv4_is_fragment(const struct ipv4 *h)
{
	return h->more_fragments || h->fragment_offset != 0;
}

/* Whether no datagram can have been fragmented into this offset and length (RFC 791 section 3.2). */
bool ipv4_fragment_impossible(const struct ipv4 *h);

/*
 * The length of the option at this offset; 0 where the options end. An option that is missing its length or has a
 * senseless one ends them too.
 */
size_t ipv4_option_bytes(const struct packet *p, size_t header_bytes, size_t at);

/* Whether a strict or loose source route is among the options. An option with a senseless length ends the search. */
bool ipv4_has_source_route(const struct packet *p, const struct ipv4 *h);

/* Writes a 16-bit word of the header and adjusts the checksum. */
void ipv4_put_u16(struct packet *p, size_t at, uint16_t value);

/* Lowers the TTL by one and adjusts the checksum. */
void ipv4_decrement_ttl(struct packet *p);

/* 0/8, 127/8, 224/4 and 240/4 with the limited broadcast: never the address of one host. */
static inline bool ipv4_is_martian(uint32_t address)
{
	uint32_t high = address >> 24;

	return high == 0 || high == 127 || high >= 224;
}

/* The netmask of a prefix length; 0 for 0 and for lengths that no prefix has (a shift by 32 is undefined). */
static inline uint32_t ipv4_mask(uint32_t length)
{
	return length == 0 || length > 32 ? 0 : 0xffffffffu << (32 - length);
}

#endif
