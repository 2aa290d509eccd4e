/*
 * A table of peers and routes: its rows, as tartand makes them, and the slot of the shared memory (layout.h) into which
 * they are packed. tartand checks and packs; tartand and the data process verify. Pure.
 */
#ifndef TARTAN_ROUTE_SLOT_H
#define TARTAN_ROUTE_SLOT_H

#include "layout.h"
#include <stdbool.h>

/* The numbers of a row, by their places. An identity, an IPv6 endpoint, pairs and an address take four. */
enum peer_row {
	PEER_IDENTITY = 0,
	PEER_ENDPOINT6 = 4,
	PEER_ENDPOINT4 = 8,
	PEER_PORT4,
	PEER_PORT6,
	PEER_FEATURES,
	PEER_POLICY,
	PEER_ENGINE,
	PEER_PAIR,
	PEER_ROW = PEER_PAIR + 4,
};
enum route_row { ROUTE_ADDRESS = 0, ROUTE_LENGTH = 4, ROUTE_FAMILY, ROUTE_PEER, ROUTE_ROW };

struct table_rows {
	const uint32_t *peers; /* row i is of peer number i; all zero: the number is free */
	uint32_t peer_count;
	const uint32_t *routes;
	uint32_t route_count;
};

/* Why a table is refused, and the number of the first route or peer at fault. */
struct route_slot_fault {
	bool is_peer;
	uint32_t number;
	const char *why;
};

/* A part of a slot that a table uses; the first part has the head. */
struct route_slot_part {
	size_t at;
	size_t bytes;
};
#define ROUTE_SLOT_PARTS 4

/* Whether the rows may be published. */
bool route_slot_check(const struct table_rows *rows, struct route_slot_fault *fault);

/* The head of a slot with these rows. Lengths and checksum are left out. */
struct route_slot_head route_slot_measure(const struct table_rows *rows, uint32_t generation);

/* Which parts of a slot a table with this head uses. The caller has checked counts and sizes. */
void route_slot_parts(const struct route_slot_head *head, struct route_slot_part parts[ROUTE_SLOT_PARTS]);

/* Packs rows that passed route_slot_check() into a slot that nobody reads. Its parts must be reserved. */
void route_slot_pack(struct route_slot *slot, uint32_t generation, const struct table_rows *rows);

/*
 * Verifies generation, bounds and checksum of a slot. Afterwards use the words of `head`, not those of the slot, which
 * may be rewritten at any time.
 */
bool route_slot_verify(const struct route_slot *slot, uint32_t generation, struct route_slot_head *head);

/* Over the head and the parts that it announces. The caller has checked counts and sizes. */
uint64_t route_slot_checksum(const struct route_slot_head *head, const struct route_slot *slot);

static inline bool peer_is_free(const uint32_t identity[4])
{
	return (identity[0] | identity[1] | identity[2] | identity[3]) == 0;
}

#endif
