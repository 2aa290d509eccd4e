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
		.route_count = head.route_count,
		.peer_count = head.peer_count,
		.by_prefix_mask = head.by_prefix_size - 1,
		.by_endpoint_mask = head.by_endpoint_size - 1,
		.lengths4 = head.lengths4,
	};
	return true;
}

static const struct route *find_length(const struct route_table *t, uint32_t address, uint32_t length)
{
	const uint32_t network = address & ipv4_mask(length), hash = index_hash(network);

	for (uint32_t step = 0; step <= t->by_prefix_mask; step++) {
		const uint32_t number = t->slot->by_prefix[(hash + step) & t->by_prefix_mask];
		if (number == 0 || number > t->route_count)
			return NULL;
		const struct route *r = &t->slot->routes[number - 1];
		if (r->address[0] == network && r->length == length && r->family == FAMILY_IPV4)
			return r;
	}
	return NULL;
}

const struct route *route_table_find(const struct route_table *t, uint32_t address)
{
	/* The routes are disjoint, so the order of the lengths does not matter. */
	for (uint64_t left = t->slot == NULL ? 0 : t->lengths4; left != 0; left &= left - 1) {
		const struct route *r = find_length(t, address, (uint32_t)__builtin_ctzll(left));
		if (r != NULL)
			return r;
	}
	return NULL;
}

const struct peer *route_table_by_endpoint(const struct route_table *t, uint32_t endpoint)
{
	const uint32_t hash = index_hash(endpoint);

	for (uint32_t step = 0; t->slot != NULL && step <= t->by_endpoint_mask; step++) {
		const uint32_t number = t->slot->by_endpoint[(hash + step) & t->by_endpoint_mask];
		if (number == 0 || number > t->peer_count)
			return NULL;
		const struct peer *p = &t->slot->peers[number - 1];
		if (p->endpoint4 == endpoint)
			return p;
	}
	return NULL;
}
