/*
 * One route table in shared memory: checking routes, packing them into a slot, checking a slot that was found.
 * Nothing here knows of Node or of files.
 */
#include "addon.h"

#include <string.h>

#include "../datapath/layout.h"

static const char *route_fault(const uint32_t *route, uint64_t after)
{
	const uint32_t network = route[0], length = route[1], endpoint = route[2], port = route[3];
	if (length < 1 || length > 32)
		return "the prefix length is not 1 to 32";
	if (length < 32 && (network << length) != 0)
		return "host bits are set";
	if (endpoint == 0)
		return "the hop is 0.0.0.0";
	if (port == 0 || port > UINT16_MAX)
		return "the port is not 1 to 65535";
	if (network < after)
		return "it is not sorted or overlaps the route before it";
	return NULL;
}

bool slot_check(const uint32_t *routes, uint32_t count, struct slot_fault *fault)
{
	uint64_t after = 0; /* the first address past the routes so far */
	if (count > ROUTES_MAX) {
		*fault = (struct slot_fault){ .number = ROUTES_MAX, .why = "more than 65536 routes" };
		return false;
	}
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t *route = &routes[4 * (size_t)i];
		*fault = (struct slot_fault){ .number = i, .why = route_fault(route, after) };
		if (fault->why)
			return false;
		after = (uint64_t)route[0] + (UINT64_C(1) << (32 - route[1]));
	}
	return true;
}

/* by_endpoint keeps the first route of each endpoint. No two routes have the same network: slot_check(). */
static void index_add(uint32_t *index, uint32_t size, uint32_t key, uint32_t number, const struct route *routes,
		      bool by_endpoint)
{
	uint32_t at = index_hash(key) & (size - 1);
	for (; index[at] != 0; at = (at + 1) & (size - 1)) {
		if (by_endpoint && routes[index[at] - 1].endpoint == key)
			return;
	}
	index[at] = number + 1;
}

void slot_fill(struct route_slot *slot, uint32_t generation, const uint32_t *routes, uint32_t count)
{
	uint32_t size = 2;
	while (size < 2 * count)
		size *= 2;
	slot->generation = generation;
	slot->count = count;
	slot->index_size = size;
	slot->reserved = 0;
	slot->lengths = 0;
	memset(slot->by_network, 0, size * sizeof slot->by_network[0]);
	memset(slot->by_endpoint, 0, size * sizeof slot->by_endpoint[0]);
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t *route = &routes[4 * (size_t)i];
		slot->routes[i] = (struct route){
			.network = route[0],
			.length = (uint8_t)route[1],
			.endpoint = route[2],
			.port = (uint16_t)route[3],
		};
		slot->lengths |= UINT64_C(1) << route[1];
		index_add(slot->by_network, size, route[0], i, slot->routes, false);
		index_add(slot->by_endpoint, size, route[2], i, slot->routes, true);
	}
	slot->checksum = table_checksum(slot);
}

bool slot_intact(const struct route_slot *slot, uint32_t generation)
{
	const uint32_t count = slot->count, size = slot->index_size;
	if (slot->generation != generation || count > ROUTES_MAX || size > INDEX_MAX || size < 2 ||
	    (size & (size - 1)) != 0 || size < 2 * count)
		return false;
	return table_checksum(slot) == slot->checksum;
}
