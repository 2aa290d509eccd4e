/*
 * ICMP errors about packets from the TUN: whether one may be sent (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7),
 * and its bytes. Pure; limiter.h bounds the rate, icmp-reply.h sends.
 */
#ifndef TARTAN_ICMP_H
#define TARTAN_ICMP_H

#include "ipv4.h"

#define ICMP_UNREACHABLE 3u
#define ICMP_CODE_NETWORK 0u
#define ICMP_CODE_FRAGMENTATION_NEEDED 4u
#define ICMP_TIME_EXCEEDED 11u
#define ICMP_CODE_TTL 0u

struct icmp_error {
	uint8_t type;
	uint8_t code;
	uint16_t mtu; /* of fragmentation needed, else 0 */
};

/* An IP header, an ICMP header, the quoted header with the longest options and 8 bytes after it. */
#define ICMP_BYTES_MAX (IPV4_HEADER_BYTES + 8u + IPV4_HEADER_MAX + 8u)

/* False for ICMP errors, for later fragments, and for addresses that do not belong to one host. */
bool icmp_may_reply(const struct packet *about, const struct ipv4 *header);

/* Writes the packet with both checksums. The length of `reply` is its room before and that of the packet after. */
void icmp_build(struct packet *reply, const struct icmp_error *error, uint32_t from, const struct packet *about,
		const struct ipv4 *header);

/* The next smaller path MTU to try if the underlay refused a packet and named none (RFC 1191 section 7.1). */
uint16_t icmp_smaller_mtu(size_t inner_bytes);

#endif
