/* Look-up in a verified slot; see route-table.h, and layout.h for the form of the table. */
#include "route-table.h"
#include "../shared/route-slot.h"
#include "ipv4.h"

bool route_table_open(struct route_table *table, const struct route_slot *slot, uint32_t generation)
{
	struct route_slot_head head;

	if (!route_slot_verify(slot, generation, &head))
		return false;
	*table = (struct route_table){
		.slot = slot,
		.generation = generation,
		.count = head.count,
		.index_mask = head.index_size - 1,
		.lengths = head.lengths,
	};
	return true;
}

/* The route at the `step`th entry of the probe for a key; NULL ends the probe. */
static const struct route *probe(const struct route_table *t, const uint32_t *index, uint32_t key, uint32_t step)
{
	uint32_t number = index[(index_hash(key) + step) & t->index_mask];

	return number == 0 || number > t->count ? NULL : &t->slot->routes[number - 1];
}

static const struct route *find_length(const struct route_table *t, uint32_t address, uint32_t length)
{
	uint32_t network = address & ipv4_mask(length);

	for (uint32_t step = 0; step <= t->index_mask; step++) {
		const struct route *r = probe(t, t->slot->by_network, network, step);
		if (r == NULL)
			return NULL;
		if (r->network == network && r->length == length)
			return r;
	}
	return NULL;
}

const struct route *route_table_find(const struct route_table *t, uint32_t address)
{
	/* The routes are disjoint, so the order of the lengths does not matter. */
	for (uint64_t left = t->slot == NULL ? 0 : t->lengths; left != 0; left &= left - 1) {
		const struct route *r = find_length(t, address, (uint32_t)__builtin_ctzll(left));
		if (r != NULL)
			return r;
	}
	return NULL;
}

const struct route *route_table_by_endpoint(const struct route_table *t, uint32_t endpoint)
{
	if (t->slot == NULL)
		return NULL;
	for (uint32_t step = 0; step <= t->index_mask; step++) {
		const struct route *r = probe(t, t->slot->by_endpoint, endpoint, step);
		if (r == NULL || r->endpoint == endpoint)
			return r;
	}
	return NULL;
}
