/* Building of ICMP errors; see icmp.h. */
#include "icmp.h"
#include "checksum.h"
#include "tcp-udp.h"

/* Internetwork control, which RFC 1812 section 4.3.2.5 demands for the ICMP errors of routers. */
#define TOS_CONTROL 0xc0u
#define REPLY_TTL 64u
#define AT_ICMP IPV4_HEADER_BYTES
#define AT_QUOTE (IPV4_HEADER_BYTES + 8u)

static bool is_icmp_error(const struct packet *p, const struct ipv4 *h)
{
	if (h->protocol != PROTOCOL_ICMP)
		return false;
	if (h->header_bytes >= h->total_bytes)
		return true; /* there is no type, so it may be an error */
	switch (packet_u8(p, h->header_bytes)) {
	case 0: /* echo reply */
	case 8: /* echo */
	case 9: /* router advertisement */
	case 10: /* router solicitation */
	case 13: /* timestamp */
	case 14: /* timestamp reply */
	case 15: /* information request */
	case 16: /* information reply */
	case 17: /* address mask request */
	case 18: /* address mask reply */
		return false;
	default:
		return true;
	}
}

bool icmp_may_reply(const struct packet *p, const struct ipv4 *h)
{
	if (ipv4_is_martian(h->source) || ipv4_is_martian(h->destination))
		return false;
	return h->fragment_offset == 0 && !is_icmp_error(p, h);
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void put_header(struct packet *r, uint32_t from, uint32_t to)
{
	packet_put_u16(r, 0, 0x4500 | TOS_CONTROL);
	packet_put_u16(r, IPV4_AT_TOTAL, (uint16_t)r->length);
	packet_put_u16(r, IPV4_AT_IDENTIFICATION, 0); /* needs none with DF (RFC 6864) */
	packet_put_u16(r, IPV4_AT_FRAGMENT, IPV4_DONT_FRAGMENT);
	packet_put_u16(r, IPV4_AT_TTL, (uint16_t)(REPLY_TTL << 8 | PROTOCOL_ICMP));
	packet_put_u16(r, IPV4_AT_CHECKSUM, 0);
	packet_put_u32(r, IPV4_AT_SOURCE, from);
	packet_put_u32(r, IPV4_AT_DESTINATION, to);
	packet_put_u16(r, IPV4_AT_CHECKSUM, checksum_make(r, 0, IPV4_HEADER_BYTES));
}

void icmp_build(struct packet *r, const struct icmp_error *error, uint32_t from, const struct packet *about,
		const struct ipv4 *h)
{
	size_t quote = smaller(smaller(h->header_bytes + 8, h->total_bytes), about->length);

	r->length = smaller(AT_QUOTE + quote, r->length);
	put_header(r, from, h->source);
	packet_put_u8(r, AT_ICMP, error->type);
	packet_put_u8(r, AT_ICMP + 1, error->code);
	packet_put_u16(r, AT_ICMP + 2, 0);
	packet_put_u32(r, AT_ICMP + 4, error->mtu);
	for (size_t i = 0; i < quote; i++)
		packet_put_u8(r, AT_QUOTE + i, packet_u8(about, i));
	packet_put_u16(r, AT_ICMP + 2, checksum_make(r, AT_ICMP, r->length - AT_ICMP));
}

uint16_t icmp_smaller_mtu(size_t inner_bytes)
{
	static const uint16_t plateaus[] = { 32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, 508, 296 };

	for (size_t i = 0; i < sizeof plateaus / sizeof plateaus[0]; i++)
		if (plateaus[i] < inner_bytes + OUTER_BYTES)
			return (uint16_t)(plateaus[i] - OUTER_BYTES);
	return IPV4_MTU_MIN;
}
