/*
 * Cuts what a coalescer writes and compares the result with what went in: it must be the same packets with the same
 * bytes, in the same order within each flow. The identification of a packet with DF has no meaning and is not compared.
 */
#ifndef TARTAN_COLLECTOR_H
#define TARTAN_COLLECTOR_H

#include "coalesce.h"
#include "fixture.h"
#include "reference.h"

#define COLLECTED_MAX 4096u

struct copy {
	size_t length;
	uint8_t *bytes;
};

struct collector {
	struct coalescer coalescer;
	size_t writes;
	size_t expected_count;
	size_t got_count;
	bool is_sound; /* no virtio header was refused, and no length was wrong */
	struct copy expected[COLLECTED_MAX];
	struct copy got[COLLECTED_MAX];
};

static inline void collector_keep(struct copy *copy, const uint8_t *bytes, size_t length)
{
	copy->bytes = malloc(length + 1);
	copy->length = length;
	memcpy(copy->bytes, bytes, length);
}

static inline void collector_write(void *context, struct gro_packet *g)
{
	struct collector *c = context;
	static uint8_t whole[65536], segment[65536];
	struct packet p = { .bytes = whole };

	c->writes++;
	for (size_t i = 1; i < g->iovs; i++) {
		if (p.length + g->iov[i].iov_len > 65535)
			abort();
		memcpy(whole + p.length, g->iov[i].iov_base, g->iov[i].iov_len);
		p.length += g->iov[i].iov_len;
	}
	if (p.length != g->bytes || vnet_header_check(&g->vnet, &p) != GSO_SOUND)
		c->is_sound = false;
	for (size_t i = 0; i < g->segments && c->got_count < COLLECTED_MAX; i++) {
		if (g->vnet.gso_size == 0)
			collector_keep(&c->got[c->got_count++], whole, p.length);
		else
			collector_keep(&c->got[c->got_count++], segment, reference_segment(segment, &g->vnet, &p, i));
	}
}

static inline void collector_open(struct collector *c, bool merges_udp)
{
	memset(&c->coalescer, 0, sizeof c->coalescer);
	c->writes = c->expected_count = c->got_count = 0;
	c->is_sound = true;
	c->coalescer.merges_udp = merges_udp;
	c->coalescer.write = collector_write;
}

/* Call it before coalesce_add(), which may change headers. */
static inline void collector_expect(struct collector *c, const struct packet *p)
{
	c->coalescer.context = c;
	collector_keep(&c->expected[c->expected_count++], p->bytes, p->length);
}

/* Whether two packets must keep their order: addresses and protocol are equal, and the ports if there are any. */
static inline bool collector_same_flow(const struct copy *a, const struct copy *b)
{
	if (memcmp(a->bytes + 9, b->bytes + 9, 1) != 0 || memcmp(a->bytes + 12, b->bytes + 12, 8) != 0)
		return false;
	bool has_ports = a->length >= 24 && b->length >= 24 && a->bytes[0] == 0x45 && b->bytes[0] == 0x45 &&
			 ((a->bytes[6] | b->bytes[6]) & 0x3f) == 0 && (a->bytes[7] | b->bytes[7]) == 0;
	return !has_ports || memcmp(a->bytes + 20, b->bytes + 20, 4) == 0;
}

static inline bool collector_same(const struct copy *a, const struct copy *b)
{
	uint8_t x[20], y[20];

	if (a->length != b->length || a->length < 20)
		return false;
	memcpy(x, a->bytes, 20);
	memcpy(y, b->bytes, 20);
	if ((x[6] & 0x40) != 0) {
		memset(x + 4, 0, 2);
		memset(y + 4, 0, 2);
		memset(x + 10, 0, 2);
		memset(y + 10, 0, 2);
	}
	return memcmp(x, y, 20) == 0 && memcmp(a->bytes + 20, b->bytes + 20, a->length - 20) == 0;
}

/* Whether each packet that came out was the next one expected of its flow. */
static inline bool collector_agrees(const struct collector *c)
{
	bool taken[COLLECTED_MAX] = { false };

	if (!c->is_sound || c->got_count != c->expected_count)
		return false;
	for (size_t i = 0; i < c->got_count; i++) {
		size_t at = 0;
		while (at < c->expected_count && (taken[at] || !collector_same_flow(&c->got[i], &c->expected[at])))
			at++;
		if (at == c->expected_count || !collector_same(&c->got[i], &c->expected[at]))
			return false;
		taken[at] = true;
	}
	return true;
}

static inline void collector_close(struct collector *c)
{
	for (size_t i = 0; i < c->expected_count; i++)
		free(c->expected[i].bytes);
	for (size_t i = 0; i < c->got_count; i++)
		free(c->got[i].bytes);
}

#endif
