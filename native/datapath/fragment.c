/* See fragment.h. */
#include "fragment.h"
#include "checksum.h"

/* Offsets of fragments are counted in units of so many bytes. */
#define UNIT 8u

/* Puts no-operations in the place of options that belong to the first fragment only. */
static void blank_options(struct packet *p, size_t header_bytes)
{
	size_t bytes;

	for (size_t at = IPV4_HEADER_BYTES; (bytes = ipv4_option_bytes(p, header_bytes, at)) != 0; at += bytes)
		for (size_t i = 0; i < bytes && !(packet_u8(p, at) & IPV4_OPTION_COPIED); i++)
			packet_put_u8(p, at + bytes - 1 - i, IPV4_OPTION_NOP);
}

static size_t payload_of(size_t rest, size_t room)
{
	return rest <= room ? rest : room - room % UNIT;
}

size_t fragment_write(const struct packet *p, const struct ipv4 *h, size_t longest, size_t from, struct packet *into)
{
	const size_t header = h->header_bytes, end = header + from;

	if (longest <= header || end >= p->length)
		return 0;
	const size_t payload = payload_of(p->length - end, longest - header);
	if (payload == 0 || into->length < header + payload)
		return 0;
	const bool more = h->more_fragments || end + payload < p->length;
	into->length = header + payload;
	packet_copy(into, 0, p, 0, header);
	packet_copy(into, header, p, end, payload);
	if (from > 0)
		blank_options(into, header);
	const size_t place = (h->fragment_offset + from) / UNIT;
	packet_put_u16(into, IPV4_AT_TOTAL, (uint16_t)into->length);
	packet_put_u16(into, IPV4_AT_FRAGMENT,
		       (uint16_t)((place & IPV4_OFFSET_MASK) | (more ? IPV4_MORE_FRAGMENTS : 0)));
	packet_put_u16(into, IPV4_AT_CHECKSUM, 0);
	packet_put_u16(into, IPV4_AT_CHECKSUM, checksum_make(into, 0, header));
	return payload;
}
