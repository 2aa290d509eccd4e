/* Checks of the IPv4 header; see ipv4.h. No length is trusted that was not received. */
#include "ipv4.h"
#include "checksum.h"

#define OPTION_END 0u
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
	h->total_bytes = packet_u16(p, IPV4_AT_TOTAL);
	if (h->total_bytes < h->header_bytes || h->total_bytes > p->length)
		return IPV4_BAD_LENGTH;
	if (checksum_sum(p, 0, h->header_bytes) != 0xffff)
		return IPV4_BAD_CHECKSUM;

	uint16_t fragment = packet_u16(p, IPV4_AT_FRAGMENT);
	h->fragment_offset = (size_t)(fragment & IPV4_OFFSET_MASK) * 8;
	h->more_fragments = (fragment & IPV4_MORE_FRAGMENTS) != 0;
	h->dont_fragment = (fragment & IPV4_DONT_FRAGMENT) != 0;
	h->ttl = packet_u8(p, IPV4_AT_TTL);
	h->protocol = packet_u8(p, IPV4_AT_TTL + 1);
	h->source = packet_u32(p, IPV4_AT_SOURCE);
	h->destination = packet_u32(p, IPV4_AT_DESTINATION);
	return IPV4_SOUND;
}

bool ipv4_fragment_impossible(const struct ipv4 *h)
{
	size_t payload = h->total_bytes - h->header_bytes;

	if (h->fragment_offset + payload > IPV4_BYTES_MAX)
		return true;
	return h->more_fragments && (payload == 0 || payload % 8 != 0);
}

size_t ipv4_option_bytes(const struct packet *p, size_t header_bytes, size_t at)
{
	uint8_t type = packet_u8(p, at);

	if (at >= header_bytes || type == OPTION_END)
		return 0;
	if (type == IPV4_OPTION_NOP)
		return 1;
	/* A length below 2 would never advance. */
	size_t bytes = at + 1 < header_bytes ? packet_u8(p, at + 1) : 0;
	return bytes < 2 || bytes > header_bytes - at ? 0 : bytes;
}

bool ipv4_has_source_route(const struct packet *p, const struct ipv4 *h)
{
	size_t at = IPV4_HEADER_BYTES, bytes;

	do {
		uint8_t type = at < h->header_bytes ? packet_u8(p, at) : OPTION_END;
		if (type == OPTION_LOOSE_ROUTE || type == OPTION_STRICT_ROUTE)
			return true;
		bytes = ipv4_option_bytes(p, h->header_bytes, at);
		at += bytes;
	} while (bytes != 0);
	return false;
}

void ipv4_put_u16(struct packet *p, size_t at, uint16_t value)
{
	uint16_t checksum = checksum_adjust(packet_u16(p, IPV4_AT_CHECKSUM), packet_u16(p, at), value);

	packet_put_u16(p, at, value);
	packet_put_u16(p, IPV4_AT_CHECKSUM, checksum);
}

void ipv4_decrement_ttl(struct packet *p)
{
	ipv4_put_u16(p, IPV4_AT_TTL, (uint16_t)(packet_u16(p, IPV4_AT_TTL) - 0x0100));
}
