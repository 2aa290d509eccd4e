/*
 * Fuzz target: a route table from the numbers that tartand publishes to the look-up. route_slot_check() takes what the
 * rules allow when every pair of routes is compared; the look-up finds what reading all routes one after another finds;
 * a packed slot with one bit changed is refused.
 *
 * A route is eight bytes: network, length, endpoint, port.
 */
#include "fixture.h"
#include "target.h"

#define RECORD_BYTES 8u
#define COUNT_MAX 200u

struct route_numbers {
	uint32_t network, length, endpoint, port;
};

static uint64_t last(const struct route_numbers *r)
{
	return (uint64_t)r->network + (UINT64_C(1) << (32 - r->length)) - 1;
}

static bool is_sound(const struct route_numbers *r)
{
	return r->length >= 1 && r->length <= 32 && r->network % (UINT64_C(1) << (32 - r->length)) == 0 && r->endpoint != 0 &&
	       r->port >= 1 && r->port <= 65535;
}

/* The number of the first route at fault, or `count`. */
static uint32_t first_fault(const struct route_numbers *routes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!is_sound(&routes[i]))
			return i;
		for (uint32_t j = 0; j < i; j++)
			if (routes[i].network <= last(&routes[j]))
				return i;
	}
	return count;
}

/* There are few values, so that routes overlap and endpoints repeat. Lengths and ports may be wrong. */
static struct route_numbers read_record(const uint8_t *b, bool mend)
{
	/* Some routes lie at either end of the address space. */
	const uint32_t first = b[0] < 16 ? 0 : b[0] >= 240 ? 255 : 10;
	struct route_numbers r = { .network = ADDRESS(first, first == 255 ? 255 : b[0] & 3, b[1], b[2]), .length = b[3] % 35u,
			   .endpoint = (b[4] & 31) == 0 ? 0 : ADDRESS(192, 0, 2, b[4] & 31),
			   .port = (uint32_t)b[5] << 16 | (uint32_t)b[6] << 8 | b[7] };

	if (b[3] >= 250)
		r.length = UINT32_MAX - b[2];
	if (!mend)
		return r;
	r.length = r.length < 1 || r.length > 32 ? 24 : r.length;
	r.network &= ipv4_mask(r.length);
	r.endpoint |= 1;
	r.port = 1 + r.port % 65535;
	return r;
}

/* Inserts the route in order, or leaves it out if it overlaps another. Returns the number of routes. */
static uint32_t insert(struct route_numbers *routes, uint32_t count, const struct route_numbers *r)
{
	uint32_t at = 0;

	while (at < count && last(&routes[at]) < r->network)
		at++;
	if (at < count && routes[at].network <= last(r))
		return count;
	memmove(&routes[at + 1], &routes[at], (count - at) * sizeof *routes);
	routes[at] = *r;
	return count + 1;
}

static void look(const struct route_table *t, const struct route_numbers *routes, uint32_t count, uint32_t address)
{
	const struct route_numbers *of = NULL;
	bool has_endpoint = false;

	for (uint32_t i = 0; i < count; i++) {
		if (address >= routes[i].network && address <= last(&routes[i]))
			of = &routes[i];
		has_endpoint = has_endpoint || routes[i].endpoint == address;
	}
	const struct route *found = route_table_find(t, address), *by_endpoint = route_table_by_endpoint(t, address);
	require((found == NULL) == (of == NULL) && (by_endpoint != NULL) == has_endpoint);
	if (found != NULL)
		require(found->network == of->network && found->length == of->length && found->endpoint == of->endpoint &&
			found->port == of->port);
	if (by_endpoint != NULL)
		require(by_endpoint->endpoint == address);
}

/* Changes any bit of the words in use. The checksum must detect it. */
static void change(struct route_slot *s, const uint8_t *record)
{
	struct route_table table = { 0 };
	struct route_slot_head head;
	uint8_t *const parts[] = { (uint8_t *)s, (uint8_t *)s->routes, (uint8_t *)s->by_network, (uint8_t *)s->by_endpoint };
	const size_t sizes[] = { offsetof(struct route_slot, routes), s->count * sizeof s->routes[0], s->index_size * 4,
				 s->index_size * 4 };
	const size_t part = record[0] % 4, at = (size_t)(record[1] << 8 | record[2]);

	if (sizes[part] == 0)
		return;
	uint8_t *byte = &parts[part][at % sizes[part]];
	*byte = (uint8_t)(*byte ^ 1u << record[3] % 8);
	require(!route_slot_verify(s, 7, &head) && !route_table_open(&table, s, 7));
	*byte = (uint8_t)(*byte ^ 1u << record[3] % 8);
}

static void check_table(const struct route_numbers *routes, uint32_t count, const uint8_t *input, size_t records)
{
	static struct route_slot *slot; /* megabytes, so it is made once; all words in use are written again */
	struct route_table table = { 0 };
	struct route_slot_head head;

	if (slot == NULL)
		slot = calloc(1, sizeof *slot);
	route_slot_pack(slot, 7, &routes->network, count);
	require(route_slot_verify(slot, 7, &head) && head.count == count && !route_slot_verify(slot, 8, &head));
	require(route_table_open(&table, slot, 7) && table.count == count);
	for (uint32_t i = 0; i < count; i++) {
		look(&table, routes, count, routes[i].network);
		look(&table, routes, count, routes[i].network - 1);
		look(&table, routes, count, (uint32_t)last(&routes[i]));
		look(&table, routes, count, (uint32_t)last(&routes[i]) + 1);
		look(&table, routes, count, routes[i].endpoint);
	}
	for (size_t i = 0; i < records; i++) {
		const uint8_t *b = input + i * RECORD_BYTES;
		look(&table, routes, count, ADDRESS(10, b[0] & 3, b[4], b[5]));
		look(&table, routes, count, ADDRESS(192, 0, 2, b[6]));
		change(slot, b);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	const size_t records = length / RECORD_BYTES < COUNT_MAX ? length / RECORD_BYTES : COUNT_MAX;
	/* The length is exact, so that the sanitizer sees a read past it. */
	struct route_numbers *given = calloc(records, sizeof *given);
	struct route_numbers mended[COUNT_MAX + 1];
	struct route_slot_fault fault;
	uint32_t count = 0;

	for (size_t i = 0; i < records; i++) {
		given[i] = read_record(input + i * RECORD_BYTES, false);
		const struct route_numbers good = read_record(input + i * RECORD_BYTES, true);
		count = insert(mended, count, &good);
	}
	const uint32_t good = first_fault(given, (uint32_t)records);
	require(route_slot_check((const uint32_t *)given, (uint32_t)records, &fault) == (good == records));
	require(good == records || fault.number == good);
	check_table(given, good, input, records);
	free(given);
	require(route_slot_check((const uint32_t *)mended, count, &fault));
	check_table(mended, count, input, records);
	return 0;
}
