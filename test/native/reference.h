/*
 * A slow second implementation of tso-packet.c, written from the documents of the headers: it makes one segment of a
 * TSO packet byte by byte, and checksums by adding up all words. Tests and fuzz targets compare with it what the data
 * process cut or merged.
 */
#ifndef TARTAN_REFERENCE_H
#define TARTAN_REFERENCE_H

#include "gso.h"
#include "packet.h"
#include <string.h>

static inline uint16_t reference_sum(uint32_t sum, const uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += i % 2 == 0 ? (uint32_t)b[i] << 8 : b[i];
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static inline void reference_put(uint8_t *b, uint32_t value)
{
	b[0] = (uint8_t)(value >> 8);
	b[1] = (uint8_t)value;
}

/* Writes segment `number` of the packet to `o`. Returns its length. */
static inline size_t reference_segment(uint8_t *o, const struct vnet_header *v, const struct packet *p, size_t number)
{
	const uint8_t *w = p->bytes;
	const size_t ip = (w[0] & 15u) * 4u, gso = v->gso_size;
	const bool udp = w[9] == 17;
	const size_t headers = ip + (udp ? 8u : (w[ip + 12] >> 4) * 4u), payload = p->length - headers;
	const size_t from = number * gso, n = payload - from < gso ? payload - from : gso;
	const bool last = from + n == payload;

	memcpy(o, w, headers);
	memcpy(o + headers, w + headers + from, n);
	reference_put(o + 2, (uint32_t)(headers + n));
	reference_put(o + 4, (uint32_t)((w[4] << 8) + w[5] + (int)number) & 0xffff);
	reference_put(o + 10, 0);
	reference_put(o + 10, reference_sum(0, o, ip));
	if (udp) {
		reference_put(o + ip + 4, (uint32_t)(8 + n));
	} else {
		uint32_t seq = (uint32_t)w[ip + 4] << 24 | (uint32_t)w[ip + 5] << 16 | (uint32_t)w[ip + 6] << 8 | w[ip + 7];
		seq += (uint32_t)from;
		reference_put(o + ip + 4, seq >> 16);
		reference_put(o + ip + 6, seq & 0xffff);
		o[ip + 13] = (uint8_t)(w[ip + 13] & ~(last ? 0 : 0x09) & ~(number == 0 ? 0 : 0x80));
	}
	const size_t field = ip + (udp ? 6 : 16), part = headers + n - ip;
	uint8_t pseudo[12] = { 0 };
	memcpy(pseudo, o + 12, 8);
	pseudo[9] = o[9];
	reference_put(pseudo + 10, (uint32_t)part);
	reference_put(o + field, 0);
	uint32_t start = (uint16_t)~reference_sum(0, pseudo, 12);
	uint16_t sum = reference_sum(start, o + ip, part);
	reference_put(o + field, udp && sum == 0 ? 0xffff : sum);
	return headers + n;
}

#endif
