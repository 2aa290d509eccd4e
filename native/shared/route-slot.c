/* See route-slot.h, and layout.h for the form of the table. */
#include "route-slot.h"
#include <string.h>

_Static_assert(sizeof(struct route_slot_head) == offsetof(struct route_slot, routes), "head and slot differ");
_Static_assert(offsetof(struct route_slot_head, checksum) == offsetof(struct route_slot, checksum), "head and slot differ");

/* Bits 1 to 32; bit 0 would be a default route. */
#define LENGTHS_ALLOWED UINT64_C(0x1fffffffe)

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

bool route_slot_check(const uint32_t *routes, uint32_t count, struct route_slot_fault *fault)
{
	uint64_t after = 0; /* the first address after the routes so far */
	if (count > ROUTES_MAX) {
		*fault = (struct route_slot_fault){ .number = ROUTES_MAX, .why = "more than 65536 routes" };
		return false;
	}
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t *route = &routes[4 * (size_t)i];
		*fault = (struct route_slot_fault){ .number = i, .why = route_fault(route, after) };
		if (fault->why)
			return false;
		after = (uint64_t)route[0] + (UINT64_C(1) << (32 - route[1]));
	}
	return true;
}

/* An index by endpoint keeps the first route of each. Networks are distinct: route_slot_check(). */
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

void route_slot_pack(struct route_slot *slot, uint32_t generation, const uint32_t *routes, uint32_t count)
{
	struct route_slot_head head;
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
	memcpy(&head, slot, sizeof head);
	slot->checksum = route_slot_checksum(&head, slot);
}

/* FNV-1a over 64-bit words. All parts of a slot are multiples of 8 bytes, or padded: a shorter tail is left out. */
static uint64_t add_words(uint64_t h, const void *data, uint64_t bytes)
{
	const uint8_t *p = data;
	for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t w;
		memcpy(&w, p + i, 8);
		h = (h ^ w) * 0x100000001b3u;
		h ^= h >> 29;
	}
	return h;
}

uint64_t route_slot_checksum(const struct route_slot_head *head, const struct route_slot *slot)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	h = add_words(h, head, offsetof(struct route_slot_head, checksum));
	h = add_words(h, slot->routes, (uint64_t)head->count * sizeof slot->routes[0]);
	h = add_words(h, slot->by_network, (uint64_t)head->index_size * sizeof slot->by_network[0]);
	return add_words(h, slot->by_endpoint, (uint64_t)head->index_size * sizeof slot->by_endpoint[0]);
}

static bool head_is_sound(const struct route_slot_head *head)
{
	const uint32_t count = head->count, size = head->index_size;
	if (count > ROUTES_MAX || size < 2 || size > INDEX_MAX || (size & (size - 1)) != 0 || size < 2 * count)
		return false;
	return (head->lengths & ~LENGTHS_ALLOWED) == 0;
}

/* The head is copied before it is checked: a count that grows after its check would lead out of the slot. */
bool route_slot_verify(const struct route_slot *slot, uint32_t generation, struct route_slot_head *head)
{
	memcpy(head, slot, sizeof *head);
	return head->generation == generation && head_is_sound(head) && route_slot_checksum(head, slot) == head->checksum;
}
