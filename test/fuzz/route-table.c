/*
 * Fuzz target: a route slot with bytes changed anywhere, before and after it was verified. A look-up may find a wrong
 * route or a wrong peer, but it ends, and what it finds lies inside the table.
 */
#include "fixture.h"
#include "target.h"

#define CHANGE_BYTES 7

/* Changes four bytes. Three bytes of the input are the place, folded into the words in use, and four are the value. */
static void change(struct route_slot *s, const uint8_t *input)
{
	static const size_t starts[] = {
		0, offsetof(struct route_slot, routes), offsetof(struct route_slot, peers),
		offsetof(struct route_slot, by_prefix), offsetof(struct route_slot, by_endpoint),
	};
	size_t place = (size_t)(input[1] | input[2] << 8) % 61;

	memcpy((uint8_t *)s + starts[input[0] % 5] + place, input + 3, 4);
}

static void look(const struct route_table *t, uint32_t address)
{
	const struct route *route = route_table_find(t, address);
	const struct peer *peers[] = { route == NULL ? NULL : route_table_peer(t, route),
				       route_table_by_endpoint(t, address) };

	require(route == NULL || (route >= t->slot->routes && route < t->slot->routes + t->route_count));
	for (size_t i = 0; i < 2; i++)
		require(peers[i] == NULL || (peers[i] >= t->slot->peers && peers[i] < t->slot->peers + t->peer_count));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	static struct route_slot *slot; /* megabytes, so it is made once; the words in use are packed for each input */
	struct route_table verified = { 0 };
	struct route_table table = { 0 };

	if (slot == NULL)
		slot = fixture_open(&table);
	memset(slot, 0, offsetof(struct route_slot, routes) + 8 * sizeof slot->routes[0]);
	memset(slot->peers, 0, 128);
	memset(slot->by_prefix, 0, 128);
	memset(slot->by_endpoint, 0, 128);
	fixture_pack(slot, 1, fixture_routes, 2);
	if (!route_table_open(&verified, slot, 1))
		abort();
	for (; length >= CHANGE_BYTES; input += CHANGE_BYTES, length -= CHANGE_BYTES) {
		uint32_t address;
		change(slot, input);
		memcpy(&address, input + 3, 4);
		look(&verified, address);
		look(&verified, ADDRESS(10, 5, 2, input[3]));
		look(&verified, ADDRESS(192, 0, 2, 2));
		/* The checksum fits what was changed, so only the checks of the bounds can refuse the slot. */
		const struct route_slot_head *h = &slot->head;
		if (h->route_count <= ROUTES_MAX && h->by_prefix_size <= INDEX_MAX && h->peer_count <= PEERS_MAX &&
		    h->by_endpoint_size <= INDEX_MAX)
			slot->head.checksum = fixture_checksum(slot);
		if (route_table_open(&table, slot, slot->head.generation))
			look(&table, address);
	}
	return 0;
}
