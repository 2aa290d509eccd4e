/*
 * The route table as a thread sees it: a slot that was verified once, and look-ups whose cost does not grow with the
 * number of peers. Every index from the slot is checked against the verified bounds, so memory that is damaged later
 * leads to a wrong route at worst, never to a crash or an endless probe.
 */
#ifndef TARTAN_ROUTE_TABLE_H
#define TARTAN_ROUTE_TABLE_H

#include "../shared/layout.h"
#include <stdbool.h>

struct route_table {
	const struct route_slot *slot; /* NULL: no routes and no peers */
	uint32_t generation;
	/* Copies, because the words of the slot are not trusted again. */
	uint32_t route_count;
	uint32_t peer_count;
	uint32_t by_prefix_mask;
	uint32_t by_endpoint_mask;
	uint64_t lengths4;
};

/* Verifies the slot of `generation`. False, and the table is unchanged, if route_slot_verify() refuses it. */
bool route_table_open(struct route_table *table, const struct route_slot *slot, uint32_t generation);

/* The route whose prefix contains the IPv4 address, or NULL. */
const struct route *route_table_find(const struct route_table *table, uint32_t address);

/* The peer of a route of this table. There is one, because route_slot_verify() refuses routes without peers. */
static inline const struct peer *route_table_peer(const struct route_table *table, const struct route *route)
{
	const uint32_t number = route->peer;

	return &table->slot->peers[number < table->peer_count ? number : 0];
}

/* One peer with this public IPv4 address; NULL if no peer has it. */
const struct peer *route_table_by_endpoint(const struct route_table *table, uint32_t endpoint);

#endif
