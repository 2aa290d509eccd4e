/* Shared by the tests of forward.c: the fixture's node and routes, room for a packet, and a call for each direction. */
#ifndef TARTAN_BENCH_H
#define TARTAN_BENCH_H

#include "fixture.h"
#include "test.h"

#define PEER ADDRESS(192, 0, 2, 2)
#define OURS ADDRESS(10, 5, 1, 9)
#define THEIRS ADDRESS(10, 5, 2, 9)

/* The addresses of a packet that passes. */
#define GOOD .source = THEIRS, .destination = OURS
#define TO_PEER .source = OURS, .destination = THEIRS

static const struct outer from_peer = { .source = PEER, .port = PORT };

struct bench {
	struct suite s;
	struct route_table routes;
	struct self self;
	uint8_t *bytes; /* 65,535 */
};

static inline enum verdict inbound(struct bench *b, const struct recipe *r, const struct outer *outer, struct outcome *out)
{
	struct packet p = packet_make(b->bytes, r);

	return forward_inbound(&p, outer, &b->self, &b->routes, out);
}

static inline enum verdict outbound(struct bench *b, const struct recipe *r, struct outcome *out)
{
	struct packet p = packet_make(b->bytes, r);

	return forward_outbound(&p, 0, &b->self, &b->routes, out);
}

static inline struct bench bench_open(const char *name, uint64_t seed)
{
	struct bench b = { .s = { .name = name, .random = seed }, .self = fixture_self, .bytes = malloc(65535) };

	fixture_open(&b.routes);
	return b;
}

static inline int bench_close(struct bench *b)
{
	free((void *)b->routes.slot);
	free(b->bytes);
	return suite_end(&b->s);
}

#endif
