/*
 * A thread's view of the published routes: a slot of the shared file that was verified once, and look-ups in it whose
 * cost does not grow with the number of peers. Every index read from the file is checked against the bounds that were
 * verified, so damaged memory leads to a wrong route at worst, never to a crash or an endless probe.
 */
#ifndef TARTAN_ROUTE_TABLE_H
#define TARTAN_ROUTE_TABLE_H

#include "../shared/layout.h"
#include <stdbool.h>

struct route_table {
	const struct route_slot *slot; /* NULL: no routes and no peers */
	uint32_t generation;
	/* Copies: what the file says later is not trusted again. */
	uint32_t count;
	uint32_t index_mask;
	uint64_t lengths;
};

/*
 * Looks at the slot of `generation`. False, and `table` unchanged, when the slot is of another generation, out of
 * bounds or its checksum is wrong.
 */
bool route_table_open(struct route_table *table, const struct route_slot *slot, uint32_t generation);

/* The route whose prefix contains the address, or NULL. */
const struct route *route_table_find(const struct route_table *table, uint32_t address);

/* One route of the peer with this public address; NULL if no peer has it. */
const struct route *route_table_by_endpoint(const struct route_table *table, uint32_t endpoint);

#endif
