/* Sums over pseudo headers; see pseudo-header.h. */
#include "pseudo-header.h"
#include "checksum.h"

uint16_t pseudo_header_sum(const struct ipv4 *h, size_t bytes)
{
	uint32_t sum = (h->source >> 16) + (h->source & 0xffff) + (h->destination >> 16) + (h->destination & 0xffff) +
		       h->protocol + (uint32_t)bytes;

	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

uint16_t pseudo_header_packet_sum(const struct packet *p, const struct ipv4 *h)
{
	size_t bytes = h->total_bytes - h->header_bytes;

	return checksum_add(pseudo_header_sum(h, bytes), checksum_fast(p, h->header_bytes, bytes));
}
