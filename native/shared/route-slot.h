/*
 * A route table in a slot of the shared memory (layout.h): checking routes, packing them into a slot, verifying a slot.
 * tartand packs; tartand and the data process verify. Pure.
 */
#ifndef TARTAN_ROUTE_SLOT_H
#define TARTAN_ROUTE_SLOT_H

#include "layout.h"
#include <stdbool.h>

/* Why a table is refused, and the number of the first route at fault. */
struct route_slot_fault {
	uint32_t number;
	const char *why;
};

/* The words of a slot before its arrays. */
struct route_slot_head {
	uint32_t generation;
	uint32_t count;
	uint32_t index_size;
	uint32_t reserved;
	uint64_t lengths;
	uint64_t checksum;
};

/* Whether routes may be published. `routes` is four numbers a route: network, length, endpoint, port. */
bool route_slot_check(const uint32_t *routes, uint32_t count, struct route_slot_fault *fault);

/* Packs routes that passed route_slot_check() into a slot that nobody reads. */
void route_slot_pack(struct route_slot *slot, uint32_t generation, const uint32_t *routes, uint32_t count);

/*
 * Verifies generation, bounds and checksum of a slot. Afterwards use the words of `head`, not those of the slot, which
 * may be rewritten at any time.
 */
bool route_slot_verify(const struct route_slot *slot, uint32_t generation, struct route_slot_head *head);

/* Over the head and the parts of the arrays that it announces. The caller has checked count and index_size. */
uint64_t route_slot_checksum(const struct route_slot_head *head, const struct route_slot *slot);

#endif
