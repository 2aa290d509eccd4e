/* Rows of peers and routes, as they come from JavaScript and go back to it (src/lib/native.ts documents them). */
#include "addon.h"
#include "table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* A number of rows that no table has, and whose bytes are counted without an overflow. */
#define TOO_MANY (ROUTES_MAX + 1)

static const char *address_text(const uint32_t word[4], uint32_t family, char text[INET6_ADDRSTRLEN])
{
	uint32_t bytes[4];

	for (size_t i = 0; i < 4; i++)
		bytes[i] = htonl(word[i]);
	inet_ntop(family == FAMILY_IPV6 ? AF_INET6 : AF_INET, bytes, text, INET6_ADDRSTRLEN);
	return text;
}

static napi_value throw_route_fault(napi_env env, const struct table_rows *rows, const struct route_slot_fault *fault)
{
	static const uint32_t no_peer[PEER_ROW] = { 0 };
	const uint32_t *route = &rows->routes[ROUTE_ROW * (size_t)fault->number], number = route[ROUTE_PEER];
	const uint32_t *peer = number < rows->peer_count ? &rows->peers[PEER_ROW * (size_t)number] : no_peer;
	const bool is_wide = peer[PEER_ENDPOINT4] == 0 && !peer_is_free(peer + PEER_ENDPOINT6);
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], text[240];

	address_text(route + ROUTE_ADDRESS, route[ROUTE_FAMILY], from);
	if (is_wide)
		address_text(peer + PEER_ENDPOINT6, FAMILY_IPV6, to);
	else
		address_text(peer + PEER_ENDPOINT4, FAMILY_IPV4, to);
	snprintf(text, sizeof text, "route %u, %s/%u via %s%s%s:%u: %s", fault->number, from, route[ROUTE_LENGTH],
		 is_wide ? "[" : "", to, is_wide ? "]" : "", peer[is_wide ? PEER_PORT6 : PEER_PORT4], fault->why);
	napi_throw_range_error(env, "ERR_OUT_OF_RANGE", text);
	return NULL;
}

static napi_value throw_fault(napi_env env, const struct table_rows *rows, const struct route_slot_fault *fault)
{
	char text[120];

	if (!fault->is_peer)
		return throw_route_fault(env, rows, fault);
	snprintf(text, sizeof text, "peer %u: %s", fault->number, fault->why);
	napi_throw_range_error(env, "ERR_OUT_OF_RANGE", text);
	return NULL;
}

static bool read_words(napi_env env, napi_value value, size_t row, const char *expected, const uint32_t **words,
		       uint32_t *count)
{
	napi_typedarray_type type;
	size_t length;
	void *data;

	if (napi_get_typedarray_info(env, value, &type, &length, &data, NULL, NULL) != napi_ok ||
	    type != napi_uint32_array || length % row != 0) {
		throw_type(env, "the rows", expected);
		return false;
	}
	*words = data;
	*count = length / row < TOO_MANY ? (uint32_t)(length / row) : TOO_MANY;
	return true;
}

bool table_read_rows(napi_env env, napi_value peers, napi_value routes, struct table_rows *rows)
{
	struct route_slot_fault fault;

	_Static_assert(PEER_ROW == 18 && ROUTE_ROW == 7, "the texts below name the numbers of a row");
	if (!read_words(env, peers, PEER_ROW, "a Uint32Array of 18 numbers a peer", &rows->peers,
			&rows->peer_count) ||
	    !read_words(env, routes, ROUTE_ROW, "a Uint32Array of 7 numbers a route", &rows->routes,
			&rows->route_count))
		return false;
	if (route_slot_check(rows, &fault))
		return true;
	throw_fault(env, rows, &fault);
	return false;
}

napi_value table_check(napi_env env, napi_callback_info info)
{
	struct table_rows rows;
	napi_value argv[2];
	if (read_arguments(env, info, 2, argv))
		table_read_rows(env, argv[0], argv[1], &rows);
	return NULL;
}

/* An array for so many rows, whose numbers the caller writes to `words`; NULL after an exception. */
static napi_value new_rows(napi_env env, size_t count, size_t row, uint32_t **words)
{
	napi_value buffer, array;
	void *data;

	if (!ok(env, napi_create_arraybuffer(env, count * row * sizeof(uint32_t), &data, &buffer)) ||
	    !ok(env, napi_create_typedarray(env, napi_uint32_array, count * row, buffer, 0, &array)))
		return NULL;
	*words = data;
	return array;
}

static napi_value peer_rows(napi_env env, const struct route_slot *slot)
{
	const uint32_t count = slot->head.peer_count;
	uint32_t *row;
	napi_value array = new_rows(env, count, PEER_ROW, &row);

	for (uint32_t i = 0; array && i < count; i++, row += PEER_ROW) {
		const struct peer *p = &slot->peers[i];
		memcpy(row + PEER_IDENTITY, p->identity, sizeof p->identity);
		memcpy(row + PEER_ENDPOINT6, p->endpoint6, sizeof p->endpoint6);
		row[PEER_ENDPOINT4] = p->endpoint4;
		row[PEER_PORT4] = p->port4;
		row[PEER_PORT6] = p->port6;
		row[PEER_FEATURES] = p->features;
		row[PEER_POLICY] = p->policy;
		row[PEER_ENGINE] = p->engine;
		memcpy(row + PEER_PAIR, p->pair, sizeof p->pair);
	}
	return array;
}

static napi_value route_rows(napi_env env, const struct route_slot *slot)
{
	const uint32_t count = slot->head.route_count;
	uint32_t *row;
	napi_value array = new_rows(env, count, ROUTE_ROW, &row);

	for (uint32_t i = 0; array && i < count; i++, row += ROUTE_ROW) {
		const struct route *r = &slot->routes[i];
		memcpy(row + ROUTE_ADDRESS, r->address, sizeof r->address);
		row[ROUTE_LENGTH] = r->length;
		row[ROUTE_FAMILY] = r->family;
		row[ROUTE_PEER] = r->peer;
	}
	return array;
}

napi_value table_rows_of(napi_env env, const struct route_slot *slot)
{
	napi_value object = new_object(env), peers = peer_rows(env, slot), routes = route_rows(env, slot);

	if (!object || !peers || !routes || !ok(env, napi_set_named_property(env, object, "peers", peers)) ||
	    !ok(env, napi_set_named_property(env, object, "routes", routes)))
		return NULL;
	return object;
}
