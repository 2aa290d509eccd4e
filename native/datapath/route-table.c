/* Verification and look-up of a route slot; see route-table.h, and layout.h for the form of the table. */
#include "route-table.h"
#include "ipv4.h"
#include <stddef.h>
#include <string.h>

/* The words of a slot before its arrays, to be copied once: the file may be rewritten while we read. */
struct slot_head {
	uint32_t generation;
	uint32_t count;
	uint32_t index_size;
	uint32_t reserved;
	uint64_t lengths;
	uint64_t checksum;
};
_Static_assert(sizeof(struct slot_head) == offsetof(struct route_slot, routes), "head and slot differ");
_Static_assert(offsetof(struct slot_head, checksum) == offsetof(struct route_slot, checksum), "head and slot differ");

/* Bits 1..32; bit 0 would be a default route. */
#define LENGTHS_ALLOWED UINT64_C(0x1fffffffe)

static bool head_is_sound(const struct slot_head *head)
{
	uint32_t size = head->index_size;

	if (head->count > ROUTES_MAX || size < 2 || size > INDEX_MAX || (size & (size - 1)) != 0)
		return false;
	return size >= 2 * head->count && (head->lengths & ~LENGTHS_ALLOWED) == 0;
}

/*
 * table_checksum() of layout.h, with the bounds of the copy: a count that grew after its check leads out of the slot.
 */
static uint64_t checksum_of(const struct slot_head *head, const struct route_slot *slot)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	h = checksum_words(h, head, offsetof(struct slot_head, checksum));
	h = checksum_words(h, slot->routes, (uint64_t)head->count * sizeof slot->routes[0]);
	h = checksum_words(h, slot->by_network, (uint64_t)head->index_size * 4);
	return checksum_words(h, slot->by_endpoint, (uint64_t)head->index_size * 4);
}

bool route_table_open(struct route_table *table, const struct route_slot *slot, uint32_t generation)
{
	struct slot_head head;

	memcpy(&head, slot, sizeof head);
	if (head.generation != generation || !head_is_sound(&head) || checksum_of(&head, slot) != head.checksum)
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

/* The `step`th place to look for the key; NULL ends the probe. */
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
	/* Routes are disjoint, so the order of the lengths does not matter. */
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
