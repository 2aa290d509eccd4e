/* Checks of the IPv4 header; see ipv4.h. Nothing here trusts a length that was not received. */
#include "ipv4.h"
#include "checksum.h"

#define AT_TOTAL 2u
#define AT_FRAGMENT 6u
#define AT_TTL 8u
#define AT_CHECKSUM 10u
#define AT_SOURCE 12u
#define AT_DESTINATION 16u

#define FLAG_DONT_FRAGMENT 0x4000u
#define FLAG_MORE_FRAGMENTS 0x2000u
#define OFFSET_MASK 0x1fffu

#define OPTION_END 0u
#define OPTION_NOP 1u
#define OPTION_LOOSE_ROUTE 131u
#define OPTION_STRICT_ROUTE 137u

enum ipv4_fault ipv4_parse(const struct packet *p, struct ipv4 *h)
{
	if (p->length < IPV4_HEADER_BYTES)
		return IPV4_SHORT;
	if (ipv4_version(p) != 4)
		return IPV4_BAD_VERSION;
	h->header_bytes = (size_t)(packet_u8(p, 0) & 0x0f) * 4;
	if (h->header_bytes < IPV4_HEADER_BYTES || h->header_bytes > p->length)
		return IPV4_BAD_IHL;
	h->total_bytes = packet_u16(p, AT_TOTAL);
	if (h->total_bytes < h->header_bytes || h->total_bytes > p->length)
		return IPV4_BAD_LENGTH;
	if (checksum_sum(p, 0, h->header_bytes) != 0xffff)
		return IPV4_BAD_CHECKSUM;

	uint16_t fragment = packet_u16(p, AT_FRAGMENT);
	h->fragment_offset = (size_t)(fragment & OFFSET_MASK) * 8;
	h->more_fragments = (fragment & FLAG_MORE_FRAGMENTS) != 0;
	h->dont_fragment = (fragment & FLAG_DONT_FRAGMENT) != 0;
	h->ttl = packet_u8(p, AT_TTL);
	h->protocol = packet_u8(p, AT_TTL + 1);
	h->source = packet_u32(p, AT_SOURCE);
	h->destination = packet_u32(p, AT_DESTINATION);
	return IPV4_SOUND;
}

bool ipv4_fragment_impossible(const struct ipv4 *h)
{
	size_t payload = h->total_bytes - h->header_bytes;

	if (h->fragment_offset + payload > IPV4_BYTES_MAX)
		return true;
	return h->more_fragments && (payload == 0 || payload % 8 != 0);
}

bool ipv4_has_source_route(const struct packet *p, const struct ipv4 *h)
{
	size_t at = IPV4_HEADER_BYTES;

	while (at < h->header_bytes) {
		uint8_t type = packet_u8(p, at);
		if (type == OPTION_LOOSE_ROUTE || type == OPTION_STRICT_ROUTE)
			return true;
		if (type == OPTION_END)
			return false;
		if (type == OPTION_NOP) {
			at++;
			continue;
		}
		/* A length below 2 would stand still; one past the header, or none at all, has nothing after it. */
		size_t bytes = at + 1 < h->header_bytes ? packet_u8(p, at + 1) : 0;
		if (bytes < 2)
			return false;
		at += bytes;
	}
	return false;
}

void ipv4_decrement_ttl(struct packet *p)
{
	uint16_t before = packet_u16(p, AT_TTL);
	uint16_t after = (uint16_t)(before - 0x0100);

	packet_put_u16(p, AT_TTL, after);
	packet_put_u16(p, AT_CHECKSUM, checksum_adjust(packet_u16(p, AT_CHECKSUM), before, after));
}
