/*
 * The overlay that packets.json is written for, and builders of route slots and IPv4 packets. The overlay is:
 *   network 10.5.0.0/16, own subnet 10.5.1.0/24 (tunnel address 10.5.1.0), own public address 192.0.2.1,
 *   peers 10.5.2.0/24 via 192.0.2.2 and 10.5.3.0/24 via 192.0.2.3, port 8285, MTU 1472; 10.5.200.x has no route.
 */
#ifndef TARTAN_FIXTURE_H
#define TARTAN_FIXTURE_H

#include "checksum.h"
#include "forward.h"
#include "route-slot.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ADDRESS(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))
#define PORT 8285
#define MTU 1472

/* An IPv4 route, and the peer that is its alone. */
struct fixture_route {
	uint32_t network;
	uint32_t length;
	uint32_t endpoint;
	uint32_t port;
};

static const struct fixture_route fixture_routes[] = {
	{ .network = ADDRESS(10, 5, 2, 0), .length = 24, .port = PORT, .endpoint = ADDRESS(192, 0, 2, 2) },
	{ .network = ADDRESS(10, 5, 3, 0), .length = 24, .port = PORT, .endpoint = ADDRESS(192, 0, 2, 3) },
};

static const struct self fixture_self = {
	.network = ADDRESS(10, 5, 0, 0),
	.network_length = 16,
	.subnet = ADDRESS(10, 5, 1, 0),
	.subnet_length = 24,
	.public_ip = ADDRESS(192, 0, 2, 1),
	.mtu = MTU,
	.longest_received = MTU,
	.gate = GATE_OPEN,
};

/* Makes the rows of a table. Peer number i has route number i and the identity i + 1. The caller frees them. */
static inline struct table_rows fixture_rows(const struct fixture_route *routes, uint32_t count)
{
	uint32_t *peers = calloc(count + 1, PEER_ROW * sizeof *peers);
	uint32_t *rows = calloc(count + 1, ROUTE_ROW * sizeof *rows);

	if (peers == NULL || rows == NULL)
		abort();
	for (uint32_t i = 0; i < count; i++) {
		const struct fixture_route *r = &routes[i];
		uint32_t *peer = &peers[PEER_ROW * (size_t)i], *row = &rows[ROUTE_ROW * (size_t)i];
		peer[PEER_IDENTITY] = i + 1;
		peer[PEER_ENDPOINT4] = r->endpoint;
		peer[PEER_PORT4] = r->port;
		row[ROUTE_ADDRESS] = r->network;
		row[ROUTE_LENGTH] = r->length;
		row[ROUTE_FAMILY] = FAMILY_IPV4;
		row[ROUTE_PEER] = i;
	}
	return (struct table_rows){ .peers = peers, .peer_count = count, .routes = rows, .route_count = count };
}

static inline void fixture_free(const struct table_rows *rows)
{
	free((void *)(uintptr_t)rows->peers);
	free((void *)(uintptr_t)rows->routes);
}

/* Packs a table as the publisher does. The routes must be sorted and disjoint. */
static inline void fixture_pack(struct route_slot *s, uint32_t generation, const struct fixture_route *routes,
				uint32_t count)
{
	const struct table_rows rows = fixture_rows(routes, count);

	route_slot_pack(s, generation, &rows);
	fixture_free(&rows);
}

/* A counters memory of zeros. Only what is touched takes memory. */
static inline struct counters_file *fixture_counters(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *memory = mmap(NULL, sizeof(struct counters_file), PROT_READ | PROT_WRITE, flags, -1, 0);

	if (memory == MAP_FAILED)
		abort();
	return memory;
}

static inline void fixture_counters_free(struct counters_file *c)
{
	munmap(c, sizeof *c);
}

/* The checksum that fits what the slot says now. */
static inline uint64_t fixture_checksum(const struct route_slot *s)
{
	const struct route_slot_head head = s->head;

	return route_slot_checksum(&head, s);
}

/* Opens the table of the fixture in newly allocated memory. The caller frees t->slot. */
static inline struct route_slot *fixture_open(struct route_table *t)
{
	struct route_slot *slot = calloc(1, sizeof *slot);

	if (slot == NULL)
		abort();
	fixture_pack(slot, 1, fixture_routes, sizeof fixture_routes / sizeof fixture_routes[0]);
	if (!route_table_open(t, slot, 1))
		abort();
	return slot;
}

/* What a test may choose of a packet. For a field that is zero packet_make() uses the usual value. */
struct recipe {
	size_t received;   /* bytes; 0: as many as total */
	size_t total;      /* 0: 48 */
	size_t header;     /* bytes; 0: 20 */
	uint8_t options[40];
	uint16_t fragment; /* flags and offset field */
	uint8_t ttl;       /* 0: 64; TTL_ZERO for none */
	uint8_t protocol;  /* 0: UDP */
	uint32_t source;
	uint32_t destination;
	uint8_t payload[16];
};

#define TTL_ZERO 255
#define FRAGMENT_DF 0x4000
#define FRAGMENT_MF 0x2000

static inline size_t or_else(size_t value, size_t usual)
{
	return value == 0 ? usual : value;
}

/* `bytes` has room for a packet of 65,535. */
static inline struct packet packet_make(uint8_t *bytes, const struct recipe *r)
{
	size_t header = or_else(r->header, IPV4_HEADER_BYTES);
	size_t total = or_else(r->total, 48);
	struct packet p = { .bytes = bytes, .length = or_else(r->received, total) };

	memset(bytes, 0, p.length);
	packet_put_u8(&p, 0, (uint8_t)(0x40 | header / 4));
	packet_put_u16(&p, 2, (uint16_t)total);
	packet_put_u16(&p, 6, r->fragment);
	packet_put_u8(&p, 8, (uint8_t)(r->ttl == TTL_ZERO ? 0 : or_else(r->ttl, 64)));
	packet_put_u8(&p, 9, (uint8_t)or_else(r->protocol, PROTOCOL_UDP));
	packet_put_u32(&p, 12, r->source);
	packet_put_u32(&p, 16, r->destination);
	for (size_t i = 20; i < header; i++)
		packet_put_u8(&p, i, r->options[i - 20]);
	for (size_t i = 0; i < sizeof r->payload; i++)
		packet_put_u8(&p, header + i, r->payload[i]);
	packet_put_u16(&p, 10, checksum_make(&p, 0, header));
	return p;
}

static inline const char *counter_name(enum counter counter)
{
	static const char *const names[] = {
#define COUNTER_NAME(name) #name,
		COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
	};
	return counter < COUNTER_COUNT ? names[counter] : "none";
}

#endif
