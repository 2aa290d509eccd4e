/* Publishes route tables and reads back the live one. */
#include "../shared/route-slot.h"
#include "addon.h"
#include "table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

const struct route_slot *table_live_slot(const struct table *t)
{
	const struct routes_file *f = t->routes;
	struct route_slot_head head;
	if (!t->counters)
		return NULL;
	const uint32_t generation = atomic_load_explicit(&f->generation, memory_order_acquire);
	const struct route_slot *slot = &f->slot[generation % 2];
	if (f->magic != LAYOUT_MAGIC || f->version != LAYOUT_VERSION || f->size != sizeof *f)
		return NULL;
	return route_slot_verify(slot, generation, &head) ? slot : NULL;
}

static napi_value throw_slot_fault(napi_env env, const uint32_t *routes, const struct route_slot_fault *fault)
{
	const uint32_t *route = &routes[4 * (size_t)fault->number];
	struct in_addr network = { .s_addr = htonl(route[0]) }, endpoint = { .s_addr = htonl(route[2]) };
	char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN], text[160];

	inet_ntop(AF_INET, &network, from, sizeof from);
	inet_ntop(AF_INET, &endpoint, to, sizeof to);
	snprintf(text, sizeof text, "route %u, %s/%u via %s:%u: %s", fault->number, from, route[1], to, route[3],
		 fault->why);
	napi_throw_range_error(env, "ERR_OUT_OF_RANGE", text);
	return NULL;
}

/* Reads and checks the argument of `publish` and `checkRoutes`. */
static bool read_routes(napi_env env, napi_value value, const uint32_t **routes, uint32_t *count)
{
	napi_typedarray_type type;
	struct route_slot_fault fault;
	size_t length;
	void *words;

	if (napi_get_typedarray_info(env, value, &type, &length, &words, NULL, NULL) != napi_ok ||
	    type != napi_uint32_array || length % 4 != 0) {
		throw_type(env, "routes", "a Uint32Array of four numbers a route");
		return false;
	}
	*routes = words;
	*count = length / 4 > ROUTES_MAX ? ROUTES_MAX + 1 : (uint32_t)(length / 4);
	if (route_slot_check(*routes, *count, &fault))
		return true;
	throw_slot_fault(env, *routes, &fault);
	return false;
}

/*
 * Whether no thread reads the slot that is not live any more. A thread that has not begun yet reports 0 and also delays
 * a second publication, because it may be about to open the table that was live when it read the generation.
 */
static bool slot_is_free(const struct table *t)
{
	const uint32_t live = atomic_load(&t->routes->generation);
	for (uint32_t i = 0; i < table_threads(t->counters); i++) {
		if (atomic_load_explicit(&t->counters->thread[i].generation, memory_order_acquire) != live)
			return false;
	}
	return true;
}

static napi_value publish_method(napi_env env, napi_callback_info info)
{
	const uint32_t *routes;
	uint32_t count, next;
	napi_value argv[1];
	struct table *t = table_of(env, info, 1, argv);

	if (!t || !read_routes(env, argv[0], &routes, &count))
		return NULL;
	if (!t->counters || !slot_is_free(t))
		return new_number(env, 0);
	next = atomic_load(&t->routes->generation) + 1;
	route_slot_pack(&t->routes->slot[next % 2], next, routes, count);
	atomic_store_explicit(&t->routes->generation, next, memory_order_release);
	return new_number(env, next);
}

napi_value table_check_routes(napi_env env, napi_callback_info info)
{
	const uint32_t *routes;
	uint32_t count;
	napi_value argv[1];
	if (read_arguments(env, info, 1, argv))
		read_routes(env, argv[0], &routes, &count);
	return NULL;
}

static napi_value routes_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	const struct route_slot *slot = t ? table_live_slot(t) : NULL;
	napi_value buffer, array;
	size_t count;
	void *data;

	if (!slot)
		return NULL;
	count = slot->count;
	if (!ok(env, napi_create_arraybuffer(env, count * 16, &data, &buffer)) ||
	    !ok(env, napi_create_typedarray(env, napi_uint32_array, count * 4, buffer, 0, &array)))
		return NULL;
	for (size_t i = 0; i < count; i++) {
		const struct route *r = &slot->routes[i];
		memcpy((uint32_t *)data + 4 * i, (uint32_t[]){ r->network, r->length, r->endpoint, r->port }, 16);
	}
	return array;
}

void table_add_routes(napi_env env, napi_value object)
{
	add_function(env, object, "publish", publish_method);
	add_function(env, object, "routes", routes_method);
}
