/* Reads what the data process keeps of each peer, and of strangers. Its values are numbers to show. */
#include "addon.h"
#include "table.h"

#include <string.h>
#include <time.h>

/* The numbers of a row (NativeTable.measure): the statistics in their order, then these. */
enum { HEARD_NS = PEER_STATISTIC_COUNT, MEASUREMENT_ROW };

static uint64_t boot_seconds(void)
{
	struct timespec now = { 0 };

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec;
}

/* Times become milliseconds, which a double holds without loss. */
static double shown(enum peer_statistic name, uint64_t word, uint64_t now_s)
{
	switch (name) {
	case peer_sent_ns:
	case peer_received_ns:
	case peer_asked_ns:
	case peer_answered_ns:
		return (double)(word / 1000000);
	case peer_history:
		return (double)(word & 0xffffffff) + (double)(word >> 32 & 0x1fffff) * 4294967296.0;
	case peer_path_mtu_in:
		return word >> 16 > now_s ? (double)(word & 0xffff) : 0;
	default:
		return (double)word;
	}
}

static void read_block(const struct peer_block *b, uint64_t now_s, double *row)
{
	for (size_t i = 0; i < PEER_STATISTIC_COUNT; i++) {
		const uint64_t word = atomic_load_explicit(&b->statistics[i], memory_order_relaxed);
		row[i] = shown((enum peer_statistic)i, word, now_s);
	}
	row[HEARD_NS] = (double)(atomic_load_explicit(&b->last_heard_ns, memory_order_relaxed) / 1000000);
}

static bool is_of(const struct peer_block *b, const struct peer *p)
{
	for (size_t i = 0; i < 4; i++)
		if (atomic_load_explicit(&b->identity[i], memory_order_acquire) != p->identity[i])
			return false;
	return true;
}

/* How many peers the live table has. Blocks that were not reserved are not read (layout.h). */
static uint32_t live_peers(const struct table *t, const struct route_slot *slot)
{
	return slot->head.peer_count < t->reserved_peers ? slot->head.peer_count : t->reserved_peers;
}

static bool read_array(napi_env env, napi_value value, napi_typedarray_type want, const char *expected, void **data,
		       size_t *length)
{
	napi_typedarray_type type;

	if (napi_get_typedarray_info(env, value, &type, length, data, NULL, NULL) == napi_ok && type == want)
		return true;
	throw_type(env, "what is filled", expected);
	return false;
}

/*
 * tartand has written the slot itself, so it is not verified again. A block that is still of another peer gives zeros.
 * Nothing is allocated: tartand reads thousands of rows every few seconds.
 */
static napi_value measure_method(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	size_t words, places;
	void *rows, *changed;
	struct table *t = table_of(env, info, 2, argv);

	if (!t || !t->counters || !read_array(env, argv[0], napi_float64_array, "a Float64Array", &rows, &words) ||
	    !read_array(env, argv[1], napi_uint32_array, "a Uint32Array", &changed, &places))
		return NULL;
	const struct route_slot *slot = &t->routes->slot[atomic_load(&t->routes->generation) % 2];
	const size_t live = live_peers(t, slot), room = words / MEASUREMENT_ROW;
	const uint64_t now_s = boot_seconds();
	uint32_t count = 0;
	for (uint32_t i = 0; i < live && i < room && i < places; i++) {
		double row[MEASUREMENT_ROW] = { 0 }, *before = (double *)rows + i * (size_t)MEASUREMENT_ROW;
		if (is_of(&t->counters->peer[i], &slot->peers[i]))
			read_block(&t->counters->peer[i], now_s, row);
		if (memcmp(before, row, sizeof row) == 0)
			continue;
		memcpy(before, row, sizeof row);
		((uint32_t *)changed)[count++] = i;
	}
	return new_number(env, count);
}

static napi_value stranger_object(napi_env env, const struct stranger *s)
{
	napi_value object = new_object(env);
	if (!object)
		return NULL;
	add_number(env, object, "address", atomic_load(&s->address));
	add_number(env, object, "packets", (double)atomic_load(&s->packets));
	add_number(env, object, "lastMs", (double)(atomic_load(&s->last_ns) / 1000000));
	return finished(env, object);
}

static napi_value strangers_method(napi_env env, napi_callback_info info)
{
	struct table *t = table_of(env, info, 0, NULL);
	napi_value array;
	uint32_t count = 0;

	if (!t || !t->counters || !ok(env, napi_create_array(env, &array)))
		return NULL;
	for (size_t i = 0; i < STRANGERS_MAX; i++) {
		if (atomic_load(&t->counters->stranger[i].address) == 0)
			continue;
		napi_value object = stranger_object(env, &t->counters->stranger[i]);
		if (!object || !ok(env, napi_set_element(env, array, count++, object)))
			return NULL;
	}
	return array;
}

void table_add_measurements(napi_env env, napi_value object)
{
	add_function(env, object, "measure", measure_method);
	add_function(env, object, "strangers", strangers_method);
}
