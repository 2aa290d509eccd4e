/* route-slot.c: which rows are taken, and what a packed slot has of both families and of peers. */
#include "fixture.h"
#include "test.h"

#define PEERS 4u
#define ROUTES 6u

/* Rows that a test may spoil. Peer 2 is free; peer 3 has an IPv6 endpoint only, and IPv6 routes only. */
struct bed {
	uint32_t peers[PEERS][PEER_ROW];
	uint32_t routes[ROUTES][ROUTE_ROW];
	struct table_rows rows;
};

static void bed_make(struct bed *b)
{
	static const uint32_t routes[ROUTES][ROUTE_ROW] = {
		{ ADDRESS(10, 5, 2, 0), 0, 0, 0, 24, FAMILY_IPV4, 0 },
		{ ADDRESS(10, 5, 3, 0), 0, 0, 0, 25, FAMILY_IPV4, 1 },
		{ 0xffffffff, 0, 0, 0, 32, FAMILY_IPV4, 1 },
		{ 0, 0, 0, 0, 1, FAMILY_IPV6, 0 },
		{ 0xfd000000, 0, 0x00050000, 0, 80, FAMILY_IPV6, 3 },
		{ 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 128, FAMILY_IPV6, 3 },
	};
	*b = (struct bed){ .rows = { .peers = b->peers[0], .peer_count = PEERS, .routes = b->routes[0],
				     .route_count = ROUTES } };
	memcpy(b->routes, routes, sizeof routes);
	for (uint32_t i = 0; i < PEERS; i++) {
		if (i == 2)
			continue;
		b->peers[i][PEER_IDENTITY + i] = i + 1;
		b->peers[i][PEER_ENDPOINT4] = i == 3 ? 0 : ADDRESS(192, 0, 2, 2);
		b->peers[i][PEER_PORT4] = i == 3 ? 0 : PORT;
	}
	b->peers[3][PEER_ENDPOINT6 + 3] = 1;
	b->peers[3][PEER_PORT6] = 4790;
	b->peers[1][PEER_FEATURES] = 0x80000001;
	b->peers[1][PEER_POLICY] = 255;
	b->peers[1][PEER_ENGINE] = 2;
	b->peers[1][PEER_PAIR + 3] = 9;
}

/* One number of the rows that makes the table unacceptable, and the row that is said to be at fault. */
struct fault_case {
	bool is_peer;
	uint32_t row;
	uint32_t at;
	uint32_t value;
	uint32_t faulty;
	const char *why;
};

static const struct fault_case fault_cases[] = {
	{ false, 0, ROUTE_FAMILY, 5, 0, "family" },
	{ false, 0, ROUTE_FAMILY, 0, 0, "family" },
	{ false, 0, ROUTE_LENGTH, 0, 0, "1 to 32" },
	{ false, 2, ROUTE_LENGTH, 33, 2, "1 to 32" },
	{ false, 3, ROUTE_LENGTH, 0, 3, "1 to 128" },
	{ false, 5, ROUTE_LENGTH, 129, 5, "1 to 128" },
	{ false, 5, ROUTE_LENGTH, 0xffffffff, 5, "1 to 128" },
	{ false, 0, ROUTE_ADDRESS, ADDRESS(10, 5, 2, 1), 0, "host bits" },
	{ false, 0, ROUTE_ADDRESS + 1, 1, 0, "host bits" },
	{ false, 2, ROUTE_ADDRESS + 3, 1, 2, "host bits" },
	{ false, 4, ROUTE_ADDRESS + 2, 0x00050001, 4, "host bits" },
	{ false, 4, ROUTE_ADDRESS + 3, 1, 4, "host bits" },
	{ false, 1, ROUTE_ADDRESS, ADDRESS(10, 5, 2, 0), 1, "overlaps" },
	{ false, 1, ROUTE_ADDRESS, ADDRESS(10, 5, 2, 128), 1, "overlaps" },
	{ false, 4, ROUTE_ADDRESS, 0x7d000000, 4, "overlaps" },
	{ false, 4, ROUTE_FAMILY, FAMILY_IPV4, 4, "1 to 32" },
	{ false, 1, ROUTE_PEER, 2, 1, "no peer" },
	{ false, 1, ROUTE_PEER, PEERS, 1, "no peer" },
	{ false, 1, ROUTE_PEER, 0xffffffff, 1, "no peer" },
	{ false, 1, ROUTE_PEER, 3, 1, "hop" },
	{ true, 0, PEER_ENDPOINT4, 0, 0, "hop" },
	{ true, 3, PEER_ENDPOINT6 + 3, 0, 4, "hop" },
	{ true, 0, PEER_PORT4, 0, 0, "port" },
	{ true, 1, PEER_PORT4, 65536, 1, "port" },
	{ true, 3, PEER_PORT6, 0, 4, "port" },
};

static const struct fault_case peer_fault_cases[] = {
	{ true, 2, PEER_PAIR, 1, 2, "no identity" },
	{ true, 2, PEER_ENDPOINT4, 1, 2, "no identity" },
	{ true, 2, PEER_IDENTITY, 1, 2, "no endpoint" },
	{ true, 0, PEER_PORT6, 1, 0, "port" },
	{ true, 3, PEER_PORT4, 1, 3, "port" },
	{ true, 1, PEER_POLICY, 256, 1, "255" },
	{ true, 1, PEER_ENGINE, 256, 1, "255" },
};

static void refuses(struct suite *s, const struct fault_case *c, bool is_of_peer)
{
	struct route_slot_fault fault;
	struct bed b;

	bed_make(&b);
	*(c->is_peer ? &b.peers[c->row][c->at] : &b.routes[c->row][c->at]) = c->value;
	CHECK_CASE(s, !route_slot_check(&b.rows, &fault), c->why);
	CHECK_CASE(s, fault.why != NULL && strstr(fault.why, c->why) != NULL, c->why);
	CHECK_CASE(s, fault.is_peer == is_of_peer && fault.number == c->faulty, c->why);
}

static void checks_rows(struct suite *s)
{
	struct route_slot_fault fault;
	struct bed b;

	bed_make(&b);
	CHECK(s, route_slot_check(&b.rows, &fault));
	CHECK(s, route_slot_check(&(struct table_rows){ 0 }, &fault));
	for (size_t i = 0; i < sizeof fault_cases / sizeof fault_cases[0]; i++)
		refuses(s, &fault_cases[i], false);
	for (size_t i = 0; i < sizeof peer_fault_cases / sizeof peer_fault_cases[0]; i++)
		refuses(s, &peer_fault_cases[i], true);
	/* Sorted, but IPv6 first. */
	uint32_t first[ROUTE_ROW];
	memcpy(first, b.routes[2], sizeof first);
	memcpy(b.routes[2], b.routes[3], sizeof first);
	memcpy(b.routes[3], first, sizeof first);
	CHECK(s, !route_slot_check(&b.rows, &fault) && fault.number == 3 && strstr(fault.why, "IPv4 comes first"));
}

/* So many routes of one family are a full table, and one more is refused, whatever there is of the other family. */
static void counts_families(struct suite *s)
{
	const uint32_t count = 2 * FAMILY_ROUTES_MAX + 2;
	uint32_t(*routes)[ROUTE_ROW] = calloc(count, sizeof *routes);
	struct route_slot_fault fault;
	struct bed b;

	bed_make(&b);
	for (uint32_t i = 0; i < count; i++) {
		const bool is_wide = i > FAMILY_ROUTES_MAX;
		routes[i][ROUTE_ADDRESS] = ADDRESS(10, 0, 0, 0) + (i << 8);
		routes[i][ROUTE_LENGTH] = 24;
		routes[i][ROUTE_FAMILY] = is_wide ? FAMILY_IPV6 : FAMILY_IPV4;
	}
	b.rows.routes = routes[0];
	b.rows.route_count = FAMILY_ROUTES_MAX;
	CHECK(s, route_slot_check(&b.rows, &fault));
	b.rows.route_count = count;
	CHECK(s, !route_slot_check(&b.rows, &fault) && fault.number == FAMILY_ROUTES_MAX && strstr(fault.why, "65536"));
	routes[FAMILY_ROUTES_MAX][ROUTE_FAMILY] = FAMILY_IPV6;
	CHECK(s, !route_slot_check(&b.rows, &fault) && fault.number == count - 2);
	b.rows.route_count = count - 2;
	CHECK(s, route_slot_check(&b.rows, &fault));
	b.rows.peer_count = PEERS_MAX + 1;
	CHECK(s, !route_slot_check(&b.rows, &fault) && fault.is_peer && strstr(fault.why, "65536 peers"));
	free(routes);
}

/* The number of the IPv6 route with this prefix, by the index; ROUTES_MAX if there is none. */
static uint32_t find6(const struct route_slot *slot, const uint32_t *row)
{
	const uint32_t mask = slot->head.by_prefix_size - 1;

	for (uint32_t at = index_hash6(row + ROUTE_ADDRESS) & mask; slot->by_prefix[at] != 0; at = (at + 1) & mask) {
		const struct route *r = &slot->routes[slot->by_prefix[at] - 1];
		if (r->family == FAMILY_IPV6 && r->length == row[ROUTE_LENGTH] &&
		    memcmp(r->address, row + ROUTE_ADDRESS, sizeof r->address) == 0)
			return slot->by_prefix[at] - 1;
	}
	return ROUTES_MAX;
}

static void packs_both_families(struct suite *s)
{
	struct route_slot *slot = calloc(1, sizeof *slot);
	struct route_table t = { 0 };
	struct bed b;

	bed_make(&b);
	route_slot_pack(slot, 3, &b.rows);
	CHECK(s, route_table_open(&t, slot, 3) && t.route_count == ROUTES && t.peer_count == PEERS);
	CHECK(s, slot->head.lengths4 == (UINT64_C(1) << 24 | UINT64_C(1) << 25 | UINT64_C(1) << 32));
	CHECK(s, slot->head.lengths6[0] == 2 && slot->head.lengths6[1] == 1 << 16 && slot->head.lengths6[2] == 1);
	for (uint32_t i = 3; i < ROUTES; i++)
		CHECK(s, find6(slot, b.routes[i]) == i && slot->routes[i].peer == b.routes[i][ROUTE_PEER]);
	/* IPv4 look-ups see no IPv6 route, although one covers 0.0.0.0/1 of its first word. */
	CHECK(s, route_table_find(&t, 1) == NULL && route_table_find(&t, 0) == NULL);
	CHECK(s, route_table_find(&t, ADDRESS(10, 5, 3, 127)) == &slot->routes[1]);
	/* Two peers have one endpoint; the index has the first. */
	CHECK(s, route_table_by_endpoint(&t, ADDRESS(192, 0, 2, 2)) == &slot->peers[0]);
	CHECK(s, route_table_by_endpoint(&t, 0) == NULL);
	const struct peer *p = slot->peers;
	CHECK(s, p[1].identity[1] == 2 && p[1].features == 0x80000001 && p[1].policy == 255 && p[1].engine == 2);
	CHECK(s, p[1].pair[3] == 9 && peer_is_free(p[2].identity) && p[3].endpoint6[3] == 1 && p[3].port6 == 4790);
	free(slot);
}

/* The parts are what a table touches: nothing outside of them is written or read. */
static void stays_in_its_parts(struct suite *s)
{
	struct route_slot *slot = calloc(1, sizeof *slot), *zero = calloc(1, sizeof *zero);
	struct route_slot_part part[ROUTE_SLOT_PARTS];
	struct route_slot_head head;
	struct bed b;

	bed_make(&b);
	route_slot_pack(slot, 1, &b.rows);
	CHECK(s, route_slot_verify(slot, 1, &head));
	route_slot_parts(&head, part);
	for (size_t i = 0; i < ROUTE_SLOT_PARTS; i++)
		memset((uint8_t *)slot + part[i].at, 0, part[i].bytes);
	CHECK(s, memcmp(slot, zero, sizeof *slot) == 0);
	route_slot_pack(slot, 1, &b.rows);
	for (size_t i = 0; i < ROUTE_SLOT_PARTS; i++) {
		const size_t end = i + 1 < ROUTE_SLOT_PARTS ? part[i + 1].at : sizeof *slot;
		memset((uint8_t *)slot + part[i].at + part[i].bytes, 0xa5, end - part[i].at - part[i].bytes);
	}
	CHECK(s, route_slot_verify(slot, 1, &head));
	free(slot);
	free(zero);
}

int main(void)
{
	struct suite s = { .name = "route-slot", .random = 3 };

	checks_rows(&s);
	counts_families(&s);
	packs_both_families(&s);
	stays_in_its_parts(&s);
	return suite_end(&s);
}
